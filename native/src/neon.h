/* What all kernels for 64-bit Arm share: vectors of four floats, and tiles for its thirty-two registers. */
#include <arm_neon.h>

#define LANES 4
#define MAXIMUM(a, b) vmaxq_f32(a, b)
#define HALVES 0
#define VECTORS 4
#define TILE_1 8
#define TILE_2 8
#define TILE_3 6
#define TILE_4 4
#define DEPTHWISE_PIXELS 4
#define STEM_PIXELS 4

#include "cpu.h"
#include "reid_native.h"
#include "kernels.h"
#include "vectors.h"
