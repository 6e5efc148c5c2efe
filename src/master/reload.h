/* Replacing all workers: on SIGHUP, `stoker reload`, a touched file, or a saved source file. */
#pragma once

#include <stdbool.h>
#include <stdint.h>
#include <sys/types.h>

#include "base/list.h"
#include "base/macros.h"
#include "ipc/scoreboard.h"
#include "loop/loop.h"

struct stk_master;
struct stk_proc;
struct stk_watch;

/* How the last reload ended. */
struct stk_reload_report {
    bool known; /* there was one */
    bool ok;
    int64_t when;     /* its end, seconds since the epoch */
    unsigned worker;  /* whose start failed, from 1; 0: nobody's, or the template's */
    unsigned renewed; /* workers that are new */
    char *text;       /* one sentence */
    char *detail;     /* what the failed start logged (a traceback), or NULL */
};

/* Called with the outcome: the sentence of the report and its detail in lines below. */
typedef void (*stk_reload_fn)(void *arg, bool ok, const char *text);

struct stk_reload {
    enum stk_restart cause; /* of the one that is under way: RELOAD or REFRESH */
    bool open;              /* one has begun and not been reported */
    struct stk_reload_report last;
    struct stk_list waiters;
    struct stk_timer hear; /* for old workers to say that they accept nothing any more */
    bool heard;            /* or not: they have had their time */
};

/* HUP: each worker is replaced when its replacement is ready, by config->reload_mode. */
void stk_reload_rolling(struct stk_master *m);
/* Autoreload: no request from now on sees the old code. */
void stk_reload_fresh(struct stk_master *m);
/* The workers are replaced from a template that is being forked (m->template_next). */
void stk_reload_refresh(struct stk_master *m);
/* Goes on with a rolling reload. */
void stk_reload_step(struct stk_master *m);
/* A worker that was told to drain accepts nothing any more, or is gone. */
void stk_reload_on_drains(struct stk_master *m);
/* A replacement did not become ready: what serves stays. `how` is what became of it. */
void stk_reload_fail(struct stk_master *m, const struct stk_proc *p, const char *how);
/* All workers serve: a reload that had stopped them all is complete. */
void stk_reload_on_all_ready(struct stk_master *m);
/* The server stops: whoever waits for a reload hears of it. */
void stk_reload_on_stop(struct stk_master *m);
void stk_reload_on_sources(struct stk_proc *p, int file);
/* The application could not be loaded and autoreload is on: waits for a change. */
void stk_reload_wait_for_save(struct stk_master *m, const struct stk_proc *p);
/* Makes the watcher where config->autoreload or touch_reload. 0 or a negative errno. */
int stk_reload_init(struct stk_master *m) STK_MUST_CHECK;
/* Frees what the above has made, but for m->watch. */
void stk_reload_deinit(struct stk_master *m);

/*
 * Calls fn(arg, ...) once, when the reload that is under way ends, or else the next one that
 * begins. A reload that starts over during a reload is one with it. A reload that is asked for can
 * fail at once: to hear of it, call this first.
 */
void stk_reload_notify(struct stk_master *m, stk_reload_fn fn, void *arg);
/* Forgets all calls with this argument. */
void stk_reload_forget(struct stk_master *m, const void *arg);
