/* Runs a network on one crop, by rows, as a team of threads.
 *
 *   stem     image rows, resized -> 7x7 rows -> max pool -> the first block's reduce, one row after another: no map of the 7x7
 *            convolution is ever stored
 *   streams  each stream of a block is one pipeline: a row enters its first pointwise layer, and the rows behind it go
 *            through all its layers in line buffers of three rows
 *   tail     some rows at a time: gated sum, restore + project or identity, ReLU, then the next block's reduce, or the
 *            transition, its pool and the next reduce, or conv5 and its mean
 *
 * Between the three the members wait for one another, since a gate needs the means of whole maps.  Within them each has
 * rows, or streams, of its own.  Sums over a map are made in pieces that depend on the map alone and added up in order,
 * so that the number of threads changes no bit of a feature. */
#include <math.h>
#include <string.h>

#include "network.h"

typedef struct {
  const network *n;
  crop_scratch *crop;
  thread_scratch *mine;
  team_member who;
  float *ranges; /* NULL, or where the largest values go */
  int current;   /* which map holds the block's input */
} run;

static void *at(const run *r, void *map, size_t pixel, int padded) {
  return (char *)map + pixel * padded * r->n->k->element;
}

static const void *constant_at(const run *r, const void *map, size_t pixel, int padded) {
  return (const char *)map + pixel * padded * r->n->k->element;
}

/* First of a member's shares of `count` things; the next member's first ends them. */
static int share(int count, int member, team_member who) { return (int)((long long)count * member / who.count); }

/* Raise ranges to the largest values of some pixels; only float elements have their values in memory. */
static void record(const run *r, const void *pixels, size_t count, int channels, int stride, size_t first) {
  if (!r->ranges) return;
  for (size_t p = 0; p < count; p++)
    for (int c = 0; c < channels; c++)
      r->ranges[first + c] = fmaxf(r->ranges[first + c], ((const float *)pixels)[p * stride + c]);
}

static void wait_for_all(const run *r) {
  int entered = clock_enter(r->mine->clock, REID_NATIVE_WAITING);
  team_wait(r->who);
  clock_leave(r->mine->clock, entered);
}

/* ---- statistics of whole maps ---- */

/* mean[c] = sum of `pieces` partial sums over `pixels`; 0 in the padding, where other blocks have left numbers. */
static void mean_of(const float *partial, int pieces, int channels, int padded, double pixels, float *mean) {
  for (int c = 0; c < channels; c++) {
    double total = 0;
    for (int i = 0; i < pieces; i++) total += partial[(size_t)i * padded + c];
    mean[c] = (float)(total / pixels);
  }
  memset(mean + channels, 0, (size_t)(padded - channels) * sizeof *mean);
}

/* Instance norm as a factor and a summand: gamma (x - mean) / sqrt(variance + epsilon) + beta.  Padding stays 0. */
static void norm_factors(const run *r, int pieces, int channels, int padded, double pixels, const float *gamma,
                         const float *beta) {
  thread_scratch *m = r->mine;
  mean_of(r->crop->partial[0], pieces, channels, padded, pixels, m->mean);
  mean_of(r->crop->partial[1], pieces, channels, padded, pixels, m->scale);
  for (int c = 0; c < channels; c++) {
    m->scale[c] = gamma[c] / sqrtf(m->scale[c] + r->n->header.norm_epsilon);
    m->shift[c] = beta[c] - m->mean[c] * m->scale[c];
  }
  memset(m->shift + channels, 0, (size_t)(padded - channels) * sizeof *m->shift);
}

/* ---- the stem ---- */

static void *image_row(const run *r, int y) { return (char *)r->mine->image_rows + (y & 7) * r->n->image_stride; }

static void *stem_row(const run *r, int y) {
  return at(r, r->mine->stem_rows, (size_t)(y % 3) * r->n->stem_width, r->n->stem_padded);
}

/* Row y of the resized image. */
static const uint8_t *pixel_row(const run *r, int y) {
  int entered = clock_enter(r->mine->clock, REID_NATIVE_RESIZING);
  const uint8_t *row = resizer_row(&r->mine->resizer, y);
  clock_leave(r->mine->clock, entered);
  return row;
}

