/*
 * The access log of one worker: a format, and a writer thread that never makes requests wait. No
 * log ("off") is NULL, which every function accepts.
 */
#pragma once

#include "base/macros.h"
#include "base/time.h"
#include "serve/access_filter.h"
#include "serve/access_format.h"

struct stk_access_log;
struct stk_config;

/*
 * Opens the log in the process that will write it (after the fork: it starts a thread). `target`
 * is "off", "-" or "stdout", "stderr", "syslog", "syslog:facility" or a file's path; `format` as in
 * serve/access_format.h, NULL: combined; `worker` counts from 1. 0 and *ret_log (NULL for "off"),
 * or a negative errno and a message for the user in `error`.
 */
int stk_access_log_new(struct stk_access_log **ret_log, const char *target, const char *format,
                       unsigned worker, char error[STK_ACCESS_ERROR_MAX]) STK_MUST_CHECK;
/*
 * The same as all options say: where, which requests, by which loggers, routes and encoders. 0, or
 * a negative errno, logged.
 */
int stk_access_log_open(struct stk_access_log **ret_log, const struct stk_config *config,
                        unsigned worker) STK_MUST_CHECK;
/* Only requests that the filter takes are written from now on; before the first write. */
void stk_access_log_set_filter(struct stk_access_log *log, const struct stk_access_filter *filter);
/* The server whose requests it is about; before the first write. */
void stk_access_log_serve(struct stk_access_log *log, struct stk_server *server);
/* Writes what is left (base/log_writer.h says for how long) and frees. Returns NULL. */
struct stk_access_log *stk_access_log_free(struct stk_access_log *log);
/* The same without freeing, for a process that ends while other threads still answer requests. */
void stk_access_log_finish(struct stk_access_log *log);
/* As stk_log_writer_crash. */
void stk_access_log_crash(struct stk_access_log *log);
/* Appends the line of one request; from any thread, never waits for I/O. */
void stk_access_log_write(struct stk_access_log *log, const struct stk_access_entry *entry);
/* Opens a file again by its path, after a rotation; done by the writer's thread. */
void stk_access_log_reopen(struct stk_access_log *log);
/* In a forked child that wants to go on logging. 0 or a negative errno. */
int stk_access_log_after_fork(struct stk_access_log *log) STK_MUST_CHECK;
/* Lines that were lost so far. */
uint64_t stk_access_log_lost(struct stk_access_log *log);
