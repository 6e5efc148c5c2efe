/*
 * The writer thread of a log.
 *
 * Producers hold the mutex for one copy into a ring of whole lines. The thread sleeps on a
 * condition while the ring is empty (no wake-ups on an idle server); the line that ends the silence
 * wakes it, and it gathers for 50 ms, or until the ring is half full, before it writes: so a busy
 * server pays one wake-up for thousands of lines. While lines keep coming it goes on by the clock,
 * and no producer has to wake it for each round.
 *
 * It copies pieces that end with a line out of the ring, which makes room at once, and writes them
 * with stk_log_sink_write, which never waits. A stalled reader therefore cannot keep the thread
 * from reporting what is dropped, nor the process from stopping. Only a disk that hangs inside
 * write(2) can; then the thread is left behind at the end.
 *
 * An empty ring starts again at its first byte, so that a quiet process touches few of its pages.
 */
#include "base/log_writer.h"

#include <errno.h>
#include <pthread.h>
#include <signal.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>
#include <unistd.h>

#include "base/assert.h"
#include "base/log.h"
#include "base/mem.h"
#include "base/time.h"

enum {
    WRITER_PIECE = 64 * 1024,
    WRITER_SIZE_MIN = 4 * STK_LOG_LINE_MAX,
    WRITER_BUSY = 256,     /* bytes of a round after which the next needs no waking */
    WRITER_STALL_MS = 100, /* how often a stalled writer looks up */
    WRITER_CRASH_TRIES = 20,
};
#define WRITER_GATHER       (50 * STK_NSEC_PER_MSEC)
#define WRITER_REPORT_EVERY STK_NSEC_PER_SEC
#define WRITER_STOP_STALLED STK_NSEC_PER_SEC       /* at the end, without progress */
#define WRITER_STOP_SLOW    (5 * STK_NSEC_PER_SEC) /* at the end, with progress */
#define WRITER_STOP_HUNG    (STK_NSEC_PER_SEC / 2) /* beyond these, inside a system call */
#define WRITER_MAGIC        0x4c6f6757U

struct stk_log_writer {
    unsigned magic;
    pthread_mutex_t lock;
    pthread_cond_t wake; /* for the thread */
    pthread_cond_t done; /* for stk_log_writer_free */

    /* Under the lock. head - tail bytes are in the ring, at positions modulo its size. */
    char *ring;
    size_t size; /* a power of two */
    uint64_t head;
    uint64_t tail;
    uint64_t wake_at; /* bytes in the ring at which a producer wakes the thread */
    uint64_t dropped; /* lines, in all */
    uint64_t failed;  /* lines that the target refused, in all; only the thread changes it */
    bool reopen;
    bool stop;
    bool ended;
    stk_nsec stop_by;    /* moves on while the target takes lines */
    stk_nsec stop_limit; /* the end of that */

    /* The thread's own. */
    struct stk_log_sink sink;
    struct stk_log_out out; /* in its place, with a function to write */
    int error;              /* of the last that failed */
    uint64_t told_dropped;  /* what has been reported */
    uint64_t told_failed;
    stk_nsec told_when;
    bool torn; /* the last line in the target is cut off */
    char piece[1 + WRITER_PIECE];

    char *name;
    pid_t pid;
    pthread_t thread;
};

static struct timespec writer_timespec(stk_nsec when)
{
    return (struct timespec){.tv_sec = (time_t)(when / STK_NSEC_PER_SEC),
                             .tv_nsec = (long)(when % STK_NSEC_PER_SEC)};
}

