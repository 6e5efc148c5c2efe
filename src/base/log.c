/*
 * The error log: `2026-11-23 03:10:00.123 [worker 1 1234] error: message`, in local time.
 *
 * A message is formatted on the stack and leaves in writes of whole lines, each of at most PIPE_BUF
 * bytes: the kernel does not interleave those, so no lock is needed, and a fork at any moment is
 * harmless. A message of several lines stays together as long as it fits. A longer line is cut at
 * characters into lines that end and go on with "...".
 *
 * Messages carry text from clients and applications, so control characters are escaped: nobody may
 * forge a line or repaint a terminal. UTF-8 stays readable.
 *
 * A target that does not take a line at once loses it: the loss is counted, and told in front of
 * the next line that gets through.
 */
#include "base/log.h"

#include <errno.h>
#include <fcntl.h>
#include <stdatomic.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>
#include <unistd.h>

#include "base/fd.h"
#include "base/log_clock.h"
#include "base/log_date.h"
#include "base/log_sink.h"
#include "base/mem.h"
#include "base/time.h"
#include "base/utf8.h"

static struct {
    struct stk_log_sink sink;
    _Atomic int level;
    _Atomic int tee;                             /* -1: none */
    _Atomic uint64_t dropped;                    /* lines, since the last report */
    void (*watch)(const char *text, size_t len); /* or NULL */
    int out, err;     /* what the standard streams were; -1: nothing is kept */
    bool captures;    /* standard output and error go where the lines go */
    const char *date; /* NULL: the usual one */
    char process[32];
} log_state = {
    .sink = {.kind = STK_LOG_SINK_STREAM, .type = STK_LOG_SINK_OTHER, .fd = STDERR_FILENO},
    .level = STK_LOG_INFO,
    .tee = -1,
    .out = -1,
    .err = -1,
    .process = "stoker",
};

/* Lines on their way into one write. */
struct log_batch {
    struct stk_log_sink sink; /* a copy, looked at again */
    enum stk_log_level level;
    uint64_t lines; /* complete ones in buf, and those that a report in buf speaks of */
    size_t len;     /* bytes of complete lines */
    size_t prefix_len;
    char prefix[192];
    char buf[STK_LOG_LINE_MAX];
};

static const struct {
    const char *name;
    const char *colour;
} log_levels[] = {
    [STK_LOG_DEBUG] = {"debug", "\033[2m"},          [STK_LOG_INFO] = {"info", "\033[32m"},
    [STK_LOG_WARNING] = {"warning", "\033[33m"},     [STK_LOG_ERROR] = {"error", "\033[31m"},
    [STK_LOG_CRITICAL] = {"critical", "\033[1;31m"},
};

void stk_log_set_level(enum stk_log_level level)
{
    atomic_store_explicit(&log_state.level, (int)level, memory_order_relaxed);
}

bool stk_log_enabled(enum stk_log_level level)
{
    return (int)level >= atomic_load_explicit(&log_state.level, memory_order_relaxed);
}

const char *stk_log_level_name(enum stk_log_level level)
{
    return (size_t)level < STK_ARRAY_LEN(log_levels) ? log_levels[level].name : NULL;
}

int stk_log_open(const char *target)
{
    struct stk_log_sink sink;
    int r = stk_log_sink_open(&sink, target, STDERR_FILENO);

    if (r < 0)
        return r;
    stk_log_sink_close(&log_state.sink);
    log_state.sink = sink;
    return 0;
}

void stk_log_divert(struct stk_log_sink *ret_sink, int fd)
{
    *ret_sink = log_state.sink;
    log_state.sink =
        (struct stk_log_sink){.kind = STK_LOG_SINK_STREAM, .fd = fd >= 0 ? fd : STDERR_FILENO};
    stk_log_sink_probe(&log_state.sink);
}

void stk_log_restore(const struct stk_log_sink *sink)
{
    log_state.sink = *sink;
}

/* Whether lines go to a descriptor that stands for standard error. */
static bool log_is_diverted(void)
{
    return log_state.sink.kind == STK_LOG_SINK_STREAM && log_state.sink.fd > STDERR_FILENO;
}

void stk_log_keep_streams(int out, int err)
{
    stk_fd_close(&log_state.out);
    stk_fd_close(&log_state.err);
    log_state.out = out;
    log_state.err = err;
}

void stk_log_fall_back(void)
{
    if ((log_state.out >= 0 && dup2(log_state.out, STDOUT_FILENO) < 0) ||
        (log_state.err >= 0 && dup2(log_state.err, STDERR_FILENO) < 0) ||
        (log_is_diverted() && dup3(STDERR_FILENO, log_state.sink.fd, O_CLOEXEC) < 0)) {
        /* Nobody hears of it. */
    }
    stk_log_keep_streams(-1, -1);
}

int stk_log_chmod(mode_t mode)
{
    return stk_log_sink_chmod(&log_state.sink, mode);
}

