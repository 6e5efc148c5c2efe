/*
 * The master: opens the sockets, forks workers, and keeps them alive until a signal ends it. It
 * knows no HTTP and no Python: what it needs of either comes as functions.
 *
 * Signals: TERM and INT stop gracefully (in-flight requests finish within
 * config->graceful_timeout), a second one or QUIT stops now; HUP restarts the workers one by one;
 * USR1 opens the logs again; USR2 starts a new server in the place of this one; TTIN and TTOU make
 * the workers one more and one less.
 */
#pragma once

#include <stdbool.h>
#include <stddef.h>
#include <sys/types.h>

#include "base/macros.h"
#include "config/config.h"
#include "ipc/heritage.h"

/* The exit codes of a server; workers end with them too. */
enum stk_master_exit {
    STK_MASTER_EXIT_OK = 0,     /* stopped as asked */
    STK_MASTER_EXIT_CONFIG = 1, /* bad configuration, or an address that cannot be bound */
    STK_MASTER_EXIT_LOAD = 3,   /* the application cannot be loaded */
};

/* What the master tells of its doings, to those who want to act on it. */
enum stk_master_event {
    STK_MASTER_EVENT_ROOT,   /* addresses are bound, and rights are not dropped yet; not in a server
                                that follows another */
    STK_MASTER_EVENT_START,  /* everything is open, nothing is forked yet */
    STK_MASTER_EVENT_FORK,   /* a worker is about to be forked */
    STK_MASTER_EVENT_GONE,   /* a worker has ended, however */
    STK_MASTER_EVENT_READY,  /* all workers serve for the first time */
    STK_MASTER_EVENT_RELOAD, /* a reload begins: its workers are forked after this */
    STK_MASTER_EVENT_SCALE,  /* another number of workers is wanted */
    STK_MASTER_EVENT_EXIT,   /* all workers are gone */
};

struct stk_caches;
struct stk_listener;
struct stk_startup;

struct stk_master_params {
    const struct stk_config *config;
    unsigned nworkers; /* the effective number, at least 1 */

    /* What the process was started with (startup.h); NULL: nothing of it matters. */
    struct stk_startup *startup;
    bool bind_is_default; /* nobody has said where to listen */

    /* A worker's life; runs in the forked child, whose exit code is the result. */
    stk_worker_main_fn worker_main;
    void *worker_arg;

    /*
     * Around every fork() (CPython's PyOS_BeforeFork and its two counterparts); each may be NULL.
     */
    void (*fork_prepare)(void *arg);
    void (*fork_parent)(void *arg);
    void (*fork_child)(void *arg);
    void *fork_arg;

    /*
     * config->preload: run in the template process. load: loads the application, 0 or the exit
     * code, the reason logged. freeze: before workers are forked from here; may be NULL. sources:
     * the source files for autoreload, also after a failed load, NULL-terminated; the caller frees
     * each and the array; may be NULL. import: imports modules by name (preload-refresh); may be
     * NULL. unload: before the template exits; may be NULL.
     */
    int (*template_load)(void *arg);
    void (*template_freeze)(void *arg);
    char **(*template_sources)(void *arg);
    void (*template_import)(void *arg, const char *const *names);
    void (*template_unload)(void *arg);
    void *template_arg;

    /*
     * A program that is a task of the host's, by its name; runs in the forked child, whose exit
     * code is the result. NULL: there are none.
     */
    int (*task_main)(void *arg, const char *task);
    void *task_arg;

    /* What the control socket tells of the configuration, as JSON; may be NULL. */
    const char *config_json;

    /* After everything is bound and the pidfile is written, before the first fork: the banner. May
     * be NULL. */
    void (*on_listening)(void *arg, struct stk_listener *const *listeners, size_t n);
    void *on_listening_arg;
    /* Before that, as soon as they are there (NULL: none is configured); alive until it
     * is called with NULL, at the end, and in the processes that are forked. May be NULL; the same
     * argument. */
    void (*on_caches)(void *arg, struct stk_caches *caches);

    /* All workers serve for the first time; a worker could not load the application before that,
     * and has logged `text`. Each may be NULL. */
    void (*on_ready)(void *arg);
    void (*on_load_failed)(void *arg, const char *text);
    void *on_start_arg;

    /*
     * Of each event, in the master; may be NULL. The master does nothing else meanwhile. `number`:
     * of the worker from 1, or of SCALE how many there are to be; `pid`: of the worker, 0 if it is
     * not there yet. Returns 0, or at ROOT and START an exit code with which the server ends, the
     * reason logged; at others it is not looked at.
     */
    int (*on_event)(void *arg, enum stk_master_event event, unsigned number, pid_t pid);
    void *on_event_arg;
};

/*
 * Serves until a signal or a failure; returns the exit code (enum stk_master_exit), the reason
 * logged. Runs on the main thread of a process that has no other threads; leaves signals as they
 * were. Never returns in a child.
 */
int stk_master_run(const struct stk_master_params *params) STK_MUST_CHECK;
