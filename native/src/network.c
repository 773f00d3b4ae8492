/* Geometry and scratch memory of a network, packed by pack.c and run by run.c. */
#include "network.h"

#include "pack.h"

enum {
  CHUNK_PIXELS = 64, /* of a block's tail at a time: its maps then stay in the first caches */
  PIECES = 8,        /* of a stream, by which threads share it */
  IMAGE_RING = 8, STEM_RING = 3, ROW_RING = 3,
};

static int most(int a, int b) { return a > b ? a : b; }

static void set_stem(network *n) {
  const plan_header *h = &n->header;
  n->stem_height = (int)(h->height + 1) / 2;
  n->stem_width = (int)(h->width + 1) / 2;
  n->height = (n->stem_height + 1) / 2;
  n->width = (n->stem_width + 1) / 2;
  n->stem_padded = round_up((int)h->stem_channels, n->k->lanes);
  /* Two pixels more than the taps touch: byte kernels read whole words. */
  n->image_stride = (size_t)(h->width + 2 * STEM_PAD + 2) * 3 * (size_t)n->k->pixel;
  n->image_stride = (n->image_stride + 63) / 64 * 64;
  n->stem = (stem){.outputs = (int)h->stem_channels, .out_stride = n->stem_padded, .image_width = (int)h->width,
                   .out_width = n->stem_width};
  for (int c = 0; c < 3; c++) n->stem.mean_bgr[c] = h->mean_bgr[c];
}

static int fused_channels(const network *n, int middle) {
  return n->header.fusion == FUSION_CONCATENATION ? (int)n->header.streams * middle : middle;
}

static void set_block(network *n, network_block *b, const plan_block *from, int height, int width, size_t ranges) {
  int lanes = n->k->lanes;
  b->in = (int)from->in, b->middle = (int)from->middle, b->out = (int)from->out, b->hidden = (int)from->hidden;
  b->norm = (int)from->norm, b->then = (int)from->then;
  b->in_padded = round_up(b->in, lanes), b->middle_padded = round_up(b->middle, lanes);
  b->out_padded = round_up(b->out, lanes), b->fused_padded = fused_channels(n, b->middle_padded);
  b->height = height, b->width = width;
  b->chunk = most(1, CHUNK_PIXELS / width);
  if (b->then == THEN_TRANSITION) b->chunk = most(2, b->chunk / 2 * 2);
  b->chunks = (height + b->chunk - 1) / b->chunk;
  b->piece = (height + PIECES - 1) / PIECES;
  b->pieces = (height + b->piece - 1) / b->piece;
  b->ranges = ranges;
}

int network_make(network *n, const plan *p, const kernels *k, size_t memory_limit) {
  *n = (network){.k = k, .header = p->header, .layers = p->layers, .memory.limit = memory_limit};
  set_stem(n);
  n->blocks = memory_take(&n->memory, p->header.blocks, sizeof *n->blocks);
  if (!n->blocks) return REID_NATIVE_NO_MEMORY;
  int height = n->height, width = n->width;
  size_t ranges = p->header.stem_channels;
  for (uint32_t i = 0; i < p->header.blocks; i++) {
    network_block *b = &n->blocks[i];
    set_block(n, b, &p->blocks[i], height, width, ranges);
    ranges += (size_t)b->middle * (1 + (size_t)n->layers) + (size_t)fused_channels(n, b->middle) + (size_t)b->out;
    if (b->then == THEN_TRANSITION) height /= 2, width /= 2, ranges += (size_t)b->out;
  }
  return pack_network(n, p);
}

void network_free(network *n) { memory_free(&n->memory); }

/* Most of what any block needs of something. */
#define MOST_OF(n, what)                                                                  \
  ({                                                                                      \
    size_t most_ = 1;                                                                     \
    for (uint32_t i_ = 0; i_ < (n)->header.blocks; i_++) {                                \
      const network_block *b = &(n)->blocks[i_];                                          \
      size_t this_ = (size_t)(what);                                                      \
      if (this_ > most_) most_ = this_;                                                   \
    }                                                                                     \
    most_;                                                                                \
  })

