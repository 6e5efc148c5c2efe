/*
 * Where log lines go: a standard stream, a file, or syslog. Writing never waits for a reader: what
 * would have to wait is refused with -EAGAIN. Standard streams are shared with other processes, so
 * their O_NONBLOCK is never touched. A reader that has gone raises no SIGPIPE.
 */
#pragma once

#include <limits.h>
#include <stdbool.h>
#include <stddef.h>
#include <sys/socket.h>
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
    STK_LOG_SINK_DATAGRAM, /* one line a message, to a socket somewhere */
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
    int facility; /* of syslog, already shifted as in <syslog.h>; of datagrams -1: bare lines */
    char *path;   /* of a file, or of syslog's socket; of datagrams the address, for messages */
    mode_t mode;  /* of a file, set whenever it is opened; 0: as it is made */
    char *ident;  /* of syslog and datagrams: what stands in front of a line; or NULL */
    struct sockaddr *peer; /* of datagrams */
    socklen_t peer_len;
    size_t packet_max; /* of datagrams, bytes; a longer line is cut. 0: no limit */
    bool split;        /* or sent in pieces */
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
 * Datagrams to a peer, which need not be there: each line with `ident` in front of it (or NULL).
 * With a facility of <syslog.h> a line is a message of RFC 3164 with `ident` as host and tag, in at
 * most packet_max bytes; -1: bare. Copies all. 0 or a negative errno.
 */
int stk_log_sink_open_datagram(struct stk_log_sink *ret_sink, const struct sockaddr *peer,
                               socklen_t peer_len, const char *address, const char *ident,
                               int facility, size_t packet_max) STK_MUST_CHECK;
/* The number of a facility by its name ("daemon"), as in <syslog.h>; -EINVAL: there is none. */
int stk_log_sink_facility(const char *name) STK_MUST_CHECK;
/* Gives the file these permissions now, and whenever it is opened again. 0 or a negative errno. */
int stk_log_sink_chmod(struct stk_log_sink *sink, mode_t mode) STK_MUST_CHECK;
/* Whether each write has to be exactly one line. */
static inline bool stk_log_sink_takes_lines(const struct stk_log_sink *sink)
{
    return sink->kind == STK_LOG_SINK_SYSLOG || sink->kind == STK_LOG_SINK_DATAGRAM;
}
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
 * Writes whole lines, at most stk_log_sink_write_max bytes; to syslog and as a datagram exactly one
 * line. Returns the bytes taken (fewer than len only on a full disk, a socket or a terminal), or a
 * negative errno; -EAGAIN: it would have to wait.
 */
ssize_t stk_log_sink_write(const struct stk_log_sink *sink, enum stk_log_level level,
                           const char *data, size_t len) STK_MUST_CHECK;
/* Waits until something can be written, at most timeout_ms milliseconds. */
void stk_log_sink_wait(const struct stk_log_sink *sink, int timeout_ms);
/* Who is too slow when lines must be dropped: "the reader of the pipe". */
const char *stk_log_sink_reader(const struct stk_log_sink *sink);
