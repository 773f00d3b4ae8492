/* The interface: engines, which join a network, its scratch memory and a team of threads. */
#define _GNU_SOURCE
#include <pthread.h>
#include <sched.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>
#include <unistd.h>

#include "network.h"

/* What a run that is timed takes instead of an engine's own. */
typedef struct {
  kernels kernels;
  network network;         /* the engine's, with these kernels */
  layer_clock *clocks;     /* [thread] */
  double cost;             /* ticks of a change of a clock */
  double seconds[REID_NATIVE_KINDS]; /* of all runs since they were read */
} profile;

struct reid_native_engine {
  network network;
  memory memory;
  crop_scratch *crops;     /* [thread]: of the crop that a thread computes alone; all compute together in the first */
  thread_scratch *threads;
  int count;
  team *team;
  profile *profile;        /* NULL where layers are not timed */
  pid_t made_in;
  pthread_mutex_t lock;
};

int reid_native_abi(void) { return REID_NATIVE_ABI; }

const char *reid_native_kernels(int precision, int n) {
  const kernels *k = n < 0 ? NULL : nth_kernels(precision, n);
  return k ? k->name : NULL;
}

static int fail(int status, char *message, size_t size, const char *format, ...) {
  va_list arguments;
  va_start(arguments, format);
  if (message && size) vsnprintf(message, size, format, arguments);
  va_end(arguments);
  return status;
}

static int usable_cpus(void) {
  cpu_set_t set;
  int count = sched_getaffinity(0, sizeof set, &set) == 0 ? CPU_COUNT(&set) : (int)sysconf(_SC_NPROCESSORS_ONLN);
  return count > 0 ? count : 1;
}

static size_t scratch_bytes(const network *n) {
  memory counted = {.counting = 1};
  crop_scratch crop;
  thread_scratch thread;
  crop_scratch_take(&crop, n, &counted);
  thread_scratch_take(&thread, n, &counted);
  return counted.bytes;
}

/* `available`: bytes, counted before any use, since Linux promises more than it has and ends a process later. */
static int take_scratch(reid_native_engine *e, size_t available) {
  size_t needed = e->network.memory.bytes + (size_t)e->count * scratch_bytes(&e->network);
  if (available && needed > available) return REID_NATIVE_NO_MEMORY;
  e->crops = memory_take(&e->memory, (size_t)e->count, sizeof *e->crops);
  e->threads = memory_take(&e->memory, (size_t)e->count, sizeof *e->threads);
  if (!e->crops || !e->threads) return REID_NATIVE_NO_MEMORY;
  for (int i = 0; i < e->count; i++) {
    if (crop_scratch_take(&e->crops[i], &e->network, &e->memory)) return REID_NATIVE_NO_MEMORY;
    if (thread_scratch_take(&e->threads[i], &e->network, &e->memory)) return REID_NATIVE_NO_MEMORY;
  }
  return REID_NATIVE_OK;
}

int reid_native_create(const void *bytes, size_t plan_bytes, int precision, const char *name, int threads,
                       reid_native_engine **engine, char *message, size_t message_bytes) {
  if (!bytes || !engine || threads < 1)
    return fail(REID_NATIVE_BAD_ARGUMENT, message, message_bytes, "a plan, a place for the engine and at least one "
                "thread are needed, got %d threads", threads);
  *engine = NULL;
  const kernels *k = find_kernels(precision, name);
  if (!k)
    return fail(REID_NATIVE_NO_KERNELS, message, message_bytes, "no kernels %s%sfor precision %d run on this CPU",
                name ? name : "", name ? " " : "", precision);
  plan p;
  int status = plan_read(&p, bytes, plan_bytes, message, message_bytes);
  if (status) return status;
  if (precision == REID_NATIVE_INT8 && !p.ranges)
    return fail(REID_NATIVE_NO_RANGES, message, message_bytes, "the plan holds no ranges of activations for INT8");
  reid_native_engine *e = calloc(1, sizeof *e);
  if (!e) return fail(REID_NATIVE_NO_MEMORY, message, message_bytes, "no memory for an engine");
  int cpus = usable_cpus();
  e->count = threads < cpus ? threads : cpus;
  e->made_in = getpid();
  pthread_mutex_init(&e->lock, NULL);
  size_t available = memory_available();
  status = network_make(&e->network, &p, k, available);
  if (!status) status = take_scratch(e, available);
  if (status) fail(status, message, message_bytes, "no memory for the network's weights and maps, after %zu bytes",
                   e->network.memory.bytes + e->memory.bytes);
  if (!status && !(e->team = team_start(e->count)))
    status = fail(REID_NATIVE_NO_THREADS, message, message_bytes, "the system starts no %d threads", e->count);
  if (status) reid_native_destroy(e);
  else *engine = e;
  return status;
}

static profile *profile_make(const reid_native_engine *e) {
  profile *p = calloc(1, sizeof *p);
  if (!p) return NULL;
  p->clocks = calloc((size_t)e->count, sizeof *p->clocks);
  if (!p->clocks) return free(p), NULL;
  p->kernels = timed_kernels(e->network.k);
  p->network = e->network;
  p->network.k = &p->kernels;
  p->cost = clock_cost();
  return p;
}

