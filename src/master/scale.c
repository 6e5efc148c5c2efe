/*
 * How many slots have a worker: all, a number that was ordered, or, with workers-min below workers,
 * as many as the load asks for.
 *
 * The load is what the application's threads have to do: threads in a call and requests that wait
 * for one, per thread, seen in the scoreboard ten times a second and averaged over about one. Above
 * 0.75 workers are added at once, as many as would bring it to 0.6 but at most twice as many as
 * there are; with long queues that is a matter of two or three looks. When the longest calls fill
 * every thread there is nothing to average: a worker is added at the next look.
 *
 * One worker goes when the others would have a load below 0.4 for eight seconds on end, and each
 * further one after as long again. Having to add one soon after doubles the patience, so that a
 * load that comes and goes does not start and stop workers all the time. Only a worker that has
 * nothing to do is chosen, and it drains like any other: what reaches it in the same moment is
 * served. Its sockets are adopted.
 */
#include <stdlib.h>

#include "base/log.h"
#include "base/mem.h"
#include "ipc/scoreboard.h"
#include "loop/lead.h"
#include "master/master_priv.h"

#define SCALE_WEIGHT 0.1 /* of a sample in the average */
#define SCALE_UP     0.75
#define SCALE_AIM    0.6
#define SCALE_DOWN   0.4
#define SCALE_MOST   4.0 /* of a sample, lest a burst be remembered for long */

#define SCALE_PATIENCE     (8 * STK_NSEC_PER_SEC)
#define SCALE_PATIENCE_MAX (300 * STK_NSEC_PER_SEC)
#define SCALE_LONG_CALL    (STK_NSEC_PER_SEC / 5)
#define SCALE_PIN_WAIT                                                         \
    (2 * STK_NSEC_PER_SEC) /* an ordered number waits so long for idle workers \
                            */

enum {
    SCALE_TICK_MS = 100,
    SCALE_TICK_IDLE_MS = 250, /* while nothing happens */
};

struct scale_waiter {
    struct stk_list link;
    stk_scale_fn fn;
    void *arg;
};

/* What one worker does now. */
struct scale_view {
    unsigned threads;
    unsigned busy;
    unsigned queued;
    bool held; /* every thread has been in one call for long */
};

static uint64_t scale_load(const _Atomic uint64_t *p)
{
    return atomic_load_explicit(p, memory_order_relaxed);
}

/* How many of a worker's threads have been in a call for long. */
static unsigned scale_count_long(const struct stk_scoreboard_row *row, stk_nsec now)
{
    unsigned n = 0;

    for (unsigned i = 0; i < STK_SCOREBOARD_RUNNING; i++) {
        uint64_t since = __atomic_load_n(&row->running[i].started_ns, __ATOMIC_RELAXED);

        if (__atomic_load_n(&row->running[i].thread, __ATOMIC_RELAXED) == STK_SCOREBOARD_WAITING)
            continue;
        n += since != 0 && now - (stk_nsec)since > SCALE_LONG_CALL;
    }
    return n;
}

static struct scale_view scale_look(const struct stk_proc *p, stk_nsec now)
{
    const struct stk_scoreboard_row *row = p->row;
    struct scale_view view = {
        .threads = atomic_load_explicit(&row->threads, memory_order_relaxed),
        .queued = (unsigned)stk_scoreboard_get(row, STK_COUNTER_requests_queued),
    };
    unsigned idle = atomic_load_explicit(&row->parked, memory_order_relaxed);

    if (view.threads == 0)
        return (struct scale_view){.threads = 1}; /* it has not said anything yet */
    idle += stk_lead_is_at_rest(scale_load(&row->lead_word), scale_load(&row->resting));
    view.busy = idle < view.threads ? view.threads - idle : 0;
    view.held = view.busy == view.threads && scale_count_long(row, now) >= view.threads;
    return view;
}

