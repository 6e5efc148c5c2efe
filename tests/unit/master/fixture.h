/*
 * A real master in a child process, with workers that load nothing and tell the test what they
 * hear. Every worker's words arrive on one pipe as lines: "start SLOT", "ready SLOT", "adopt SLOT
 * OTHER" ...
 */
#pragma once

#include <stdatomic.h>
#include <stdbool.h>
#include <stdint.h>
#include <sys/types.h>

#include "config/config.h"
#include "ipc/heritage.h"
#include "master/master.h"

#define FIXTURE_SLOTS 8
#define FIXTURE_HOG   ((size_t)256 << 20)

/* What a worker does instead of loading an application. */
enum fixture_load {
    FIXTURE_SERVE, /* becomes ready */
    FIXTURE_EXIT,  /* exits with fixture_control.exit_code */
    FIXTURE_ABORT, /* dies by SIGABRT */
    FIXTURE_HANG,  /* never becomes ready */
};

/* Shared with all processes of the fixture. */
struct fixture_control {
    _Atomic int load[FIXTURE_SLOTS]; /* enum fixture_load */
    _Atomic int exit_code;
    _Atomic bool ignores_drain;
    _Atomic bool ignores_all; /* neither DRAIN nor STOP nor the end of the channel */
    _Atomic int template_code;
    _Atomic int version; /* what "load" loads; workers say it in "ready SLOT vN" */
    _Atomic pid_t pids[FIXTURE_SLOTS];
    _Atomic int retire;               /* what SIGUSR2 makes a worker say: enum stk_channel_retire */
    _Atomic bool modules;             /* SIGUSR2 makes it name modules instead */
    _Atomic bool busy[FIXTURE_SLOTS]; /* its thread is in the application */
    _Atomic bool hog;                 /* workers take FIXTURE_HOG bytes when they start */
    _Atomic pid_t template_pid;
    _Atomic int stacks;    /* bytes that STACK makes a worker write; 0: it dies instead */
    _Atomic int templates; /* how many were started */
    char source[4096];     /* reported by SOURCES when not empty */
};

struct fixture {
    struct stk_config config;
    struct stk_master_params params;
    struct fixture_control *control;
    pid_t master;
    int events;
    char dir[64];
    char log[128];
    char pending[64][64]; /* lines read and not yet waited for */
    unsigned npending;
    char *bind[2];
};

/* cmocka's setup and teardown: *state is the fixture, not started. */
int fixture_setup(void **state);
int fixture_teardown(void **state);
/* Starts the master with this many workers. */
void fixture_start(struct fixture *f, unsigned nworkers);
/* Waits for a line that equals the formatted text; fails the test after 20 s. */
void fixture_expect(struct fixture *f, const char *fmt, ...) __attribute__((format(printf, 2, 3)));
/* Fails if such a line has arrived until now. */
void fixture_expect_not(struct fixture *f, const char *line);
/* Waits until the worker of a slot has another process id than `not`; returns it. */
pid_t fixture_pid(struct fixture *f, unsigned slot, pid_t not );
void fixture_signal(struct fixture *f, int signal);
/* Waits for the master's end; returns its exit code, -signal when it was killed. */
int fixture_wait(struct fixture *f);
/* SIGTERM, and the exit code. */
int fixture_stop(struct fixture *f);
/* Whether the log holds the text. */
bool fixture_log_has(struct fixture *f, const char *text);
/* Waits until it does; fails the test after 20 s. */
void fixture_wait_log(struct fixture *f, const char *text);
/* How often. */
unsigned fixture_log_count(struct fixture *f, const char *text);
