/* Threads that are started once.  Who waits spins for some microseconds, since the next piece of work or the last
 * member mostly comes within that; then it sleeps on a futex and leaves its core to others. */
#define _GNU_SOURCE
#include "team.h"

#include <limits.h>
#include <linux/futex.h>
#include <pthread.h>
#include <signal.h>
#include <stdlib.h>
#include <sys/syscall.h>
#include <unistd.h>

enum { SPINS = 1500 }; /* 20 to 60 microseconds where a pause takes 40 to 140 cycles; fewer on older x86 and on Arm */

struct team {
  int threads;
  pthread_t *ids;
  team_job *job;
  void *context;
  int stop;
  atomic_uint round, sleepers; /* of work given out */
  atomic_uint busy;            /* threads that have not ended it */
  atomic_uint waiters;         /* 1 while the caller sleeps */
  barrier barrier;
};

static void relax(void) {
#if defined(__x86_64__)
  __builtin_ia32_pause();
#elif defined(__aarch64__)
  __asm__ volatile("yield");
#endif
}

/* Wait until *word is no longer `seen`. */
static void wait_for_change(atomic_uint *word, unsigned seen, atomic_uint *sleepers) {
  for (int i = 0; i < SPINS; i++) {
    if (atomic_load_explicit(word, memory_order_acquire) != seen) return;
    relax();
  }
  atomic_fetch_add(sleepers, 1);
  while (atomic_load(word) == seen) syscall(SYS_futex, word, FUTEX_WAIT_PRIVATE, seen, NULL, NULL, 0);
  atomic_fetch_sub(sleepers, 1);
}

/* To be called after *word has changed: a sleeper either sees the change or is counted before. */
static void wake(atomic_uint *word, atomic_uint *sleepers) {
  if (atomic_load(sleepers)) syscall(SYS_futex, word, FUTEX_WAKE_PRIVATE, INT_MAX, NULL, NULL, 0);
}

void team_wait(team_member who) {
  if (who.count == 1) return;
  barrier *b = who.barrier;
  unsigned turn = atomic_load(&b->turn);
  if (atomic_fetch_add(&b->arrived, 1) + 1 == (unsigned)who.count) {
    atomic_store(&b->arrived, 0);
    atomic_fetch_add(&b->turn, 1);
    wake(&b->turn, &b->sleepers);
  } else {
    wait_for_change(&b->turn, turn, &b->sleepers);
  }
}

typedef struct {
  team *team;
  int index;
} worker;

static void *work(void *argument) {
  worker w = *(worker *)argument;
  free(argument);
  team *t = w.team;
  for (unsigned round = 0;; round++) {
    wait_for_change(&t->round, round, &t->sleepers);
    if (t->stop) return NULL;
    t->job(t->context, w.index);
    if (atomic_fetch_sub(&t->busy, 1) == 1) wake(&t->busy, &t->waiters);
  }
}

static int start_worker(team *t, int index) {
  worker *w = malloc(sizeof *w);
  if (!w) return 0;
  *w = (worker){t, index};
  if (pthread_create(&t->ids[index - 1], NULL, work, w) == 0) return 1;
  free(w);
  return 0;
}

team *team_start(int threads) {
  team *t = calloc(1, sizeof *t);
  if (!t) return NULL;
  t->ids = calloc((size_t)threads, sizeof *t->ids);
  t->threads = 1;
  /* Signals are for the threads that the program knows. */
  sigset_t all, before;
  sigfillset(&all);
  pthread_sigmask(SIG_SETMASK, &all, &before);
  while (t->ids && t->threads < threads && start_worker(t, t->threads)) t->threads++;
  pthread_sigmask(SIG_SETMASK, &before, NULL);
  if (t->ids && t->threads == threads) return t;
  team_stop(t);
  return NULL;
}

static void give_out(team *t) {
  atomic_fetch_add(&t->round, 1);
  wake(&t->round, &t->sleepers);
}

void team_stop(team *t) {
  t->stop = 1;
  give_out(t);
  for (int i = 1; i < t->threads; i++) pthread_join(t->ids[i - 1], NULL);
  free(t->ids);
  free(t);
}

void team_run(team *t, team_job *job, void *context) {
  t->job = job;
  t->context = context;
  atomic_store(&t->busy, (unsigned)t->threads - 1);
  if (t->threads > 1) give_out(t);
  job(context, 0);
  for (unsigned busy; (busy = atomic_load(&t->busy));) wait_for_change(&t->busy, busy, &t->waiters);
}

barrier *team_barrier(team *t) { return &t->barrier; }
