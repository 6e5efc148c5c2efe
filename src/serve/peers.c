/*
 * Who could take a request, judged by what every worker shows of itself in its row.
 *
 * A thread has nothing to do when its worker waits in epoll (or its event loop does, as the
 * stand-by has found), or when it is parked while the stand-by leads; then one request for each
 * such thread may be offered at a time. `offers` counts them and carries the time of the last one,
 * because a worker that dies between an offer and its end would else be in the way for ever: an old
 * count is none.
 *
 * How fast a worker gets on is the number of calls that have returned there over the last 25 to 50
 * ms. With what waits there it tells when a further request would begin; a worker in which no call
 * has ended is not a candidate, however short its queue is.
 */
#include "serve/peers.h"

#include <stdatomic.h>
#include <stdlib.h>

#include "base/assert.h"
#include "base/mem.h"
#include "ipc/scoreboard.h"
#include "loop/lead.h"

enum {
    PEERS_WINDOW_NS = 25 * 1000 * 1000,
    PEERS_FORGET_NS = 100 * 1000 * 1000, /* notes of an older look say nothing about now */
    PEERS_OFFER_MS = 100,                /* an offer is either taken by then or withdrawn */
    PEERS_OFFERS_MAX = 200,
};

/* The calls of a worker at two moments. */
struct peers_note {
    uint64_t pid;
    uint64_t base, mark;
    stk_nsec base_at, mark_at, seen_at;
    stk_nsec pace; /* from one call's end to the next's; 0: none has ended */
};

struct stk_peers {
    struct stk_scoreboard *scoreboard;
    unsigned self;
    uint64_t max_connections;
    struct peers_note *notes;
};

struct stk_peers *stk_peers_new(const struct stk_peers_params *params)
{
    struct stk_peers *peers = stk_new0(struct stk_peers);

    peers->scoreboard = params->scoreboard;
    peers->self = params->row;
    peers->max_connections = params->max_connections;
    peers->notes = stk_new0_array(struct peers_note, params->scoreboard->nrows);
    return peers;
}

struct stk_peers *stk_peers_free(struct stk_peers *peers)
{
    if (peers != NULL) {
        free(peers->notes);
        free(peers);
    }
    return NULL;
}

static uint64_t peers_get(const _Atomic uint64_t *p)
{
    return atomic_load_explicit(p, memory_order_relaxed);
}

uint64_t stk_peers_pid(const struct stk_peers *peers, unsigned row)
{
    const struct stk_scoreboard_row *r = &peers->scoreboard->rows[row];

    return peers_get(&r->state) == STK_SCOREBOARD_READY ? peers_get(&r->pid) : 0;
}

/* Whether a worker can be asked at all. */
static bool peers_is_candidate(const struct stk_peers *peers, unsigned row)
{
    const struct stk_scoreboard_row *self = &peers->scoreboard->rows[peers->self];
    const struct stk_scoreboard_row *r = &peers->scoreboard->rows[row];

    return row != peers->self && stk_peers_pid(peers, row) != 0 &&
           peers_get(&r->generation) >= peers_get(&self->generation) &&
           stk_scoreboard_get(r, STK_COUNTER_connections_open) < peers->max_connections;
}

static void peers_note(struct stk_peers *peers, unsigned row, stk_nsec now)
{
    struct peers_note *note = &peers->notes[row];
    const struct stk_scoreboard_row *r = &peers->scoreboard->rows[row];
    uint64_t calls = peers_get(&r->calls);
    uint64_t pid = peers_get(&r->pid);

    if (note->pid != pid || now - note->seen_at > PEERS_FORGET_NS || calls < note->base) {
        *note = (struct peers_note){.pid = pid,
                                    .base = calls,
                                    .mark = calls,
                                    .base_at = now,
                                    .mark_at = now,
                                    .seen_at = now};
        return;
    }
    note->seen_at = now;
    if (now - note->mark_at > PEERS_WINDOW_NS) {
        note->base = note->mark;
        note->base_at = note->mark_at;
        note->mark = calls;
        note->mark_at = now;
    }
    note->pace = calls > note->base ? (now - note->base_at) / (stk_nsec)(calls - note->base) : 0;
}

void stk_peers_look(struct stk_peers *peers, stk_nsec now)
{
    for (unsigned i = 0; i < peers->scoreboard->nrows; i++) {
        if (i == peers->self || peers_is_candidate(peers, i))
            peers_note(peers, i, now);
    }
}

stk_nsec stk_peers_own_pace(const struct stk_peers *peers)
{
    return peers->notes[peers->self].pace;
}

static uint32_t peers_clock(void)
{
    return (uint32_t)stk_time_mono_coarse_ms() & 0xffffff;
}