bool stk_scale_is_automatic(const struct stk_master *m)
{
    return m->scale.pinned == 0 && m->scale.min < m->params->nworkers;
}

unsigned stk_scale_serving(const struct stk_master *m)
{
    unsigned n = 0;

    for (unsigned i = 0; i < m->params->nworkers; i++)
        n += stk_proc_is_serving(m->slots[i].current);
    return n;
}

static void scale_tell(struct stk_master *m, bool ok, const char *text)
{
    struct stk_list *node;

    while ((node = stk_list_pop(&m->scale.waiters)) != NULL) {
        struct scale_waiter *waiter = stk_container_of(node, struct scale_waiter, link);

        waiter->fn(waiter->arg, ok, text);
        free(waiter);
    }
}

void stk_scale_notify(struct stk_master *m, stk_scale_fn fn, void *arg)
{
    struct scale_waiter *waiter;

    if (m->stopping != 0) {
        fn(arg, false, "the server is stopping");
        return;
    }
    waiter = stk_new0(struct scale_waiter);
    waiter->fn = fn;
    waiter->arg = arg;
    stk_list_init(&waiter->link);
    stk_list_append(&m->scale.waiters, &waiter->link);
    stk_scale_step(m);
}

void stk_scale_forget(struct stk_master *m, const void *arg)
{
    stk_list_for_each_safe (it, &m->scale.waiters) {
        struct scale_waiter *waiter = stk_container_of(it, struct scale_waiter, link);

        if (waiter->arg != arg)
            continue;
        stk_list_remove(&waiter->link);
        free(waiter);
    }
}

void stk_scale_on_stop(struct stk_master *m)
{
    scale_tell(m, false, "the server is stopping");
}

void stk_scale_on_failed(struct stk_master *m, const struct stk_proc *p, const char *how)
{
    STK_CLEANUP(stk_mem_freep) char *name = stk_proc_name(p);
    STK_CLEANUP(stk_mem_freep)
    char *text = stk_mem_printf("%s %s: it is tried again", name, how);

    scale_tell(m, false, text);
}

static unsigned scale_count_wanted(const struct stk_master *m)
{
    unsigned n = 0;

    for (unsigned i = 0; i < m->params->nworkers; i++)
        n += m->slots[i].wanted;
    return n;
}

/* Wants more slots, from the first on, until there are as many as the target says. */
static void scale_want_more(struct stk_master *m)
{
    unsigned n = scale_count_wanted(m);

    for (unsigned i = 0; i < m->params->nworkers && n < m->scale.target; i++) {
        if (m->slots[i].wanted)
            continue;
        m->slots[i].wanted = true;
        n++;
    }
}

/*
 * The slot to give up: one without a ready worker, else of the idle ones (`any`: of all) one that
 * is to be replaced anyhow, else the one with the fewest connections; never the last that serves.
 */
static struct stk_slot *scale_pick(struct stk_master *m, bool any)
{
    stk_nsec now = stk_time_mono_ns();
    struct stk_slot *best = NULL;
    uint64_t least = 0;

    for (unsigned i = m->params->nworkers; i-- > 0;) {
        struct stk_slot *slot = &m->slots[i];
        struct scale_view view;
        uint64_t weight;

        if (!slot->wanted)
            continue;
        if (!stk_proc_is_serving(slot->current))
            return slot;
        view = scale_look(slot->current, now);
        if (!any && view.busy + view.queued > 0)
            continue;
        weight = stk_scoreboard_get(slot->current->row, STK_COUNTER_connections_open) + 1;
        if (slot->current->retirement.due)
            weight = 0;
        if (best == NULL || weight < least) {
            best = slot;
            least = weight;
        }
    }
    return stk_scale_serving(m) > 1 ? best : NULL;
}

