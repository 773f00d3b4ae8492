/* Packs weights for the kernels, and folds the scales of uint8 activations into them.
 *
 * A 1x1 convolution's weights lie as [block][inputs / group][vectors of the block][lanes][group] (block_vectors).
 *
 * With uint8 elements the value of channel c of activation x is x[c] times scale_x[c]; scale_x[c] is the largest value
 * that calibration saw, over 255.  Then
 *   sum_k w[o][k] x[k]  =  q[o] sum_k round(w[o][k] scale_x[k] / q[o]) byte_x[k],   q[o] = max_k |w[o][k] scale_x[k]| / 127
 * and the output's byte is that sum times q[o] / scale_y[o], plus bias[o] / scale_y[o].  A pointwise layer's q goes into
 * the taps of the depthwise layer behind it, which computes in floats.  With float elements all scales are 1. */
#include "pack.h"

#include <math.h>
#include <string.h>

/* Least range of a channel, as a fraction of the largest one of its activation: a channel that calibration saw near 0
 * would be cut off otherwise. */
#define LEAST_RANGE 0.02f

typedef struct {
  network *n;
  const plan *p;
  const char *weights; /* the next ones of the plan */
  memory scratch;      /* freed when all is packed */
  int failed;          /* an allocation did */
} packer;

static float *take_floats(memory *m, packer *p, size_t count) {
  float *floats = memory_take(m, count, sizeof *floats);
  p->failed |= !floats;
  return floats;
}

/* The next `count` weights of the plan, as a copy that may be changed; NULL where there is no memory. */
static float *next(packer *p, size_t count) {
  float *floats = take_floats(&p->scratch, p, count);
  if (floats) memcpy(floats, p->weights, count * sizeof *floats);
  p->weights += count * sizeof *floats;
  return floats;
}

static int scaled(const packer *p) { return p->n->k->precision == REID_NATIVE_INT8; }
static int padded(const packer *p, int channels) { return round_up(channels, p->n->k->lanes); }

/* Copy channels into the network's memory, padded with zeros, each times a factor over a divisor (NULL: 1). */
static float *keep(packer *p, const float *values, int count, const float *times, const float *over) {
  float *kept = take_floats(&p->n->memory, p, (size_t)padded(p, count));
  for (int i = 0; kept && i < count; i++) kept[i] = values[i] * (times ? times[i] : 1) / (over ? over[i] : 1);
  return kept;
}

/* Scales of an activation's channels from the plan's ranges, from index `first` on: 1 for float elements. */
static float *scales(packer *p, size_t first, int channels) {
  float *s = take_floats(&p->scratch, p, (size_t)channels), most = 1e-6f;
  if (!s) return NULL;
  for (int c = 0; c < channels; c++) {
    s[c] = 1;
    if (scaled(p)) memcpy(&s[c], p->p->ranges + (first + (size_t)c) * sizeof *s, sizeof *s);
    most = fmaxf(most, s[c]);
  }
  for (int c = 0; scaled(p) && c < channels; c++) s[c] = fmaxf(s[c], most * LEAST_RANGE) / 255;
  return s;
}

/* Raise q[o] to what the weights of output o, each times its input's scale, need to fit into -127 to 127. */
static void fit(float *q, const float *weights, int outputs, int inputs, const float *in_scale) {
  for (int o = 0; o < outputs; o++)
    for (int k = 0; k < inputs; k++)
      q[o] = fmaxf(q[o], fabsf(weights[(size_t)o * inputs + k] * in_scale[k]) / 127);
}

static float *unit_steps(packer *p, int outputs) {
  float *q = take_floats(&p->scratch, p, (size_t)outputs);
  for (int o = 0; q && o < outputs; o++) q[o] = scaled(p) ? 1e-14f : 1;
  return q;
}

static uint16_t bfloat16(float x) {
  uint32_t bits;
  memcpy(&bits, &x, sizeof bits);
  return (uint16_t)((bits + 0x7fff + ((bits >> 16) & 1)) >> 16); /* to the nearest, ties to even */
}

/* An integer weight: four fill a lane as bytes, two as 16 bits. */
static void put_integer(void *packed, size_t at, int group, int w) {
  if (group == 4) ((int8_t *)packed)[at] = (int8_t)w;
  else ((int16_t *)packed)[at] = (int16_t)w;
}