/* Compute one row of the 7x7 convolution.  loaded: image rows before this one are in the ring, the last eight of them. */
static void convolve_row(const run *r, int *loaded, int y, int linear, void *out) {
  const network *n = r->n;
  int height = (int)n->header.height, last = 2 * y + STEM_PAD < height ? 2 * y + STEM_PAD : height - 1;
  const void *rows[STEM_SIDE];
  for (; *loaded <= last; ++*loaded) n->k->image_row(&n->stem, pixel_row(r, *loaded), image_row(r, *loaded));
  for (int i = 0; i < STEM_SIDE; i++) {
    int from = 2 * y - STEM_PAD + i;
    rows[i] = from < 0 || from >= height ? r->mine->zero_row : image_row(r, from);
  }
  n->k->stem_row(&n->stem, rows, n->stem_bias + (size_t)n->stem_row_class[y] * n->stem_class_floats, linear, out);
}

static int first_image_row(int stem_row) {
  int first = 2 * stem_row - STEM_PAD;
  return first > 0 ? first : 0;
}

/* Pool three rows of the stem into row y of the first block's input, and reduce that row. */
static void pool_and_reduce(const run *r, int y) {
  const network *n = r->n;
  const network_block *b = &n->blocks[0];
  int above = y ? 2 * y - 1 : 0, below = 2 * y + 1 < n->stem_height ? 2 * y + 1 : 2 * y;
  const void *rows[3] = {stem_row(r, above), stem_row(r, 2 * y), stem_row(r, below)};
  void *out = at(r, r->crop->map[0], (size_t)y * n->width, n->stem_padded);
  void *reduced = at(r, r->crop->reduced, (size_t)y * n->width, b->middle_padded);
  n->k->max_pool_row(rows, n->stem_width, n->width, n->stem.outputs, out);
  record(r, out, (size_t)n->width, n->stem.outputs, n->stem_padded, 0);
  n->k->conv(&b->reduce, out, NULL, NULL, n->width, END_ELEMENT, reduced);
  record(r, reduced, (size_t)n->width, b->middle, b->middle_padded, b->ranges);
}

static float *linear_row(const run *r, int y) {
  return r->crop->linear + (size_t)y * r->n->stem_width * r->n->stem_padded;
}

static float *partial_at(const run *r, int which, int piece, int padded) {
  float *sums = r->crop->partial[which] + (size_t)piece * padded;
  memset(sums, 0, (size_t)padded * sizeof *sums);
  return sums;
}

/* The 7x7 convolution of the whole image, its mean and its variance: an instance norm needs them before any row. */
static void stem_statistics(const run *r) {
  const network *n = r->n;
  int height = n->stem_height, first = share(height, r->who.index, r->who), end = share(height, r->who.index + 1, r->who);
  int loaded = first_image_row(first);
  for (int y = first; y < end; y++) {
    convolve_row(r, &loaded, y, 1, linear_row(r, y));
    n->k->add_pixels(linear_row(r, y), n->stem_width, n->stem.outputs, NULL, partial_at(r, 0, y, n->stem_padded));
  }
  wait_for_all(r);
  double places = (double)height * n->stem_width;
  mean_of(r->crop->partial[0], height, n->stem.outputs, n->stem_padded, places, r->mine->mean);
  for (int y = first; y < end; y++)
    n->k->add_pixels(linear_row(r, y), n->stem_width, n->stem.outputs, r->mine->mean,
                     partial_at(r, 1, y, n->stem_padded));
  wait_for_all(r);
  norm_factors(r, height, n->stem.outputs, n->stem_padded, places, n->stem_gamma, n->stem_beta);
}

static void run_stem(const run *r) {
  const network *n = r->n;
  int first = share(n->height, r->who.index, r->who), end = share(n->height, r->who.index + 1, r->who);
  if (n->header.stem_norm) stem_statistics(r);
  int next = first ? 2 * first - 1 : 0; /* row of the convolution */
  int loaded = first_image_row(next);
  for (int y = first; y < end; y++) {
    for (; next <= 2 * y + 1 && next < n->stem_height; next++) {
      if (n->header.stem_norm)
        n->k->normalise(linear_row(r, next), n->stem_width, n->stem.outputs, r->mine->scale, r->mine->shift, NULL, NULL,
                        NULL, stem_row(r, next));
      else convolve_row(r, &loaded, next, 0, stem_row(r, next));
    }
    pool_and_reduce(r, y);
  }
}