bool stk_log_writer_append(struct stk_log_writer *writer, const char *line, size_t len)
{
    size_t at, first;
    bool wake;

    STK_ASSERT(len <= STK_LOG_LINE_MAX);
    pthread_mutex_lock(&writer->lock);
    if (stk_unlikely(writer->size - (writer->head - writer->tail) < len)) {
        writer->dropped++;
        pthread_mutex_unlock(&writer->lock);
        return false;
    }
    at = (size_t)writer->head & (writer->size - 1);
    first = writer->size - at;
    if (stk_likely(first >= len)) {
        memcpy(writer->ring + at, line, len);
    } else {
        memcpy(writer->ring + at, line, first);
        memcpy(writer->ring, line + first, len - first);
    }
    writer->head += len;
    /* Where the next line goes, which the thread has read since: it comes while the next request is
     * dealt with, and not while the lock is held. */
    __builtin_prefetch(writer->ring + ((size_t)writer->head & (writer->size - 1)), 1);
    __builtin_prefetch(writer->ring + ((size_t)(writer->head + 64) & (writer->size - 1)), 1);
    wake = writer->head - writer->tail >= writer->wake_at;
    if (wake)
        writer->wake_at = UINT64_MAX;
    pthread_mutex_unlock(&writer->lock);
    if (stk_unlikely(wake))
        pthread_cond_signal(&writer->wake);
    return true;
}

static const char *writer_target(const struct stk_log_writer *w)
{
    if (w->sink.path != NULL)
        return w->sink.path;
    return w->sink.fd == STDOUT_FILENO ? "standard output" : "standard error";
}

static uint64_t writer_dropped(struct stk_log_writer *w)
{
    uint64_t n;

    pthread_mutex_lock(&w->lock);
    n = w->dropped;
    pthread_mutex_unlock(&w->lock);
    return n;
}

/* Tells the error log about losses, when there are new ones and the last report is a second old. */
static void writer_report(struct stk_log_writer *w, bool now)
{
    uint64_t dropped = writer_dropped(w);
    stk_nsec when;

    if (dropped == w->told_dropped && w->failed == w->told_failed)
        return;
    when = stk_time_mono_ns();
    if (!now && w->told_when != 0 && when - w->told_when < WRITER_REPORT_EVERY)
        return;
    if (dropped != w->told_dropped)
        stk_log_warning("%s: %llu lines dropped, %s does not keep up", w->name,
                        (unsigned long long)(dropped - w->told_dropped),
                        stk_log_sink_reader(&w->sink));
    if (w->failed != w->told_failed)
        stk_log_warning("%s: %llu lines lost, cannot write to %s: %s", w->name,
                        (unsigned long long)(w->failed - w->told_failed), writer_target(w),
                        strerror(w->error));
    w->told_dropped = dropped;
    w->told_failed = w->failed;
    w->told_when = when;
}

static void writer_do_reopen(struct stk_log_writer *w)
{
    int r;

    pthread_mutex_lock(&w->lock);
    w->reopen = false;
    pthread_mutex_unlock(&w->lock);
    if (w->out.write != NULL) {
        w->out.reopen(w->out.arg);
        return;
    }
    r = stk_log_sink_reopen(&w->sink);
    if (r < 0)
        stk_log_error("%s: cannot open %s again, so the old one stays in use: %s", w->name,
                      writer_target(w), strerror(-r));
    else
        w->torn = false;
}

static uint64_t writer_count_lines(const char *text, size_t len)
{
    const char *end = text + len;
    uint64_t n = 0;

    while (text < end && (text = memchr(text, '\n', (size_t)(end - text))) != NULL) {
        text++;
        n++;
    }
    return n;
}

/* Counts lines that will not get through; EAGAIN: the target was given no more time. */
static void writer_lose(struct stk_log_writer *w, uint64_t lines, int error)
{
    pthread_mutex_lock(&w->lock);
    if (error == EAGAIN) {
        w->dropped += lines;
    } else {
        w->failed += lines;
        w->error = error;
    }
    pthread_mutex_unlock(&w->lock);
}

/* While the target takes nothing. False: the process is stopping and has waited long enough. */
static bool writer_wait(struct stk_log_writer *w)
{
    bool late, reopen;

    stk_log_sink_wait(&w->sink, WRITER_STALL_MS);
    pthread_mutex_lock(&w->lock);
    late = w->stop && stk_time_mono_ns() >= w->stop_by;
    reopen = w->reopen;
    pthread_mutex_unlock(&w->lock);
    writer_report(w, false);
    if (reopen)
        writer_do_reopen(w);
    return !late;
}

/*
 * Writes a piece of whole lines, which has a spare byte before it. False: the process must stop
 * now.
 */
