/*
 * The scoreboard: shared memory that is mapped before the first fork. Each worker writes its own
 * row; the master and `stoker status` read them all without asking anybody. A row outlives its
 * worker, so that a crash is counted up to its last request.
 */
#pragma once

#include <stdatomic.h>
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>
#include <sys/types.h>

#include "base/macros.h"

/* Room for the close reasons of serve/close_reason.def. */
#define STK_SCOREBOARD_REASONS 64
/* The one of them that the master counts: connections of a worker that died. */
#define STK_SCOREBOARD_REASON_DIED 0
#define STK_SCOREBOARD_MAGIC       0x53434f52u

/* The state of a row, in the order of a worker's life. */
enum stk_scoreboard_state {
    STK_SCOREBOARD_FREE,     /* no worker */
    STK_SCOREBOARD_STARTING, /* forked, loading the application */
    STK_SCOREBOARD_READY,    /* accepts connections */
    STK_SCOREBOARD_DRAINING, /* finishes what was begun */
    STK_SCOREBOARD_GONE,     /* exited; the counters are its last words */
    STK_SCOREBOARD_STATES,
};

enum stk_counter {
#define STK_COUNTER(name, kind, description) STK_COUNTER_##name,
#include "ipc/counter.def"
#undef STK_COUNTER
    STK_COUNTERS,
};

/* Why a worker was started in place of another. */
enum stk_restart {
#define STK_RESTART(id, name, description) STK_RESTART_##id,
#include "ipc/restart.def"
#undef STK_RESTART
    STK_RESTARTS,
};

enum {
    STK_SCOREBOARD_BUCKETS = 64, /* of a histogram: see stk_scoreboard_bucket */
    STK_SCOREBOARD_RUNNING = 16, /* requests in progress that a row can name */
    STK_SCOREBOARD_METHOD = 12,  /* bytes of a method that are kept */
    STK_SCOREBOARD_TARGET = 100, /* bytes of a target that are kept */
};

/*
 * A request that has been in the application for a while, as the stand-by has seen it. Written
 * under a sequence lock: an odd `seq` is being written, started_ns 0 is an empty place.
 */
struct stk_scoreboard_request {
    _Atomic uint32_t seq;
    uint32_t thread; /* or STK_SCOREBOARD_WAITING: it waits in the event loop */
    uint64_t id;
    uint64_t started_ns; /* monotonic clock */
    char method[STK_SCOREBOARD_METHOD];
    char target[STK_SCOREBOARD_TARGET]; /* without its query; cut; printable */
};

#define STK_SCOREBOARD_WAITING UINT32_MAX

/* What a reader gets of it. */
struct stk_scoreboard_running {
    uint32_t thread;
    uint64_t id;
    uint64_t started_ns;
    char method[STK_SCOREBOARD_METHOD + 1]; /* NUL-terminated, as target */
    char target[STK_SCOREBOARD_TARGET + 1];
};

/* Times by size: two buckets for each doubling, from 1 us on; values in microseconds. */
struct stk_scoreboard_histogram {
    _Atomic uint64_t buckets[STK_SCOREBOARD_BUCKETS];
    _Atomic uint64_t sum_us;
};

/* What readers add histograms up in. */
struct stk_histogram {
    uint64_t buckets[STK_SCOREBOARD_BUCKETS];
    uint64_t count;
    uint64_t sum_us;
};

/*
 * One worker's numbers; rows do not share cache lines. Counters and latency are there twice: one
 * set for the thread that owns the loop, which is the only writer and needs no locked instruction,
 * one for all others. Readers get the sum.
 */
struct stk_scoreboard_row {
    /* written by the master */
    _Alignas(128) _Atomic uint64_t state; /* enum stk_scoreboard_state; READY.. by the master too */
    _Atomic uint64_t pid;
    _Atomic uint64_t slot;
    _Atomic uint64_t generation;
    _Atomic uint64_t started_ns; /* monotonic clock */
    /* Of the slot with this row's index, not of this row: workers that it has had, and what those
     * counted whose rows were used again. */
    _Atomic uint64_t slot_starts;
    _Atomic uint64_t slot_past[STK_COUNTERS];
    _Atomic uint64_t slot_past_us;

    /* written by whoever looked: bytes of memory, 0: nobody has */
    _Atomic uint64_t rss, pss;