/* ---- streams ---- */

static int clipped(int row, int height) { return row < 0 ? 0 : row > height ? height : row; }

/* Rows `from` to `to` - 1 of a stream. */
typedef struct {
  int stream, first, length; /* its number, that of its first layer, and how many it has */
  int from, to;
} stream_rows;

/* Where the sums of the piece that holds a row are; zeros at its first row. */
static float *piece_sums(const run *r, const network_block *b, int stream, int row) {
  float *sums = r->crop->sums + ((size_t)stream * b->pieces + (size_t)(row / b->piece)) * b->middle_padded;
  if (row % b->piece == 0) memset(sums, 0, (size_t)b->middle_padded * sizeof *sums);
  return sums;
}

/* Compute rows of a stream.  Each layer computes as many rows more, above and below, as those behind it need. */
static void run_stream(const run *r, const network_block *b, const stream_rows *s) {
  const kernels *k = r->n->k;
  const int length = s->length, stride = b->middle_padded, height = b->height;
  const size_t row = (size_t)(b->width + 2) * stride;
  float *zero = r->mine->ring + (size_t)length * 3 * row;
  memset(zero, 0, row * sizeof *zero); /* another block's rows may have been here */
  for (int layer = 0; layer < length * 3; layer++) { /* pixels of zeros on both sides of each row */
    memset(r->mine->ring + layer * row, 0, (size_t)stride * sizeof *zero);
    memset(r->mine->ring + layer * row + row - stride, 0, (size_t)stride * sizeof *zero);
  }
  for (int t = clipped(s->from - length, height); t < s->to + length; t++) {
    const void *in = t < height ? constant_at(r, r->crop->reduced, (size_t)t * b->width, stride) : NULL;
    for (int layer = 0; layer < length; layer++) {
      float *ring = r->mine->ring + (size_t)layer * 3 * row + stride;
      int entering = t - layer, leaving = entering - 1; /* rows of the layer's input, and of its output */
      int more = length - layer, first = clipped(s->from - more, height);
      if (entering < first) break;
      if (entering < clipped(s->to + more, height))
        k->conv(&b->pointwise[s->first + layer], in, NULL, NULL, b->width, END_RAW, ring + (entering % 3) * row);
      if (leaving < clipped(s->from - more + 1, height)) break;
      if (leaving >= clipped(s->to + more - 1, height)) continue;
      const float *rows[3] = {leaving ? ring + ((leaving - 1) % 3) * row : zero + stride, ring + (leaving % 3) * row,
                              entering < height ? ring + (entering % 3) * row : zero + stride};
      int last = layer + 1 == length;
      void *out = last ? at(r, r->crop->streams[s->stream], (size_t)leaving * b->width, stride) : r->mine->between[layer & 1];
      k->depthwise_row(rows, b->depthwise[s->first + layer], b->middle, b->width, out,
                       last ? piece_sums(r, b, s->stream, leaving) : NULL);
      record(r, out, (size_t)b->width, b->middle, stride, b->ranges + (size_t)b->middle * (1 + s->first + layer));
      in = out;
    }
  }
}

/* The i-th stream by length: the longest, then the shortest, the next longest and so on, so that neighbours together
 * have much the same to do. */
static int nth_stream(const network *n, int nth) {
  const uint32_t *lengths = n->header.lengths;
  int streams = (int)n->header.streams, ranked[MAX_STREAMS];
  for (int s = 0; s < streams; s++) {
    int rank = 0;
    for (int other = 0; other < streams; other++)
      rank += lengths[other] > lengths[s] || (lengths[other] == lengths[s] && other < s);
    ranked[rank] = s;
  }
  return ranked[nth % 2 ? streams - 1 - nth / 2 : nth / 2];
}