/* Put a weight; returns the integer that it is for INT8. */
static int put_weight(void *packed, size_t at, const kernels *k, float w) {
  int integer = k->precision == REID_NATIVE_INT8 ? (int)fmaxf(-127, fminf(127, rintf(w))) : 0;
  if (k->precision == REID_NATIVE_INT8) put_integer(packed, at, k->group, integer);
  else if (k->group == 2) ((uint16_t *)packed)[at] = bfloat16(w);
  else ((float *)packed)[at] = w;
  return integer;
}

/* Weights [outputs][inputs] times the inputs' scales over q, for the kernels.  places: where an input lies in memory
 * (NULL: at its own number); groups: of inputs in memory.  With an offset each block begins with its first sums. */
static void *pack_1x1(packer *p, const float *weights, int outputs, int inputs, const float *in_scale, const float *q,
                      int groups) {
  const kernels *k = p->n->k;
  int total = padded(p, outputs) / k->lanes, first = 0, sums = k->offset != 0;
  size_t rows = (size_t)(groups + sums);
  char *packed = memory_take(&p->n->memory, (size_t)total * rows, (size_t)k->lanes * 4);
  p->failed |= !packed;
  if (p->failed) return NULL;
  for (int b = 0, vectors; (vectors = block_vectors(total, k->vectors, b)); b++, first += vectors) {
    for (int o = first * k->lanes; o < outputs && o < (first + vectors) * k->lanes; o++) {
      size_t begin = (size_t)first * rows + (size_t)(o / k->lanes - first);
      int sum = 0;
      for (int i = 0; i < inputs; i++) {
        size_t vector = begin + (size_t)(sums + i / k->group) * vectors;
        size_t at = (vector * k->lanes + o % k->lanes) * k->group + i % k->group;
        sum += put_weight(packed, at, k, weights[(size_t)o * inputs + i] * in_scale[i] / q[o]);
      }
      if (sums) ((int32_t *)(void *)packed)[begin * k->lanes + o % k->lanes] = sum * k->offset;
    }
  }
  return packed;
}

static int groups_of(const packer *p, int inputs) { return (inputs + p->n->k->group - 1) / p->n->k->group; }

/* A convolution of one map; bias: NULL for a raw one, whose steps `q` the caller folds elsewhere. */
static conv one_map(packer *p, const float *weights, int outputs, int inputs, int stride, const float *in_scale,
                    const float *bias, const float *out_scale, float **steps) {
  conv c = {.groups = groups_of(p, inputs), .stride = stride, .outputs = outputs, .out_stride = padded(p, outputs)};
  float *q = unit_steps(p, outputs);
  if (p->failed) return c;
  if (scaled(p)) fit(q, weights, outputs, inputs, in_scale);
  c.weights = c.weights2 = pack_1x1(p, weights, outputs, inputs, in_scale, q, c.groups);
  if (bias) {
    c.bias = keep(p, bias, outputs, NULL, out_scale);
    if (scaled(p)) c.scale = keep(p, q, outputs, NULL, out_scale);
  }
  if (steps) *steps = q;
  return c;
}

/* Restore, and project where the block changes its channels: one sum with one step for each output. */
static conv restore_and_project(packer *p, const network_block *b, const float *restore, const float *project,
                                int fused, const float *bias, const float *fused_scale, const float *in_scale,
                                const float *out_scale) {
  conv c = {.groups = groups_of(p, fused), .stride = b->fused_padded, .outputs = b->out, .out_stride = b->out_padded};
  float *q = unit_steps(p, b->out);
  if (p->failed) return c;
  if (scaled(p)) fit(q, restore, b->out, fused, fused_scale);
  if (scaled(p) && project) fit(q, project, b->out, b->in, in_scale);
  c.weights = c.weights2 = pack_1x1(p, restore, b->out, fused, fused_scale, q, c.groups);
  if (project) {
    c.groups2 = groups_of(p, b->in);
    c.stride2 = b->in_padded;
    c.weights2 = pack_1x1(p, project, b->out, b->in, in_scale, q, c.groups2);
  }
  c.bias = keep(p, bias, b->out, NULL, out_scale);
  if (scaled(p)) {
    c.scale = keep(p, q, b->out, NULL, out_scale);
    if (b->in == b->out) c.ratio = keep(p, in_scale, b->out, NULL, out_scale);
  }
  return c;
}

