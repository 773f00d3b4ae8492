/* x86 with AVX-VNNI and no AVX-512, INT8: 1x1 convolutions u8 x s8, four inputs to a product. */
#define DOT_BYTES(a, b, w) _mm256_dpbusd_avx_epi32(a, b, w)
#include "avx2_bytes.inc"

static int runs_here(void) { return cpu_has(CPU_AVX2 | CPU_AVXVNNI); }

const kernels avx2vnni_kernels = {
    .name = "avx2vnni", .precision = REID_NATIVE_INT8, .runs_here = runs_here,
#include "kernels_table.inc"
};