/* All streams' pieces lie in a line, each as long as its stream has layers.  A member computes those of its share of
 * the line, whose ends are moved to the nearest end of a piece. */
static void run_streams(const run *r, const network_block *b) {
  const network *n = r->n;
  int line = n->layers * b->pieces, begin = share(line, r->who.index, r->who), end = share(line, r->who.index + 1, r->who);
  for (int i = 0, place = 0; i < (int)n->header.streams; i++) {
    stream_rows s = {.stream = nth_stream(n, i)};
    for (int other = 0; other < s.stream; other++) s.first += (int)n->header.lengths[other];
    s.length = (int)n->header.lengths[s.stream];
    s.from = clipped((begin - place + s.length / 2) / s.length, b->pieces) * b->piece;
    s.to = clipped(clipped((end - place + s.length / 2) / s.length, b->pieces) * b->piece, b->height);
    if (s.from < s.to) run_stream(r, b, &s);
    place += s.length * b->pieces;
  }
}

/* A stream's gates from its means: sigmoid(fc2 relu(fc1 mean)). */
static void gate(const network_block *b, int s, const float *mean, float *gates) {
  for (int c = 0; c < b->middle; c++) gates[c] = b->fc2_bias[s][c];
  for (int h = 0; h < b->hidden; h++) {
    float sum = b->fc1_bias[s][h];
    for (int c = 0; c < b->middle; c++) sum += b->fc1[s][(size_t)h * b->middle + c] * mean[c];
    for (int c = 0; sum > 0 && c < b->middle; c++) gates[c] += b->fc2[s][(size_t)c * b->hidden + h] * sum;
  }
  for (int c = 0; c < b->middle; c++) gates[c] = 1 / (1 + expf(-gates[c]));
}

/* Factors of all streams in the fused sum.  Every member computes them, which takes less than to wait for one. */
static void run_gates(const run *r, const network_block *b) {
  int fusion = (int)r->n->header.fusion, stride = b->middle_padded;
  int entered = clock_enter(r->mine->clock, REID_NATIVE_GATES);
  float *mean = r->mine->mean;
  for (int s = 0; s < (int)r->n->header.streams; s++) {
    const float *scale = b->stream_scale + (size_t)s * stride, *sums = r->crop->sums + (size_t)s * b->pieces * stride;
    const float *fused = b->fused_factor + (fusion == FUSION_CONCATENATION ? (size_t)s * stride : 0);
    float *gates = r->mine->gates + (size_t)s * stride;
    memset(mean, 0, (size_t)stride * sizeof *mean);
    r->n->k->add_pixels(sums, b->pieces, b->middle, NULL, mean);
    for (int c = 0; c < b->middle; c++) mean[c] *= scale[c] / (float)(b->height * b->width), gates[c] = 1;
    if (fusion == FUSION_ONE_GATE || fusion == FUSION_GATE_EACH) gate(b, s, mean, gates);
    for (int c = 0; c < b->middle; c++) gates[c] *= scale[c] * fused[c];
  }
  clock_leave(r->mine->clock, entered);
}

/* ---- the tail of a block ---- */

static void fuse(const run *r, const network_block *b, size_t pixel, int pixels) {
  const kernels *k = r->n->k;
  int streams = (int)r->n->header.streams, stride = b->middle_padded;
  const void *maps[MAX_STREAMS];
  size_t ranges = b->ranges + (size_t)b->middle * (1 + (size_t)r->n->layers);
  for (int s = 0; s < streams; s++) maps[s] = constant_at(r, r->crop->streams[s], pixel, stride);
  if (r->n->header.fusion != FUSION_CONCATENATION) {
    k->gated_sum(maps, streams, r->mine->gates, b->middle, pixels, stride, r->mine->fused);
    record(r, r->mine->fused, (size_t)pixels, b->middle, stride, ranges);
    return;
  }
  for (int s = 0; s < streams; s++) {
    void *out = at(r, r->mine->fused, 1, s * stride);
    k->gated_sum(maps + s, 1, r->mine->gates + (size_t)s * stride, b->middle, pixels, b->fused_padded, out);
    record(r, out, (size_t)pixels, b->middle, b->fused_padded, ranges + (size_t)s * b->middle);
  }
}

