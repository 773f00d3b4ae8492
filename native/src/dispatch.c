/* The kernel sets of this build, and which of them this CPU can run. */
#include <string.h>

#include "kernels.h"
#include "reid_native.h"

extern const kernels portable_kernels;
#ifdef __x86_64__
extern const kernels avx2_kernels, avx512_kernels, avx512vnni_kernels, avx512bf16_kernels, avx512int8_kernels,
    avx512vl_kernels, avx2vnni_kernels, avx2int8_kernels;
#endif
#ifdef __aarch64__
extern const kernels neon_kernels, neondot_kernels;
#endif

/* The fastest first. */
static const kernels *const all[] = {
#ifdef __x86_64__
    &avx512vnni_kernels, &avx512_kernels, &avx2_kernels, &avx512bf16_kernels, &avx512int8_kernels,
    &avx512vl_kernels, &avx2vnni_kernels, &avx2int8_kernels,
#endif
#ifdef __aarch64__
    &neon_kernels, &neondot_kernels,
#endif
    &portable_kernels,
};

const kernels *nth_kernels(int precision, int n) {
  for (size_t i = 0; i < sizeof all / sizeof *all; i++)
    if (all[i]->precision == precision && all[i]->runs_here() && n-- == 0) return all[i];
  return NULL;
}

const kernels *find_kernels(int precision, const char *name) {
  const kernels *k = NULL;
  for (int n = 0; (k = nth_kernels(precision, n)); n++)
    if (!name || !strcmp(name, k->name)) return k;
  return NULL;
}
