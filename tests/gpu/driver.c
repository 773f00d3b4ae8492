// A CUDA driver without a GPU: memory is the host's, and a stream does its work when it is waited for.
//
// It is strict where a GPU is: a thread needs a context, copies need memory of this driver, addresses on the "GPU" are
// none of the host, and a recorded graph does nothing before it is launched.  fake_* is for the tests.
#define _GNU_SOURCE
#include <pthread.h>
#include <stddef.h>
#include <stdint.h>
#include <stdlib.h>
#include <string.h>

enum { OK = 0, INVALID = 1, NO_MEMORY = 2, NOT_INITIALIZED = 3, INVALID_CONTEXT = 201, INVALID_HANDLE = 400, NO_CAPTURE = 901 };
#define FAR ((uint64_t)1 << 62)  // added to the host's address of the "GPU's" memory
#define MOST 4096

typedef void (*Work)(void *);
typedef struct { Work work; void *argument; void *target, *source; size_t size; } Task;
typedef struct { int count; Task tasks[MOST]; } Queue;
typedef struct { Queue queue; Queue *recording; int broken; } Stream;
typedef struct { char *start; size_t size; int pinned; } Block;

static struct { char name[64]; int major, minor, processors; size_t memory; int count; } gpu = {"Orin", 8, 7, 8, (size_t)8 << 30, 1};
static struct { char name[64]; int status, after; } fault;
static Block blocks[MOST];
static int streams, graphs, started, contexts, launches, flags;
static size_t used;
static __thread void *current;
static pthread_mutex_t lock = PTHREAD_RECURSIVE_MUTEX_INITIALIZER_NP;  // work may collect garbage, which closes other streams

static int faulty(const char *name) {
    if (strcmp(name, fault.name) || fault.after-- > 0) return OK;
    return fault.status;
}
#define CHECK(name) do { int status_ = faulty(name); if (status_) return status_; } while (0)
#define READY(name) do { CHECK(name); if (!started) return NOT_INITIALIZED; if (!current) return INVALID_CONTEXT; } while (0)

void fake_gpu(const char *name, int major, int minor, int processors, size_t memory, int count) {
    strncpy(gpu.name, name, sizeof gpu.name - 1);
    gpu.major = major; gpu.minor = minor; gpu.processors = processors; gpu.memory = memory; gpu.count = count;
}
void fake_fault(const char *name, int status, int after) {
    strncpy(fault.name, name, sizeof fault.name - 1);
    fault.status = status; fault.after = after;
}
int fake_streams(void) { return streams; }
int fake_graphs(void) { return graphs; }
int fake_launches(void) { return launches; }
int fake_flags(void) { return flags; }
size_t fake_used(void) { return used; }
void *fake_host(uint64_t address) { return (void *)(address - FAR); }
int fake_is_recording(Stream *stream) { return stream->recording != NULL; }

static Block *block_of(const void *start, size_t size, int pinned) {
    for (Block *block = blocks; block < blocks + MOST; block++)
        if (block->start && block->pinned == pinned && (char *)start >= block->start &&
            (char *)start + size <= block->start + block->size) return block;
    return NULL;
}
static int allocate(size_t size, int pinned, void **start) {
    if (!size) return INVALID;
    if (used + size > gpu.memory) return NO_MEMORY;
    for (Block *block = blocks; block < blocks + MOST; block++) if (!block->start) {
        if (posix_memalign((void **)&block->start, 256, size)) return NO_MEMORY;
        block->size = size; block->pinned = pinned; used += size;
        *start = memset(block->start, 0xA5, size);
        return OK;
    }
    return NO_MEMORY;
}
static int release(void *start, int pinned) {
    Block *block = block_of(start, 1, pinned);
    if (!block || block->start != start) return INVALID;
    memset(block->start, 0x5A, block->size);
    free(block->start); used -= block->size; block->start = NULL;
    return OK;
}
static int put(Stream *stream, Task task) {
    Queue *queue = stream->recording ? stream->recording : &stream->queue;
    if (queue->count == MOST) return NO_MEMORY;
    queue->tasks[queue->count++] = task;
    return OK;
}
static void do_all(Queue *queue) {
    for (int index = 0; index < queue->count; index++) {
        Task *task = queue->tasks + index;
        if (task->work) task->work(task->argument); else memcpy(task->target, task->source, task->size);
    }
}
int fake_enqueue(Stream *stream, Work work, void *argument) { return put(stream, (Task){work, argument}); }
void fake_break_recording(Stream *stream) { stream->broken = 1; }

