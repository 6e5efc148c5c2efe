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
#define STK_SCOREBOARD_MAGIC   0x53434f52u

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
    uint32_t thread;
    uint64_t id;
    uint64_t started_ns; /* monotonic clock */
    char method[STK_SCOREBOARD_METHOD];
    char target[STK_SCOREBOARD_TARGET]; /* without its query; cut; printable */
};

/* Times by size: two buckets for each doubling, from 1 us on; values in microseconds. */
struct stk_scoreboard_histogram {
    _Atomic uint64_t buckets[STK_SCOREBOARD_BUCKETS];
    _Atomic uint64_t sum_us;
};

/* One worker's numbers; rows do not share cache lines. */
struct stk_scoreboard_row {
    /* written by the master */
    _Alignas(128) _Atomic uint64_t state; /* enum stk_scoreboard_state; READY.. by the master too */
    _Atomic uint64_t pid;
    _Atomic uint64_t slot;
    _Atomic uint64_t generation;
    _Atomic uint64_t started_ns; /* monotonic clock */

    /* written by the worker */
    _Alignas(128) _Atomic uint64_t counters[STK_COUNTERS];
    _Atomic uint64_t close_reasons[STK_SCOREBOARD_REASONS];
    struct stk_scoreboard_histogram latency; /* head complete to response handed over */
    struct stk_scoreboard_histogram
        waiting; /* head complete to application called, of the queued */
    struct stk_scoreboard_request running[STK_SCOREBOARD_RUNNING];

    /* written by the worker for its peers, which look for somebody idle */
    _Alignas(128) _Atomic uint64_t lead_word; /* loop/lead.h: who turns the loop, and a number that
                                                 each call of the application makes new */
    _Atomic uint32_t threads;                 /* of the application */
    _Atomic uint32_t parked;                  /* of these, without work */
    _Atomic uint32_t offers; /* requests that peers have offered it and it has not yet taken: their
                                number in the low 8 bits, above it when (ms) the last one was */
    _Atomic uint32_t backlog; /* requests that wait in it, as far as they are known */
    _Atomic uint64_t calls;   /* of the application that have returned */
};

/* The head of the shared memory. */
struct stk_scoreboard {
    uint32_t magic;
    uint32_t nrows;
    uint64_t size;                     /* of the mapping */
    _Atomic uint64_t started_ns;       /* of the server, monotonic clock */
    _Atomic uint64_t restarts;         /* workers started in place of one that died */
    _Atomic uint64_t reloads;          /* reloads asked for */
    struct stk_scoreboard_row retired; /* the sum of rows that were used again */
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

/* "requests"; NULL for another number. */
const char *stk_scoreboard_counter_name(unsigned counter);
const char *stk_scoreboard_counter_help(unsigned counter);
bool stk_scoreboard_counter_is_gauge(unsigned counter);
/* "starting"; NULL for another number. */
const char *stk_scoreboard_state_name(unsigned state);

static inline uint64_t stk_scoreboard_get(const struct stk_scoreboard_row *row,
                                          enum stk_counter counter)
{
    return atomic_load_explicit(&row->counters[counter], memory_order_relaxed);
}

/* Adds from any thread of the worker. */
static inline void stk_scoreboard_add(struct stk_scoreboard_row *row, enum stk_counter counter,
                                      uint64_t n)
{
    atomic_fetch_add_explicit(&row->counters[counter], n, memory_order_relaxed);
}

static inline void stk_scoreboard_sub(struct stk_scoreboard_row *row, enum stk_counter counter,
                                      uint64_t n)
{
    atomic_fetch_sub_explicit(&row->counters[counter], n, memory_order_relaxed);
}

/*
 * Adds without a locked instruction: only for counters that nobody but the thread which owns the
 * loop writes (the hand-over of the loop orders the writes).
 */
static inline void stk_scoreboard_add_owned(struct stk_scoreboard_row *row,
                                            enum stk_counter counter, uint64_t n)
{
    uint64_t v = atomic_load_explicit(&row->counters[counter], memory_order_relaxed);

    atomic_store_explicit(&row->counters[counter], v + n, memory_order_relaxed);
}

static inline void stk_scoreboard_set(struct stk_scoreboard_row *row, enum stk_counter counter,
                                      uint64_t n)
{
    atomic_store_explicit(&row->counters[counter], n, memory_order_relaxed);
}

/* Counts a closed connection; reason < STK_SCOREBOARD_REASONS. */
static inline void stk_scoreboard_close_reason(struct stk_scoreboard_row *row, unsigned reason)
{
    atomic_fetch_add_explicit(&row->close_reasons[reason], 1, memory_order_relaxed);
}