/* The next block's reduce, of pixels of its input. */
static void reduce_next(const run *r, const network_block *next, size_t pixel, int pixels, const void *in) {
  void *out = at(r, r->crop->reduced, pixel, next->middle_padded);
  r->n->k->conv(&next->reduce, in, NULL, NULL, pixels, END_ELEMENT, out);
  record(r, out, (size_t)pixels, next->middle, next->middle_padded, next->ranges);
}

/* What comes after a chunk of a block's output: `rows` rows from row y on. */
static void hand_on(const run *r, const network_block *b, int chunk, int y, int rows, const void *out) {
  const kernels *k = r->n->k;
  const network_block *next = b + 1;
  size_t maps = 1 + (size_t)r->n->layers + (r->n->header.fusion == FUSION_CONCATENATION ? r->n->header.streams : 1);
  size_t ranges = b->ranges + (size_t)b->middle * maps;
  record(r, out, (size_t)rows * b->width, b->out, b->out_padded, ranges);
  if (b->then == THEN_BLOCK) {
    reduce_next(r, next, (size_t)y * b->width, rows * b->width, out);
    return;
  }
  k->conv(&b->after, out, NULL, NULL, rows * b->width, END_FLOAT, r->mine->floats);
  if (b->then == THEN_FEATURE) {
    k->add_pixels(r->mine->floats, rows * b->width, b->out, NULL, partial_at(r, 0, chunk, b->out_padded));
    return;
  }
  void *pooled = at(r, r->crop->map[!r->current], (size_t)(y / 2) * next->width, b->out_padded);
  for (int i = 0; i + 2 <= rows; i += 2) {
    const float *upper = r->mine->floats + (size_t)i * b->width * b->out_padded;
    k->average_pool_row(upper, upper + (size_t)b->width * b->out_padded, next->width, b->out, b->pool_factors,
                        at(r, pooled, (size_t)(i / 2) * next->width, b->out_padded));
  }
  record(r, pooled, (size_t)(rows / 2) * next->width, b->out, b->out_padded, ranges + (size_t)b->out);
  reduce_next(r, next, (size_t)(y / 2) * next->width, rows / 2 * next->width, pooled);
}

/* Where a chunk of a block's output goes: into the next block's input, or, before a pool or the mean, nowhere. */
static void *chunk_out(const run *r, const network_block *b, size_t pixel) {
  return b->then == THEN_BLOCK ? at(r, r->crop->map[!r->current], pixel, b->out_padded) : r->mine->out;
}

static int chunk_rows(const network_block *b, int chunk) {
  int left = b->height - chunk * b->chunk;
  return left < b->chunk ? left : b->chunk;
}

static void plain_chunk(const run *r, const network_block *b, int chunk) {
  int y = chunk * b->chunk, rows = chunk_rows(b, chunk), pixels = rows * b->width;
  size_t pixel = (size_t)y * b->width;
  const void *in = constant_at(r, r->crop->map[r->current], pixel, b->in_padded);
  void *out = chunk_out(r, b, pixel);
  fuse(r, b, pixel, pixels);
  r->n->k->conv(&b->restore, r->mine->fused, in, b->in == b->out ? in : NULL, pixels, END_ELEMENT, out);
  hand_on(r, b, chunk, y, rows, out);
}

/* Restore a chunk into the whole map that is then normalised, and add up its pixels. */
static void linear_chunk(const run *r, const network_block *b, int chunk) {
  int pixels = chunk_rows(b, chunk) * b->width, summed = b->norm == NORM_AFTER_SUM;
  size_t pixel = (size_t)chunk * b->chunk * b->width;
  const void *in = constant_at(r, r->crop->map[r->current], pixel, b->in_padded);
  float *linear = r->crop->linear + pixel * b->out_padded;
  fuse(r, b, pixel, pixels);
  r->n->k->conv(&b->restore, r->mine->fused, in, summed && b->in == b->out ? in : NULL, pixels, END_LINEAR, linear);
  r->n->k->add_pixels(linear, pixels, b->out, NULL, partial_at(r, 0, chunk, b->out_padded));
}

