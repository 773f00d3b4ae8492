/* x86 with AVX-512 VNNI, INT8: 1x1 convolutions u8 x s8, four inputs to a product; activations stored as bytes. */
#include "avx512.h"
#include "avx512_bytes.h"

typedef uint8_t element;
typedef integers sum;
typedef __m512i factor;
typedef __m256i sum_half;
typedef __m128i raw;
#define GROUP 4
#define STORES_CLAMP 1

ALWAYS sum zero_sum(void) { return (sum){0}; }
ALWAYS factor load_factor(const element *in) { return load_taps(in); }
ALWAYS sum dot(sum a, factor f, const char *weights) { return dot_taps(a, f, weights); }
ALWAYS V sum_to_float(sum a) { return __builtin_convertvector(a, V); }
ALWAYS V load_elements(const element *p) {
  return (V)_mm512_cvtepi32_ps(_mm512_cvtepu8_epi32(_mm_loadu_si128((const __m128i *)p)));
}
ALWAYS void store_elements(element *p, V v) {
  _mm_storeu_si128((__m128i *)p, _mm512_cvtusepi32_epi8(_mm512_cvtps_epi32((__m512)relu(v))));
}

ALWAYS sum_half zero_sum_half(void) { return _mm256_setzero_si256(); }
ALWAYS sum_half dot_half(sum_half a, const element *in, const char *weights) {
  int word;
  __builtin_memcpy(&word, in, sizeof word);
  return _mm256_dpbusd_epi32(a, _mm256_set1_epi32(word), _mm256_loadu_si256((const __m256i *)weights));
}
ALWAYS VH sum_to_float_half(sum_half a) { return (VH)_mm256_cvtepi32_ps(a); }
ALWAYS VH load_elements_half(const element *p) {
  return (VH)_mm256_cvtepi32_ps(_mm256_cvtepu8_epi32(_mm_loadl_epi64((const __m128i *)p)));
}
ALWAYS void store_elements_half(element *p, VH v) {
  _mm_storel_epi64((__m128i *)p, _mm256_cvtusepi32_epi8(_mm256_cvtps_epi32((__m256)relu_half(v))));
}

ALWAYS raw load_raw(const element *p) { return _mm_loadu_si128((const __m128i *)p); }
ALWAYS void store_raw(element *p, raw v) { _mm_storeu_si128((__m128i *)p, v); }
ALWAYS raw max_raw(raw a, raw b) { return _mm_max_epu8(a, b); }

/* Round four vectors to bytes from 0 to 255: those of a, then of b, c and d.  Saturating packs do the clamping. */
ALWAYS __m512i four_to_bytes(V a, V b, V c, V d) {
  __m512i ab = _mm512_packs_epi32(_mm512_cvtps_epi32((__m512)a), _mm512_cvtps_epi32((__m512)b));
  __m512i cd = _mm512_packs_epi32(_mm512_cvtps_epi32((__m512)c), _mm512_cvtps_epi32((__m512)d));
  const __m512i order = _mm512_setr_epi32(0, 4, 8, 12, 1, 5, 9, 13, 2, 6, 10, 14, 3, 7, 11, 15);
  return _mm512_permutexvar_epi32(order, _mm512_packus_epi16(ab, cd));
}

/* The four quarters of a vector of bytes, to four places. */
ALWAYS void scatter(element *out, int stride, __m512i bytes) {
  _mm_storeu_si128((__m128i *)out, _mm512_castsi512_si128(bytes));
  _mm_storeu_si128((__m128i *)(out + stride), _mm512_extracti32x4_epi32(bytes, 1));
  _mm_storeu_si128((__m128i *)(out + 2 * stride), _mm512_extracti32x4_epi32(bytes, 2));
  _mm_storeu_si128((__m128i *)(out + 3 * stride), _mm512_extracti32x4_epi32(bytes, 3));
}

#define STORE_COLUMN
ALWAYS void store_column(element *out, int stride, const V *v, const int pixels) {
  int p = 0;
  UNROLL for (; p + 4 <= pixels; p += 4) scatter(out + p * stride, stride, four_to_bytes(v[p], v[p + 1], v[p + 2], v[p + 3]));
  UNROLL for (; p < pixels; p++) store_elements(out + p * stride, v[p]);
}
ALWAYS void store_column_half(element *out, int stride, const VH *v, const int pixels) {
  UNROLL for (int p = 0; p < pixels; p++) store_elements_half(out + p * stride, v[p]);
}

#define STORE_TILE
ALWAYS void store_tile(element *out, int stride, const V v[][4], const int pixels, const int vectors) {
  if (vectors == 4) {
    UNROLL for (int p = 0; p < pixels; p++)
      _mm512_storeu_si512(out + p * stride, four_to_bytes(v[p][0], v[p][1], v[p][2], v[p][3]));
  } else if (vectors == 3) {
    UNROLL for (int p = 0; p < pixels; p++) {
      __m512i bytes = four_to_bytes(v[p][0], v[p][1], v[p][2], v[p][2]);
      _mm256_storeu_si256((__m256i *)(out + p * stride), _mm512_castsi512_si256(bytes));
      _mm_storeu_si128((__m128i *)(out + p * stride + 32), _mm512_extracti32x4_epi32(bytes, 2));
    }
  } else if (vectors == 2 && pixels % 2 == 0) {
    UNROLL for (int p = 0; p < pixels; p += 2) {
      __m512i bytes = four_to_bytes(v[p][0], v[p][1], v[p + 1][0], v[p + 1][1]);
      _mm256_storeu_si256((__m256i *)(out + p * stride), _mm512_castsi512_si256(bytes));
      _mm256_storeu_si256((__m256i *)(out + (p + 1) * stride), _mm512_extracti64x4_epi64(bytes, 1));
    }
  } else if (vectors == 1 && pixels % 4 == 0) {
    UNROLL for (int p = 0; p < pixels; p += 4)
      scatter(out + p * stride, stride, four_to_bytes(v[p][0], v[p + 1][0], v[p + 2][0], v[p + 3][0]));
  } else {
    UNROLL for (int p = 0; p < pixels; p++) {
      UNROLL for (int n = 0; n < vectors; n++) store_elements(out + p * stride + n * LANES, v[p][n]);
    }
  }
}

#define SCALED 1
#define STEM_BYTES 1
#define STEM_PIXELS 16
#include "kernels_body.inc"
#include "stem_bytes.inc"

static int runs_here(void) { return cpu_has(CPU_AVX512VNNI); }

const kernels avx512int8_kernels = {
    .name = "avx512vnni", .precision = REID_NATIVE_INT8, .runs_here = runs_here,
#include "kernels_table.inc"
};
