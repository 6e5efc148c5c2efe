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

/* Adds the counters of a row to another and zeroes all that its worker wrote. */
static void scoreboard_absorb(struct stk_scoreboard_row *into, struct stk_scoreboard_row *row)
{
    for (unsigned i = 0; i < STK_COUNTERS; i++) {
        if (scoreboard_defs[i].kind == SCOREBOARD_COUNTER)
            atomic_fetch_add_explicit(&into->counters[i], scoreboard_load(&row->counters[i]),
                                      memory_order_relaxed);
        scoreboard_store(&row->counters[i], 0);
    }
    for (unsigned i = 0; i < STK_SCOREBOARD_REASONS; i++) {
        atomic_fetch_add_explicit(&into->close_reasons[i], scoreboard_load(&row->close_reasons[i]),
                                  memory_order_relaxed);
        scoreboard_store(&row->close_reasons[i], 0);
    }
}

int stk_scoreboard_claim(struct stk_scoreboard *sb, unsigned slot, uint32_t generation)
{
    STK_CHECK_MAGIC(sb, STK_SCOREBOARD_MAGIC);
    for (unsigned i = 0; i < sb->nrows; i++) {
        struct stk_scoreboard_row *row = &sb->rows[i];
        uint64_t state = scoreboard_load(&row->state);

        if (state != STK_SCOREBOARD_FREE && state != STK_SCOREBOARD_GONE)
            continue;
        scoreboard_absorb(&sb->retired, row);
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
    for (unsigned i = 0; i < STK_COUNTERS; i++)
        if (scoreboard_defs[i].kind == SCOREBOARD_GAUGE)
            scoreboard_store(&row->counters[i], 0);
}

uint64_t stk_scoreboard_total(const struct stk_scoreboard *sb, enum stk_counter counter)
{
    uint64_t sum = scoreboard_load(&sb->retired.counters[counter]);

    for (unsigned i = 0; i < sb->nrows; i++)
        sum += scoreboard_load(&sb->rows[i].counters[counter]);
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
