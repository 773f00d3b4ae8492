/* Runs a plan without Python, for processors that are emulated; once more with its layers timed.
 *
 *   driver PLAN PIXELS CROPS PRECISION THREADS [KERNELS]
 *
 * prints the name of the kernels, then the features, a number a line; KERNELS "list" prints the names of all that run.
 *
 *   driver resize PICTURE PRECISION KERNELS STRIDE HEIGHT WIDTH NEW_HEIGHT NEW_WIDTH
 *
 * prints the pixels of a resized picture, a number a line. */
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "reid_native.h"

static void *read_file(const char *path, size_t *size) {
  FILE *file = fopen(path, "rb");
  if (!file) return NULL;
  size_t room = 1 << 26;
  void *bytes = malloc(room);
  *size = bytes ? fread(bytes, 1, room, file) : 0;
  fclose(file);
  return bytes;
}

static int fail(const char *what, int status) {
  fprintf(stderr, "%s (status %d)\n", what, status);
  return 1;
}

/* Run again, timed: NULL, or what is wrong with it. */
static const char *time_layers(reid_native_engine *engine, const void *pixels, size_t pixel_bytes, size_t crops,
                               const float *features, size_t bytes) {
  double seconds[REID_NATIVE_KINDS], all = 0;
  float *again = malloc(bytes);
  int status = reid_native_profile(engine, 1, seconds, sizeof seconds);
  if (!status) status = reid_native_run(engine, pixels, pixel_bytes, crops, again, bytes);
  if (!status) status = reid_native_profile(engine, 0, seconds, sizeof seconds);
  int same = !status && !memcmp(features, again, bytes);
  free(again);
  for (int kind = 0; kind < REID_NATIVE_KINDS; kind++) {
    if (!(seconds[kind] >= 0 && seconds[kind] < 3600)) return "a layer's time is none";
    all += seconds[kind];
  }
  return !same ? "other features where layers are timed" : all > 0 ? NULL : "no time";
}

static int print_resized(char **argv) {
  size_t bytes = 0;
  int height = atoi(argv[8]), width = atoi(argv[9]);
  uint8_t *picture = read_file(argv[2], &bytes), *pixels = calloc((size_t)height * width, 3);
  reid_native_crop crop = {picture, bytes, picture, atoi(argv[5]), atoi(argv[6]), atoi(argv[7])};
  int status = reid_native_resize(&crop, atoi(argv[3]), argv[4], height, width, pixels, (size_t)height * width * 3);
  if (status) return fail("no pixels", status);
  for (int i = 0; i < height * width * 3; i++) printf("%d\n", pixels[i]);
  free(picture), free(pixels);
  return 0;
}

int main(int argc, char **argv) {
  if (argc == 10 && !strcmp(argv[1], "resize")) return print_resized(argv);
  if (argc < 6) return fail("usage: driver PLAN PIXELS CROPS PRECISION THREADS [KERNELS]", 0);
  int precision = atoi(argv[4]), status;
  const char *kernels = argc > 6 ? argv[6] : NULL, *name;
  if (kernels && !strcmp(kernels, "list")) {
    for (int n = 0; (name = reid_native_kernels(precision, n)); n++) puts(name);
    return 0;
  }
  size_t plan_bytes = 0, pixel_bytes = 0, crops = (size_t)atoi(argv[3]);
  void *plan = read_file(argv[1], &plan_bytes), *pixels = read_file(argv[2], &pixel_bytes);
  char message[500] = "";
  reid_native_engine *engine;
  status = reid_native_create(plan, plan_bytes, precision, kernels, atoi(argv[5]), &engine, message, sizeof message);
  if (status) return fail(message, status);
  reid_native_info info;
  reid_native_describe(engine, &info);
  size_t numbers = crops * (size_t)info.feature_dim;
  float *features = calloc(numbers, sizeof *features);
  status = reid_native_run(engine, pixels, pixel_bytes, crops, features, numbers * sizeof *features);
  if (status) return fail("no features", status);
  const char *wrong = time_layers(engine, pixels, pixel_bytes, crops, features, numbers * sizeof *features);
  if (wrong) return fail(wrong, 0);
  puts(info.kernels);
  for (size_t i = 0; i < numbers; i++) printf("%.9g\n", features[i]);
  reid_native_destroy(engine);
  free(features), free(plan), free(pixels);
  return 0;
}
