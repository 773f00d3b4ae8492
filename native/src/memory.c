#include "memory.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

enum { LINE = 64 };

struct memory_block {
  memory_block *before;
  char rest[LINE - sizeof(memory_block *)];
};

size_t memory_available(void) {
  FILE *file = fopen("/proc/meminfo", "re");
  char line[128];
  unsigned long long kilobytes;
  size_t available = 0;
  while (file && !available && fgets(line, sizeof line, file))
    if (sscanf(line, "MemAvailable: %llu kB", &kilobytes) == 1) available = (size_t)kilobytes * 1024 + 1;
  if (file) fclose(file);
  return available;
}

void *memory_take(memory *m, size_t count, size_t size) {
  size_t bytes, total;
  if (__builtin_mul_overflow(count, size, &bytes) || __builtin_add_overflow(bytes, 3 * LINE - 1, &total)) return NULL;
  total = total / LINE * LINE; /* the header's line, the bytes rounded up to lines, one more line */
  if (m->limit && (m->bytes > m->limit || total > m->limit - m->bytes)) return NULL;
  if (m->counting) {
    m->bytes += total;
    return m;
  }
  memory_block *block = aligned_alloc(LINE, total);
  if (!block) return NULL;
  memset(block, 0, total); /* now, not in the first run: what the system cannot give is missed here */
  block->before = m->last;
  m->last = block;
  m->bytes += total;
  return block + 1;
}

void memory_free(memory *m) {
  while (m->last) {
    memory_block *block = m->last;
    m->last = block->before;
    free(block);
  }
}