    /* written by the worker */
    _Alignas(128) _Atomic uint64_t counters[STK_COUNTERS]; /* by the owner of the loop */
    struct stk_scoreboard_histogram latency; /* head complete to response handed over; likewise */
    _Alignas(128) _Atomic uint64_t shared[STK_COUNTERS]; /* by any thread */
    struct stk_scoreboard_histogram latency_shared;      /* likewise */
    struct stk_scoreboard_histogram
        waiting; /* head complete to application called, of the queued */
    _Atomic uint64_t close_reasons[STK_SCOREBOARD_REASONS];
    _Atomic uint64_t answered[STK_SCOREBOARD_RUNNING]; /* requests, by thread; of the first ones */
    struct stk_scoreboard_request running[STK_SCOREBOARD_RUNNING];

    /* written by the worker for its peers, which look for somebody idle */
    _Alignas(128) _Atomic uint64_t lead_word; /* loop/lead.h: who turns the loop, and a number that
                                                 each call of the application makes new */
    _Atomic uint32_t threads;                 /* of the application */
    _Atomic uint32_t parked;                  /* of these, without work */
    _Atomic uint32_t offers;  /* requests that peers have offered it and it has not yet taken: their
                                 number in the low 8 bits, above it when (ms) the last one was */
    _Atomic uint32_t backlog; /* requests that wait in it, as far as they are known */
    _Atomic uint64_t calls;   /* of the application that have returned */
    _Atomic uint64_t resting; /* loop/lead.h: with this lead_word its event loop just waits */
};

/* The head of the shared memory. */
struct stk_scoreboard {
    uint32_t magic;
    uint32_t nrows;
    uint64_t size;                              /* of the mapping */
    _Atomic uint64_t started_ns;                /* of the server, monotonic clock */
    _Atomic uint64_t restarts;                  /* workers started in place of one that died */
    _Atomic uint64_t reloads;                   /* reloads asked for */
    _Atomic uint64_t reloads_failed;            /* of these, those that left the old workers */
    _Atomic uint64_t restarts_by[STK_RESTARTS]; /* replacements by cause, crashes included */
    struct stk_scoreboard_row retired;          /* the sum of rows that were used again */
    struct stk_scoreboard_row rows[];
};

/*
 * Maps a scoreboard with `nrows` free rows; children inherit it. 0 or a negative errno. A server
 * takes more rows than slots: while a worker drains, its replacement already counts.
 */
int stk_scoreboard_new(unsigned nrows, struct stk_scoreboard **ret_sb) STK_MUST_CHECK;
/* Unmaps it for this process. Accepts NULL; returns NULL. */
struct stk_scoreboard *stk_scoreboard_free(struct stk_scoreboard *sb);

/*
 * Master: takes a row that no living worker uses, zeroes it (its counters go to `retired`) and
 * marks it STARTING. Returns its index, or -ENOSPC when all are in use.
 */
int stk_scoreboard_claim(struct stk_scoreboard *sb, unsigned slot, uint32_t generation)
    STK_MUST_CHECK;
/* Master: marks the row of a worker that has exited; its counters stay readable. */
void stk_scoreboard_retire(struct stk_scoreboard_row *row);

/* A counter summed over all rows and `retired`; of a gauge: over the living workers. */
uint64_t stk_scoreboard_total(const struct stk_scoreboard *sb, enum stk_counter counter);
/* Likewise of a close reason. */
uint64_t stk_scoreboard_total_reason(const struct stk_scoreboard *sb, unsigned reason);

/* A counter of the worker of a slot: of its present one, and of those before. */
uint64_t stk_scoreboard_slot_total(const struct stk_scoreboard *sb, unsigned slot,
                                   enum stk_counter counter);
/* The row of the worker that serves a slot, or will; NULL: there is none. */
const struct stk_scoreboard_row *stk_scoreboard_slot_row(const struct stk_scoreboard *sb,
                                                         unsigned slot);
/* Application threads of a worker that are in the application, or on their way into it, now. */
unsigned stk_scoreboard_busy(const struct stk_scoreboard_row *row);
/* A name of `running`; false: the place is empty, or being written again and again. */
bool stk_scoreboard_read_running(const struct stk_scoreboard_row *row, unsigned place,
                                 struct stk_scoreboard_running *ret_running);

/* Adds the latencies of a row. */
void stk_scoreboard_add_latency(const struct stk_scoreboard_row *row, struct stk_histogram *into);
/* Adds a histogram. */
void stk_scoreboard_add_histogram(const struct stk_scoreboard_histogram *h,
                                  struct stk_histogram *into);
