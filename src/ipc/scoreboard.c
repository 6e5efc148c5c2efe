/*
 * The scoreboard: one anonymous shared mapping, made before the first fork, so that there is no
 * name to clean up and no access to grant.
 *
 * A row has one writer, its worker, and any number of readers, who never wait: all fields are
 * 64-bit atomics, read and written relaxed. A reader may see a request counted whose bytes are not
 * yet; counters promise no more. The master writes only the first cache lines of a row, and the
 * rest of it only while no worker has it.
 */
#include "ipc/scoreboard.h"

#include <errno.h>
#include <string.h>
#include <sys/mman.h>

#include "base/assert.h"
#include "base/time.h"
#include "loop/lead.h"

enum scoreboard_kind { SCOREBOARD_COUNTER, SCOREBOARD_GAUGE };

static const struct scoreboard_row_def {
    const char *name;
    enum scoreboard_kind kind;
    const char *help;
} scoreboard_defs[] = {
#define STK_COUNTER(name, kind, description) {#name, SCOREBOARD_##kind, description},
#include "ipc/counter.def"
#undef STK_COUNTER
};

static const struct {
    const char *name, *help;
} scoreboard_restarts[] = {
#define STK_RESTART(id, name, description) {name, description},
#include "ipc/restart.def"
#undef STK_RESTART
};

/* How often a reader tries to read what is being written. */
enum { SCOREBOARD_READ_TRIES = 8 };

static const char *const scoreboard_states[] = {"free", "starting", "ready", "draining", "gone"};

_Static_assert(STK_ARRAY_LEN(scoreboard_states) == STK_SCOREBOARD_STATES, "a name for each state");
_Static_assert(sizeof(struct stk_scoreboard_row) % 128 == 0, "rows do not share cache lines");

static uint64_t scoreboard_load(const _Atomic uint64_t *p)
{
    return atomic_load_explicit(p, memory_order_relaxed);
}

static void scoreboard_store(_Atomic uint64_t *p, uint64_t v)
{
    atomic_store_explicit(p, v, memory_order_relaxed);
}

int stk_scoreboard_new(unsigned nrows, struct stk_scoreboard **ret_sb)
{
    size_t size = sizeof(struct stk_scoreboard) + nrows * sizeof(struct stk_scoreboard_row);
    struct stk_scoreboard *sb;

    STK_ASSERT(nrows > 0);
    sb = mmap(NULL, size, PROT_READ | PROT_WRITE, MAP_SHARED | MAP_ANONYMOUS, -1, 0);
    if (sb == MAP_FAILED)
        return -errno;
    sb->magic = STK_SCOREBOARD_MAGIC;
    sb->nrows = nrows;
    sb->size = size;
    scoreboard_store(&sb->started_ns, (uint64_t)stk_time_mono_ns());
    *ret_sb = sb;
    return 0;
}

struct stk_scoreboard *stk_scoreboard_free(struct stk_scoreboard *sb)
{
    if (sb != NULL) {
        STK_CHECK_MAGIC(sb, STK_SCOREBOARD_MAGIC);
        STK_ASSERT(munmap(sb, sb->size) == 0);
    }
    return NULL;
}

/* Adds a number to another place and zeroes it. */
static void scoreboard_move(_Atomic uint64_t *into, _Atomic uint64_t *from)
{
    atomic_fetch_add_explicit(into, scoreboard_load(from), memory_order_relaxed);
    scoreboard_store(from, 0);
}

static void scoreboard_move_histogram(struct stk_scoreboard_histogram *into,
                                      struct stk_scoreboard_histogram *from)
{
    for (unsigned i = 0; i < STK_SCOREBOARD_BUCKETS; i++)
        scoreboard_move(&into->buckets[i], &from->buckets[i]);
    scoreboard_move(&into->sum_us, &from->sum_us);
}