/* Depthwise weights [vector][9 taps, bias][lanes], times the pointwise layer's steps, over the output's scale. */
static float *pack_depthwise(packer *p, const float *weights, const float *bias, int channels, const float *steps,
                             const float *out_scale) {
  int lanes = p->n->k->lanes;
  float *packed = take_floats(&p->n->memory, p, (size_t)padded(p, channels) * 10);
  for (int c = 0; packed && c < channels; c++) {
    float *at = packed + (size_t)(c / lanes) * 10 * lanes + c % lanes;
    for (int tap = 0; tap < 9; tap++) at[tap * lanes] = weights[c * 9 + tap] * steps[c] / out_scale[c];
    at[9 * lanes] = bias[c] / out_scale[c];
  }
  return packed;
}

static void pack_streams(packer *p, network_block *b, const float *reduced_scale, float *stream_scale, size_t ranges) {
  float **depthwise = memory_take(&p->n->memory, (size_t)p->n->layers, sizeof *depthwise);
  b->pointwise = memory_take(&p->n->memory, (size_t)p->n->layers, sizeof *b->pointwise);
  b->depthwise = depthwise;
  p->failed |= !depthwise || !b->pointwise;
  for (int s = 0, layer = 0; !p->failed && s < (int)p->n->header.streams; s++) {
    const float *in = reduced_scale;
    for (int i = 0; !p->failed && i < (int)p->n->header.lengths[s]; i++, layer++) {
      float *pointwise = next(p, (size_t)b->middle * b->middle), *taps = next(p, (size_t)b->middle * 9);
      float *bias = next(p, (size_t)b->middle), *steps = NULL;
      float *out = scales(p, ranges + (size_t)layer * b->middle, b->middle);
      if (p->failed) return;
      b->pointwise[layer] = one_map(p, pointwise, b->middle, b->middle, b->middle_padded, in, NULL, NULL, &steps);
      if (p->failed) return;
      depthwise[layer] = pack_depthwise(p, taps, bias, b->middle, steps, out);
      in = out;
    }
    if (!p->failed) memcpy(stream_scale + (size_t)s * b->middle_padded, in, (size_t)b->middle * sizeof *in);
  }
}

static void pack_gates(packer *p, network_block *b) {
  int fusion = (int)p->n->header.fusion, streams = (int)p->n->header.streams;
  int gates = fusion == FUSION_ONE_GATE ? 1 : fusion == FUSION_GATE_EACH ? streams : 0;
  for (int s = 0; gates && s < streams && !p->failed; s++) {
    int from = s < gates ? -1 : 0; /* a gate that all share is packed once */
    if (from < 0) {
      float *fc1 = next(p, (size_t)b->hidden * b->middle), *bias1 = next(p, (size_t)b->hidden);
      float *fc2 = next(p, (size_t)b->middle * b->hidden), *bias2 = next(p, (size_t)b->middle);
      if (p->failed) return;
      b->fc1[s] = keep(p, fc1, b->hidden * b->middle, NULL, NULL);
      b->fc1_bias[s] = keep(p, bias1, b->hidden, NULL, NULL);
      b->fc2[s] = keep(p, fc2, b->middle * b->hidden, NULL, NULL);
      b->fc2_bias[s] = keep(p, bias2, b->middle, NULL, NULL);
    } else {
      b->fc1[s] = b->fc1[from], b->fc1_bias[s] = b->fc1_bias[from];
      b->fc2[s] = b->fc2[from], b->fc2_bias[s] = b->fc2_bias[from];
    }
  }
}

/* Spread fused channels of concatenated streams to the places that they have in memory, padded stream by stream. */
static float *spread(packer *p, const network_block *b, const float *values, int rows) {
  int streams = (int)p->n->header.streams;
  float *wide = take_floats(&p->scratch, p, (size_t)rows * b->fused_padded);
  for (int r = 0; wide && r < rows; r++)
    for (int s = 0; s < streams; s++)
      memcpy(wide + (size_t)r * b->fused_padded + (size_t)s * b->middle_padded,
             values + ((size_t)r * streams + s) * b->middle, (size_t)b->middle * sizeof *wide);
  return wide;
}

static void fused_factor(packer *p, network_block *b, const float *scale, int channels) {
  float *factor = take_floats(&p->n->memory, p, (size_t)b->fused_padded);
  for (int c = 0; factor && c < channels; c++) factor[c] = scale[c] ? 1 / scale[c] : 0;
  b->fused_factor = factor;
}

