/* x86 with AVX512-BF16 and VNNI: 1x1 convolutions and stored activations in bfloat16, two inputs to a product. */
#include "avx512.h"
#include "avx512_bytes.h"

typedef uint16_t element;
typedef __m512 sum;
typedef __m512i factor;
typedef __m256 sum_half;
typedef __m256i raw;
#define GROUP 2
#define STORES_CLAMP 0

ALWAYS int two(const element *in) {
  int word;
  __builtin_memcpy(&word, in, sizeof word);
  return word;
}

ALWAYS sum zero_sum(void) { return _mm512_setzero_ps(); }
ALWAYS factor load_factor(const element *in) { return _mm512_set1_epi32(two(in)); }
ALWAYS sum dot(sum a, factor f, const char *weights) {
  return _mm512_dpbf16_ps(a, (__m512bh)f, (__m512bh)_mm512_loadu_si512(weights));
}
ALWAYS V sum_to_float(sum a) { return (V)a; }
ALWAYS V load_elements(const element *p) {
  return (V)_mm512_slli_epi32(_mm512_cvtepu16_epi32(_mm256_loadu_si256((const __m256i *)p)), 16);
}
ALWAYS void store_elements(element *p, V v) {
  _mm256_storeu_si256((__m256i *)p, (__m256i)_mm512_cvtneps_pbh((__m512)v));
}

ALWAYS sum_half zero_sum_half(void) { return _mm256_setzero_ps(); }
ALWAYS sum_half dot_half(sum_half a, const element *in, const char *weights) {
  __m256i w = _mm256_loadu_si256((const __m256i *)weights);
  return _mm256_dpbf16_ps(a, (__m256bh)_mm256_set1_epi32(two(in)), (__m256bh)w);
}
ALWAYS VH sum_to_float_half(sum_half a) { return (VH)a; }
ALWAYS VH load_elements_half(const element *p) {
  return (VH)_mm256_slli_epi32(_mm256_cvtepu16_epi32(_mm_loadu_si128((const __m128i *)p)), 16);
}
ALWAYS void store_elements_half(element *p, VH v) {
  _mm_storeu_si128((__m128i *)p, (__m128i)_mm256_cvtneps_pbh((__m256)v));
}

/* Numbers >= 0 in bfloat16 are in the order of their bits. */
ALWAYS raw load_raw(const element *p) { return _mm256_loadu_si256((const __m256i *)p); }
ALWAYS void store_raw(element *p, raw v) { _mm256_storeu_si256((__m256i *)p, v); }
ALWAYS raw max_raw(raw a, raw b) { return _mm256_max_epu16(a, b); }

/* Two vectors are rounded by one instruction. */
#define STORE_TILE
ALWAYS void store_tile(element *out, int stride, const V v[][4], const int pixels, const int vectors) {
  UNROLL for (int p = 0; p < pixels; p++) {
    UNROLL for (int n = 0; n + 1 < vectors; n += 2)
      _mm512_storeu_si512(out + p * stride + n * LANES, (__m512i)_mm512_cvtne2ps_pbh((__m512)v[p][n + 1], (__m512)v[p][n]));
    if (vectors % 2) store_elements(out + p * stride + (vectors - 1) * LANES, v[p][vectors - 1]);
  }
}

#define SCALED 0
#define STEM_BYTES 2
#define STEM_PIXELS 8
#include "kernels_body.inc"
#include "stem_bytes.inc"

static int runs_here(void) { return cpu_has(CPU_AVX512BF16 | CPU_AVX512VNNI); }

const kernels avx512bf16_kernels = {
    .name = "avx512bf16", .precision = REID_NATIVE_BF16, .runs_here = runs_here,
#include "kernels_table.inc"
};