/* Adds what a row has counted to another and zeroes all that its worker wrote. */
static void scoreboard_absorb(struct stk_scoreboard_row *into, struct stk_scoreboard_row *row)
{
    for (unsigned i = 0; i < STK_COUNTERS; i++) {
        if (scoreboard_defs[i].kind == SCOREBOARD_COUNTER) {
            scoreboard_move(&into->counters[i], &row->counters[i]);
            scoreboard_move(&into->counters[i], &row->shared[i]);
        }
        scoreboard_store(&row->counters[i], 0);
        scoreboard_store(&row->shared[i], 0);
    }
    for (unsigned i = 0; i < STK_SCOREBOARD_REASONS; i++)
        scoreboard_move(&into->close_reasons[i], &row->close_reasons[i]);
    scoreboard_move_histogram(&into->latency, &row->latency);
    scoreboard_move_histogram(&into->latency, &row->latency_shared);
    scoreboard_move_histogram(&into->waiting, &row->waiting);
}

/* Adds what a row's worker has counted to the past of its slot. */
static void scoreboard_remember(struct stk_scoreboard *sb, const struct stk_scoreboard_row *row)
{
    uint64_t slot = scoreboard_load(&row->slot);

    if (slot >= sb->nrows)
        return;
    for (unsigned i = 0; i < STK_COUNTERS; i++) {
        if (scoreboard_defs[i].kind == SCOREBOARD_COUNTER)
            atomic_fetch_add_explicit(&sb->rows[slot].slot_past[i],
                                      stk_scoreboard_get(row, (enum stk_counter)i),
                                      memory_order_relaxed);
    }
    atomic_fetch_add_explicit(&sb->rows[slot].slot_past_us,
                              scoreboard_load(&row->latency.sum_us) +
                                  scoreboard_load(&row->latency_shared.sum_us),
                              memory_order_relaxed);
}

/* Empties what tells of the row's last worker. */
static void scoreboard_clear(struct stk_scoreboard_row *row)
{
    for (unsigned i = 0; i < STK_SCOREBOARD_RUNNING; i++) {
        struct stk_scoreboard_request *r = &row->running[i];

        scoreboard_store(&row->answered[i], 0);
        r->started_ns = 0;
        atomic_store_explicit(&r->seq, 0, memory_order_relaxed);
    }
    scoreboard_store(&row->lead_word, 0);
    scoreboard_store(&row->resting, 0);
    atomic_store_explicit(&row->threads, 0, memory_order_relaxed);
    atomic_store_explicit(&row->parked, 0, memory_order_relaxed);
    atomic_store_explicit(&row->offers, 0, memory_order_relaxed);
    scoreboard_store(&row->rss, 0);
    scoreboard_store(&row->pss, 0);
}

int stk_scoreboard_claim(struct stk_scoreboard *sb, unsigned slot, uint32_t generation)
{
    STK_CHECK_MAGIC(sb, STK_SCOREBOARD_MAGIC);
    for (unsigned i = 0; i < sb->nrows; i++) {
        struct stk_scoreboard_row *row = &sb->rows[i];
        uint64_t state = scoreboard_load(&row->state);

        if (state != STK_SCOREBOARD_FREE && state != STK_SCOREBOARD_GONE)
            continue;
        if (state == STK_SCOREBOARD_GONE)
            scoreboard_remember(sb, row);
        scoreboard_absorb(&sb->retired, row);
        scoreboard_clear(row);
        if (slot < sb->nrows)
            atomic_fetch_add_explicit(&sb->rows[slot].slot_starts, 1, memory_order_relaxed);
        scoreboard_store(&row->pid, 0);
        scoreboard_store(&row->slot, slot);
        scoreboard_store(&row->generation, generation);
        scoreboard_store(&row->started_ns, (uint64_t)stk_time_mono_ns());
        scoreboard_store(&row->state, STK_SCOREBOARD_STARTING);
        return (int)i;
    }
    return -ENOSPC;
}

void stk_scoreboard_retire(struct stk_scoreboard_row *row)
{
    scoreboard_store(&row->state, STK_SCOREBOARD_GONE);
    for (unsigned i = 0; i < STK_COUNTERS; i++) {
        if (scoreboard_defs[i].kind == SCOREBOARD_GAUGE) {
            scoreboard_store(&row->counters[i], 0);
            scoreboard_store(&row->shared[i], 0);
        }
    }
}

