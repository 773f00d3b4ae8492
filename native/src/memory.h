/* Memory of an engine: zeroed blocks, aligned to cache lines and vectors, freed together. */
#ifndef REID_NATIVE_MEMORY_H
#define REID_NATIVE_MEMORY_H

#include <stddef.h>

typedef struct memory_block memory_block;
typedef struct {
  memory_block *last;
  size_t bytes; /* of all blocks */
  size_t limit; /* most bytes; 0: any number */
  int counting; /* 1: bytes are added up, and none are taken: pointers must not be used */
} memory;

/* Return the bytes that this machine can give without ending a process, at least 1; 0 if it does not say. */
size_t memory_available(void);

/* Return count x size zeroed bytes, with 64 readable ones behind them; NULL if the product is too large, above the
 * limit, or the system has no more. */
void *memory_take(memory *m, size_t count, size_t size);
void memory_free(memory *m);

#endif
