/*
 * The error log: one line a message, with time, process and level, written by one write(2) of
 * at most PIPE_BUF bytes, so that lines of several processes do not interleave.
 *
 * Only serve, services, master, worker, pyhost and cli log; the layers below return errors.
 */
#pragma once

#include <stdarg.h>
#include <stdbool.h>
#include <stddef.h>
#include <sys/types.h>

#include "base/macros.h"

struct stk_log_sink;

enum stk_log_level {
    STK_LOG_DEBUG,
    STK_LOG_INFO,
    STK_LOG_WARNING,
    STK_LOG_ERROR,
    STK_LOG_CRITICAL,
};

/* Messages below this level are dropped; the default is STK_LOG_INFO. */
void stk_log_set_level(enum stk_log_level level);
bool stk_log_enabled(enum stk_log_level level);
/* "debug", "info", "warning", "error", "critical"; NULL for another number. */
const char *stk_log_level_name(enum stk_log_level level);

/*
 * Where lines go: "-" or "stderr", "stdout", a file's path (opened for appending, mode 0640), or
 * "syslog" / "syslog:facility". Returns 0 or a negative errno, and then nothing has changed.
 */
int stk_log_open(const char *target) STK_MUST_CHECK;
/* Opens a file target again by its path (after a rotation); a failure is logged, the old file kept.
 */
void stk_log_reopen(void);
/* From now on, what is printed goes to the error log as well, if that is a file. */
void stk_log_capture(void);
/*
 * Lines go to standard error from now on, which is a pipe to somebody who knows where they belong.
 * `fd` is that pipe once more, without waiting (-1: there is none), and stays the caller's: where
 * the reader is this process, a write to standard error that waits would wait for ever. The sink
 * that lines went to is the caller's until he gives it back.
 */
void stk_log_divert(struct stk_log_sink *ret_sink, int fd);
void stk_log_restore(const struct stk_log_sink *sink);
/*
 * Whoever reads the standard streams may end before this process does. Keeps the descriptors that
 * they were before that, which are its own from now on.
 */
void stk_log_keep_streams(int out, int err);
/* He has ended: the standard streams are what was kept, if anything was. */
void stk_log_fall_back(void);
/* The permissions of the file, whenever it is opened; 0: as it is made. 0 or a negative errno. */
int stk_log_chmod(mode_t mode) STK_MUST_CHECK;
/* How lines begin, as strftime (base/log_date.h); the text stays the caller's. NULL: date, time and
 * milliseconds. */
void stk_log_set_date(const char *format);
/* Whether lines go to a file that was opened by its path. */
bool stk_log_is_file(void);
/* The descriptor that lines are written to, which may wait. */
int stk_log_fd(void);
/* The word between brackets that names this process: "master", "worker 1". At most 31 bytes. */
void stk_log_set_process(const char *name);

/*
 * Messages of level error and above are also appended to this descriptor, as bare text, until -1 is
 * given: how a process that fails to start tells its parent why.
 */
void stk_log_tee(int fd);
/* That descriptor, or -1. */
int stk_log_tee_fd(void);
/*
 * Has a function look at each message, before it is written; NULL: none does. It may be called from
 * any thread, and logs nothing itself.
 */
void stk_log_watch(void (*fn)(const char *text, size_t len));
/* A line while there is no log yet: bare to standard error, and to the tee. */
void stk_log_plain(const char *text);

/* Logs one message; a new line inside starts a line with the same prefix. errno is preserved. */
void stk_log(enum stk_log_level level, const char *fmt, ...) STK_PRINTF(2, 3);
/* The same, of bytes that may hold anything (control characters are escaped, new lines kept). */
void stk_log_bytes(enum stk_log_level level, const char *text, size_t len);

#define stk_log_debug(...)                       \
    do {                                         \
        if (stk_log_enabled(STK_LOG_DEBUG))      \
            stk_log(STK_LOG_DEBUG, __VA_ARGS__); \
    } while (0)
#define stk_log_info(...)     stk_log(STK_LOG_INFO, __VA_ARGS__)
#define stk_log_warning(...)  stk_log(STK_LOG_WARNING, __VA_ARGS__)
#define stk_log_error(...)    stk_log(STK_LOG_ERROR, __VA_ARGS__)
#define stk_log_critical(...) stk_log(STK_LOG_CRITICAL, __VA_ARGS__)