uint64_t stk_scoreboard_total(const struct stk_scoreboard *sb, enum stk_counter counter)
{
    uint64_t sum = stk_scoreboard_get(&sb->retired, counter);

    for (unsigned i = 0; i < sb->nrows; i++)
        sum += stk_scoreboard_get(&sb->rows[i], counter);
    return sum;
}

uint64_t stk_scoreboard_total_reason(const struct stk_scoreboard *sb, unsigned reason)
{
    uint64_t sum;

    STK_ASSERT(reason < STK_SCOREBOARD_REASONS);
    sum = scoreboard_load(&sb->retired.close_reasons[reason]);
    for (unsigned i = 0; i < sb->nrows; i++)
        sum += scoreboard_load(&sb->rows[i].close_reasons[reason]);
    return sum;
}

/* Whether a row tells of a worker of the slot, alive or gone. */
static bool scoreboard_is_of(const struct stk_scoreboard_row *row, unsigned slot)
{
    return scoreboard_load(&row->state) != STK_SCOREBOARD_FREE &&
           scoreboard_load(&row->slot) == slot;
}

uint64_t stk_scoreboard_slot_total(const struct stk_scoreboard *sb, unsigned slot,
                                   enum stk_counter counter)
{
    uint64_t sum = slot < sb->nrows ? scoreboard_load(&sb->rows[slot].slot_past[counter]) : 0;

    for (unsigned i = 0; i < sb->nrows; i++)
        if (scoreboard_is_of(&sb->rows[i], slot))
            sum += stk_scoreboard_get(&sb->rows[i], counter);
    return sum;
}

const struct stk_scoreboard_row *stk_scoreboard_slot_row(const struct stk_scoreboard *sb,
                                                         unsigned slot)
{
    static const int ranks[STK_SCOREBOARD_STATES] = {
        [STK_SCOREBOARD_READY] = 3, [STK_SCOREBOARD_STARTING] = 2, [STK_SCOREBOARD_DRAINING] = 1};
    const struct stk_scoreboard_row *best = NULL;
    int best_rank = 0;

    for (unsigned i = 0; i < sb->nrows; i++) {
        const struct stk_scoreboard_row *row = &sb->rows[i];
        uint64_t state = scoreboard_load(&row->state);
        int rank = state < STK_SCOREBOARD_STATES ? ranks[state] : 0;

        if (rank == 0 || scoreboard_load(&row->slot) != slot || rank < best_rank)
            continue;
        if (best != NULL && rank == best_rank &&
            scoreboard_load(&row->started_ns) < scoreboard_load(&best->started_ns))
            continue;
        best = row;
        best_rank = rank;
    }
    return best;
}

unsigned stk_scoreboard_busy(const struct stk_scoreboard_row *row)
{
    unsigned threads = atomic_load_explicit(&row->threads, memory_order_relaxed);
    unsigned parked = atomic_load_explicit(&row->parked, memory_order_relaxed);
    unsigned busy;
    uint64_t word;

    if (threads == 0) /* it does not say */
        return (unsigned)stk_scoreboard_get(row, STK_COUNTER_threads_busy);
    busy = parked < threads ? threads - parked : 0;
    word = scoreboard_load(&row->lead_word);
    if (stk_lead_is_at_rest(word, scoreboard_load(&row->resting)))
        return busy > 0 ? busy - 1 : 0;
    switch (STK_LEAD_STATE(word)) {
    case STK_LEAD_TURNING:
    case STK_LEAD_WAIT_LOCK: /* a thread that is not parked leads, and is in no call */
        return busy > 0 ? busy - 1 : 0;
    default:
        return busy;
    }
}

bool stk_scoreboard_read_running(const struct stk_scoreboard_row *row, unsigned place,
                                 struct stk_scoreboard_running *ret_running)
{
    const struct stk_scoreboard_request *r;