/* As many floats of partial sums as the stem or a block has. */
static size_t partial_floats(const network *n) {
  size_t stem = (size_t)n->stem_height * n->stem_padded, blocks = MOST_OF(n, (size_t)b->chunks * b->out_padded);
  return n->header.stem_norm && stem > blocks ? stem : blocks;
}

static size_t linear_floats(const network *n) {
  size_t stem = (size_t)n->stem_height * n->stem_width * n->stem_padded;
  size_t blocks = MOST_OF(n, b->norm ? (size_t)b->height * b->width * b->out_padded : 0);
  return n->header.stem_norm && stem > blocks ? stem : blocks;
}

int crop_scratch_take(crop_scratch *s, const network *n, memory *m) {
  size_t element = (size_t)n->k->element, stem = (size_t)n->height * n->width * n->stem_padded;
  size_t map = MOST_OF(n, (size_t)b->height * b->width * (b->in_padded > b->out_padded ? b->in_padded : b->out_padded));
  size_t middle = MOST_OF(n, (size_t)b->height * b->width * b->middle_padded);
  int failed = 0;
  for (int i = 0; i < 2; i++) failed |= !(s->map[i] = memory_take(m, map > stem ? map : stem, element));
  failed |= !(s->reduced = memory_take(m, middle, element));
  for (uint32_t i = 0; i < n->header.streams; i++) failed |= !(s->streams[i] = memory_take(m, middle, element));
  failed |= !(s->linear = memory_take(m, linear_floats(n), sizeof(float)));
  failed |= !(s->sums = memory_take(m, MAX_STREAMS * MOST_OF(n, b->pieces * b->middle_padded), sizeof(float)));
  for (int i = 0; i < 2; i++) failed |= !(s->partial[i] = memory_take(m, partial_floats(n), sizeof(float)));
  return failed ? REID_NATIVE_NO_MEMORY : REID_NATIVE_OK;
}

int thread_scratch_take(thread_scratch *s, const network *n, memory *m) {
  size_t element = (size_t)n->k->element, lengths = 1;
  for (uint32_t i = 0; i < n->header.streams; i++)
    if (n->header.lengths[i] > lengths) lengths = n->header.lengths[i];
  size_t row = MOST_OF(n, (size_t)(b->width + 2) * b->middle_padded);
  size_t chunk = MOST_OF(n, (size_t)b->chunk * b->width * b->out_padded);
  size_t fused = MOST_OF(n, (size_t)b->chunk * b->width * b->fused_padded);
  size_t channels = MOST_OF(n, most(b->out_padded, b->middle_padded)), features = (size_t)n->fc_vectors * n->k->lanes;
  if (channels < (size_t)n->stem_padded) channels = (size_t)n->stem_padded;
  int failed = 0;
  failed |= resizer_take(&s->resizer, n->k, (int)n->header.height, (int)n->header.width, m);
  failed |= !(s->image_rows = memory_take(m, IMAGE_RING, n->image_stride));
  failed |= !(s->zero_row = memory_take(m, 1, n->image_stride));
  failed |= !(s->stem_rows = memory_take(m, STEM_RING * (size_t)n->stem_width * n->stem_padded, element));
  failed |= !(s->ring = memory_take(m, (lengths * ROW_RING + 1) * row, sizeof(float)));
  for (int i = 0; i < 2; i++) failed |= !(s->between[i] = memory_take(m, row, element));
  failed |= !(s->fused = memory_take(m, fused, element));
  failed |= !(s->out = memory_take(m, chunk, element));
  failed |= !(s->floats = memory_take(m, chunk > features ? chunk : features, sizeof(float)));
  failed |= !(s->mean = memory_take(m, channels, sizeof(float)));
  failed |= !(s->scale = memory_take(m, channels, sizeof(float)));
  failed |= !(s->shift = memory_take(m, channels, sizeof(float)));
  failed |= !(s->gates = memory_take(m, MAX_STREAMS * MOST_OF(n, b->middle_padded), sizeof(float)));
  return failed ? REID_NATIVE_NO_MEMORY : REID_NATIVE_OK;
}
