/* x86 with AVX-512 VNNI, float32: as avx512.c, and the stem on bytes, whose products take half the time of floats. */
#include "avx512.h"
#include "float_elements.h"
#include "avx512_bytes.h"

#define SCALED 0
#define STEM_BYTES 2
#define STEM_PIXELS 8
#include "kernels_body.inc"
#include "stem_bytes.inc"

static int runs_here(void) { return cpu_has(CPU_AVX512VNNI); }

const kernels avx512vnni_kernels = {
    .name = "avx512vnni", .precision = REID_NATIVE_FP32, .runs_here = runs_here,
#include "kernels_table.inc"
};
