/* The engine's interface: OSNet on a CPU, from uint8 pixels to features.
 *
 * A *plan* describes one network and holds its weights (plan.h; reid_edge/runtime/native/plan.py writes it).
 * reid_native_create checks every number of a plan before it uses it, packs the weights for the kernels that it picks,
 * and allocates all memory that runs will need.  After that an engine changes nothing but its own scratch memory.
 *
 * Several engines may live in one process and run at the same time.  One engine serves one call after another: a call
 * from a second thread waits.  Features depend on a crop and on the plan, the kernels and the precision alone, not on
 * what else is in the batch or on the number of threads.
 */
#ifndef REID_NATIVE_H
#define REID_NATIVE_H

#include <stddef.h>
#include <stdint.h>

#ifdef __cplusplus
extern "C" {
#endif

#define REID_NATIVE_API __attribute__((visibility("default")))

/* Grows by one with each change to the functions below or to the format of plans. */
#define REID_NATIVE_ABI 4

/* What a function returns.  Names and numbers stay as they are; the Python side maps them to its errors. */
typedef enum {
  REID_NATIVE_OK = 0,
  REID_NATIVE_BAD_PLAN = 1,    /* not a plan, cut short, a number out of range, a weight that is not finite */
  REID_NATIVE_BAD_VERSION = 2, /* a plan of another format version */
  REID_NATIVE_BAD_ARGUMENT = 3,/* sizes that do not fit the plan, an unknown precision, no pointer */
  REID_NATIVE_NO_KERNELS = 4,  /* no kernels of that name or precision in this build, or the CPU cannot run them */
  REID_NATIVE_NO_RANGES = 5,   /* INT8 asked for, and the plan holds no ranges */
  REID_NATIVE_NO_MEMORY = 6,   /* an allocation failed, or its size does not fit the address space */
  REID_NATIVE_NO_THREADS = 7,  /* the system starts no more threads */
  REID_NATIVE_FORKED = 8,      /* the engine was made before a fork: make another one in this process */
} reid_native_status;

typedef enum {
  REID_NATIVE_FP32 = 0,
  REID_NATIVE_BF16 = 1, /* 1x1 convolutions and stored activations in bfloat16; the rest in float32 */
  REID_NATIVE_INT8 = 2, /* 1x1 convolutions u8 x s8, stored activations u8; depthwise, gates and sums in float32 */
} reid_native_precision;

typedef struct reid_native_engine reid_native_engine;

/* Return REID_NATIVE_ABI of this library. */
REID_NATIVE_API int reid_native_abi(void);

/* Return the name of the n-th kernel set that this CPU can run, the fastest first, for a precision; NULL after the
 * last.  Names: "avx512vnni", "avx512", "avx512vl", "avx2vnni", "avx2", "neondot", "neon", "portable". */
REID_NATIVE_API const char *reid_native_kernels(int precision, int n);

/* Make an engine.
 *
 * plan, plan_bytes   The plan; it may be freed after the call.
 * precision          One of reid_native_precision.
 * kernels            A name of reid_native_kernels, or NULL for the fastest.
 * threads            At least 1.  More than the CPUs that this process may use are reduced to that number.
 * engine             Receives the engine, or NULL.
 * message            Receives, where the status is not OK, what was expected and what came: at most message_bytes with
 *                    the final NUL.
 */
REID_NATIVE_API int reid_native_create(const void *plan, size_t plan_bytes, int precision, const char *kernels,
                                       int threads, reid_native_engine **engine, char *message, size_t message_bytes);

/* Free an engine; NULL is allowed.  No run may be going on. */
REID_NATIVE_API void reid_native_destroy(reid_native_engine *engine);

/* What an engine is. */
typedef struct {
  int32_t height, width, feature_dim; /* of a crop in pixels, and of a feature */
  int32_t precision, threads;         /* threads: after the reduction */
  uint64_t ranges;                    /* floats that reid_native_calibrate fills */
  uint64_t memory_bytes;              /* weights and scratch */
  const char *kernels;                /* name of the kernel set */
} reid_native_info;

REID_NATIVE_API int reid_native_describe(const reid_native_engine *engine, reid_native_info *info);

/* Compute features.
 *
 * pixels     crops x height x width x 3 uint8, BGR, contiguous.
 * features   Receives crops x feature_dim float32, not normalised.
 */
REID_NATIVE_API int reid_native_run(reid_native_engine *engine, const uint8_t *pixels, size_t pixels_bytes,
                                    size_t crops, float *features, size_t features_bytes);

/* A picture in memory: BGR, three bytes a pixel, one pixel right behind the other. */
typedef struct {
  const uint8_t *buffer; /* memory that may be read; a picture that does not lie within it is refused */
  uint64_t buffer_bytes;
  const uint8_t *pixels; /* its first pixel */
  int64_t stride;        /* bytes from a row to the next, of either sign */
  int32_t height, width; /* 1 to 8192 pixels */
} reid_native_crop;

/* As reid_native_run, of crops of any size, each resized by the rule `box-bilinear` (reid_edge/crops.py). */
REID_NATIVE_API int reid_native_run_crops(reid_native_engine *engine, const reid_native_crop *crops, size_t count,
                                          float *features, size_t features_bytes);

/* Resize a crop as reid_native_run_crops does, by kernels as in reid_native_create.
 *
 * pixels     Receives height x width x 3 uint8.
 */
REID_NATIVE_API int reid_native_resize(const reid_native_crop *crop, int precision, const char *kernels, int height,
                                       int width, uint8_t *pixels, size_t pixels_bytes);

/* Compute features of crops by an FP32 engine, and raise `ranges` to the largest value that each channel of each stored
 * activation took.  `ranges` holds reid_native_info.ranges floats >= 0 (zeros before the first call); appended to a plan
 * they are what INT8 takes its scales from. */
REID_NATIVE_API int reid_native_calibrate(reid_native_engine *engine, const uint8_t *pixels, size_t pixels_bytes,
                                          size_t crops, float *ranges, size_t ranges_bytes);

/* What the time of a run goes to. */
typedef enum {
  REID_NATIVE_STEM = 0,      /* 7x7 convolution */
  REID_NATIVE_POINTWISE = 1, /* 1x1 convolutions */
  REID_NATIVE_DEPTHWISE = 2, /* 3x3 */
  REID_NATIVE_GATES = 3,     /* gates, sums of streams, the last layer */
  REID_NATIVE_POOLS = 4,     /* pools, norms, means of maps */
  REID_NATIVE_RESIZING = 5,
  REID_NATIVE_WAITING = 6,   /* threads for one another, or without work */
  REID_NATIVE_BETWEEN = 7,   /* what finds the rows of the next layer */
  REID_NATIVE_CLOCK = 8,     /* the measurement itself, which the others are free of */
  REID_NATIVE_KINDS = 9,
} reid_native_kind;

/* Time the layers of an engine's runs from now on, or no longer.  Features stay the same.
 *
 * on        1 or 0; an engine begins with 0.
 * seconds   Receives REID_NATIVE_KINDS doubles: what each kind took in all runs since the last call, 0 where those were
 *           not timed.  Each is the time of all threads over their number: all kinds together are the time of the runs.
 */
REID_NATIVE_API int reid_native_profile(reid_native_engine *engine, int on, double *seconds, size_t seconds_bytes);

/* Compute `rounds` of a 1x1 convolution that stays in the first cache, by kernels as in reid_native_create, on the
 * calling thread.  Returns its multiply-adds, or 0: no such kernels, or no memory. */
REID_NATIVE_API uint64_t reid_native_peak(int precision, const char *kernels, uint32_t rounds);

/* Return by how many products of bytes such kernels compute one multiply-add of the stem: 0 where by one of floats, -1
 * without such kernels. */
REID_NATIVE_API int reid_native_stem_products(int precision, const char *kernels);

#ifdef __cplusplus
}
#endif
#endif