static void pack_tail(packer *p, network_block *b, const float *in_scale, const float *out_scale, size_t ranges) {
  int concatenated = p->n->header.fusion == FUSION_CONCATENATION, streams = (int)p->n->header.streams;
  int fused = concatenated ? streams * b->middle : b->middle;
  float *fused_scale = scales(p, ranges, fused);
  float *restore = next(p, (size_t)b->out * fused), *bias = next(p, (size_t)b->out);
  if (concatenated && !p->failed) {
    restore = spread(p, b, restore, b->out);
    fused_scale = spread(p, b, fused_scale, 1);
    fused = b->fused_padded;
  }
  float *project = b->in != b->out ? next(p, (size_t)b->out * b->in) : NULL;
  float *project_bias = project ? next(p, (size_t)b->out) : NULL;
  if (p->failed) return;
  int before_sum = b->norm == NORM_BEFORE_SUM; /* which must not see the projected input */
  for (int o = 0; project && !before_sum && o < b->out; o++) bias[o] += project_bias[o];
  fused_factor(p, b, fused_scale, fused);
  /* A norm takes the sum as it is, and gives it the output's scale. */
  float *ones = unit_steps(p, b->out);
  if (p->failed) return;
  for (int o = 0; o < b->out; o++) ones[o] = 1;
  if (before_sum && project) {
    b->project = one_map(p, project, b->out, b->in, b->in_padded, in_scale, project_bias, out_scale, NULL);
    project = NULL;
  }
  b->restore = restore_and_project(p, b, restore, project, fused, bias, fused_scale, in_scale,
                                   b->norm ? ones : out_scale);
  if (!b->norm) return;
  float *gamma = next(p, (size_t)b->out), *beta = next(p, (size_t)b->out);
  if (p->failed) return;
  b->gamma = keep(p, gamma, b->out, NULL, out_scale);
  b->beta = keep(p, beta, b->out, NULL, out_scale);
  if (b->in == b->out) b->ratio = keep(p, in_scale, b->out, NULL, out_scale);
}

static void pack_after(packer *p, network_block *b, const float *out_scale, size_t ranges) {
  if (b->then == THEN_BLOCK) return;
  float *weights = next(p, (size_t)b->out * b->out), *bias = next(p, (size_t)b->out);
  float *ones = unit_steps(p, b->out);
  if (p->failed) return;
  for (int o = 0; o < b->out; o++) ones[o] = 1;
  b->after = one_map(p, weights, b->out, b->out, b->out_padded, out_scale, bias, ones, NULL);
  if (b->then == THEN_FEATURE) return;
  float *pooled = scales(p, ranges, b->out), *quarters = unit_steps(p, b->out);
  if (p->failed) return;
  for (int o = 0; o < b->out; o++) quarters[o] = 0.25f;
  b->pool_factors = keep(p, quarters, b->out, NULL, pooled);
}

/* Pack a block whose input has the given scales; returns those of what it hands on. */
static const float *pack_block(packer *p, network_block *b, const float *in_scale) {
  int fused = p->n->header.fusion == FUSION_CONCATENATION ? (int)p->n->header.streams * b->middle : b->middle;
  size_t reduced = b->ranges, layers = reduced + (size_t)b->middle;
  size_t fused_at = layers + (size_t)p->n->layers * b->middle, out = fused_at + (size_t)fused, pooled = out + b->out;
  float *reduced_scale = scales(p, reduced, b->middle), *out_scale = scales(p, out, b->out);
  float *weights = next(p, (size_t)b->middle * b->in), *bias = next(p, (size_t)b->middle);
  float *stream_scale = take_floats(&p->n->memory, p, (size_t)p->n->header.streams * b->middle_padded);
  if (p->failed) return NULL;
  b->reduce = one_map(p, weights, b->middle, b->in, b->in_padded, in_scale, bias, reduced_scale, NULL);
  pack_streams(p, b, reduced_scale, stream_scale, layers);
  b->stream_scale = stream_scale;
  if (!p->failed) pack_gates(p, b);
  if (!p->failed) pack_tail(p, b, in_scale, out_scale, fused_at);
  if (!p->failed) pack_after(p, b, out_scale, pooled);
  return b->then == THEN_TRANSITION ? scales(p, pooled, b->out) : out_scale;
}

/* The stem's weights in the order of its taps in a row of the image, [outputs][7 rows][7 pixels x BGR]. */
static float *by_rows(packer *p, const float *weights, int outputs) {
  float *ordered = take_floats(&p->scratch, p, (size_t)outputs * STEM_SIDE * STEM_ROW);
  for (int o = 0; ordered && o < outputs; o++)
    for (int c = 0; c < 3; c++)
      for (int y = 0; y < STEM_SIDE; y++)
        for (int x = 0; x < STEM_SIDE; x++)
          ordered[((size_t)o * STEM_SIDE + y) * STEM_ROW + x * 3 + c] =
              weights[(((size_t)o * 3 + c) * STEM_SIDE + y) * STEM_SIDE + x];
  return ordered;
}

