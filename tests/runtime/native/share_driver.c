/* One crop shared by teams of 1 to 12 threads, on a machine of any number of cores.
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
  if (failed || !first || !w.feature || pixel_bytes != (size_t)height * width * 3) return puts("it cannot run"), 2;
  for (w.count = 1; w.count <= MOST; w.count++) {
    memset(w.feature, 0xff, feature_bytes);
    w.team = team_start(w.count);
    if (!w.team) return puts("a team did not start"), 2;
    team_run(w.team, job, &w);
    team_stop(w.team);
    if (w.count == 1) memcpy(first, w.feature, feature_bytes);
    else if (memcmp(first, w.feature, feature_bytes)) return printf("%d threads compute another feature\n", w.count), 1;
  }
  return puts("the same"), 0;
}
