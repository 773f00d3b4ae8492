/* 64-bit Arm: four floats, thirty-two registers. */
#include <arm_neon.h>

#define LANES 4
#define MAXIMUM(a, b) vmaxq_f32(a, b)
#define HALVES 0
#include "cpu.h"
#include "reid_native.h"
#include "kernels.h"
#include "vectors.h"
#include "float_elements.h"

#define SCALED 0
#define VECTORS 4
#define TILE_1 8
#define TILE_2 8
#define TILE_3 6
#define TILE_4 4
#define DEPTHWISE_PIXELS 4
#define STEM_PIXELS 4
#include "kernels_body.inc"
#include "stem_float.inc"

static int runs_here(void) { return cpu_has(CPU_NEON); }

const kernels neon_kernels = {
    .name = "neon", .precision = REID_NATIVE_FP32, .runs_here = runs_here,
#include "kernels_table.inc"
};
