/* The engine's threads inside the interpreter. */
#pragma once

#include "pyhost/host.h"

/* host_ops.run, unlock, lock, check_signals. */
int stk_threads_run(void *host, unsigned threads, stk_host_thread_fn fn, void *arg,
                    const struct stk_host_engine *engine);
void stk_threads_unlock(void *host, void *thread);
void stk_threads_lock(void *host, void *thread);
void stk_threads_check_signals(void *host, void *thread);
