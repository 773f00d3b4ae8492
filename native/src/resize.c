/* The rule box-bilinear, as OpenCV computes it: blocks of factor x factor pixels are averaged where a picture is at least
 * twice as large both ways; then bilinear interpolation with weights of 11 bits, first across, then down.  The sums of
 * the step across keep 15 bits, the products of the step down 16 fewer: with other roundings some pixels differ by one. */
#include "resize.h"

#include <math.h>
#include <string.h>

enum {
  WEIGHT_ONE = 2048,
  BEHIND = 16,  /* bytes behind a pixel's first that kernels may read */
  AHEAD = 2,    /* rows that are asked for ahead */
  AROUND = 64,  /* numbers behind a row that they may write */
};

int picture_fits(const picture *p, const uint8_t *buffer, size_t bytes, int height, int width) {
  if (p->height < 1 || p->width < 1 || p->height > MOST_SIDE || p->width > MOST_SIDE) return 0;
  if (p->height / height > MOST_FACTOR && p->width / width > MOST_FACTOR) return 0;
  /* Integers of 128 bits: no pointer is made outside the buffer, and nothing overflows. */
  __int128 first = (__int128)(uintptr_t)p->pixels - (__int128)(uintptr_t)buffer;
  __int128 last = first + (__int128)p->stride * (p->height - 1);
  __int128 low = first < last ? first : last, high = first < last ? last : first;
  return low >= 0 && high + (__int128)p->width * 3 <= (__int128)bytes;
}

int resizer_take(resizer *r, const kernels *k, int height, int width, memory *m) {
  const size_t pairs = ((size_t)width + AROUND) / 2;
  *r = (resizer){.k = k, .height = height, .width = width, .columns.pixels = width};
  int failed = 0;
  failed |= !(r->columns.offsets = memory_take(m, 2 * pairs, sizeof *r->columns.offsets));
  failed |= !(r->columns.shuffles = memory_take(m, pairs, 16));
  for (int i = 0; i < 2; i++) {
    failed |= !(r->columns.weights[i] = memory_take(m, pairs, 8 * sizeof *r->columns.weights[i]));
    failed |= !(r->across[i] = memory_take(m, (size_t)width * 3 + AROUND, sizeof *r->across[i]));
  }
  failed |= !(r->sums = memory_take(m, MOST_SIDE * 3 + AROUND, sizeof *r->sums));
  failed |= !(r->row = memory_take(m, MOST_SIDE * 3 + AROUND, 1));
  failed |= !(r->out = memory_take(m, (size_t)width * 3 + AROUND, 1));
  return failed;
}

/* Where output i of `outputs` lies between two of `inputs`: the first one's index, and how far behind it. */
static int position(int i, int inputs, int outputs, float *behind) {
  double scale = 1 / ((double)outputs / inputs);
  float at = (float)((i + 0.5) * scale - 0.5);
  int index = (int)floorf(at);
  *behind = at - (float)index;
  return index;
}

static int within(int index, int count) { return index < 0 ? 0 : index < count ? index : count - 1; }

static int16_t weight(float part) { return (int16_t)rintf(part * WEIGHT_ONE); }

static void set_column(resize_columns *c, int x, int left, float behind) {
  int16_t *weights = c->weights[x & 1] + x / 2 * 8;
  for (int i = 0; i < 6; i += 2) weights[i] = weight(1 - behind), weights[i + 1] = weight(behind);
  c->offsets[x] = left * 3;
  int from = c->offsets[x] - c->offsets[x & ~1]; /* in the bytes of its pair of outputs */
  if (from + 6 > BEHIND) c->near = 0;
  else for (int i = 0; i < 6; i++) c->shuffles[x * 8 + i] = (uint8_t)(from + i / 2 + i % 2 * 3);
}

/* Ask for a row that will be read soon: each is on another page of memory, and processors do not look ahead that far. */
static void ask_for(const resizer *r, int y) {
  if (y >= r->from.height) return;
  const uint8_t *first = r->from.pixels + (ptrdiff_t)y * r->from.stride;
  for (int i = 0; i < r->from.width * 3; i += 64) __builtin_prefetch(first + i);
}

void resizer_start(resizer *r, const picture *from) {
  int rows = from->height / r->height, columns = from->width / r->width, factor = rows < columns ? rows : columns;
  r->from = *from;
  r->factor = factor < 1 ? 1 : factor;
  r->held[0] = r->held[1] = -1;
  r->columns.near = 1;
  for (int y = 0; y < AHEAD * r->factor; y++) ask_for(r, y);
  int width = from->width / r->factor;
  for (int x = 0; x < r->width; x++) {
    float behind;
    int left = position(x, width, r->width, &behind);
    set_column(&r->columns, x, within(left, width), left < 0 || left >= width - 1 ? 0 : behind);
  }
}

/* Row y of the picture, its blocks averaged, with bytes behind it that may be read. */
static const uint8_t *source_row(resizer *r, int y) {
  const uint8_t *first = r->from.pixels + (ptrdiff_t)y * r->factor * r->from.stride;
  for (int i = 0; i < r->factor; i++) ask_for(r, (y + AHEAD) * r->factor + i);
  const int columns = r->from.width / r->factor;
  if (r->factor == 1) {
    if (r->from.end - first >= columns * 3 + BEHIND) return first;
    return memcpy(r->row, first, (size_t)columns * 3);
  }
  for (int i = 0; i < r->factor; i++)
    r->k->add_bytes(first + i * r->from.stride, columns * r->factor * 3, i > 0, r->sums);
  r->k->average(r->sums, columns, r->factor, r->row);
  return r->row;
}

static const int16_t *across(resizer *r, int y) {
  int16_t *out = r->across[y & 1];
  if (r->held[y & 1] != y) r->k->resize_across(source_row(r, y), &r->columns, out);
  r->held[y & 1] = y;
  return out;
}

const uint8_t *resizer_row(resizer *r, int y) {
  if (r->from.height == r->height && r->from.width == r->width) return r->from.pixels + (ptrdiff_t)y * r->from.stride;
  float behind;
  const int height = r->from.height / r->factor, above = position(y, height, r->height, &behind);
  const int16_t *upper = across(r, within(above, height)), *lower = across(r, within(above + 1, height));
  r->k->resize_down(upper, lower, weight(1 - behind), weight(behind), r->width * 3, r->out);
  return r->out;
}
