/* Elements that are float32, as kernels_body.inc wants them. */
typedef float element;
typedef V sum;
#define GROUP 1

ALWAYS sum zero_sum(void) { return (V){0}; }
ALWAYS sum dot(sum a, const element *in, const char *weights) { return a + load((const float *)weights) * *in; }
ALWAYS V sum_to_float(sum a) { return a; }
ALWAYS V load_elements(const element *p) { return load(p); }
ALWAYS void store_elements(element *p, V v) { store(p, v); }
typedef V raw;
ALWAYS raw load_raw(const element *p) { return load(p); }
ALWAYS void store_raw(element *p, raw v) { store(p, v); }
ALWAYS raw max_raw(raw a, raw b) { return maximum(a, b); }
