/* 64-bit Arm with SDOT, INT8: four products of signed bytes in a lane.  Activations are unsigned, so 128 is taken from
 * each when it is loaded, and sums begin with 128 times those of the weights. */
#include "neon.h"

typedef uint8_t element;
typedef int32_t integers __attribute__((vector_size(16)));
typedef integers sum;
typedef int8x16_t factor, byte_factor;
typedef uint32_t raw; /* four bytes */
#define GROUP 4
#define OFFSET 128
#define STORES_CLAMP 1

/* Four bytes less 128 in every lane. */
ALWAYS byte_factor load_taps(const uint8_t *in) {
  uint32_t word;
  __builtin_memcpy(&word, in, sizeof word);
  return vreinterpretq_s8_u32(vdupq_n_u32(word ^ 0x80808080u));
}
ALWAYS integers dot_taps(integers a, byte_factor bytes, const char *weights) {
  return (integers)vdotq_s32((int32x4_t)a, vld1q_s8((const int8_t *)weights), bytes);
}
ALWAYS integers first_sum(const char *weights) {
  integers sums;
  __builtin_memcpy(&sums, weights, sizeof sums);
  return sums;
}

ALWAYS sum zero_sum(void) { return (sum){0}; }
ALWAYS factor load_factor(const element *in) { return load_taps(in); }
ALWAYS sum dot(sum a, factor f, const char *weights) { return dot_taps(a, f, weights); }
ALWAYS V sum_to_float(sum a) { return __builtin_convertvector(a, V); }
ALWAYS raw load_raw(const element *p) {
  raw bytes;
  __builtin_memcpy(&bytes, p, sizeof bytes);
  return bytes;
}
ALWAYS void store_raw(element *p, raw bytes) { __builtin_memcpy(p, &bytes, sizeof bytes); }
ALWAYS raw max_raw(raw a, raw b) {
  return vget_lane_u32(vreinterpret_u32_u8(vmax_u8(vcreate_u8(a), vcreate_u8(b))), 0);
}
ALWAYS V load_elements(const element *p) {
  return (V)vcvtq_f32_u32(vmovl_u16(vget_low_u16(vmovl_u8(vcreate_u8(load_raw(p))))));
}
ALWAYS void store_elements(element *p, V v) {
  uint16x4_t words = vqmovun_s32(vcvtnq_s32_f32((float32x4_t)v));
  store_raw(p, vget_lane_u32(vreinterpret_u32_u8(vqmovn_u16(vcombine_u16(words, words))), 0));
}

#define SCALED 1
#define STEM_BYTES 1
#include "kernels_body.inc"
#include "stem_bytes.inc"

static int runs_here(void) { return cpu_has(CPU_NEON | CPU_NEONDOT); }

const kernels neondot_kernels = {
    .name = "neondot", .precision = REID_NATIVE_INT8, .runs_here = runs_here,
#include "kernels_table.inc"
};