static bool writer_put(struct stk_log_writer *w, char *piece, size_t len)
{
    bool torn = w->torn;
    size_t done = 0;

    if (w->out.write != NULL) {
        uint64_t lost = w->out.write(w->out.arg, piece, len);

        writer_lose(w, lost, EAGAIN);
        w->told_dropped += lost; /* which it says itself, with the place and the reason */
        return true;
    }
    if (torn) { /* ends the line that an error has cut off */
        *--piece = '\n';
        len++;
    }
    w->torn = false;
    while (done < len) {
        ssize_t n = stk_log_sink_write(&w->sink, STK_LOG_INFO, piece + done, len - done);

        if (n > 0) {
            done += (size_t)n;
            continue;
        }
        if (n == -EAGAIN && writer_wait(w))
            continue;
        torn = torn && done == 0; /* the new line that was to end it is not one of ours */
        writer_lose(w, writer_count_lines(piece + done, len - done) - torn, n < 0 ? (int)-n : EIO);
        w->torn = torn || (done > 0 && piece[done - 1] != '\n');
        return n != -EAGAIN;
    }
    return true;
}

/* Copies the oldest lines out of the ring, up to `end`; returns their bytes. */
static size_t writer_take(struct stk_log_writer *w, uint64_t end, char *dst)
{
    size_t max = stk_log_sink_write_max(&w->sink);
    size_t len = end - w->tail < max ? (size_t)(end - w->tail) : max;
    size_t at = (size_t)w->tail & (w->size - 1);
    size_t first = w->size - at < len ? w->size - at : len;
    const char *nl;

    memcpy(dst, w->ring + at, first);
    memcpy(dst + first, w->ring, len - first);
    nl = stk_log_sink_takes_lines(&w->sink) ? memchr(dst, '\n', len) : memrchr(dst, '\n', len);
    STK_ASSERT(nl != NULL);
    return (size_t)(nl - dst) + 1;
}

/* Makes room in the ring. False: the process must stop now. */
static bool writer_advance(struct stk_log_writer *w, size_t len)
{
    bool go_on = true;

    pthread_mutex_lock(&w->lock);
    w->tail += len;
    if (w->stop) {
        stk_nsec now = stk_time_mono_ns();

        go_on = now < w->stop_limit;
        w->stop_by =
            now + WRITER_STOP_STALLED < w->stop_limit ? now + WRITER_STOP_STALLED : w->stop_limit;
    }
    pthread_mutex_unlock(&w->lock);
    return go_on;
}

/* Writes what the ring holds up to `end`. False: the process must stop now. */
static bool writer_drain(struct stk_log_writer *w, uint64_t end)
{
    while (w->tail != end) { /* only this thread changes tail */
        size_t len = writer_take(w, end, w->piece + 1);

        if (!writer_advance(w, len)) {
            writer_lose(w, writer_count_lines(w->piece + 1, len), EAGAIN);
            return false;
        }
        if (!writer_put(w, w->piece + 1, len))
            return false;
    }
    return true;
}

void stk_log_writer_crash(struct stk_log_writer *w)
{
    const struct timespec pause = {.tv_nsec = STK_NSEC_PER_MSEC};

    if (w == NULL || w->pid != getpid() || stk_log_sink_takes_lines(&w->sink) ||
        w->out.write != NULL)
        return;
    /* Held for good: neither the thread nor anybody else adds to what is written here. */
    for (int tries = 0; pthread_mutex_trylock(&w->lock) != 0; tries++) {
        if (tries == WRITER_CRASH_TRIES)
            return;
        (void)nanosleep(&pause, NULL);
    }
    while (w->tail != w->head) {
        size_t at = (size_t)w->tail & (w->size - 1);
        size_t len = (size_t)(w->head - w->tail);
        size_t max = stk_log_sink_write_max(&w->sink);
        const char *nl;
        ssize_t n;

        len = len < w->size - at ? len : w->size - at;
        len = len < max ? len : max;
        nl = memrchr(w->ring + at, '\n', len);
        if (nl != NULL)
            len = (size_t)(nl - (w->ring + at)) + 1;
        n = stk_log_sink_write(&w->sink, STK_LOG_INFO, w->ring + at, len);
        if (n <= 0)
            return;
        w->tail += (size_t)n;
    }
}