    STK_ASSERT(place < STK_SCOREBOARD_RUNNING);
    r = &row->running[place];
    for (int try = 0; try < SCOREBOARD_READ_TRIES; try++) {
        _Atomic uint32_t *now = (_Atomic uint32_t *)(uintptr_t)&r->seq;
        uint32_t seq = atomic_load_explicit(now, memory_order_acquire);
        struct stk_scoreboard_running out = {.thread = r->thread};

        out.id = r->id;
        out.started_ns = r->started_ns;
        memcpy(out.method, r->method, sizeof r->method);
        memcpy(out.target, r->target, sizeof r->target);
        /* Adding nothing reads it behind the rest; the thread sanitizer knows no fences. */
        if ((seq & 1) != 0 || atomic_fetch_add_explicit(now, 0, memory_order_acq_rel) != seq)
            continue;
        if (out.started_ns == 0)
            return false;
        *ret_running = out;
        return true;
    }
    return false;
}

void stk_scoreboard_add_histogram(const struct stk_scoreboard_histogram *h,
                                  struct stk_histogram *into)
{
    for (unsigned i = 0; i < STK_SCOREBOARD_BUCKETS; i++) {
        uint64_t n = scoreboard_load(&h->buckets[i]);

        into->buckets[i] += n;
        into->count += n;
    }
    into->sum_us += scoreboard_load(&h->sum_us);
}

void stk_scoreboard_add_latency(const struct stk_scoreboard_row *row, struct stk_histogram *into)
{
    stk_scoreboard_add_histogram(&row->latency, into);
    stk_scoreboard_add_histogram(&row->latency_shared, into);
}

void stk_scoreboard_total_latency(const struct stk_scoreboard *sb, struct stk_histogram *into)
{
    stk_scoreboard_add_latency(&sb->retired, into);
    for (unsigned i = 0; i < sb->nrows; i++)
        stk_scoreboard_add_latency(&sb->rows[i], into);
}

void stk_scoreboard_total_waiting(const struct stk_scoreboard *sb, struct stk_histogram *into)
{
    stk_scoreboard_add_histogram(&sb->retired.waiting, into);
    for (unsigned i = 0; i < sb->nrows; i++)
        stk_scoreboard_add_histogram(&sb->rows[i].waiting, into);
}

uint64_t stk_scoreboard_bucket_end(unsigned bucket)
{
    unsigned power = (bucket + 2) / 2;
    uint64_t start = UINT64_C(1) << power;

    if (bucket >= STK_SCOREBOARD_BUCKETS - 1)
        return UINT64_MAX;
    return bucket % 2 == 0 ? start : start + start / 2;
}

uint64_t stk_histogram_quantile(const struct stk_histogram *h, unsigned permille)
{
    uint64_t rank = h->count / 1000 * permille + h->count % 1000 * permille / 1000;
    uint64_t below = 0;

    if (h->count == 0)
        return 0;
    for (unsigned i = 0; i < STK_SCOREBOARD_BUCKETS - 1; i++) {
        below += h->buckets[i];
        if (below > rank || below == h->count)
            return stk_scoreboard_bucket_end(i) - 1;
    }
    return stk_scoreboard_bucket_end(STK_SCOREBOARD_BUCKETS - 2);
}

const char *stk_scoreboard_counter_name(unsigned counter)
{
    return counter < STK_COUNTERS ? scoreboard_defs[counter].name : NULL;
}

const char *stk_scoreboard_counter_help(unsigned counter)
{
    return counter < STK_COUNTERS ? scoreboard_defs[counter].help : NULL;
}

bool stk_scoreboard_counter_is_gauge(unsigned counter)
{
    return counter < STK_COUNTERS && scoreboard_defs[counter].kind == SCOREBOARD_GAUGE;
}

const char *stk_scoreboard_state_name(unsigned state)
{
    return state < STK_SCOREBOARD_STATES ? scoreboard_states[state] : NULL;
}

const char *stk_scoreboard_restart_name(unsigned cause)
{
    return cause < STK_RESTARTS ? scoreboard_restarts[cause].name : NULL;
}

const char *stk_scoreboard_restart_help(unsigned cause)
{
    return cause < STK_RESTARTS ? scoreboard_restarts[cause].help : NULL;
}
