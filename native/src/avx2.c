/* x86 with AVX2 and FMA: eight floats, sixteen registers; the stem in 16 bits, whose products take half the time. */
#include "avx2.h"
#include "avx2_words.h"
#include "float_elements.h"

#define SCALED 0
#define STEM_BYTES 2
#include "kernels_body.inc"
#include "stem_bytes.inc"

static int runs_here(void) { return cpu_has(CPU_AVX2); }

const kernels avx2_kernels = {
    .name = "avx2", .precision = REID_NATIVE_FP32, .runs_here = runs_here,
#include "kernels_table.inc"
};
