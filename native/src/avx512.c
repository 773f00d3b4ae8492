/* x86 with AVX-512: sixteen floats, thirty-two registers. */
#include <immintrin.h>

#define LANES 16
#define MAXIMUM(a, b) _mm512_max_ps(a, b)
#define MAXIMUM_HALF(a, b) _mm256_max_ps(a, b)
#define HALVES 1
#include "cpu.h"
#include "reid_native.h"
#include "kernels.h"
#include "vectors.h"
#include "float_elements.h"

#define SCALED 0
#define VECTORS 4
#define TILE_1 16
#define TILE_2 8
#define TILE_3 8
#define TILE_4 4
#define DEPTHWISE_PIXELS 8
#define STEM_PIXELS 8
#include "kernels_body.inc"
#include "stem_float.inc"

static int runs_here(void) { return cpu_has(CPU_AVX512); }

const kernels avx512_kernels = {
    .name = "avx512", .precision = REID_NATIVE_FP32, .runs_here = runs_here,
#include "kernels_table.inc"
};