/* Sleeps until there is something to do. Locked. */
static void writer_idle(struct stk_log_writer *w)
{
    while (w->head == w->tail && !w->stop && !w->reopen) {
        w->wake_at = 1;
        if (w->dropped == w->told_dropped && w->failed == w->told_failed) {
            pthread_cond_wait(&w->wake, &w->lock);
        } else { /* a report is due */
            struct timespec until = writer_timespec(w->told_when + WRITER_REPORT_EVERY);

            if (pthread_cond_timedwait(&w->wake, &w->lock, &until) == ETIMEDOUT)
                break;
        }
    }
}

/* Lets lines come together; `busy`: also when there is none yet. Locked. */
static void writer_gather(struct stk_log_writer *w, bool busy)
{
    struct timespec until = writer_timespec(stk_time_mono_ns() + WRITER_GATHER);

    while ((busy || w->head != w->tail) && w->head - w->tail < w->size / 2 && !w->stop &&
           !w->reopen) {
        w->wake_at = w->size / 2;
        if (pthread_cond_timedwait(&w->wake, &w->lock, &until) == ETIMEDOUT)
            break;
    }
    w->wake_at = UINT64_MAX;
}

static void *writer_main(void *arg)
{
    struct stk_log_writer *w = arg;
    bool go_on = true, busy = false;

    STK_CHECK_MAGIC(w, WRITER_MAGIC);
    pthread_mutex_lock(&w->lock);
    while (go_on && !(w->stop && w->head == w->tail)) {
        bool reopen;
        uint64_t end;

        if (w->head == w->tail)
            w->head = w->tail = 0;
        if (!busy)
            writer_idle(w);
        writer_gather(w, busy);
        busy = w->head - w->tail >= WRITER_BUSY;
        reopen = w->reopen;
        end = w->head;
        pthread_mutex_unlock(&w->lock);
        go_on = writer_drain(w, end);
        if (reopen)
            writer_do_reopen(w);
        writer_report(w, false);
        pthread_mutex_lock(&w->lock);
    }
    /* What a stalled reader has left in the ring. */
    while (w->tail != w->head) {
        w->dropped += w->ring[w->tail & (w->size - 1)] == '\n';
        w->tail++;
    }
    pthread_mutex_unlock(&w->lock);
    writer_report(w, true);
    pthread_mutex_lock(&w->lock);
    w->ended = true;
    pthread_cond_signal(&w->done);
    pthread_mutex_unlock(&w->lock);
    return NULL;
}

static void writer_init_locks(struct stk_log_writer *w)
{
    pthread_condattr_t attr;

    pthread_condattr_init(&attr);
    pthread_condattr_setclock(&attr, CLOCK_MONOTONIC);
    pthread_mutex_init(&w->lock, NULL);
    pthread_cond_init(&w->wake, &attr);
    pthread_cond_init(&w->done, &attr);
    pthread_condattr_destroy(&attr);
}

static int writer_start(struct stk_log_writer *w)
{
    sigset_t all, old;
    int r;

    w->pid = getpid();
    sigfillset(&all);
    pthread_sigmask(SIG_SETMASK, &all, &old);
    r = pthread_create(&w->thread, NULL, writer_main, w);
    pthread_sigmask(SIG_SETMASK, &old, NULL);
    if (r != 0)
        return -r;
    pthread_setname_np(w->thread, "stk-log");
    return 0;
}

static void writer_release(struct stk_log_writer *w)
{
    stk_log_sink_close(&w->sink);
    if (w->out.free != NULL)
        w->out.free(w->out.arg);
    w->magic = 0;
    free(w->ring);
    free(w->name);
    free(w);
}

static int writer_new(struct stk_log_writer **ret_writer, const char *name,
                      const struct stk_log_sink *sink, const struct stk_log_out *out, size_t size)
{
    struct stk_log_writer *w = stk_new0(struct stk_log_writer);
    int r;

    if (size == 0)
        size = STK_LOG_WRITER_SIZE;
    w->size = WRITER_SIZE_MIN;
    while (w->size < size)
        w->size *= 2;
    w->magic = WRITER_MAGIC;
    w->sink = *sink;
    w->out = *out;
    w->name = stk_mem_strdup(name);
    w->ring = stk_mem_zalloc(w->size);
    w->wake_at = UINT64_MAX;
    writer_init_locks(w);
    r = writer_start(w);
    if (r < 0) {
        writer_release(w);
        return r;
    }
    *ret_writer = w;
    return 0;
}

