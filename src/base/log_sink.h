/*
 * Where log lines go: a standard stream, a file, or syslog. Writing never waits for a reader: what
 * would have to wait is refused with -EAGAIN. Standard streams are shared with other processes, so
 * their O_NONBLOCK is never touched. A reader that has gone raises no SIGPIPE.
 */
#pragma once

#include <limits.h>
#include <stddef.h>
#include <sys/types.h>

#include "base/log.h"
#include "base/macros.h"

enum {
    STK_LOG_LINE_MAX = PIPE_BUF, /* bytes of a line, its new line included */
};

enum stk_log_sink_kind {
    STK_LOG_SINK_STREAM, /* descriptor 1 or 2, not ours to close */
    STK_LOG_SINK_FILE,
    STK_LOG_SINK_SYSLOG,
};

/* What the descriptor is. */
enum stk_log_sink_type {
    STK_LOG_SINK_REGULAR,
    STK_LOG_SINK_PIPE,
    STK_LOG_SINK_SOCKET,
    STK_LOG_SINK_TERMINAL,
    STK_LOG_SINK_OTHER,
};

struct stk_log_sink {
    enum stk_log_sink_kind kind;
    enum stk_log_sink_type type;
    int fd;
    int facility; /* of syslog, already shifted as in <syslog.h> */
    char *path;   /* of a file, or of syslog's socket */
};

/*
 * Opens a target: "-" (the descriptor dash_fd), "stdout", "stderr" (also as /dev/stdout and
 * /dev/stderr), "syslog", "syslog:facility", or a path, which is opened for appending and created
 * with mode 0640. 0, or a negative errno (-EINVAL: unknown facility). Close with
 * stk_log_sink_close.
 */
int stk_log_sink_open(struct stk_log_sink *ret_sink, const char *target, int dash_fd)
    STK_MUST_CHECK;
/* Syslog over the datagram socket at `path` (RFC 3164 lines). 0 or a negative errno. */
int stk_log_sink_open_syslog(struct stk_log_sink *ret_sink, const char *path, int facility)
    STK_MUST_CHECK;
/*
 * Opens a file again by its path, under the same descriptor number: other threads may go on
 * writing. Connects to syslog again; does nothing for streams. A negative errno leaves the old.
 */
int stk_log_sink_reopen(struct stk_log_sink *sink) STK_MUST_CHECK;
/* Looks again at what the descriptor is: a stream may have been redirected by dup2. */
void stk_log_sink_probe(struct stk_log_sink *sink);
/* Closes what was opened; harmless when repeated. */
void stk_log_sink_close(struct stk_log_sink *sink);

/* The most bytes one write may carry so that lines of several processes stay whole. */
size_t stk_log_sink_write_max(const struct stk_log_sink *sink);
/*
 * Writes whole lines, at most stk_log_sink_write_max bytes; to syslog exactly one line. Returns the
 * bytes taken (fewer than len only on a full disk, a socket or a terminal), or a negative errno;
 * -EAGAIN: it would have to wait.
 */
ssize_t stk_log_sink_write(const struct stk_log_sink *sink, enum stk_log_level level,
                           const char *data, size_t len) STK_MUST_CHECK;
/* Waits until something can be written, at most timeout_ms milliseconds. */
void stk_log_sink_wait(const struct stk_log_sink *sink, int timeout_ms);
/* Who is too slow when lines must be dropped: "the reader of the pipe". */
const char *stk_log_sink_reader(const struct stk_log_sink *sink);
