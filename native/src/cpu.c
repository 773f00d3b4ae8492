/* Asks the processor itself: what compilers offer for it depends on their run-time libraries. */
#include "cpu.h"

#if defined(__x86_64__)
#include <cpuid.h>

static unsigned long long enabled_states(void) {
  unsigned low, high;
  __asm__ volatile("xgetbv" : "=a"(low), "=d"(high) : "c"(0));
  return ((unsigned long long)high << 32) | low;
}

/* Bits as in Intel's manual, volume 2, CPUID, leaves 1 and 7. */
static unsigned features_here(void) {
  unsigned a, b, c, d, found = 0;
  if (!__get_cpuid(1, &a, &b, &c, &d)) return 0;
  int fma = c >> 12 & 1, osxsave = c >> 27 & 1;
  if (!osxsave || !__get_cpuid_count(7, 0, &a, &b, &c, &d)) return 0;
  unsigned long long states = enabled_states();
  int ymm = (states & 0x06) == 0x06, zmm = (states & 0xe6) == 0xe6;
  int avx2 = b >> 5 & 1, avx512 = (b >> 16 & 1) && (b >> 17 & 1) && (b >> 30 & 1) && (b >> 31 & 1), vnni = c >> 11 & 1;
  if (ymm && avx2 && fma) found |= CPU_AVX2;
  if (zmm && avx512) found |= CPU_AVX512;
  if (zmm && avx512 && vnni) found |= CPU_AVX512VNNI;
  if (a < 1 || !__get_cpuid_count(7, 1, &a, &b, &c, &d)) return found;
  if (found & CPU_AVX2 && a >> 4 & 1) found |= CPU_AVXVNNI;
  if (found & CPU_AVX512 && a >> 5 & 1) found |= CPU_AVX512BF16;
  return found;
}

#elif defined(__aarch64__)
#include <asm/hwcap.h>
#include <sys/auxv.h>

static unsigned features_here(void) {
  unsigned long capabilities = getauxval(AT_HWCAP);
  return (capabilities & HWCAP_ASIMD ? CPU_NEON : 0) | (capabilities & HWCAP_ASIMDDP ? CPU_NEONDOT : 0);
}

#else
static unsigned features_here(void) { return 0; }
#endif

int cpu_has(unsigned features) { return (features_here() & features) == features; }
