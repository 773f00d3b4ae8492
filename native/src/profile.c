/* Kernels that are timed, and what clocks have counted. */
#include "profile.h"

#include <string.h>

static _Thread_local layer_clock *running; /* kernels get nothing by which they could find it */

#define TIMED(kind, call)                        \
  do {                                           \
    layer_clock *c_ = running;                   \
    const kernels *k = c_->k;                    \
    int entered_ = clock_enter(c_, (kind));      \
    k->call;                                     \
    clock_leave(c_, entered_);                   \
  } while (0)

static void image_row(const stem *s, const uint8_t *pixels, void *row) {
  TIMED(REID_NATIVE_STEM, image_row(s, pixels, row));
}

static void stem_row(const stem *s, const void *const rows[STEM_SIDE], const float *bias, int linear, void *out) {
  TIMED(REID_NATIVE_STEM, stem_row(s, rows, bias, linear, out));
}

static void conv_pixels(const conv *layer, const void *in, const void *in2, const void *identity, int pixels, conv_end end,
                        void *out) {
  TIMED(REID_NATIVE_POINTWISE, conv(layer, in, in2, identity, pixels, end, out));
}

static void depthwise_row(const float *const rows[3], const float *weights, int channels, int width, void *out,
                          float *sums) {
  TIMED(REID_NATIVE_DEPTHWISE, depthwise_row(rows, weights, channels, width, out, sums));
}

static void gated_sum(const void *const *maps, int streams, const float *gates, int channels, int pixels, int out_stride,
                      void *out) {
  TIMED(REID_NATIVE_GATES, gated_sum(maps, streams, gates, channels, pixels, out_stride, out));
}

static void max_pool_row(const void *const rows[3], int in_width, int out_width, int channels, void *out) {
  TIMED(REID_NATIVE_POOLS, max_pool_row(rows, in_width, out_width, channels, out));
}

static void average_pool_row(const float *upper, const float *lower, int out_width, int channels, const float *factors,
                             void *out) {
  TIMED(REID_NATIVE_POOLS, average_pool_row(upper, lower, out_width, channels, factors, out));
}

static void add_pixels(const float *pixels, int count, int channels, const float *mean, float *sums) {
  TIMED(REID_NATIVE_POOLS, add_pixels(pixels, count, channels, mean, sums));
}

static void normalise(const float *pixels, int count, int channels, const float *scale, const float *shift,
                      const void *identity, const float *ratio, const float *addend, void *out) {
  TIMED(REID_NATIVE_POOLS, normalise(pixels, count, channels, scale, shift, identity, ratio, addend, out));
}

kernels timed_kernels(const kernels *k) {
  kernels timed = *k;
  timed.image_row = image_row, timed.stem_row = stem_row, timed.max_pool_row = max_pool_row;
  timed.conv = conv_pixels, timed.depthwise_row = depthwise_row, timed.gated_sum = gated_sum;
  timed.average_pool_row = average_pool_row, timed.add_pixels = add_pixels, timed.normalise = normalise;
  return timed;
}

void clock_start(layer_clock *c, const kernels *k) {
  c->k = k;
  c->kind = REID_NATIVE_BETWEEN;
  c->last = ticks_now();
  running = c;
}

void clock_stop(layer_clock *c) {
  clock_change(c, REID_NATIVE_BETWEEN);
  running = NULL;
}

void clocks_collect(layer_clock *clocks, int count, uint64_t span, double seconds, double cost, double *total) {
  double per_tick = span ? seconds / (double)span / count : 0, counted = 0;
  for (int i = 0; i < count; i++) {
    for (int kind = 0; kind < REID_NATIVE_KINDS; kind++) {
      double ticks = (double)clocks[i].ticks[kind], own = cost * (double)clocks[i].changes[kind];
      if (own > ticks) own = ticks;
      total[kind] += (ticks - own) * per_tick;
      total[REID_NATIVE_CLOCK] += own * per_tick;
      counted += ticks;
    }
    memset(clocks[i].ticks, 0, sizeof clocks[i].ticks);
    memset(clocks[i].changes, 0, sizeof clocks[i].changes);
  }
  double idle = (double)span * count - counted; /* before a thread's first crop, and after its last */
  if (idle > 0) total[REID_NATIVE_WAITING] += idle * per_tick;
}

double clock_cost(void) {
  enum { TRIES = 8, PAIRS = 500 };
  double least = 0;
  for (int i = 0; i < TRIES; i++) { /* the least: others were interrupted */
    layer_clock c = {.kind = REID_NATIVE_BETWEEN};
    uint64_t start = ticks_now();
    for (int pair = 0; pair < PAIRS; pair++) clock_leave(&c, clock_enter(&c, REID_NATIVE_STEM));
    double cost = (double)(ticks_now() - start) / (2 * PAIRS);
    if (i == 0 || cost < least) least = cost;
  }
  return least;
}
