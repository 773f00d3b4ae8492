/* Reads a plan and checks every number in it, before any of them decides on an address or a size. */
#include "plan.h"

#include <math.h>
#include <stdarg.h>
#include <stdio.h>
#include <string.h>

static int refuse(int status, char *message, size_t size, const char *format, ...) {
  va_list arguments;
  va_start(arguments, format);
  if (message && size) vsnprintf(message, size, format, arguments);
  va_end(arguments);
  return status;
}

/* For functions with the parameters `message` and `message_bytes`. */
#define BAD(...) return refuse(REID_NATIVE_BAD_PLAN, message, message_bytes, __VA_ARGS__)

static int check_range(const char *what, uint32_t value, uint32_t low, uint32_t high, char *message,
                       size_t message_bytes) {
  if (value < low || value > high) BAD("%s must be from %u to %u, got %u", what, low, high, value);
  return REID_NATIVE_OK;
}

#define CHECK(what, value, low, high)                                                 \
  do {                                                                                \
    int status_ = check_range(what, value, low, high, message, message_bytes);        \
    if (status_) return status_;                                                      \
  } while (0)

static int check_header(const plan_header *h, char *message, size_t message_bytes) {
  CHECK("height", h->height, MIN_SIDE, MAX_SIDE);
  CHECK("width", h->width, MIN_SIDE, MAX_SIDE);
  CHECK("feature_dim", h->feature_dim, 1, MAX_CHANNELS);
  CHECK("stem_channels", h->stem_channels, 1, MAX_CHANNELS);
  CHECK("stem_norm", h->stem_norm, 0, 1);
  CHECK("fusion", h->fusion, FUSION_ADDITION, FUSION_CONCATENATION);
  CHECK("streams", h->streams, 1, MAX_STREAMS);
  for (uint32_t s = 0; s < MAX_STREAMS; s++)
    CHECK("length of a stream", h->lengths[s], s < h->streams, s < h->streams ? MAX_LENGTH : 0);
  CHECK("blocks", h->blocks, 1, MAX_BLOCKS);
  CHECK("reserved", h->reserved, 0, 0);
  for (int c = 0; c < 3; c++)
    if (!(h->mean_bgr[c] >= 0 && h->mean_bgr[c] <= 255)) BAD("mean_bgr must be from 0 to 255, got %g", h->mean_bgr[c]);
  if (!(h->norm_epsilon > 0 && h->norm_epsilon <= 1)) BAD("norm_epsilon must be in (0, 1], got %g", h->norm_epsilon);
  return REID_NATIVE_OK;
}

static int check_block(const plan *p, uint32_t number, uint32_t in, char *message, size_t message_bytes) {
  const plan_block *b = &p->blocks[number];
  int gated = p->header.fusion == FUSION_ONE_GATE || p->header.fusion == FUSION_GATE_EACH;
  int last = number + 1 == p->header.blocks;
  if (b->in != in) BAD("block %u must take %u channels, got %u", number, in, b->in);
  CHECK("middle channels of a block", b->middle, 1, MAX_CHANNELS);
  CHECK("output channels of a block", b->out, 1, MAX_CHANNELS);
  CHECK("hidden channels of a gate", b->hidden, gated, gated ? MAX_CHANNELS : 0);
  CHECK("norm of a block", b->norm, NORM_NONE, NORM_BEFORE_SUM);
  CHECK("layer after a block", b->then, last ? THEN_FEATURE : THEN_BLOCK, last ? THEN_FEATURE : THEN_TRANSITION);
  return REID_NATIVE_OK;
}

static int check_map(uint32_t height, uint32_t width, uint32_t channels, char *message, size_t message_bytes) {
  uint64_t numbers = (uint64_t)height * width * channels;
  if (numbers > MAX_MAP)
    BAD("a map has at most %d numbers, got one of %u x %u pixels with %u channels", MAX_MAP, height, width, channels);
  return REID_NATIVE_OK;
}

/* Check that no map is too large, and that the pools leave the feature a pixel. */
static int check_maps(const plan *p, char *message, size_t message_bytes) {
  const plan_header *h = &p->header;
  uint32_t height = (h->height + 1) / 2, width = (h->width + 1) / 2;
  int status = check_map(height, width, h->stem_channels, message, message_bytes);
  height = (height + 1) / 2, width = (width + 1) / 2;
  for (uint32_t i = 0; !status && i < h->blocks; i++) {
    const plan_block *b = &p->blocks[i];
    status = check_map(height, width, b->middle > b->out ? b->middle : b->out, message, message_bytes);
    if (b->then == THEN_TRANSITION) height /= 2, width /= 2;
  }
  if (status) return status;
  if (!height || !width) BAD("a map of %u x %u pixels is pooled until none is left", h->height, h->width);
  return REID_NATIVE_OK;
}