/* Weights [block][7 x 21 taps][vectors of the block][lanes], for stem_float.inc. */
static void pack_float_stem(packer *p, const float *weights, const float *bias, const float *out_scale) {
  network *n = p->n;
  int lanes = n->k->lanes, outputs = n->stem.outputs, total = padded(p, outputs) / lanes, first = 0;
  enum { TAPS = STEM_SIDE * STEM_ROW };
  float *packed = take_floats(&n->memory, p, (size_t)total * TAPS * lanes);
  for (int b = 0, vectors; packed && (vectors = block_vectors(total, n->k->vectors, b)); b++, first += vectors)
    for (int o = first * lanes; o < outputs && o < (first + vectors) * lanes; o++)
      for (int tap = 0; tap < TAPS; tap++)
        packed[((size_t)first * TAPS + (size_t)tap * vectors + (o / lanes - first)) * lanes + o % lanes] =
            weights[(size_t)o * TAPS + tap] / out_scale[o];
  n->stem.weights = packed;
  n->stem_bias = keep(p, bias, outputs, NULL, out_scale);
  n->stem_row_class = memory_take(&n->memory, (size_t)n->stem_height, 1);
  p->failed |= !n->stem_row_class;
}

/* Taps first to end - 1 of a stem's output lie in the image, along one side. */
typedef struct {
  int first, end;
} taps;

static taps taps_inside(int output, int side) {
  int before = STEM_PAD - 2 * output, after = side + STEM_PAD - 2 * output;
  return (taps){before > 0 ? before : 0, after < STEM_SIDE ? after : STEM_SIDE};
}

/* Give each output of one side a class, by its taps; returns how many there are. */
static int classes(uint8_t *class_of, taps found[STEM_SIDE * STEM_SIDE], int outputs, int side) {
  int count = 0;
  for (int o = 0; o < outputs; o++) {
    taps t = taps_inside(o, side);
    int i = 0;
    while (i < count && (found[i].first != t.first || found[i].end != t.end)) i++;
    if (i == count) found[count++] = t;
    class_of[o] = (uint8_t)i;
  }
  return count;
}

/* Integer weights for stem_bytes.inc, [vector](first sums)[7 rows][words][lanes][group]; `weights` become what these
 * stand for. */
static void pack_stem_bytes(packer *p, float *weights, const float *out_scale) {
  network *n = p->n;
  int lanes = n->k->lanes, outputs = n->stem.outputs, bytes = n->k->stem_bytes, group = n->k->stem_group;
  int split = bytes == 2 && group == 4; /* into two bytes */
  int words = (STEM_ROW + group - 1) / group, sums = n->k->offset != 0, rows = sums + STEM_SIDE * words;
  size_t packed = (size_t)n->stem_padded * rows * 4;
  char *high = memory_take(&n->memory, packed, 1), *low = memory_take(&n->memory, packed, 1);
  float *steps = unit_steps(p, outputs);
  p->failed |= !high || !low;
  for (int o = 0; !p->failed && o < outputs; o++) {
    float most = 1e-12f;
    size_t begin = (size_t)(o / lanes) * rows;
    int sum = 0;
    for (int i = 0; i < STEM_SIDE * STEM_ROW; i++) most = fmaxf(most, fabsf(weights[o * STEM_SIDE * STEM_ROW + i]));
    steps[o] = most / (bytes == 2 ? 127 * 128 : 127);
    for (int i = 0; i < STEM_SIDE * STEM_ROW; i++) {
      float *w = &weights[o * STEM_SIDE * STEM_ROW + i];
      int q = (int)rintf(*w / steps[o]), upper = split ? (int)rintf((float)q / 128) : q, y = i / STEM_ROW, x = i % STEM_ROW;
      size_t at = ((begin + (size_t)(sums + y * words + x / group)) * lanes + o % lanes) * group + x % group;
      put_integer(high, at, group, upper);
      put_integer(low, at, group, split ? q - 128 * upper : 0);
      sum += upper;
      *w = (float)q * steps[o];
    }
    if (sums) ((int32_t *)(void *)high)[begin * lanes + o % lanes] = sum * n->k->offset;
  }
  n->stem.weights = high;
  n->stem.weights_low = split ? low : NULL;
  if (!p->failed) n->stem.scale = keep(p, steps, outputs, NULL, out_scale);
}

