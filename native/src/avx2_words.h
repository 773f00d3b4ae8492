/* Products of 16 bits by AVX2: vpmaddwd adds two exact ones. */
typedef int32_t integers __attribute__((vector_size(32)));
typedef __m256i byte_factor;

/* Two numbers in every lane. */
ALWAYS byte_factor load_taps(const uint16_t *in) {
  int word;
  __builtin_memcpy(&word, in, sizeof word);
  return _mm256_set1_epi32(word);
}
ALWAYS integers dot_taps(integers a, byte_factor f, const char *weights) {
  return a + (integers)_mm256_madd_epi16(f, _mm256_loadu_si256((const __m256i *)weights));
}

/* The stem takes the image's bytes as such numbers. */
#define STEM_GROUP 2
typedef uint16_t image_element;
