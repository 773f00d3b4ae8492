/* A network ready to run: the plan's layers with their weights packed for one set of kernels, and the scratch memory of
 * the crops that are computed at the same time. */
#ifndef REID_NATIVE_NETWORK_H
#define REID_NATIVE_NETWORK_H

#include "kernels.h"
#include "memory.h"
#include "plan.h"
#include "profile.h"
#include "resize.h"
#include "team.h"

typedef struct {
  int in, middle, out, hidden, norm, then; /* as in the plan */
  int in_padded, middle_padded, out_padded, fused_padded; /* elements of a pixel */
  int height, width;      /* of its maps */
  int chunk, chunks;      /* rows of the tail at a time; how many times */
  conv reduce, restore, after;
  conv project;           /* apart from restore, where a norm stands between it and the sum */
  int piece, pieces;      /* rows whose channels are added up together at the end of a stream; how many times */
  conv *pointwise;        /* [layer], stream after stream */
  float *const *depthwise;
  const float *fc1[MAX_STREAMS], *fc1_bias[MAX_STREAMS], *fc2[MAX_STREAMS], *fc2_bias[MAX_STREAMS];
  const float *stream_scale; /* [stream][middle_padded]: value of one unit of a stream's last elements */
  const float *fused_factor; /* [middle_padded or fused_padded]: 1 / value of one unit of the fused elements */
  const float *gamma, *beta; /* of its norm, the latter over the output's scale */
  const float *ratio;        /* scale of its input over that of its output, for the identity of a norm */
  const float *pool_factors; /* of the average pool: 1/4 over the scale of its output */
  size_t ranges;             /* index of its first range */
} network_block;

typedef struct {
  const kernels *k;
  plan_header header;
  int layers;
  stem stem;
  const float *stem_bias;   /* [row class][…] */
  const uint8_t *stem_row_class;
  int stem_class_floats;    /* from a row class to the next */
  const float *stem_gamma, *stem_beta;
  int stem_height, stem_width, stem_padded; /* before the max pool */
  int height, width;                        /* after it */
  size_t image_stride;                      /* bytes of an image row as the stem takes it */
  network_block *blocks;
  const float *fc, *fc_bias;
  int fc_vectors;
  memory memory;
} network;

/* Scratch of one crop, shared by the threads that compute it. */
typedef struct {
  void *map[2];              /* input and output of a block, in turn */
  void *reduced, *streams[MAX_STREAMS];
  float *linear;             /* a whole map before its norm; NULL where the network has none */
  float *sums;               /* [stream][piece][padded] */
  float *partial[2];         /* [chunk or row][padded]: sums, and those of squares; added up in the same order by all */
} crop_scratch;

/* Scratch of one thread. */
typedef struct {
  resizer resizer;
  void *image_rows;          /* a ring of 8 */
  void *zero_row;            /* an image row of zeros */
  void *stem_rows;           /* a ring of 3 */
  float *ring;               /* of depthwise inputs: for each layer of a stream 3 rows; then a row of zeros */
  void *between[2];          /* rows between two layers of a stream */
  void *fused, *out;         /* chunks of a block's tail */
  float *floats;
  float *mean, *scale, *shift; /* [padded] */
  float *gates;              /* [stream][padded] */
  layer_clock *clock;        /* NULL where layers are not timed */
} thread_scratch;

/* Pack a plan for kernels; network_free frees what was taken, also after a failure.  memory_limit: see memory.h. */
int network_make(network *n, const plan *p, const kernels *k, size_t memory_limit);
void network_free(network *n);

int crop_scratch_take(crop_scratch *s, const network *n, memory *m);
int thread_scratch_take(thread_scratch *s, const network *n, memory *m);

/* Compute one crop, of any size that fits, as a member of a team, each member with its own thread scratch.  ranges: NULL, or where a team of one
 * records the largest values (reid_native_calibrate). */
void network_run(const network *n, crop_scratch *crop, thread_scratch *mine, team_member who, const picture *image,
                 float *feature, float *ranges);

#endif
