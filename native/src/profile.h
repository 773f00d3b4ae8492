/* Times the layers of runs.  A clock belongs to one thread and knows which kind of layer the thread computes: at each
 * change of it the ticks since the last one are added to the kind that ends.  So every tick counts for one kind.
 *
 * Runs that are timed have a table of kernels which switch the clock and call the others: what is not timed does not
 * pass through any of this. */
#ifndef REID_NATIVE_PROFILE_H
#define REID_NATIVE_PROFILE_H

#include <stdint.h>

#include "kernels.h"
#include "reid_native.h"

typedef struct {
  const kernels *k;   /* what the timed kernels call */
  int kind;           /* that the thread is at */
  uint64_t last;      /* ticks at the last change */
  uint64_t ticks[REID_NATIVE_KINDS], changes[REID_NATIVE_KINDS]; /* changes: to this kind */
} layer_clock;

/* A counter that every thread can read: nanoseconds or less. */
static inline uint64_t ticks_now(void) {
#if defined(__x86_64__)
  return __builtin_ia32_rdtsc();
#else
  uint64_t ticks;
  __asm__ volatile("mrs %0, cntvct_el0" : "=r"(ticks));
  return ticks;
#endif
}

static inline void clock_change(layer_clock *c, int kind) {
  uint64_t now = ticks_now();
  if (now > c->last) c->ticks[c->kind] += now - c->last; /* counters of two cores may differ by some ticks */
  c->last = now;
  c->kind = kind;
  c->changes[kind]++;
}

/* Go on to a kind; what is computed within a kind stays with that.  Returns what clock_leave takes.  NULL: no clock. */
static inline int clock_enter(layer_clock *c, int kind) {
  if (!c || c->kind != REID_NATIVE_BETWEEN) return 0;
  clock_change(c, kind);
  return 1;
}

static inline void clock_leave(layer_clock *c, int entered) {
  if (entered) clock_change(c, REID_NATIVE_BETWEEN);
}

/* Kernels as `k` that switch the clock of the thread which calls them. */
kernels timed_kernels(const kernels *k);

/* Begin on this thread, and end.  Ticks are added to those that the clock has. */
void clock_start(layer_clock *c, const kernels *k);
void clock_stop(layer_clock *c);

/* What runs took, in seconds: the time of the clocks' threads over their number, so that all kinds together take as long
 * as the runs.  The clocks begin again with 0.
 *
 * span, seconds  Of the runs, in ticks and in seconds.
 * cost           Ticks of a change (clock_cost): taken from each kind, and given to REID_NATIVE_CLOCK.
 * total          [REID_NATIVE_KINDS]: added to.
 */
void clocks_collect(layer_clock *clocks, int count, uint64_t span, double seconds, double cost, double *total);
double clock_cost(void);

#endif