static uint64_t stem_weights(const plan_header *h) {
  return (uint64_t)h->stem_channels * (3 * 49 + 1 + (h->stem_norm ? 2 : 0));
}

static uint64_t block_weights(const plan *p, const plan_block *b) {
  uint64_t in = b->in, middle = b->middle, out = b->out, hidden = b->hidden, streams = p->header.streams;
  uint64_t gates = p->header.fusion == FUSION_ONE_GATE ? 1 : p->header.fusion == FUSION_GATE_EACH ? streams : 0;
  uint64_t fused = p->header.fusion == FUSION_CONCATENATION ? streams * middle : middle;
  uint64_t n = middle * in + middle + (uint64_t)p->layers * (middle * middle + 10 * middle);
  n += gates * (2 * hidden * middle + hidden + middle) + out * fused + out;
  if (in != out) n += out * in + out;
  if (b->norm) n += 2 * out;
  if (b->then) n += out * out + out;
  return n;
}

static uint64_t count_weights(const plan *p) {
  uint64_t n = stem_weights(&p->header);
  for (uint32_t i = 0; i < p->header.blocks; i++) n += block_weights(p, &p->blocks[i]);
  return n + (uint64_t)p->header.feature_dim * (p->blocks[p->header.blocks - 1].out + 1);
}

uint64_t plan_ranges(const plan *p) {
  uint64_t n = p->header.stem_channels;
  for (uint32_t i = 0; i < p->header.blocks; i++) {
    const plan_block *b = &p->blocks[i];
    uint64_t fused = p->header.fusion == FUSION_CONCATENATION ? (uint64_t)p->header.streams * b->middle : b->middle;
    n += (uint64_t)b->middle * (1 + (uint64_t)p->layers) + fused + b->out + (b->then == THEN_TRANSITION ? b->out : 0);
  }
  return n;
}

static int check_numbers(const plan *p, char *message, size_t message_bytes) {
  float x;
  for (uint64_t i = 0; i < p->header.weights; i++) {
    memcpy(&x, p->weights + i * sizeof x, sizeof x);
    if (!isfinite(x)) BAD("weight %llu is %g, not a finite number", (unsigned long long)i, x);
  }
  for (uint64_t i = 0; i < p->header.ranges; i++) {
    memcpy(&x, p->ranges + i * sizeof x, sizeof x);
    if (!isfinite(x) || x < 0) BAD("range %llu must be finite and at least 0, got %g", (unsigned long long)i, x);
  }
  return REID_NATIVE_OK;
}

int plan_read(plan *p, const void *bytes, size_t size, char *message, size_t message_bytes) {
  int status;
  memset(p, 0, sizeof *p);
  plan_header *h = &p->header;
  if (size < sizeof *h) BAD("a plan has at least %zu bytes, got %zu", sizeof *h, size);
  memcpy(h, bytes, sizeof *h);
  if (memcmp(h->magic, "reidplan", sizeof h->magic)) BAD("not a plan: it does not begin with 'reidplan'");
  if (h->version != PLAN_VERSION)
    return refuse(REID_NATIVE_BAD_VERSION, message, message_bytes, "plan of version %u; this library reads %d",
                  h->version, PLAN_VERSION);
  if ((status = check_header(h, message, message_bytes))) return status;
  for (uint32_t s = 0; s < h->streams; s++) p->layers += (int)h->lengths[s];
  size_t records = h->blocks * sizeof *p->blocks, start = sizeof *h + records;
  if (size < start) BAD("a plan of %u blocks has at least %zu bytes, got %zu", h->blocks, start, size);
  memcpy(p->blocks, (const char *)bytes + sizeof *h, records);
  uint32_t channels = h->stem_channels;
  for (uint32_t i = 0; i < h->blocks; i++) {
    if ((status = check_block(p, i, channels, message, message_bytes))) return status;
    channels = p->blocks[i].out;
  }
  if ((status = check_maps(p, message, message_bytes))) return status;
  uint64_t weights = count_weights(p), ranges = h->ranges ? plan_ranges(p) : 0;
  if (h->weights != weights) BAD("this network has %llu weights, the plan says %llu", (unsigned long long)weights,
                                 (unsigned long long)h->weights);
  if (h->ranges != ranges) BAD("this network has %llu ranges, the plan says %llu", (unsigned long long)ranges,
                               (unsigned long long)h->ranges);
  uint64_t expected = start + 4 * (weights + ranges);
  if (size != expected) BAD("a plan of this network has %llu bytes, got %zu", (unsigned long long)expected, size);
  p->weights = (const char *)bytes + start;
  p->ranges = ranges ? p->weights + 4 * weights : NULL;
  return check_numbers(p, message, message_bytes);
}
