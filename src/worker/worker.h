/* The life of one worker: from the fork to its exit code. */
#pragma once

#include "app/host.h"
#include "ipc/heritage.h"

/* What the wiring gives to every worker. */
struct stk_worker_params {
    const struct stk_host_ops *host_ops;
    void *host;
    const char *runtime; /* version of its interpreter, for the metrics; may be NULL */
};

/*
 * Runs a worker in the forked process (a stk_worker_main_fn; `arg` is a struct stk_worker_params).
 * Loads the application unless it was preloaded, says READY, serves until told to drain, and
 * returns the exit code: 0, 1 (could not start), 3 (the application could not be loaded). Main
 * thread, interpreter locked.
 */
int stk_worker_main(void *arg, struct stk_heritage *heritage);
