/* Elements that are float32, as kernels_body.inc wants them. */
typedef float element;
typedef V sum, factor;
#define GROUP 1
#define STORES_CLAMP 0

ALWAYS sum zero_sum(void) { return (V){0}; }
ALWAYS factor load_factor(const element *in) { return splat(*in); }
ALWAYS sum dot(sum a, factor f, const char *weights) { return a + load((const float *)weights) * f; }
ALWAYS V sum_to_float(sum a) { return a; }
ALWAYS V load_elements(const element *p) { return load(p); }
ALWAYS void store_elements(element *p, V v) { store(p, v); }
typedef V raw;
ALWAYS raw load_raw(const element *p) { return load(p); }
ALWAYS void store_raw(element *p, raw v) { store(p, v); }
ALWAYS raw max_raw(raw a, raw b) { return maximum(a, b); }

#if HALVES
typedef VH sum_half;
ALWAYS sum_half zero_sum_half(void) { return (VH){0}; }
ALWAYS sum_half dot_half(sum_half a, const element *in, const char *weights) {
  return a + load_half((const float *)weights) * *in;
}
ALWAYS VH sum_to_float_half(sum_half a) { return a; }
ALWAYS VH load_elements_half(const element *p) { return load_half(p); }
ALWAYS void store_elements_half(element *p, VH v) { store_half(p, v); }
#endif