static void profile_free(profile *p) {
  if (p) free(p->clocks);
  free(p);
}

void reid_native_destroy(reid_native_engine *e) {
  if (!e) return;
  if (e->team && e->made_in == getpid()) team_stop(e->team); /* after a fork its threads are not here */
  profile_free(e->profile);
  memory_free(&e->memory);
  network_free(&e->network);
  pthread_mutex_destroy(&e->lock);
  free(e);
}

int reid_native_describe(const reid_native_engine *e, reid_native_info *info) {
  if (!e || !info) return REID_NATIVE_BAD_ARGUMENT;
  const plan_header *h = &e->network.header;
  plan p = {.header = *h, .layers = e->network.layers};
  for (uint32_t i = 0; i < h->blocks; i++) {
    const network_block *b = &e->network.blocks[i];
    p.blocks[i] = (plan_block){(uint32_t)b->in, (uint32_t)b->middle, (uint32_t)b->out, (uint32_t)b->hidden,
                               (uint32_t)b->norm, (uint32_t)b->then};
  }
  *info = (reid_native_info){.height = (int32_t)h->height, .width = (int32_t)h->width,
                             .feature_dim = (int32_t)h->feature_dim, .precision = e->network.k->precision,
                             .threads = e->count, .ranges = plan_ranges(&p),
                             .memory_bytes = e->network.memory.bytes + e->memory.bytes,
                             .kernels = e->network.k->name};
  return REID_NATIVE_OK;
}

/* ---- runs ---- */

/* Before it is checked, the end may be no address at all. */
static picture picture_in(const reid_native_crop *c) {
  const uint8_t *end = (const uint8_t *)((uintptr_t)c->buffer + c->buffer_bytes);
  return (picture){c->pixels, (ptrdiff_t)c->stride, c->height, c->width, end};
}

static int crop_fits(const reid_native_crop *c, int height, int width) {
  picture image = picture_in(c);
  return picture_fits(&image, c->buffer, c->buffer_bytes, height, width);
}

typedef struct {
  reid_native_engine *engine;
  const uint8_t *pixels;          /* of crops of the network's size; NULL: `pictures` are crops of any */
  const reid_native_crop *pictures;
  float *features;
  int crops;
  int apart;         /* crops that each thread computes alone; all threads share each of the others */
  atomic_int next;   /* of those */
} batch;

static picture picture_of(const batch *b, int crop) {
  const plan_header *h = &b->engine->network.header;
  if (b->pixels)
    return (picture){b->pixels + (size_t)crop * h->height * h->width * 3, (ptrdiff_t)h->width * 3, (int)h->height,
                     (int)h->width, NULL};
  return picture_in(&b->pictures[crop]);
}

static void run_crop(const batch *b, int crop, int scratch, team_member who) {
  reid_native_engine *e = b->engine;
  picture image = picture_of(b, crop);
  network_run(e->profile ? &e->profile->network : &e->network, &e->crops[scratch], &e->threads[who.count > 1 ? who.index : scratch], who, &image,
              b->features + (size_t)crop * e->network.header.feature_dim, NULL);
}

static void run_share(void *context, int thread) {
  batch *b = context;
  team_member alone = {0, 1, NULL}, together = {thread, b->engine->count, team_barrier(b->engine->team)};
  for (int crop; (crop = atomic_fetch_add(&b->next, 1)) < b->apart;) run_crop(b, crop, thread, alone);
  if (b->apart < b->crops) { /* the first scratch may be in use until all have come */
    layer_clock *clock = b->engine->threads[thread].clock;
    int entered = clock_enter(clock, REID_NATIVE_WAITING);
    team_wait(together);
    clock_leave(clock, entered);
  }
  for (int crop = b->apart; crop < b->crops; crop++) run_crop(b, crop, 0, together);
}

static void run_timed_share(void *context, int thread) {
  reid_native_engine *e = ((batch *)context)->engine;
  layer_clock *clock = &e->profile->clocks[thread];
  e->threads[thread].clock = clock;
  clock_start(clock, e->network.k);
  run_share(context, thread);
  clock_stop(clock);
  e->threads[thread].clock = NULL;
}

static double seconds_now(void) {
  struct timespec t;
  clock_gettime(CLOCK_MONOTONIC, &t);
  return (double)t.tv_sec + 1e-9 * (double)t.tv_nsec;
}

static void run_timed(profile *p, team *t, int threads, batch *b) {
  double start = seconds_now();
  uint64_t ticks = ticks_now();
  team_run(t, run_timed_share, b);
  ticks = ticks_now() - ticks;
  clocks_collect(p->clocks, threads, ticks, seconds_now() - start, p->cost, p->seconds);
}

static void run_batch(batch b, size_t crops, float *features) {
  reid_native_engine *e = b.engine;
  b.features = features;
  b.crops = (int)crops;
  b.apart = b.crops / e->count * e->count;
  pthread_mutex_lock(&e->lock);
  if (e->profile) run_timed(e->profile, e->team, e->count, &b);
  else team_run(e->team, run_share, &b);
  pthread_mutex_unlock(&e->lock);
}

