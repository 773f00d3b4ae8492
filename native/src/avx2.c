/* x86 with AVX2 and FMA: eight floats, sixteen registers. */
#include <immintrin.h>

#define LANES 8
#define MAXIMUM(a, b) _mm256_max_ps(a, b)
#define HALVES 0
#include "cpu.h"
#include "reid_native.h"
#include "kernels.h"
#include "vectors.h"
#include "float_elements.h"

#define SCALED 0
#define VECTORS 2
#define TILE_1 8
#define TILE_2 4
#define DEPTHWISE_PIXELS 4
#define STEM_PIXELS 4
#include "kernels_body.inc"
#include "stem_float.inc"

static int runs_here(void) { return cpu_has(CPU_AVX2); }

const kernels avx2_kernels = {
    .name = "avx2", .precision = REID_NATIVE_FP32, .runs_here = runs_here,
#include "kernels_table.inc"
};
