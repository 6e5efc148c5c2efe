/*
 * A command that the master runs beside the workers: forked, executed, its output logged line by
 * line, ended with all that it has started, waited for.
 */
#pragma once

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>
#include <sys/types.h>

#include "base/list.h"
#include "base/macros.h"
#include "base/time.h"
#include "config/config.h"
#include "loop/loop.h"

struct stk_child;
struct stk_master;

#define STK_CHILD_MAGIC 0x43484c44u

enum { STK_CHILD_LINE = 2048 }; /* bytes; a longer line of output is logged in pieces */

/*
 * It is gone, with its whole group; `status` as of waitpid, -1: unknown. May start or free it.
 */
typedef void (*stk_child_fn)(struct stk_child *c, int status);

/* All is the caller's, and has to live as long as stk_child_start takes. */
struct stk_child_params {
    const char *command;        /* of /bin/sh -c */
    const char *task;           /* instead: what the host is to do; or NULL */
    const char *directory;      /* NULL: the server's */
    const struct stk_strv *env; /* more variables, NAME=value; or NULL */
    const char *user;           /* NULL: the server's; by root only */
    const char *group;
    const char *pidfile; /* where it writes its number before it is executed, or NULL */
    int input;           /* its standard input; -1: /dev/null */
    bool outlives;       /* goes on without the server: writes to the log itself, nobody ends it */
};

struct stk_child {
    uint32_t magic;
    struct stk_master *master;
    struct stk_list link; /* in master->children while there is anything of it */
    const char *name;     /* in front of what it prints; the owner's */
    stk_child_fn fn;
    pid_t pid;   /* 0: has been waited for, or was never started */
    pid_t group; /* 0: nothing of it is left */
    pid_t gone;  /* the pid of the last one that has gone */
    int status;
    stk_nsec started;
    bool outlives;
    bool asked;  /* it was told to end */
    bool killed; /* SIGKILL was sent */
    int stop_signal;
    stk_msec grace;
    struct stk_timer deadline; /* until SIGKILL */

    /* What it prints. */
    struct stk_source output; /* fd -1: nothing is read */
    struct stk_timer pause;   /* it prints faster than is good */
    stk_msec window;          /* since when `taken` counts */
    size_t taken;             /* bytes */
    size_t nline;
    char line[STK_CHILD_LINE];
};

/* `stop_signal` and `grace`: what ends those that its first process leaves behind. */
void stk_child_init(struct stk_child *c, struct stk_master *m, const char *name, stk_child_fn fn,
                    int stop_signal, stk_msec grace);
/* Starts it; what goes wrong after the fork is a line of its output. 0 or a negative errno. */
int stk_child_start(struct stk_child *c, const struct stk_child_params *params) STK_MUST_CHECK;
/* Whether there is anything of it. */
bool stk_child_is_there(const struct stk_child *c);
/* Sends a signal to its group. */
void stk_child_signal(const struct stk_child *c, int sig);
/* The same, to have it end; SIGKILL follows after `grace`. A second call may only shorten it. */
void stk_child_stop(struct stk_child *c, int sig, stk_msec grace);
/* Forgets it, without a signal: it goes on alone. */
void stk_child_forget(struct stk_child *c);
/* Milliseconds since its start. */
stk_msec stk_child_age(const struct stk_child *c);

/* Waits for those that have ended. */
void stk_child_reap(struct stk_master *m);
/* Whether a process is the first one of a child. */
bool stk_child_is_ours(const struct stk_master *m, pid_t pid);
/* In a forked child: closes all descriptors but the three standard ones. */
void stk_child_close_all(void);
/* In a forked process of another kind: closes descriptors. */
void stk_child_leave(struct stk_master *m);