bool stk_log_is_file(void)
{
    return log_state.sink.kind == STK_LOG_SINK_FILE && log_state.sink.type == STK_LOG_SINK_REGULAR;
}

void stk_log_set_date(const char *format)
{
    log_state.date = format;
}

static void log_capture(void)
{
    const struct stk_log_sink *sink = &log_state.sink;

    if (!log_state.captures || sink->kind != STK_LOG_SINK_FILE)
        return;
    if (dup2(sink->fd, STDOUT_FILENO) < 0 || dup2(sink->fd, STDERR_FILENO) < 0)
        stk_log_error("what is printed cannot go to the error log: %s", strerror(errno));
}

void stk_log_capture(void)
{
    log_state.captures = true;
    log_capture();
}

void stk_log_reopen(void)
{
    int r = stk_log_sink_reopen(&log_state.sink);

    if (r < 0)
        stk_log_error("cannot open the error log %s again, so the old one stays in use: %s",
                      log_state.sink.path, strerror(-r));
    else
        log_capture();
}

void stk_log_tee(int fd)
{
    atomic_store_explicit(&log_state.tee, fd, memory_order_relaxed);
}

void stk_log_watch(void (*fn)(const char *text, size_t len))
{
    log_state.watch = fn;
}

int stk_log_tee_fd(void)
{
    return atomic_load_explicit(&log_state.tee, memory_order_relaxed);
}

void stk_log_plain(const char *text)
{
    int fd = stk_log_tee_fd();

    fprintf(stderr, "%s\n", text);
    if (fd >= 0 &&
        (stk_fd_write_all(fd, text, strlen(text)) < 0 || stk_fd_write_all(fd, "\n", 1) < 0))
        stk_log_tee(-1);
}

int stk_log_fd(void)
{
    return log_state.sink.kind == STK_LOG_SINK_SYSLOG || log_is_diverted() ? STDERR_FILENO
                                                                           : log_state.sink.fd;
}

void stk_log_set_process(const char *name)
{
    snprintf(log_state.process, sizeof log_state.process, "%s", name);
}

/* https://no-color.org: any value but the empty one turns colours off. */
static bool log_wants_colour(const struct stk_log_sink *sink)
{
    const char *no_color, *term;

    if (sink->type != STK_LOG_SINK_TERMINAL)
        return false;
    no_color = getenv("NO_COLOR");
    term = getenv("TERM");
    return (no_color == NULL || *no_color == '\0') && (term == NULL || strcmp(term, "dumb") != 0);
}

static void log_make_prefix(struct log_batch *b)
{
    const char *name = log_levels[b->level].name;
    bool colour = log_wants_colour(&b->sink);
    struct stk_log_clock clock;
    struct timespec now;
    int n;

    if (b->sink.kind == STK_LOG_SINK_SYSLOG) { /* which adds time and pid itself */
        n = snprintf(b->prefix, sizeof b->prefix, "[%s] %s: ", log_state.process, name);
    } else if (log_state.date != NULL) {
        char date[64];

        clock_gettime(CLOCK_REALTIME, &now);
        stk_log_date(date, sizeof date, log_state.date, now.tv_sec);
        n = snprintf(b->prefix, sizeof b->prefix, "%s [%s %d] %s%s%s: ", date, log_state.process,
                     (int)getpid(), colour ? log_levels[b->level].colour : "", name,
                     colour ? "\033[0m" : "");
    } else {
        clock_gettime(CLOCK_REALTIME, &now);
        stk_log_clock_local(now.tv_sec, &clock);
        n = snprintf(b->prefix, sizeof b->prefix,
                     "%04d-%02u-%02u %02u:%02u:%02u.%03u [%s %d] %s%s%s: ", clock.year, clock.month,
                     clock.day, clock.hour, clock.minute, clock.second,
                     (unsigned)(now.tv_nsec / STK_NSEC_PER_MSEC), log_state.process, (int)getpid(),
                     colour ? log_levels[b->level].colour : "", name, colour ? "\033[0m" : "");
    }
    b->prefix_len = n < (int)sizeof b->prefix ? (size_t)n : sizeof b->prefix - 1;
}

static void log_flush(struct log_batch *b)
{
    size_t done = 0;

    while (done < b->len) {
        ssize_t n = stk_log_sink_write(&b->sink, b->level, b->buf + done, b->len - done);

        if (n <= 0) {
            atomic_fetch_add_explicit(&log_state.dropped, b->lines, memory_order_relaxed);
            break;
        }
        done += (size_t)n;
    }
    b->len = 0;
    b->lines = 0;
}

/* The text to show for the character at `text`: at most 4 bytes; *ret_taken says how many it is. */
static size_t log_escape(const char *text, size_t len, char out[4], size_t *ret_taken)
{
    static const char hex[] = "0123456789abcdef";
    unsigned char c = (unsigned char)text[0];
    size_t wide;

    *ret_taken = 1;
    if ((c >= 0x20 && c < 0x7f) || c == '\t') {
        out[0] = (char)c;
        return 1;
    }
    wide = stk_utf8_wide_len(text, len);
    if (wide > 0) {
        memcpy(out, text, wide);
        *ret_taken = wide;
        return wide;
    }
    out[0] = '\\';
    out[1] = 'x';
    out[2] = hex[c >> 4];
    out[3] = hex[c & 15];
    return 4;
}