/* How many of the counted offers are on their way. */
static unsigned peers_offers(uint32_t word, uint32_t clock)
{
    return ((clock - (word >> 8)) & 0xffffff) <= PEERS_OFFER_MS ? word & 0xff : 0;
}

static unsigned peers_offered(const struct stk_peers *peers, unsigned row)
{
    return peers_offers(
        atomic_load_explicit(&peers->scoreboard->rows[row].offers, memory_order_relaxed),
        peers_clock());
}

/* Notes one more offer, unless there would be more than `most`. */
static bool peers_claim(struct stk_peers *peers, unsigned row, unsigned most)
{
    _Atomic uint32_t *offers = &peers->scoreboard->rows[row].offers;
    uint32_t clock = peers_clock();
    uint32_t word = atomic_load(offers);

    for (;;) {
        unsigned n = peers_offers(word, clock);

        if (n >= most)
            return false;
        if (atomic_compare_exchange_weak(offers, &word, clock << 8 | (n + 1)))
            return true;
    }
}

void stk_peers_unclaim(struct stk_peers *peers, unsigned row)
{
    _Atomic uint32_t *offers = &peers->scoreboard->rows[row].offers;
    uint32_t word = atomic_load(offers);

    while ((word & 0xff) > 0 && !atomic_compare_exchange_weak(offers, &word, word - 1)) {
    }
}

/* Threads that have nothing to do and would hear of an offer at once. */
static unsigned peers_idle(const struct stk_scoreboard_row *r, enum stk_peers_kind kind)
{
    unsigned parked = atomic_load_explicit(&r->parked, memory_order_relaxed);
    uint64_t word;

    if (kind == STK_PEERS_BESIDE) /* whatever the event loop does: mostly it is there at once */
        return parked;
    if (kind == STK_PEERS_LOOP)
        parked = 0;
    word = peers_get(&r->lead_word);
    if (stk_lead_is_at_rest(word, peers_get(&r->resting)))
        return parked + 1;
    switch (STK_LEAD_STATE(word)) {
    case STK_LEAD_SB_TURNING:
    case STK_LEAD_SB_BLOCKED:
        return parked;
    default:
        return 0;
    }
}

int stk_peers_claim_idle(struct stk_peers *peers, enum stk_peers_kind kind)
{
    for (;;) {
        int best = -1;
        unsigned most = 0, idle = 0;

        for (unsigned i = 0; i < peers->scoreboard->nrows; i++) {
            unsigned n = peers_idle(&peers->scoreboard->rows[i], kind);
            unsigned offered;

            if (n <= most || !peers_is_candidate(peers, i))
                continue;
            offered = peers_offered(peers, i);
            if (n > offered && n - offered > most) {
                best = (int)i;
                most = n - offered;
                idle = n;
            }
        }
        if (best < 0 || peers_claim(peers, (unsigned)best, idle))
            return best;
    }
}

int stk_peers_claim_quick(struct stk_peers *peers, unsigned queue, stk_nsec wait)
{
    int best = -1;

    for (unsigned i = 0; i < peers->scoreboard->nrows; i++) {
        const struct stk_scoreboard_row *r = &peers->scoreboard->rows[i];
        stk_nsec pace = peers->notes[i].pace;
        unsigned load;
        stk_nsec there;

        if (pace == 0 || !peers_is_candidate(peers, i) || peers->notes[i].pid != peers_get(&r->pid))
            continue;
        load = atomic_load_explicit(&r->backlog, memory_order_relaxed) + peers_offered(peers, i);
        there = pace * (stk_nsec)(load + 1);
        if (load < queue && there < wait) {
            wait = there;
            best = (int)i;
        }
    }
    return best >= 0 && peers_claim(peers, (unsigned)best, PEERS_OFFERS_MAX) ? best : -1;
}

static int peers_heir(const struct stk_peers *peers)
{
    uint64_t newest = 0, fewest = 0;
    int best = -1;

    for (unsigned i = 0; i < peers->scoreboard->nrows; i++) {
        const struct stk_scoreboard_row *r = &peers->scoreboard->rows[i];
        uint64_t generation, conns;

        if (!peers_is_candidate(peers, i))
            continue;
        generation = peers_get(&r->generation);
        conns = stk_scoreboard_get(r, STK_COUNTER_connections_open) + peers_offered(peers, i);
        if (best < 0 || generation > newest || (generation == newest && conns < fewest)) {
            best = (int)i;
            newest = generation;
            fewest = conns;
        }
    }
    return best;
}

int stk_peers_claim_heir(struct stk_peers *peers)
{
    int heir = peers_heir(peers);

    if (heir >= 0)
        (void)peers_claim(peers, (unsigned)heir, UINT8_MAX);
    return heir;
}

bool stk_peers_has_heir(const struct stk_peers *peers)
{
    return peers_heir(peers) >= 0;
}
