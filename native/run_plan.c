/* Runs a plan without Python, for processors that are emulated:
 *
 *   run_plan PLAN fp32|bf16|int8 KERNELS THREADS CROPS < pixels > features
 */
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "src/reid_native.h"

/* Read a stream to its end. */
static unsigned char *all_of(FILE *file, size_t *bytes) {
  size_t room = 1 << 20;
  unsigned char *content = malloc(room);
  *bytes = 0;
  for (size_t got; content && (got = fread(content + *bytes, 1, room - *bytes, file)); *bytes += got)
    if (*bytes + got == room) content = realloc(content, room *= 2);
  return content;
}

int main(int count, char **arguments) {
  static const char *const precisions[] = {"fp32", "bf16", "int8"};
  if (count != 6) {
    fprintf(stderr, "usage: run_plan PLAN fp32|bf16|int8 KERNELS THREADS CROPS < pixels > features\n");
    return 2;
  }
  FILE *file = fopen(arguments[1], "rb");
  if (!file) {
    perror(arguments[1]);
    return 2;
  }
  size_t plan_bytes, pixels_bytes, crops = (size_t)atoi(arguments[5]);
  unsigned char *plan = all_of(file, &plan_bytes), *pixels = all_of(stdin, &pixels_bytes);
  int precision = 0;
  while (precision < 2 && strcmp(precisions[precision], arguments[2])) precision++;
  char message[500] = "";
  reid_native_engine *engine;
  int status = reid_native_create(plan, plan_bytes, precision, arguments[3], atoi(arguments[4]), &engine, message,
                                  sizeof message);
  if (status) {
    fprintf(stderr, "status %d: %s\n", status, message);
    return 1;
  }
  reid_native_info info;
  reid_native_describe(engine, &info);
  size_t bytes = crops * (size_t)info.feature_dim * sizeof(float);
  float *features = malloc(bytes);
  status = reid_native_run(engine, pixels, pixels_bytes, crops, features, bytes);
  if (!status) fwrite(features, 1, bytes, stdout);
  reid_native_destroy(engine);
  fclose(file);
  free(features);
  free(plan);
  free(pixels);
  return status;
}
