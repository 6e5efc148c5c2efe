/*
 * What runs beside the workers, as config/programs.h says it:
 *   beside.c   when it starts and ends, and what the others share
 *   child.c    one command: its process, its output, its end
 *   guard.c    ends what is left when the master was killed
 *   program.c  programs that are kept running
 *   cron.c     commands at times of the day
 *   alarm.c    commands when something goes wrong
 *   watchman.c lines of the log that raise alarms; in every process
 */
#pragma once

#include <stdbool.h>
#include <stdint.h>
#include <time.h>

#include "base/json.h"
#include "base/list.h"
#include "config/programs.h"
#include "loop/loop.h"
#include "master/child.h"

struct stk_guard_list;
struct stk_master;
struct stk_watch;

/* A program that is kept running. */
struct stk_program {
    struct stk_child child;
    const struct stk_program_spec *spec;
    char *name; /* "program redis" */
    struct stk_timer again;
    stk_msec backoff;   /* the last pause */
    bool waits;         /* `again` is set */
    bool restart;       /* is started again at once when it has ended: that was ordered */
    uint64_t starts;    /* how often it was started, or found */
    pid_t found;        /* by its pidfile, and no child of ours; 0: none */
    stk_nsec since;     /* when it was started or found */
    stk_nsec expecting; /* since when the pidfile is waited for; 0: it is not */
    stk_nsec leaving;   /* the same, for the server that follows */
};

/* A command of a cron. */
struct stk_cron {
    struct stk_master *master;
    const struct stk_cron_spec *spec;
    char *name; /* "cron date" */
    struct stk_list runs;
    unsigned nruns;
    uint64_t started; /* how often */
    time_t last;      /* when; 0: never */
};

/* What an alarm has said last. */
struct stk_alarm {
    const struct stk_alarm_spec *spec;
    char *name; /* "alarm ops" */
    char *said;
    size_t len;
    stk_nsec when; /* 0: never */
    uint64_t raised;
};

struct stk_beside {
    struct stk_programs *config; /* NULL: there is nothing */
    struct stk_program *programs;
    struct stk_cron *crons;
    struct stk_alarm *alarms;
    struct stk_list alarm_runs;
    unsigned nalarm_runs;
    struct stk_watch *watch; /* files that restart programs; NULL: there are none */
    struct stk_timer look;   /* at pidfiles and queues */
    struct stk_timer minute;
    time_t minute_done; /* that was looked at last */
    time_t minute_had;  /* that in which another server has handed over; 0: none has yet */
    struct stk_timer hurry;
    struct stk_source lines;           /* of the log that raise alarms; fd -1: nobody looks */
    struct stk_guard_list *guard_list; /* NULL: there is none yet */
    pid_t guard;                       /* 0: it does not run */
    int guard_ours, guard_theirs;      /* of its pipe; -1: none */
    bool programs_started;
    bool crons_started;
    bool ending;        /* nothing is started any more */
    bool programs_told; /* to end */

    /* In an upgrade, as the old server: what the new one waits for the end of. */
    bool programs_end;
    bool commands_end;
    /* As the new one: what of the old one is not gone yet. */
    bool awaits_programs;
    bool awaits_commands;
};

/* Says a word to the other server of an upgrade. */
typedef void (*stk_beside_say_fn)(struct stk_master *m, const char *word);

/* beside.c */
/* Reads the configuration. 0 or a negative errno. */
int stk_beside_init(struct stk_master *m) STK_MUST_CHECK;
/* Starts all, unless this server has still to take over from another one. */
void stk_beside_start(struct stk_master *m);
/* The server stops, at once if `now`: programs end when the workers have. */
void stk_beside_on_stop(struct stk_master *m, bool now);
/* The server hands over to another: programs end at once. */
void stk_beside_hand_over(struct stk_master *m, stk_beside_say_fn say);
/* Tells the other one what has ended since. */
void stk_beside_tell(struct stk_master *m, stk_beside_say_fn say);
/* The server has taken over from another: starts what that one has not running any more. */
void stk_beside_take_over(struct stk_master *m);
/* A word of the old server; NULL: it is gone. Others than those of beside.c are none of ours. */
void stk_beside_hear(struct stk_master *m, const char *word);
/* The workers are reloaded. */
void stk_beside_on_reload(struct stk_master *m);
/* At the end of each turn. */
void stk_beside_on_turn(struct stk_master *m);
/* Whether something has still to end. */
bool stk_beside_holds(const struct stk_master *m);
/* In a forked child: closes what is the master's. */
void stk_beside_leave(struct stk_master *m);
void stk_beside_close(struct stk_master *m);
/* Into an open object: "crons" as uWSGI's statistics have them. */
void stk_beside_put_crons(struct stk_json *j, const struct stk_master *m);
/* Into an open object: "programs", "crons", "alarms". */
void stk_beside_put_status(struct stk_json *j, const struct stk_master *m);

/* program.c */
void stk_program_init(struct stk_program *p, struct stk_master *m,
                      const struct stk_program_spec *spec);
void stk_program_start(struct stk_program *p);
/* Has it end; SIGKILL after its time, or `most` milliseconds if that is less. One with a pidfile is
 * left alone; `upgraded`: for the server that follows. */
void stk_program_stop(struct stk_program *p, stk_msec most, bool upgraded);
void stk_program_restart(struct stk_program *p, const char *why);
void stk_program_on_reload(struct stk_program *p);
/* Once a second, of one with a pidfile. */
void stk_program_look(struct stk_program *p);
void stk_program_deinit(struct stk_program *p);
/* "running", "waiting" ... */
const char *stk_program_state(const struct stk_program *p);

/* cron.c */
void stk_cron_init(struct stk_cron *c, struct stk_master *m, const struct stk_cron_spec *spec);
/* Runs its command, if it may. */
void stk_cron_run(struct stk_cron *c);
/* Has all its commands end. */
void stk_cron_stop(struct stk_cron *c, stk_msec grace);
void stk_cron_put_stats(struct stk_json *j, const struct stk_cron *c);
void stk_cron_put_status(struct stk_json *j, const struct stk_cron *c);
void stk_cron_deinit(struct stk_cron *c);

/* alarm.c */
/* Raises those whose bits are set. */
void stk_alarm_raise(struct stk_master *m, uint64_t alarms, const char *text, size_t len);
/* A worker was killed by a signal that nobody has ordered. */
void stk_alarm_on_crash(struct stk_master *m, const char *text);
/* Looks at the queues of the sockets. */
void stk_alarm_look(struct stk_master *m);
void stk_alarm_stop(struct stk_master *m, stk_msec grace);
void stk_alarm_deinit(struct stk_master *m);

/* guard.c */
/* Notes a group that is to be killed when the master dies. */
void stk_guard_add(struct stk_master *m, pid_t group);
/* It is gone. */
void stk_guard_remove(struct stk_master *m, pid_t group);
/* Waits for one that was killed. */
void stk_guard_reap(struct stk_master *m);
/* In a forked child: closes descriptors. */
void stk_guard_leave(struct stk_master *m);
void stk_guard_stop(struct stk_master *m);

/* watchman.c */
/* From now on looks at the lines of the log, here and in processes that are forked. 0, or a
 * negative errno. */
int stk_watchman_start(struct stk_master *m) STK_MUST_CHECK;
void stk_watchman_stop(struct stk_master *m);