/* Sums over all rows and `retired`, into zeroed structures. */
void stk_scoreboard_total_latency(const struct stk_scoreboard *sb, struct stk_histogram *into);
void stk_scoreboard_total_waiting(const struct stk_scoreboard *sb, struct stk_histogram *into);
/* The time below which so many of a thousand lie, in microseconds, up to the width of a bucket; 0
 * of an empty histogram. */
uint64_t stk_histogram_quantile(const struct stk_histogram *h, unsigned permille);

/* The first value (microseconds) that lies beyond a bucket; UINT64_MAX of the last. */
uint64_t stk_scoreboard_bucket_end(unsigned bucket);
/* The bucket of a time in microseconds: 0 of 0 and 1, then two for each doubling. */
static inline unsigned stk_scoreboard_bucket(uint64_t us)
{
    unsigned power, bucket;

    if (us < 2)
        return 0;
    power = 63 - (unsigned)__builtin_clzll(us);
    bucket = 2 * power - 1 + ((us >> (power - 1)) & 1);
    return bucket < STK_SCOREBOARD_BUCKETS ? bucket : STK_SCOREBOARD_BUCKETS - 1;
}

/* "requests"; NULL for another number. */
const char *stk_scoreboard_counter_name(unsigned counter);
const char *stk_scoreboard_counter_help(unsigned counter);
bool stk_scoreboard_counter_is_gauge(unsigned counter);
/* "starting"; NULL for another number. */
const char *stk_scoreboard_state_name(unsigned state);
/* "max-requests"; NULL for another number. */
const char *stk_scoreboard_restart_name(unsigned cause);
const char *stk_scoreboard_restart_help(unsigned cause);

static inline uint64_t stk_scoreboard_get(const struct stk_scoreboard_row *row,
                                          enum stk_counter counter)
{
    return atomic_load_explicit(&row->counters[counter], memory_order_relaxed) +
           atomic_load_explicit(&row->shared[counter], memory_order_relaxed);
}

/* Adds from any thread of the worker. */
static inline void stk_scoreboard_add(struct stk_scoreboard_row *row, enum stk_counter counter,
                                      uint64_t n)
{
    atomic_fetch_add_explicit(&row->shared[counter], n, memory_order_relaxed);
}

static inline void stk_scoreboard_sub(struct stk_scoreboard_row *row, enum stk_counter counter,
                                      uint64_t n)
{
    atomic_fetch_sub_explicit(&row->shared[counter], n, memory_order_relaxed);
}

/* Adds without a locked instruction: what has no other writer at the moment. */
static inline void stk_scoreboard_bump(_Atomic uint64_t *p, uint64_t n)
{
    atomic_store_explicit(p, atomic_load_explicit(p, memory_order_relaxed) + n,
                          memory_order_relaxed);
}

/* Adds as the thread that owns the loop (the hand-over of the loop orders the writes). */
static inline void stk_scoreboard_add_owned(struct stk_scoreboard_row *row,
                                            enum stk_counter counter, uint64_t n)
{
    stk_scoreboard_bump(&row->counters[counter], n);
}

/* Sets a level that nobody adds to; by the owner of the loop. */
static inline void stk_scoreboard_set(struct stk_scoreboard_row *row, enum stk_counter counter,
                                      uint64_t n)
{
    atomic_store_explicit(&row->counters[counter], n, memory_order_relaxed);
}

/* Counts the time of an answered request; `own`: the thread owns the loop. */
static inline void stk_scoreboard_latency(struct stk_scoreboard_row *row, bool own, uint64_t us)
{
    unsigned bucket = stk_scoreboard_bucket(us);

    if (own) {
        stk_scoreboard_bump(&row->latency.buckets[bucket], 1);
        stk_scoreboard_bump(&row->latency.sum_us, us);
    } else {
        atomic_fetch_add_explicit(&row->latency_shared.buckets[bucket], 1, memory_order_relaxed);
        atomic_fetch_add_explicit(&row->latency_shared.sum_us, us, memory_order_relaxed);
    }
}

/* Counts the time that a request has waited for a thread; from any thread. */
static inline void stk_scoreboard_waiting(struct stk_scoreboard_row *row, uint64_t us)
{
    atomic_fetch_add_explicit(&row->waiting.buckets[stk_scoreboard_bucket(us)], 1,
                              memory_order_relaxed);
    atomic_fetch_add_explicit(&row->waiting.sum_us, us, memory_order_relaxed);
}

/* Counts a closed connection, as the owner of the loop; reason < STK_SCOREBOARD_REASONS. */
static inline void stk_scoreboard_close_reason(struct stk_scoreboard_row *row, unsigned reason)
{
    stk_scoreboard_bump(&row->close_reasons[reason], 1);
}
