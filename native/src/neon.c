/* 64-bit Arm: four floats, thirty-two registers. */
#include "neon.h"
#include "float_elements.h"

#define SCALED 0
#include "kernels_body.inc"
#include "stem_float.inc"

static int runs_here(void) { return cpu_has(CPU_NEON); }

const kernels neon_kernels = {
    .name = "neon", .precision = REID_NATIVE_FP32, .runs_here = runs_here,
#include "kernels_table.inc"
};