static void square_chunk(const run *r, const network_block *b, int chunk) {
  size_t pixel = (size_t)chunk * b->chunk * b->width;
  r->n->k->add_pixels(r->crop->linear + pixel * b->out_padded, chunk_rows(b, chunk) * b->width, b->out, r->mine->mean,
                      partial_at(r, 1, chunk, b->out_padded));
}

static void normalise_chunk(const run *r, const network_block *b, int chunk) {
  const kernels *k = r->n->k;
  int y = chunk * b->chunk, rows = chunk_rows(b, chunk), pixels = rows * b->width;
  size_t pixel = (size_t)y * b->width;
  const void *in = constant_at(r, r->crop->map[r->current], pixel, b->in_padded), *identity = NULL;
  const float *addend = NULL;
  void *out = chunk_out(r, b, pixel);
  if (b->norm == NORM_BEFORE_SUM && b->in == b->out) identity = in;
  else if (b->norm == NORM_BEFORE_SUM) {
    k->conv(&b->project, in, NULL, NULL, pixels, END_LINEAR, r->mine->floats);
    addend = r->mine->floats;
  }
  k->normalise(r->crop->linear + pixel * b->out_padded, pixels, b->out, r->mine->scale, r->mine->shift, identity,
               b->ratio, addend, out);
  hand_on(r, b, chunk, y, rows, out);
}

static void run_tail(const run *r, const network_block *b) {
  int first = share(b->chunks, r->who.index, r->who), end = share(b->chunks, r->who.index + 1, r->who);
  if (!b->norm) {
    for (int i = first; i < end; i++) plain_chunk(r, b, i);
    return;
  }
  double places = (double)b->height * b->width;
  for (int i = first; i < end; i++) linear_chunk(r, b, i);
  wait_for_all(r);
  mean_of(r->crop->partial[0], b->chunks, b->out, b->out_padded, places, r->mine->mean);
  for (int i = first; i < end; i++) square_chunk(r, b, i);
  wait_for_all(r);
  norm_factors(r, b->chunks, b->out, b->out_padded, places, b->gamma, b->beta);
  if (b->then == THEN_FEATURE) wait_for_all(r); /* the means of conv5 go where these sums are */
  for (int i = first; i < end; i++) normalise_chunk(r, b, i);
}

static void run_feature(const run *r, float *feature) {
  const network *n = r->n;
  const network_block *b = &n->blocks[n->header.blocks - 1];
  int lanes = n->k->lanes, dim = (int)n->header.feature_dim;
  int entered = clock_enter(r->mine->clock, REID_NATIVE_GATES);
  int first = share(n->fc_vectors, r->who.index, r->who), end = share(n->fc_vectors, r->who.index + 1, r->who);
  mean_of(r->crop->partial[0], b->chunks, b->out, b->out_padded, (double)b->height * b->width, r->mine->mean);
  n->k->dense(r->mine->mean, n->fc + (size_t)first * b->out * lanes, n->fc_bias + first * lanes, b->out, end - first,
              r->mine->floats);
  int from = first * lanes, to = end * lanes < dim ? end * lanes : dim;
  if (to > from) memcpy(feature + from, r->mine->floats, (size_t)(to - from) * sizeof *feature);
  clock_leave(r->mine->clock, entered);
}

void network_run(const network *n, crop_scratch *crop, thread_scratch *mine, team_member who, const picture *image,
                 float *feature, float *ranges) {
  run r = {.n = n, .crop = crop, .mine = mine, .who = who, .ranges = ranges};
  int entered = clock_enter(mine->clock, REID_NATIVE_RESIZING);
  resizer_start(&mine->resizer, image);
  clock_leave(mine->clock, entered);
  run_stem(&r);
  for (uint32_t i = 0; i < n->header.blocks; i++) {
    wait_for_all(&r);
    run_streams(&r, &n->blocks[i]);
    wait_for_all(&r);
    run_gates(&r, &n->blocks[i]);
    run_tail(&r, &n->blocks[i]);
    r.current = !r.current;
  }
  wait_for_all(&r);
  run_feature(&r, feature);
  wait_for_all(&r);
}
