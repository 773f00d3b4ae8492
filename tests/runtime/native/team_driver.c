/* Teams of more threads than cores: work given out thousands of times, with barriers inside, beside other teams.
 * Ends with 0 if each member saw what all others wrote before a barrier; hangs if a wake-up is lost. */
#include <pthread.h>
#include <stdio.h>
#include <stdlib.h>
#include <unistd.h>

#include "team.h"

enum { MOST = 8, STEPS = 5 };

typedef struct {
  team *team;
  int threads, round;
  int written[MOST]; /* not atomic: the barriers must order them */
  int wrong[MOST];
} work;

static void job(void *context, int index) {
  work *w = context;
  team_member who = {index, w->threads, team_barrier(w->team)};
  for (int step = 0; step < STEPS; step++) {
    w->written[index] = w->round * STEPS + step;
    team_wait(who);
    for (int i = 0; i < w->threads; i++) w->wrong[index] += w->written[i] != w->round * STEPS + step;
    team_wait(who);
  }
}

static void *use_teams(void *argument) {
  int rounds = *(int *)argument;
  for (int threads = 1; threads <= MOST; threads++) {
    work w = {.team = team_start(threads), .threads = threads};
    if (!w.team) return "a team did not start";
    for (w.round = 0; w.round < rounds; w.round++) {
      if (w.round % 50 == 49) usleep(300); /* long enough for all to fall asleep */
      team_run(w.team, job, &w);
    }
    team_stop(w.team);
    for (int i = 0; i < threads; i++)
      if (w.wrong[i]) return "a member saw what another had not yet written";
  }
  return NULL;
}

int main(int argc, char **argv) {
  int rounds = argc > 1 ? atoi(argv[1]) : 200;
  pthread_t others[2];
  void *failed, *its;
  for (int i = 0; i < 2; i++) pthread_create(&others[i], NULL, use_teams, &rounds);
  failed = use_teams(&rounds);
  for (int i = 0; i < 2; i++) {
    pthread_join(others[i], &its);
    failed = failed ? failed : its;
  }
  for (int i = 0; i < 300; i++) team_stop(team_start(1 + i % MOST)); /* stopped at once */
  puts(failed ? (char *)failed : "right");
  return failed != NULL;
}
