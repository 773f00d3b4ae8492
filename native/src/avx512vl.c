/* x86 with AVX-512 VNNI, INT8 by vectors of 256 bits: avx2vnni.c in the other encoding of its instruction, so that its
 * arithmetic runs on processors with AVX-512 too. */
#define DOT_BYTES(a, b, w) _mm256_dpbusd_epi32(a, b, w)
#include "avx2_bytes.inc"

static int runs_here(void) { return cpu_has(CPU_AVX512VNNI); }

const kernels avx512vl_kernels = {
    .name = "avx512vl", .precision = REID_NATIVE_INT8, .runs_here = runs_here,
#include "kernels_table.inc"
};
