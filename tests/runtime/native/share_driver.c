/* One crop shared by teams of 1 to 12 threads, on a machine of any number of cores; each time once more with its layers
 * timed.
 *
 *   driver PLAN PIXELS PRECISION
 *
 * Ends with 0 if all teams compute the same bytes. */
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "network.h"

enum { MOST = 12 };

typedef struct {
  network network;
  crop_scratch crop;
  thread_scratch threads[MOST];
  kernels timed_kernels;
  network timed;
  layer_clock clocks[MOST];
  team *team;
  int count;
  picture image;
  float *feature;
} work;

static void *read_file(const char *path, size_t *size) {
  FILE *file = fopen(path, "rb");
  void *bytes = malloc(1 << 26);
  *size = file && bytes ? fread(bytes, 1, 1 << 26, file) : 0;
  return bytes;
}

static void job(void *context, int index) {
  work *w = context;
  team_member who = {index, w->count, team_barrier(w->team)};
  network_run(&w->network, &w->crop, &w->threads[index], who, &w->image, w->feature, NULL);
}

static void timed_job(void *context, int index) {
  work *w = context;
  team_member who = {index, w->count, team_barrier(w->team)};
  w->threads[index].clock = &w->clocks[index];
  clock_start(&w->clocks[index], w->network.k);
  network_run(&w->timed, &w->crop, &w->threads[index], who, &w->image, w->feature, NULL);
  clock_stop(&w->clocks[index]);
  w->threads[index].clock = NULL;
}

/* Have a team compute the feature; 1 if it is as `first`, which the first team sets. */
static int same_feature(work *w, team_job *run, float *first, size_t bytes) {
  memset(w->feature, 0xff, bytes);
  team_run(w->team, run, w);
  if (w->count == 1 && run == job) memcpy(first, w->feature, bytes);
  return !memcmp(first, w->feature, bytes);
}

int main(int argc, char **argv) {
  if (argc != 4) return puts("usage: driver PLAN PIXELS PRECISION"), 2;
  char message[500] = "";
  size_t plan_bytes, pixel_bytes;
  void *bytes = read_file(argv[1], &plan_bytes), *pixels = read_file(argv[2], &pixel_bytes);
  plan p;
  memory m = {0};
  work w = {0};
  if (plan_read(&p, bytes, plan_bytes, message, sizeof message)) return puts(message), 2;
  int failed = network_make(&w.network, &p, find_kernels(atoi(argv[3]), NULL), 0);
  failed |= crop_scratch_take(&w.crop, &w.network, &m);
  for (int i = 0; i < MOST; i++) failed |= thread_scratch_take(&w.threads[i], &w.network, &m);
  int height = (int)p.header.height, width = (int)p.header.width;
  size_t feature_bytes = p.header.feature_dim * sizeof(float);
  float *first = calloc(1, feature_bytes);
  w.feature = malloc(feature_bytes);
  w.image = (picture){pixels, width * 3, height, width, NULL};
  w.timed_kernels = timed_kernels(w.network.k);
  w.timed = w.network;
  w.timed.k = &w.timed_kernels;
  if (failed || !first || !w.feature || pixel_bytes != (size_t)height * width * 3) return puts("it cannot run"), 2;
  for (w.count = 1; w.count <= MOST; w.count++) {
    double seconds[REID_NATIVE_KINDS] = {0};
    w.team = team_start(w.count);
    if (!w.team) return puts("a team did not start"), 2;
    int same = same_feature(&w, job, first, feature_bytes) && same_feature(&w, timed_job, first, feature_bytes);
    team_stop(w.team);
    clocks_collect(w.clocks, w.count, 1, 1, 0, seconds);
    if (!same) return printf("%d threads compute another feature\n", w.count), 1;
    if (!(seconds[REID_NATIVE_POINTWISE] > 0)) return printf("%d threads take no time\n", w.count), 1;
  }
  return puts("the same"), 0;
}
