/* Float vectors of LANES numbers by compiler extensions, which GCC and clang turn into the instructions of any set. */
#ifndef REID_NATIVE_VECTORS_H
#define REID_NATIVE_VECTORS_H

#include <stdint.h>

#ifdef SMALL_CODE /* sanitizer builds: with tiles of any size in one function they compile in seconds, not minutes */
#define ALWAYS static inline
#define UNROLL
#define NO_UNROLL
#else
#define ALWAYS static inline __attribute__((always_inline))
#ifdef __clang__
#define UNROLL _Pragma("unroll")
#define NO_UNROLL _Pragma("nounroll")
#else
#define UNROLL _Pragma("GCC unroll 16")
#define NO_UNROLL _Pragma("GCC unroll 1")
#endif
#endif

typedef float V __attribute__((vector_size(LANES * 4)));
typedef int32_t VI __attribute__((vector_size(LANES * 4)));
typedef float V_unaligned __attribute__((vector_size(LANES * 4), aligned(4), may_alias));

ALWAYS V load(const float *p) { return *(const V_unaligned *)p; }
ALWAYS void store(float *p, V v) { *(V_unaligned *)p = v; }
ALWAYS V splat(float x) {
#if LANES == 4
  return (V){x, x, x, x};
#elif LANES == 8
  return (V){x, x, x, x, x, x, x, x};
#else
  return (V){x, x, x, x, x, x, x, x, x, x, x, x, x, x, x, x};
#endif
}

/* The larger of each pair.  Sets with an instruction for it define MAXIMUM. */
ALWAYS V maximum(V a, V b) {
#ifdef MAXIMUM
  return MAXIMUM(a, b);
#else
  VI larger = a > b;
  return (V)(((VI)a & larger) | ((VI)b & ~larger));
#endif
}
ALWAYS V relu(V v) { return maximum(v, (V){0}); }

#if HALVES
typedef float VH __attribute__((vector_size(LANES * 2)));
typedef float VH_unaligned __attribute__((vector_size(LANES * 2), aligned(4), may_alias));
ALWAYS VH load_half(const float *p) { return *(const VH_unaligned *)p; }
ALWAYS void store_half(float *p, VH v) { *(VH_unaligned *)p = v; }
ALWAYS VH maximum_half(VH a, VH b) { return MAXIMUM_HALF(a, b); }
ALWAYS VH relu_half(VH v) { return maximum_half(v, (VH){0}); }
#endif

#endif
