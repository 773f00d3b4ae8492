/* Reads pictures of any size as the network takes them, row by row, by the rule `box-bilinear` (reid_edge/crops.py). */
#ifndef REID_NATIVE_RESIZE_H
#define REID_NATIVE_RESIZE_H

#include <stddef.h>
#include <stdint.h>

#include "kernels.h"
#include "memory.h"

enum {
  MOST_SIDE = 8192,   /* of a picture, pixels: scratch memory has room for a row of so many */
  MOST_FACTOR = 2048, /* of averaged blocks: their sums then fit into 32 bits */
};

typedef struct {
  const uint8_t *pixels; /* BGR; the first of row 0 */
  ptrdiff_t stride;      /* bytes from a row to the next */
  int height, width;
  const uint8_t *end;    /* of the memory that may be read */
} picture;

/* Scratch of one thread. */
typedef struct {
  const kernels *k;
  int height, width;      /* of the resized picture */
  picture from;
  int factor;             /* rows and columns of a block that is averaged first; 1: none */
  resize_columns columns;
  int16_t *across[2];     /* rows of the source after the step across, even and odd ones */
  int held[2];            /* which they are; -1: none */
  uint32_t *sums;         /* of the columns of one row of blocks */
  uint8_t *row, *out;     /* of the source, averaged or with room behind it; of the resized picture */
} resizer;

/* 1 if `bytes` from `buffer` on hold all of a picture, and its size is one that can be resized. */
int picture_fits(const picture *p, const uint8_t *buffer, size_t bytes, int height, int width);

int resizer_take(resizer *r, const kernels *k, int height, int width, memory *m);
/* Begin with a picture that fits. */
void resizer_start(resizer *r, const picture *from);
/* Return row y of the resized picture: width x 3 bytes, until the next call. */
const uint8_t *resizer_row(resizer *r, int y);

#endif
