/* Instructions of this CPU that the operating system lets programs use. */
#ifndef REID_NATIVE_CPU_H
#define REID_NATIVE_CPU_H

enum {
  CPU_AVX2 = 1,         /* with FMA */
  CPU_AVXVNNI = 2,
  CPU_AVX512 = 4,       /* F, BW, DQ and VL */
  CPU_AVX512VNNI = 8,
  CPU_AVX512BF16 = 16,
  CPU_NEON = 32,
  CPU_NEONDOT = 64,
};

/* Whether all of some features are there. */
int cpu_has(unsigned features);

#endif