static void scale_give_up(struct stk_master *m, struct stk_slot *slot, const char *why)
{
    unsigned left = scale_count_wanted(m) - 1;

    if (slot->current != NULL)
        stk_log_info("worker %u (%d) goes, %s: %u of %u slots have workers", slot->index + 1,
                     (int)slot->current->pid, why, left, m->params->nworkers);
    else
        stk_log_info("worker %u is not started any more, %s: %u of %u slots have workers",
                     slot->index + 1, why, left, m->params->nworkers);
    slot->wanted = false;
    stk_slot_vacate(slot);
}

/* Adds workers for a load. */
static void scale_grow(struct stk_master *m, unsigned serving, stk_nsec now)
{
    struct stk_scale *s = &m->scale;
    unsigned room = m->params->nworkers - s->target;
    unsigned want = (unsigned)((double)serving * s->load / SCALE_AIM) + 1; /* rounded up */
    unsigned step = want > 2 * serving ? serving : want > serving ? want - serving : 1;

    s->target += step < room ? step : room;
    if (s->shrunk_at != 0 && now - s->shrunk_at < 2 * s->patience)
        s->patience = s->patience * 2 < SCALE_PATIENCE_MAX ? s->patience * 2 : SCALE_PATIENCE_MAX;
    else
        s->patience = SCALE_PATIENCE;
    s->calm_since = 0;
    stk_log_info("%u worker%s busy: %u from now on", serving, serving == 1 ? " is" : "s are",
                 s->target);
    stk_master_tell(m, STK_MASTER_EVENT_SCALE, s->target, 0);
    scale_want_more(m);
    stk_slot_fill(m);
}

/* Takes a worker away when there has been little to do for long. */
static void scale_shrink(struct stk_master *m, unsigned serving, stk_nsec now)
{
    struct stk_scale *s = &m->scale;
    unsigned left = serving < s->target ? serving : serving - 1; /* one that loads goes first */
    struct stk_slot *slot;

    if (s->target <= s->min || left == 0 || m->reloading ||
        s->load * serving / left >= SCALE_DOWN) {
        s->calm_since = 0;
        return;
    }
    if (s->calm_since == 0)
        s->calm_since = now;
    if (now - s->calm_since < s->patience)
        return;
    slot = scale_pick(m, false);
    if (slot == NULL)
        return;
    s->target--;
    s->shrunk_at = s->calm_since = now;
    stk_master_tell(m, STK_MASTER_EVENT_SCALE, s->target, 0);
    scale_give_up(m, slot, "because there is little to do");
}

/* One look at the load. */
static void scale_by_load(struct stk_master *m, stk_nsec now)
{
    struct stk_scale *s = &m->scale;
    unsigned serving = 0, threads = 0, work = 0;
    bool held = true;
    double sample;

    for (unsigned i = 0; i < m->params->nworkers; i++) {
        const struct stk_proc *p = m->slots[i].current;
        struct scale_view view;

        if (!stk_proc_is_serving(p))
            continue;
        view = scale_look(p, now);
        serving++;
        threads += view.threads;
        work += view.busy + view.queued;
        held = held && view.held;
    }
    if (serving == 0)
        return;
    sample = (double)work / threads;
    if (s->serving != 0 && serving != s->serving)
        s->load *= (double)s->serving / serving;
    s->serving = serving;
    s->idle = work == 0;
    s->load += ((sample < SCALE_MOST ? sample : SCALE_MOST) - s->load) * SCALE_WEIGHT;
    /* While some are on their way no more are added. */
    if (serving >= s->target && s->target < m->params->nworkers && (held || s->load > SCALE_UP))
        scale_grow(m, serving, now);
    else
        scale_shrink(m, serving, now);
}

/* Brings the number of slots down to the one that was ordered. */
static void scale_by_order(struct stk_master *m, stk_nsec now)
{
    while (scale_count_wanted(m) > m->scale.target) {
        struct stk_slot *slot = scale_pick(m, now - m->scale.pinned_at >= SCALE_PIN_WAIT);

        if (slot == NULL)
            return;
        scale_give_up(m, slot, "as ordered");
    }
}

