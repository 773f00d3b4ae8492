/* Any processor: vectors of four floats, which the compiler makes of whatever there is.  The reference for all others. */
#define LANES 4
#define HALVES 0
#include "reid_native.h"
#include "kernels.h"
#include "vectors.h"
#include "float_elements.h"

#define SCALED 0
#define VECTORS 3
#define TILE_1 8
#define TILE_2 4
#define TILE_3 3
#define DEPTHWISE_PIXELS 4
#define STEM_PIXELS 3
#include "kernels_body.inc"
#include "stem_float.inc"

static int everywhere(void) { return 1; }

const kernels portable_kernels = {
    .name = "portable", .precision = REID_NATIVE_FP32, .runs_here = everywhere,
#include "kernels_table.inc"
};
