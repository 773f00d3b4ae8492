// NVIDIA's management library for GPUs that are not there: their energy counters.  fake_* is for the tests.
#include <string.h>

enum { OK = 0, UNINITIALIZED = 1, INVALID = 2, NOT_SUPPORTED = 3, TOO_SMALL = 7 };
typedef struct { char name[96]; unsigned long long millijoules; int status; } Gpu;
static Gpu gpus[4];
static unsigned int count;
static int initialised, init_status;

void fake_init(int status) { init_status = status; }
void fake_add(const char *name, int status) {
    strncpy(gpus[count].name, name, sizeof gpus[count].name - 1);
    gpus[count++].status = status;
}
void fake_use(unsigned int index, unsigned long long millijoules) { gpus[index].millijoules += millijoules; }
void fake_fail(unsigned int index, int status) { gpus[index].status = status; }

int nvmlInit_v2(void) { if (!init_status) initialised = 1; return init_status; }
int nvmlDeviceGetCount_v2(unsigned int *found) { if (!initialised) return UNINITIALIZED; *found = count; return OK; }
int nvmlDeviceGetHandleByIndex_v2(unsigned int index, Gpu **gpu) {
    if (index >= count) return INVALID;
    *gpu = gpus + index;
    return OK;
}
int nvmlDeviceGetName(Gpu *gpu, char *name, unsigned int size) {
    if (size <= strlen(gpu->name)) return TOO_SMALL;
    strcpy(name, gpu->name);
    return OK;
}
int nvmlDeviceGetTotalEnergyConsumption(Gpu *gpu, unsigned long long *millijoules) {
    if (gpu->status) return gpu->status;
    *millijoules = gpu->millijoules;
    return OK;
}