/* Products fit: a plan's numbers are small, and crops are at most INT32_MAX. */
static int check_features(const reid_native_engine *e, size_t crops, const float *features, size_t features_bytes) {
  if (!features || features_bytes != crops * e->network.header.feature_dim * sizeof *features)
    return REID_NATIVE_BAD_ARGUMENT;
  return e->made_in == getpid() ? REID_NATIVE_OK : REID_NATIVE_FORKED;
}

static int check_pixels(const reid_native_engine *e, const uint8_t *pixels, size_t pixels_bytes, size_t crops) {
  if (!e || !pixels || crops > INT32_MAX) return REID_NATIVE_BAD_ARGUMENT;
  const plan_header *h = &e->network.header;
  return pixels_bytes == crops * h->height * h->width * 3 ? REID_NATIVE_OK : REID_NATIVE_BAD_ARGUMENT;
}

int reid_native_run(reid_native_engine *e, const uint8_t *pixels, size_t pixels_bytes, size_t crops, float *features,
                    size_t features_bytes) {
  int status = check_pixels(e, pixels, pixels_bytes, crops);
  if (!status) status = check_features(e, crops, features, features_bytes);
  if (!status) run_batch((batch){.engine = e, .pixels = pixels}, crops, features);
  return status;
}

int reid_native_run_crops(reid_native_engine *e, const reid_native_crop *crops, size_t count, float *features,
                          size_t features_bytes) {
  if (!e || !crops || count > INT32_MAX) return REID_NATIVE_BAD_ARGUMENT;
  for (size_t i = 0; i < count; i++)
    if (!crop_fits(&crops[i], (int)e->network.header.height, (int)e->network.header.width))
      return REID_NATIVE_BAD_ARGUMENT;
  int status = check_features(e, count, features, features_bytes);
  if (!status) run_batch((batch){.engine = e, .pictures = crops}, count, features);
  return status;
}

int reid_native_calibrate(reid_native_engine *e, const uint8_t *pixels, size_t pixels_bytes, size_t crops, float *ranges,
                          size_t ranges_bytes) {
  int status = check_pixels(e, pixels, pixels_bytes, crops);
  if (status) return status;
  reid_native_info info;
  reid_native_describe(e, &info);
  if (!ranges || ranges_bytes != info.ranges * sizeof *ranges || info.precision != REID_NATIVE_FP32)
    return REID_NATIVE_BAD_ARGUMENT;
  if (e->made_in != getpid()) return REID_NATIVE_FORKED;
  float *feature = malloc((size_t)info.feature_dim * sizeof *feature);
  if (!feature) return REID_NATIVE_NO_MEMORY;
  const batch b = {.engine = e, .pixels = pixels};
  pthread_mutex_lock(&e->lock);
  for (size_t i = 0; i < crops; i++) {
    picture image = picture_of(&b, (int)i);
    network_run(&e->network, &e->crops[0], &e->threads[0], (team_member){0, 1, NULL}, &image, feature, ranges);
  }
  pthread_mutex_unlock(&e->lock);
  free(feature);
  return REID_NATIVE_OK;
}

int reid_native_profile(reid_native_engine *e, int on, double *seconds, size_t seconds_bytes) {
  if (!e || !seconds || seconds_bytes != REID_NATIVE_KINDS * sizeof *seconds) return REID_NATIVE_BAD_ARGUMENT;
  if (e->made_in != getpid()) return REID_NATIVE_FORKED;
  pthread_mutex_lock(&e->lock);
  profile *made = on ? profile_make(e) : NULL, *before = e->profile;
  int failed = on && !made;
  if (!failed) {
    memset(seconds, 0, seconds_bytes);
    if (before) memcpy(seconds, before->seconds, seconds_bytes);
    e->profile = made;
    profile_free(before);
  }
  pthread_mutex_unlock(&e->lock);
  return failed ? REID_NATIVE_NO_MEMORY : REID_NATIVE_OK;
}

int reid_native_resize(const reid_native_crop *crop, int precision, const char *name, int height, int width,
                       uint8_t *pixels, size_t pixels_bytes) {
  const kernels *k = find_kernels(precision, name);
  if (!k) return REID_NATIVE_NO_KERNELS;
  if (!crop || !pixels || height < 1 || width < 1 || height > MOST_SIDE || width > MOST_SIDE ||
      pixels_bytes != (size_t)height * (size_t)width * 3 || !crop_fits(crop, height, width))
    return REID_NATIVE_BAD_ARGUMENT;
  memory taken = {0};
  resizer r;
  int failed = resizer_take(&r, k, height, width, &taken);
  if (!failed) {
    picture image = picture_in(crop);
    resizer_start(&r, &image);
    for (int y = 0; y < height; y++) memcpy(pixels + (size_t)y * width * 3, resizer_row(&r, y), (size_t)width * 3);
  }
  memory_free(&taken);
  return failed ? REID_NATIVE_NO_MEMORY : REID_NATIVE_OK;
}
