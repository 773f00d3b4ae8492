/* What all kernels for AVX2 share: vectors of eight floats, and tiles that fill its sixteen registers. */
#include <immintrin.h>

#define LANES 8
#define MAXIMUM(a, b) _mm256_max_ps(a, b)
#define HALVES 0
#define VECTORS 2
#define TILE_1 8
#define TILE_2 4
#define DEPTHWISE_PIXELS 4
#define STEM_PIXELS 8

#include "cpu.h"
#include "reid_native.h"
#include "kernels.h"
#include "vectors.h"