static bool scale_is_settled(const struct stk_master *m)
{
    return scale_count_wanted(m) == m->scale.target && stk_scale_serving(m) == m->scale.target;
}

void stk_scale_step(struct stk_master *m)
{
    STK_CLEANUP(stk_mem_freep) char *text = NULL;

    if (m->stopping != 0 || stk_list_is_empty(&m->scale.waiters) || !scale_is_settled(m))
        return;
    text = stk_mem_printf("%u worker%s serve%s", m->scale.target, m->scale.target == 1 ? "" : "s",
                          m->scale.target == 1 ? "s" : "");
    scale_tell(m, true, text);
}

static void scale_on_tick(struct stk_timer *timer, void *who)
{
    struct stk_master *m = stk_container_of(timer, struct stk_master, scale.tick);
    stk_nsec now = stk_time_mono_ns();

    if (m->stopping != 0)
        return;
    if (stk_scale_is_automatic(m))
        scale_by_load(m, now);
    else
        scale_by_order(m, now);
    stk_scale_step(m);
    if (stk_scale_is_automatic(m) || scale_count_wanted(m) > m->scale.target)
        stk_timer_set(m->loop, timer, m->scale.idle ? SCALE_TICK_IDLE_MS : SCALE_TICK_MS);
}

void stk_scale_by_one(struct stk_master *m, int step)
{
    unsigned target = m->scale.target;

    if (step > 0 && target >= m->params->nworkers)
        stk_log_warning("no more workers than %u, which is what `workers` says", target);
    else if (step < 0 && target <= 1)
        stk_log_warning("the last worker stays");
    else
        stk_scale_set(m, step > 0 ? target + 1 : target - 1);
}

void stk_scale_set(struct stk_master *m, unsigned n)
{
    struct stk_scale *s = &m->scale;

    if (m->stopping != 0)
        return;
    s->pinned = n < m->params->nworkers ? n : m->params->nworkers;
    s->pinned_at = stk_time_mono_ns();
    if (s->pinned != 0)
        s->target = s->pinned;
    else if (!stk_scale_is_automatic(m))
        s->target = m->params->nworkers;
    else if (s->target < s->min)
        s->target = s->min;
    s->load = 0;
    s->serving = 0;
    s->idle = false;
    s->calm_since = 0;
    if (s->pinned != 0)
        stk_log_info("the number of workers is %u, as ordered", s->target);
    else
        stk_log_info("the number of workers follows %s again",
                     stk_scale_is_automatic(m) ? "the load" : "the configuration");
    stk_master_tell(m, STK_MASTER_EVENT_SCALE, s->target, 0);
    scale_want_more(m);
    scale_by_order(m, s->pinned_at);
    stk_slot_fill(m);
    stk_timer_set(m->loop, &s->tick, SCALE_TICK_MS);
}

void stk_scale_init(struct stk_master *m)
{
    struct stk_scale *s = &m->scale;

    stk_timer_init(&s->tick, scale_on_tick);
    stk_list_init(&s->waiters);
    s->min = m->params->nworkers;
    if (m->config->workers_min > 0 && m->config->workers_min < m->params->nworkers)
        s->min = (unsigned)m->config->workers_min;
    s->target = s->min;
    s->patience = SCALE_PATIENCE;
    scale_want_more(m);
    if (m->config->workers_min > m->params->nworkers)
        stk_log_warning("workers-min is %lld, but there are %u workers at most: it has no effect; "
                        "raise workers",
                        (long long)m->config->workers_min, m->params->nworkers);
    if (stk_scale_is_automatic(m))
        stk_timer_set(m->loop, &s->tick, SCALE_TICK_MS);
}

void stk_scale_deinit(struct stk_master *m)
{
    struct stk_list *node;

    if (m->scale.waiters.next != NULL)
        while ((node = stk_list_pop(&m->scale.waiters)) != NULL)
            free(stk_container_of(node, struct scale_waiter, link));
}
