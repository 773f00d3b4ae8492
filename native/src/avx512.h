/* What all kernels for AVX-512 share: vectors of sixteen floats, and tiles that fill its thirty-two registers. */
#include <immintrin.h>

#define LANES 16
#define MAXIMUM(a, b) _mm512_max_ps(a, b)
#define MAXIMUM_HALF(a, b) _mm256_max_ps(a, b)
#define HALVES 1
#define VECTORS 4
#define TILE_1 16
#define TILE_2 8
#define TILE_3 8
#define TILE_4 4
#define DEPTHWISE_PIXELS 8

#include "cpu.h"
#include "reid_native.h"
#include "kernels.h"
#include "vectors.h"