/* Bias less the mean's part, which is that of the taps inside the image: the network pads with the mean. */
static float bias_without_mean(const network *n, const float *weights, float bias, taps rows, taps columns) {
  double sum = bias;
  for (int y = rows.first; y < rows.end; y++)
    for (int i = 3 * columns.first; i < 3 * columns.end; i++) sum -= (double)weights[y * STEM_ROW + i] * n->stem.mean_bgr[i % 3];
  return (float)sum;
}

static void pack_byte_stem(packer *p, float *weights, const float *bias, const float *out_scale) {
  network *n = p->n;
  taps rows[STEM_SIDE * STEM_SIDE], columns[STEM_SIDE * STEM_SIDE];
  uint8_t *row_class = memory_take(&n->memory, (size_t)n->stem_height, 1);
  uint8_t *column_class = memory_take(&n->memory, (size_t)n->stem_width, 1);
  p->failed |= !row_class || !column_class;
  pack_stem_bytes(p, weights, out_scale);
  if (p->failed) return;
  int row_classes = classes(row_class, rows, n->stem_height, (int)n->header.height);
  int column_classes = classes(column_class, columns, n->stem_width, (int)n->header.width);
  n->stem_class_floats = column_classes * n->stem_padded;
  float *all = take_floats(&n->memory, p, (size_t)row_classes * n->stem_class_floats);
  for (int r = 0; all && r < row_classes; r++)
    for (int c = 0; c < column_classes; c++)
      for (int o = 0; o < n->stem.outputs; o++)
        all[((size_t)r * column_classes + c) * n->stem_padded + o] =
            bias_without_mean(n, weights + (size_t)o * STEM_SIDE * STEM_ROW, bias[o], rows[r], columns[c]) / out_scale[o];
  n->stem_bias = all;
  n->stem_row_class = row_class;
  n->stem.column_class = column_class;
}

static const float *pack_stem(packer *p) {
  network *n = p->n;
  int outputs = n->stem.outputs, normed = (int)n->header.stem_norm;
  float *scale = scales(p, 0, outputs), *raw = next(p, (size_t)outputs * 3 * STEM_SIDE * STEM_SIDE);
  float *bias = next(p, (size_t)outputs), *ones = unit_steps(p, outputs);
  if (p->failed) return NULL;
  float *weights = by_rows(p, raw, outputs);
  for (int o = 0; o < outputs; o++) ones[o] = 1;
  if (p->failed) return NULL;
  if (n->k->stem_bytes) pack_byte_stem(p, weights, bias, normed ? ones : scale);
  else pack_float_stem(p, weights, bias, normed ? ones : scale);
  if (normed) {
    float *gamma = next(p, (size_t)outputs), *beta = next(p, (size_t)outputs);
    if (p->failed) return NULL;
    n->stem_gamma = keep(p, gamma, outputs, NULL, scale);
    n->stem_beta = keep(p, beta, outputs, NULL, scale);
  }
  return scale;
}

static void pack_feature(packer *p, int inputs) {
  network *n = p->n;
  int lanes = n->k->lanes, outputs = (int)n->header.feature_dim;
  float *weights = next(p, (size_t)outputs * inputs), *bias = next(p, (size_t)outputs);
  n->fc_vectors = padded(p, outputs) / lanes;
  float *packed = take_floats(&n->memory, p, (size_t)n->fc_vectors * inputs * lanes);
  if (p->failed) return;
  for (int o = 0; o < outputs; o++)
    for (int i = 0; i < inputs; i++)
      packed[((size_t)(o / lanes) * inputs + i) * lanes + o % lanes] = weights[(size_t)o * inputs + i];
  n->fc = packed;
  n->fc_bias = keep(p, bias, outputs, NULL, NULL);
}

int pack_network(network *n, const plan *plan) {
  packer p = {.n = n, .p = plan, .weights = plan->weights};
  const float *scale = pack_stem(&p);
  int blocks = (int)n->header.blocks;
  for (int i = 0; i < blocks && !p.failed; i++) scale = pack_block(&p, &n->blocks[i], scale);
  if (!p.failed) pack_feature(&p, n->blocks[blocks - 1].out);
  memory_free(&p.scratch);
  return p.failed ? REID_NATIVE_NO_MEMORY : REID_NATIVE_OK;
}
