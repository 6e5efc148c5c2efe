/*
 * A log that never makes its producers wait: they append whole lines to a bounded buffer in memory,
 * one thread a process writes them out. Lines that find the buffer full are dropped, counted, and
 * reported in the error log, at most once a second.
 */
#pragma once

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "base/log_sink.h"
#include "base/macros.h"

struct stk_log_writer;

enum { STK_LOG_WRITER_SIZE = 1024 * 1024 }; /* the default of the buffer */

/*
 * Starts a writer. `name` ("access log") stands in front of its messages; `size` is the least size
 * of the buffer in bytes, 0: STK_LOG_WRITER_SIZE. The sink belongs to the writer from now on, also
 * when this fails. 0 and *ret_writer, or a negative errno.
 */
int stk_log_writer_new(struct stk_log_writer **ret_writer, const char *name,
                       const struct stk_log_sink *sink, size_t size) STK_MUST_CHECK;
/* What a writer writes to in place of a sink; used by its thread only. */
struct stk_log_out {
    void *arg;
    /* Writes whole lines, without waiting long. Returns how many of them were lost, and says so. */
    uint64_t (*write)(void *arg, const char *lines, size_t len);
    void (*reopen)(void *arg);
    void (*free)(void *arg);
};

/* The same for another target than a sink. `out->free` is called in the end, also when this fails.
 */
int stk_log_writer_new_out(struct stk_log_writer **ret_writer, const char *name,
                           const struct stk_log_out *out, size_t size) STK_MUST_CHECK;
/*
 * Writes what is left, for at most 5 seconds, or one when the reader is stalled, ends the thread
 * and frees all. Nobody may append any more. Accepts NULL; returns NULL.
 */
struct stk_log_writer *stk_log_writer_free(struct stk_log_writer *writer);
/*
 * The same without freeing, for a process that ends while other threads may still append: their
 * lines are lost. Accepts NULL.
 */
void stk_log_writer_finish(struct stk_log_writer *writer);
/*
 * From the handler of a fatal signal: writes out what is in memory, unless the thread that crashed
 * is appending, or the target takes no more, and nothing after it. Not to syslog. Accepts NULL.
 */
void stk_log_writer_crash(struct stk_log_writer *writer);
/*
 * Appends one line, its new line included, of at most STK_LOG_LINE_MAX bytes. From any thread;
 * never waits for I/O. False: there was no room, the line is dropped and counted.
 */
bool stk_log_writer_append(struct stk_log_writer *writer, const char *line, size_t len);
/*
 * Has the writer's thread open a file target again by its path; lines appended before still go to
 * the old file. From any thread, not from a signal handler. A failure is logged.
 */
void stk_log_writer_reopen(struct stk_log_writer *writer);
/*
 * In a forked child that wants to go on logging: forgets the lines of the parent and starts a
 * thread of its own. 0 or a negative errno. Without it the child may only free the writer.
 */
int stk_log_writer_after_fork(struct stk_log_writer *writer) STK_MUST_CHECK;
/* Lines that were lost so far: dropped for want of room, or not taken by the target. */
uint64_t stk_log_writer_lost(struct stk_log_writer *writer);