int stk_log_writer_new(struct stk_log_writer **ret_writer, const char *name,
                       const struct stk_log_sink *sink, size_t size)
{
    static const struct stk_log_out none;

    return writer_new(ret_writer, name, sink, &none, size);
}

int stk_log_writer_new_out(struct stk_log_writer **ret_writer, const char *name,
                           const struct stk_log_out *out, size_t size)
{
    /* Of which only the size of its pieces counts. */
    static const struct stk_log_sink nowhere = {
        .kind = STK_LOG_SINK_STREAM, .type = STK_LOG_SINK_REGULAR, .fd = -1};

    return writer_new(ret_writer, name, &nowhere, out, size);
}

/* Waits for the thread's end. False: it hangs inside a system call. */
static bool writer_await_end(struct stk_log_writer *w)
{
    bool ended;

    pthread_mutex_lock(&w->lock);
    w->stop = true;
    w->stop_by = stk_time_mono_ns() + WRITER_STOP_STALLED;
    w->stop_limit = stk_time_mono_ns() + WRITER_STOP_SLOW;
    pthread_cond_signal(&w->wake);
    while (!w->ended && stk_time_mono_ns() < w->stop_by + WRITER_STOP_HUNG) {
        struct timespec until = writer_timespec(w->stop_by + WRITER_STOP_HUNG);

        pthread_cond_timedwait(&w->done, &w->lock, &until);
    }
    ended = w->ended;
    pthread_mutex_unlock(&w->lock);
    return ended;
}

struct stk_log_writer *stk_log_writer_free(struct stk_log_writer *writer)
{
    if (writer == NULL)
        return NULL;
    STK_CHECK_MAGIC(writer, WRITER_MAGIC);
    if (writer->pid != getpid()) { /* forked: the thread and its lines are the parent's */
        writer_release(writer);
        return NULL;
    }
    if (!writer_await_end(writer)) { /* it hangs in the kernel: leave it, and what it uses, to the
                                        process's end */
        stk_log_warning("%s: the last lines are lost, %s does not take them", writer->name,
                        writer_target(writer));
        pthread_detach(writer->thread);
        return NULL;
    }
    pthread_join(writer->thread, NULL);
    pthread_cond_destroy(&writer->wake);
    pthread_cond_destroy(&writer->done);
    pthread_mutex_destroy(&writer->lock);
    writer_release(writer);
    return NULL;
}

void stk_log_writer_finish(struct stk_log_writer *writer)
{
    if (writer == NULL || writer->pid != getpid())
        return;
    STK_CHECK_MAGIC(writer, WRITER_MAGIC);
    if (!writer_await_end(writer))
        stk_log_warning("%s: the last lines are lost, %s does not take them", writer->name,
                        writer_target(writer));
}

void stk_log_writer_reopen(struct stk_log_writer *writer)
{
    pthread_mutex_lock(&writer->lock);
    writer->reopen = true;
    pthread_mutex_unlock(&writer->lock);
    pthread_cond_signal(&writer->wake);
}

int stk_log_writer_after_fork(struct stk_log_writer *writer)
{
    STK_CHECK_MAGIC(writer, WRITER_MAGIC);
    writer_init_locks(writer); /* they may have been held at the fork */
    writer->head = writer->tail = 0;
    writer->wake_at = UINT64_MAX;
    writer->dropped = writer->told_dropped = 0;
    writer->failed = writer->told_failed = 0;
    writer->told_when = 0;
    writer->reopen = writer->stop = writer->ended = writer->torn = false;
    return writer_start(writer);
}

uint64_t stk_log_writer_lost(struct stk_log_writer *writer)
{
    uint64_t n;

    pthread_mutex_lock(&writer->lock);
    n = writer->dropped + writer->failed;
    pthread_mutex_unlock(&writer->lock);
    return n;
}
