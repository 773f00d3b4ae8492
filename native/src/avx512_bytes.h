/* Products of bytes by AVX-512 VNNI. */
typedef int32_t integers __attribute__((vector_size(64)));

/* a += the four bytes at `in`, unsigned, times four signed bytes for each lane. */
ALWAYS integers dot_bytes(integers a, const uint8_t *in, const char *weights) {
  int word;
  __builtin_memcpy(&word, in, sizeof word);
  return (integers)_mm512_dpbusd_epi32((__m512i)a, _mm512_set1_epi32(word), _mm512_loadu_si512(weights));
}