int cuInit(unsigned int none) { CHECK("cuInit"); started = 1; return none ? INVALID : OK; }
int cuDriverGetVersion(int *version) { *version = 12060; return OK; }
int cuGetErrorName(int status, const char **name) {
    *name = status == NO_MEMORY ? "CUDA_ERROR_OUT_OF_MEMORY" : status == 304 ? "CUDA_ERROR_OPERATING_SYSTEM" : NULL;
    return *name ? OK : INVALID;
}
int cuGetErrorString(int status, const char **text) {
    *text = status == NO_MEMORY ? "out of memory" : NULL;
    return *text ? OK : INVALID;
}
int cuDeviceGetCount(int *count) { CHECK("cuDeviceGetCount"); if (!started) return NOT_INITIALIZED; *count = gpu.count; return OK; }
#define NO_SUCH(device) ((device) < gpu.count ? OK : 101)
int cuDeviceGet(int *device, int index) { *device = index; return NO_SUCH(index); }
int cuDeviceGetName(char *name, int size, int device) { strncpy(name, gpu.name, size); return NO_SUCH(device); }
int cuDeviceGetAttribute(int *value, int attribute, int device) {
    *value = attribute == 75 ? gpu.major : attribute == 76 ? gpu.minor : attribute == 16 ? gpu.processors :
        attribute == 18 ? !strncmp(gpu.name, "Orin", 4) : -1;  // a Jetson's is integrated
    return NO_SUCH(device);
}
int cuDeviceTotalMem_v2(size_t *size, int device) { *size = gpu.memory; return NO_SUCH(device); }
int cuDevicePrimaryCtxSetFlags_v2(int device, unsigned int wanted) { flags = wanted; return device; }
int cuDevicePrimaryCtxRetain(void **context, int device) { CHECK("cuDevicePrimaryCtxRetain"); contexts++; *context = &gpu; return device; }
int cuCtxSetCurrent(void *context) { current = context; return OK; }
int cuMemAlloc_v2(uint64_t *address, size_t size) {
    void *start;
    READY("cuMemAlloc_v2");
    int status = allocate(size, 0, &start);
    if (!status) *address = (uint64_t)start + FAR;
    return status;
}
int cuMemFree_v2(uint64_t address) { READY("cuMemFree_v2"); return release((void *)(address - FAR), 0); }
int cuMemHostAlloc(void **start, size_t size, unsigned int kind) { READY("cuMemHostAlloc"); return kind ? INVALID : allocate(size, 1, start); }
int cuMemFreeHost(void *start) { READY("cuMemFreeHost"); return release(start, 1); }
int cuMemcpyHtoDAsync_v2(uint64_t target, const void *source, size_t size, Stream *stream) {
    READY("cuMemcpyHtoDAsync_v2");
    if (!block_of((void *)(target - FAR), size, 0) || !block_of(source, size, 1)) return INVALID;
    return put(stream, (Task){NULL, NULL, (void *)(target - FAR), (void *)source, size});
}
int cuMemcpyDtoHAsync_v2(void *target, uint64_t source, size_t size, Stream *stream) {
    READY("cuMemcpyDtoHAsync_v2");
    if (!block_of((void *)(source - FAR), size, 0) || !block_of(target, size, 1)) return INVALID;
    return put(stream, (Task){NULL, NULL, target, (void *)(source - FAR), size});
}
int cuStreamCreate(Stream **stream, unsigned int kind) {
    READY("cuStreamCreate");
    if (kind != 1) return INVALID;  // non-blocking
    *stream = calloc(1, sizeof **stream); streams++;
    return OK;
}
int cuStreamSynchronize(Stream *stream) {
    READY("cuStreamSynchronize");
    if (stream->recording) return 900;
    pthread_mutex_lock(&lock); do_all(&stream->queue); stream->queue.count = 0; pthread_mutex_unlock(&lock);
    return OK;
}
int cuStreamDestroy_v2(Stream *stream) { READY("cuStreamDestroy_v2"); free(stream); streams--; return OK; }
int cuStreamBeginCapture_v2(Stream *stream, int mode) {
    READY("cuStreamBeginCapture_v2");
    if (mode != 1 || stream->recording) return INVALID;
    stream->recording = calloc(1, sizeof(Queue)); stream->broken = 0;
    return OK;
}
int cuStreamEndCapture(Stream *stream, Queue **graph) {
    READY("cuStreamEndCapture");
    if (!stream->recording) return INVALID;
    *graph = stream->recording; stream->recording = NULL;
    if (!stream->broken) { graphs++; return OK; }
    free(*graph); *graph = NULL;
    return NO_CAPTURE;
}
int cuGraphInstantiateWithFlags(Queue **ready, Queue *graph, unsigned long long kind) {
    READY("cuGraphInstantiateWithFlags");
    if (kind || !graph) return INVALID;
    *ready = malloc(sizeof **ready); **ready = *graph; graphs++;
    return OK;
}
int cuGraphLaunch(Queue *ready, Stream *stream) {
    READY("cuGraphLaunch");
    launches++;
    return put(stream, (Task){(Work)do_all, ready});
}
int cuGraphExecDestroy(Queue *ready) { READY("cuGraphExecDestroy"); free(ready); graphs--; return OK; }
int cuGraphDestroy(Queue *graph) { READY("cuGraphDestroy"); free(graph); graphs--; return OK; }
