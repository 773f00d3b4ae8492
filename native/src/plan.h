/* A plan: the description of one network, read from bytes and checked.  Plan files are little endian:
 *
 *   header, `blocks` block records, `weights` float32, `ranges` float32, and nothing more.
 *
 * Nothing in a plan is an offset or a name.  What the weights are, and how many, follows from the description, so that
 * a plan has either exactly the right size or is refused. */
#ifndef REID_NATIVE_PLAN_H
#define REID_NATIVE_PLAN_H

#include "reid_native.h"

enum {
  PLAN_VERSION = 1,
  MIN_SIDE = 13,        /* smallest height or width that leaves the last stage a pixel */
  MAX_SIDE = 4096,      /* pixels */
  MAX_CHANNELS = 4096,  /* of any layer, and numbers of a feature */
  MAX_STREAMS = 8,      /* of a block */
  MAX_LENGTH = 16,      /* layers of a stream */
  MAX_BLOCKS = 64,
  MAX_MAP = 1 << 26,    /* numbers of any map: at most 256 MiB */
};

enum { FUSION_ADDITION = 0, FUSION_ONE_GATE = 1, FUSION_GATE_EACH = 2, FUSION_CONCATENATION = 3 };
enum { NORM_NONE = 0, NORM_AFTER_SUM = 1, NORM_BEFORE_SUM = 2 };
enum { THEN_BLOCK = 0, THEN_TRANSITION = 1, THEN_FEATURE = 2 };

/* As in the file. */
typedef struct {
  char magic[8]; /* "reidplan" */
  uint32_t version, height, width, feature_dim;
  uint32_t stem_channels, stem_norm;
  uint32_t fusion, streams, lengths[MAX_STREAMS];
  uint32_t blocks, reserved; /* reserved: 0 */
  float mean_bgr[3], norm_epsilon;
  uint64_t weights, ranges;
} plan_header;
_Static_assert(sizeof(size_t) == 8, "the sizes of the largest plan fit into 64 bits, not into 32");
_Static_assert(sizeof(plan_header) == 8 + 18 * 4 + 4 * 4 + 16, "no padding in the file's header");

typedef struct {
  uint32_t in, middle, out; /* channels */
  uint32_t hidden;          /* of the gate; 0 without */
  uint32_t norm;
  uint32_t then;
} plan_block;

typedef struct {
  plan_header header;
  plan_block blocks[MAX_BLOCKS];
  const char *weights, *ranges; /* float32 within the given bytes, perhaps not aligned; ranges: NULL without */
  int layers;                   /* of all streams of a block */
} plan;

/* Read a plan and check it.  `message`: see reid_native_create. */
int plan_read(plan *p, const void *bytes, size_t size, char *message, size_t message_bytes);

/* Count the ranges of a plan: one for each channel of each stored activation, in this order: the stem's output; of each
 * block: reduce, the layers of its streams, the fused streams, the block's output, and, before another stage, the
 * pooled transition. */
uint64_t plan_ranges(const plan *p);

#endif
