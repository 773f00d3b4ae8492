/* Products of bytes by AVX-512 VNNI. */
typedef int32_t integers __attribute__((vector_size(64)));
typedef __m512i byte_factor;

/* Four bytes in every lane. */
ALWAYS __m512i load_taps(const uint8_t *in) {
  int word;
  __builtin_memcpy(&word, in, sizeof word);
  return _mm512_set1_epi32(word);
}

/* a += four unsigned bytes times four signed ones for each lane. */
ALWAYS integers dot_taps(integers a, __m512i bytes, const char *weights) {
  return (integers)_mm512_dpbusd_epi32((__m512i)a, bytes, _mm512_loadu_si512(weights));
}
