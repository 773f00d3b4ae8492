/* What an instruction set gives the engine: a table of functions on rows of pixels.
 *
 * A map is stored pixel by pixel, each with its channels padded to a multiple of `lanes`; padding holds zeros.  Stored
 * activations are *elements*: float32, bfloat16 or uint8 (perhaps in 16 bits; `element` bytes), all of them >= 0, since
 * every one comes from a ReLU.  A uint8 stands for value = byte x scale of its channel; all scales are folded into weights, biases and the
 * factors below, so that kernels know of none but those. */
#ifndef REID_NATIVE_KERNELS_H
#define REID_NATIVE_KERNELS_H

#include <stddef.h>
#include <stdint.h>

enum { STEM_SIDE = 7, STEM_PAD = 3, STEM_ROW = 21 /* taps of a row: 7 pixels x BGR */ };

/* How a 1x1 convolution ends. */
typedef enum {
  END_RAW,       /* float32 sums as they are, without bias: a pointwise layer */
  END_ELEMENT,   /* bias, perhaps the identity, ReLU; elements */
  END_FLOAT,     /* bias, ReLU; float32: to be pooled */
  END_LINEAR,    /* bias, perhaps the identity; float32: to be normalised */
} conv_end;

/* A 1x1 convolution, of one map or the sum of two.  Weights: see pack.c. */
typedef struct {
  const void *weights, *weights2;
  int groups, groups2;       /* inputs / `group`, rounded up; groups2: 0 without a second map */
  int stride, stride2;       /* elements of a pixel of the inputs */
  int outputs, out_stride;   /* channels, and elements or floats of an output pixel */
  const float *bias;         /* padded; NULL for END_RAW */
  const float *scale;        /* of a sum of integer products, padded; NULL for float kernels */
  const float *ratio;        /* by which the identity is multiplied, padded; NULL for float kernels */
} conv;

/* The stem: 7x7 convolution of stride 2. */
typedef struct {
  const void *weights;
  const void *weights_low;     /* 16-bit weights as two bytes: weight = 128 x `weights` + `weights_low`; else NULL */
  const float *scale;          /* byte stems: of the sums, padded */
  const uint8_t *column_class; /* byte stems: [out_width], by how many taps lie outside the image; else NULL */
  int outputs, out_stride, image_width, out_width;
  float mean_bgr[3];
} stem;

/* How a row is resized.  Each output lies between two pixels of the source.  Tables and outputs have room for a vector
 * behind the last. */
typedef struct {
  int pixels;          /* of the output */
  int near;            /* 1: both pixels of outputs 2 i and 2 i + 1 lie within 16 bytes */
  int32_t *offsets;    /* [pixels]: byte of the first of the two */
  uint8_t *shuffles;   /* [pixels][8]: if near, which of those bytes are B B G G R R of the two pixels */
  int16_t *weights[2]; /* [x even, odd][x / 2][8]: of the two pixels by turns */
} resize_columns;

typedef struct {
  const char *name;
  int precision;   /* reid_native_precision */
  int lanes;       /* floats of a vector: channels are padded to a multiple */
  int group;       /* inputs that one product of a lane takes: 1, 2 (bfloat16; INT8 in 16 bits) or 4 (INT8) */
  int element;     /* bytes of a stored activation */
  int offset;      /* INT8: taken from inputs before a product; weights then begin with their sums times this, in int32 */
  int vectors;     /* most vectors of outputs that are computed at a time */
  int stem_bytes;  /* 0: the stem takes float32 minus the mean; else the image's bytes, and weights of so many */
  int stem_group;  /* taps that one product of a lane takes */
  int pixel;       /* bytes of a colour of an image row as the stem takes it */
  int (*runs_here)(void); /* whether this CPU has the instructions */

  /* One row of the image as the stem takes it, with STEM_PAD pixels of zeros on both sides: those stay untouched. */
  void (*image_row)(const stem *, const uint8_t *pixels, void *row);
  /* One row of the stem.  rows: the image rows under its taps, zeros outside the image.  linear: float32 without ReLU
   * instead of elements with it.  bias: padded; for a byte stem that of the row's class, [column class][padded], since
   * the mean's part of it depends on how many taps lie outside the image. */
  void (*stem_row)(const stem *, const void *const rows[STEM_SIDE], const float *bias, int linear, void *out);
  /* 3x3 maximum of stride 2 of a row of in_width pixels, padded by 1. */
  void (*max_pool_row)(const void *const rows[3], int in_width, int out_width, int channels, void *out);
  void (*conv)(const conv *, const void *in, const void *in2, const void *identity, int pixels, conv_end end, void *out);
  /* Depthwise 3x3 of one row with bias and ReLU.  rows: float32 with a pixel of zeros on both sides, of which the
   * pointers skip the left one; weights [vector][9 taps, bias][lanes]; sums: NULL, or the channels' sums to add to. */
  void (*depthwise_row)(const float *const rows[3], const float *weights, int channels, int width, void *out,
                        float *sums);
  /* Sum of streams, each times its gates; gates [streams][padded channels]. */
  void (*gated_sum)(const void *const *maps, int streams, const float *gates, int channels, int pixels, int out_stride,
                    void *out);
  /* Mean of 2x2 pixels of two float rows, times factors. */
  void (*average_pool_row)(const float *upper, const float *lower, int out_width, int channels, const float *factors,
                           void *out);
  /* Add a row of float pixels to sums; of the squares of their differences from `mean` where that is given. */
  void (*add_pixels)(const float *pixels, int count, int channels, const float *mean, float *sums);
  /* max(pixels x scale + shift + identity x ratio + addend, 0) as elements; identity and addend may be NULL. */
  void (*normalise)(const float *pixels, int count, int channels, const float *scale, const float *shift,
                    const void *identity, const float *ratio, const float *addend, void *out);
  /* Resizing (resize.c).  One row across: sums of products >> 4. */
  void (*resize_across)(const uint8_t *row, const resize_columns *, int16_t *out);
  /* Two such rows, weighted. */
  void (*resize_down)(const int16_t *upper, const int16_t *lower, int16_t upper_weight, int16_t lower_weight, int count,
                      uint8_t *out);
  /* Put bytes into sums, or add them; the mean of `factor` such sums, for each column and colour. */
  void (*add_bytes)(const uint8_t *row, int count, int add, uint32_t *sums);
  void (*average)(const uint32_t *sums, int columns, int factor, uint8_t *out);
  /* ReLU of a linear layer; weights [vector of outputs][inputs][lanes]. */
  void (*dense)(const float *in, const float *weights, const float *bias, int inputs, int vectors, float *out);
} kernels;

/* Kernel sets by precision, the fastest first (dispatch.c). */
const kernels *find_kernels(int precision, const char *name);
const kernels *nth_kernels(int precision, int n);

static inline int round_up(int n, int to) { return (n + to - 1) / to * to; }

/* Vectors of the i-th block of weights: `total` vectors in as few blocks of at most `most` as they fit, as even as
 * possible.  Returns 0 after the last. */
static inline int block_vectors(int total, int most, int i) {
  int blocks = (total + most - 1) / most;
  return i >= blocks ? 0 : total / blocks + (i < total % blocks);
}

#endif