/* Ends the line that grows from b->len to `end`. */
static void log_end_line(struct log_batch *b, size_t end)
{
    b->buf[end++] = '\n';
    b->len = end;
    b->lines++;
    if (b->sink.kind == STK_LOG_SINK_SYSLOG)
        log_flush(b);
}

static size_t log_begin_line(struct log_batch *b, const char *continued)
{
    size_t more = strlen(continued);

    if (b->len + b->prefix_len + more + 64 > sizeof b->buf)
        log_flush(b);
    memcpy(b->buf + b->len, b->prefix, b->prefix_len);
    memcpy(b->buf + b->len + b->prefix_len, continued, more);
    return b->len + b->prefix_len + more;
}

static void log_put_line(struct log_batch *b, const char *text, size_t len)
{
    size_t end = log_begin_line(b, "");

    while (len > 0) {
        char out[4];
        size_t taken, n = log_escape(text, len, out, &taken);

        if (end + n + 4 > sizeof b->buf) { /* room for "...\n" */
            size_t start = b->len;

            if (start > 0) { /* the lines before make room */
                log_flush(b);
                end -= start;
                memmove(b->buf, b->buf + start, end);
            } else {
                memcpy(b->buf + end, "...", 3);
                log_end_line(b, end + 3);
                log_flush(b);
                end = log_begin_line(b, "...");
            }
        }
        memcpy(b->buf + end, out, n);
        end += n;
        text += taken;
        len -= taken;
    }
    log_end_line(b, end);
}

static void log_report_dropped(struct log_batch *b)
{
    enum stk_log_level level;
    uint64_t dropped;
    char text[128];
    int n;

    if (atomic_load_explicit(&log_state.dropped, memory_order_relaxed) == 0)
        return;
    dropped = atomic_exchange_explicit(&log_state.dropped, 0, memory_order_relaxed);
    if (dropped == 0)
        return;
    n = snprintf(text, sizeof text, "%llu lines of this log were dropped, %s did not keep up",
                 (unsigned long long)dropped, stk_log_sink_reader(&b->sink));
    level = b->level;
    b->level = STK_LOG_WARNING;
    log_make_prefix(b);
    b->lines = dropped - 1; /* should this line be lost as well, it stands for all of them */
    log_put_line(b, text, (size_t)n);
    b->level = level;
    log_make_prefix(b);
}

static void log_emit(enum stk_log_level level, const char *text, size_t len)
{
    int tee = atomic_load_explicit(&log_state.tee, memory_order_relaxed);
    struct log_batch b;

    if (stk_unlikely(log_state.watch != NULL))
        log_state.watch(text, len);
    if (tee >= 0 && level >= STK_LOG_ERROR &&
        (stk_fd_write_all(tee, text, len) < 0 || stk_fd_write_all(tee, "\n", 1) < 0))
        stk_log_tee(-1); /* what follows would make no sense without this */
    b.sink = log_state.sink;
    b.level = level;
    b.lines = 0;
    b.len = 0;
    if (b.sink.kind == STK_LOG_SINK_STREAM)
        stk_log_sink_probe(&b.sink);
    log_make_prefix(&b);
    log_report_dropped(&b);
    while (len > 0 && text[len - 1] == '\n')
        len--;
    for (;;) {
        const char *nl = len > 0 ? memchr(text, '\n', len) : NULL;
        size_t line = nl != NULL ? (size_t)(nl - text) : len;

        log_put_line(&b, text, line > 0 && text[line - 1] == '\r' ? line - 1 : line);
        if (nl == NULL)
            break;
        text += line + 1;
        len -= line + 1;
    }
    log_flush(&b);
}

void stk_log_bytes(enum stk_log_level level, const char *text, size_t len)
{
    int saved = errno;

    if (stk_log_enabled(level))
        log_emit(level, text, len);
    errno = saved;
}

void stk_log(enum stk_log_level level, const char *fmt, ...)
{
    STK_CLEANUP(stk_mem_freep) char *heap = NULL;
    int saved = errno;
    char stack[1024];
    const char *text = stack;
    va_list args;
    int n;

    if (!stk_log_enabled(level))
        return;
    va_start(args, fmt);
    n = vsnprintf(stack, sizeof stack, fmt, args);
    va_end(args);
    if (n >= (int)sizeof stack) {
        heap = stk_try_alloc((size_t)n + 1);
        if (heap != NULL) {
            errno = saved; /* for %m */
            va_start(args, fmt);
            n = vsnprintf(heap, (size_t)n + 1, fmt, args);
            va_end(args);
            text = heap;
        } else {
            n = (int)sizeof stack - 1;
        }
    }
    if (n >= 0)
        log_emit(level, text, (size_t)n);
    errno = saved;
}
