/* What the processor can do at best: one 1x1 convolution whose numbers all stay in the first cache, again and again. */
#include "kernels.h"
#include "memory.h"
#include "reid_native.h"

/* 24 pixels are whole tiles for every set; weights, inputs and sums together take less than 32 KiB. */
enum { PEAK_PIXELS = 24, PEAK_GROUPS = 64, PEAK_VECTORS = 3 };

/* Memory whose elements, floats or bytes, are all 1: sums of zeros could be cheaper than a network's. */
static uint32_t *ones(memory *m, size_t words, const kernels *k) {
  uint32_t *found = memory_take(m, words, sizeof *found);
  uint32_t integer = k->element == 1 ? 0x01010101 : 0x00010001, number = k->element == 4 ? 0x3f800000 : 0x3f803f80;
  uint32_t one = k->precision == REID_NATIVE_INT8 ? integer : number;
  for (size_t i = 0; found && i < words; i++) found[i] = one;
  return found;
}

uint64_t reid_native_peak(int precision, const char *name, uint32_t rounds) {
  const kernels *k = find_kernels(precision, name);
  if (!k) return 0;
  int vectors = k->vectors < PEAK_VECTORS ? k->vectors : PEAK_VECTORS, outputs = vectors * k->lanes;
  memory m = {0};
  const void *in = ones(&m, PEAK_PIXELS * PEAK_GROUPS, k);
  const void *weights = ones(&m, (size_t)(PEAK_GROUPS + 1) * outputs, k);
  void *out = memory_take(&m, (size_t)PEAK_PIXELS * outputs, sizeof(float));
  conv c = {.weights = weights, .weights2 = weights, .groups = PEAK_GROUPS, .stride = PEAK_GROUPS * k->group,
            .outputs = outputs, .out_stride = outputs};
  int ready = in && weights && out;
  for (uint32_t i = 0; ready && i < rounds; i++) k->conv(&c, in, NULL, NULL, PEAK_PIXELS, END_RAW, out);
  memory_free(&m);
  return ready ? (uint64_t)rounds * PEAK_PIXELS * PEAK_GROUPS * (uint64_t)(k->group * outputs) : 0;
}

int reid_native_stem_products(int precision, const char *name) {
  const kernels *k = find_kernels(precision, name);
  return !k ? -1 : k->stem_group == 2 ? 1 : k->stem_bytes; /* 16 bits take one product, two bytes two */
}
