/* Threads that work together, and wait for one another. */
#ifndef REID_NATIVE_TEAM_H
#define REID_NATIVE_TEAM_H

#include <stdatomic.h>

typedef struct {
  atomic_uint turn, arrived, sleepers;
} barrier;

typedef struct {
  int index, count; /* which thread of how many compute a crop together */
  barrier *barrier; /* not used by a team of one */
} team_member;

/* Wait until all `count` members have come. */
void team_wait(team_member who);

typedef struct team team;
typedef void team_job(void *context, int index);

/* Start threads - 1 threads, which sleep until there is work; NULL if the system starts no more. */
team *team_start(int threads);
void team_stop(team *t);
/* Run a job on all threads, the calling one among them, and wait for the end. */
void team_run(team *t, team_job *job, void *context);
barrier *team_barrier(team *t);

#endif
