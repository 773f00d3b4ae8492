/* x86 with AVX-512 VNNI, float32: as avx512.c, and the stem on bytes, whose products take half the time of floats. */
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
#include "avx512_bytes.h"

#define SCALED 0
#define VECTORS 4
#define TILE_1 16
#define TILE_2 8
#define TILE_3 8
#define TILE_4 4
#define DEPTHWISE_PIXELS 8
#define STEM_BYTES 2
#define STEM_PIXELS 8
#include "kernels_body.inc"
#include "stem_bytes.inc"

static int runs_here(void) { return cpu_has(CPU_AVX512VNNI); }

const kernels avx512vnni_kernels = {
    .name = "avx512vnni", .precision = REID_NATIVE_FP32, .runs_here = runs_here, .stem_bytes = STEM_BYTES,
#include "kernels_table.inc"
};
