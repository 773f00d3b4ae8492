/* x86 with AVX2, INT8 in 16 bits: two inputs to a product (vpmaddwd), whose sums are exact.  vpmaddubsw takes four bytes,
 * but saturates: products of 255 and 127 are too large for its pairs, and splitting them takes more instructions than
 * floats do. */
#include "avx2.h"
#include "avx2_words.h"

typedef uint16_t element; /* 0 to 255 */
typedef integers sum;
typedef byte_factor factor;
typedef __m128i raw;
#define GROUP 2
#define STORES_CLAMP 1

ALWAYS factor load_factor(const element *in) { return load_taps(in); }
ALWAYS sum dot(sum a, factor f, const char *weights) { return dot_taps(a, f, weights); }
ALWAYS sum zero_sum(void) { return (sum){0}; }
ALWAYS V sum_to_float(sum a) { return __builtin_convertvector(a, V); }
ALWAYS V load_elements(const element *p) {
  return (V)_mm256_cvtepi32_ps(_mm256_cvtepu16_epi32(_mm_loadu_si128((const __m128i *)p)));
}
ALWAYS void store_elements(element *p, V v) {
  __m256i whole = _mm256_cvtps_epi32((__m256)v);
  __m128i words = _mm_packus_epi32(_mm256_castsi256_si128(whole), _mm256_extracti128_si256(whole, 1));
  _mm_storeu_si128((__m128i *)p, _mm_min_epu16(words, _mm_set1_epi16(255)));
}
ALWAYS raw load_raw(const element *p) { return _mm_loadu_si128((const __m128i *)p); }
ALWAYS void store_raw(element *p, raw v) { _mm_storeu_si128((__m128i *)p, v); }
ALWAYS raw max_raw(raw a, raw b) { return _mm_max_epu16(a, b); }

#define SCALED 1
#define STEM_BYTES 1
#include "kernels_body.inc"
#include "stem_bytes.inc"

static int runs_here(void) { return cpu_has(CPU_AVX2); }

const kernels avx2int8_kernels = {
    .name = "avx2", .precision = REID_NATIVE_INT8, .runs_here = runs_here,
#include "kernels_table.inc"
};
