/* x86 with AVX-512: sixteen floats, thirty-two registers. */
#include "avx512.h"
#include "float_elements.h"

#define SCALED 0
#define STEM_PIXELS 8
#include "kernels_body.inc"
#include "stem_float.inc"

static int runs_here(void) { return cpu_has(CPU_AVX512); }

const kernels avx512_kernels = {
    .name = "avx512", .precision = REID_NATIVE_FP32, .runs_here = runs_here,
#include "kernels_table.inc"
};
