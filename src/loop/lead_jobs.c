/*
 * The queue of a lead: complete requests that the stand-by has read and that wait for a thread of
 * the application.
 *
 * It is kept by age, because a request may come back to it (it was offered to another worker and
 * not taken) or come from another worker, where it has waited already. A thread is not woken for a
 * job while another one computes: it would only fight with that for the interpreter's lock.
 */
#include <limits.h>
#include <pthread.h>
#include <time.h>

#include "loop/lead_priv.h"
#include "loop/thread_state.h"

enum {
    JOBS_COMPUTE_NS = 5 * 1000 * 1000, /* a computing thread gets a rival for the lock after this */
    JOBS_SAMPLE_NS = 200 * 1000,       /* between two looks at the CPU clocks */
    JOBS_LOOK = 64, /* jobs that are looked at to find one that may be withdrawn */
};

static struct stk_job *jobs_of(struct stk_list *node)
{
    return stk_container_of(node, struct stk_job, link);
}

/* Mutex held. */
static void jobs_count(struct stk_lead *lead, struct stk_lead_queue *queue, int change)
{
    unsigned n = atomic_load_explicit(&lead->njobs, memory_order_relaxed) + (unsigned)change;

    atomic_store_explicit(&queue->n,
                          atomic_load_explicit(&queue->n, memory_order_relaxed) + (unsigned)change,
                          memory_order_release);
    /* Behind at_job of the thread that has taken one. */
    atomic_store_explicit(&lead->njobs, n, memory_order_release);
    stk_lead_set_backlog(lead, n);
}

/* Takes a job off its queue. Mutex held. */
static void jobs_take(struct stk_lead *lead, struct stk_lead_queue *queue, struct stk_job *job)
{
    stk_list_remove(&job->link);
    queue->gated -= job->gated;
    jobs_count(lead, queue, -1);
}

/* The oldest that may run; or NULL. Mutex held. */
static struct stk_job *jobs_next(const struct stk_lead_thread *t,
                                 const struct stk_lead_queue *queue)
{
    if (stk_unlikely(t->full) &&
        queue->gated == atomic_load_explicit(&queue->n, memory_order_relaxed))
        return NULL;
    stk_list_for_each (it, &queue->jobs)
        if (!t->full || !jobs_of(it)->gated)
            return jobs_of(it);
    return NULL;
}

static unsigned jobs_of_kind(const struct stk_lead *lead, enum stk_lead_kind kind)
{
    return atomic_load_explicit(&lead->queues[kind].n, memory_order_relaxed);
}

unsigned stk_lead_jobs_of(const struct stk_lead *lead, bool loop)
{
    return jobs_of_kind(lead, loop ? STK_LEAD_LOOP : STK_LEAD_ANY);
}

unsigned stk_lead_jobs(const struct stk_lead *lead)
{
    return atomic_load_explicit(&lead->njobs, memory_order_acquire);
}

bool stk_lead_is_any_at_job(const struct stk_lead *lead)
{
    for (unsigned i = 0; i < lead->nthreads; i++) {
        if (atomic_load_explicit(&lead->threads[i].at_job, memory_order_relaxed))
            return true;
    }
    return false;
}

unsigned stk_lead_idle(const struct stk_lead *lead)
{
    return atomic_load_explicit(&lead->idle, memory_order_relaxed);
}

unsigned stk_lead_spare(const struct stk_lead *lead)
{
    unsigned n = 0;

    for (unsigned i = 1; lead->mixed && i < lead->nthreads; i++)
        n += !atomic_load_explicit(&lead->threads[i].at_job, memory_order_relaxed);
    return n;
}

uint64_t stk_lead_calls_of(const struct stk_lead *lead, bool loop)
{
    uint64_t sum = 0;

    for (unsigned i = 0; i < lead->nthreads; i++) {
        if (!lead->mixed || loop == (i == 0))
            sum += atomic_load_explicit(&lead->threads[i].calls, memory_order_relaxed);
    }
    return sum;
}

bool stk_lead_is_any_running(const struct stk_lead *lead)
{
    for (unsigned i = 0; i < lead->nthreads; i++) {
        if (atomic_load_explicit(&lead->threads[i].calls, memory_order_relaxed) & 1)
            return true;
    }
    return false;
}

bool stk_lead_may_run(const struct stk_lead *lead)
{
    return !atomic_load(&lead->computing) || !stk_lead_is_any_running(lead);
}

bool stk_lead_run_job(struct stk_lead_thread *t)
{
    struct stk_lead *lead = t->lead;
    enum stk_lead_kind kind = lead->mixed && t->index == 0 ? STK_LEAD_LOOP : STK_LEAD_ANY;
    struct stk_lead_queue *queue = &lead->queues[kind];
    struct stk_job *job;

    if (jobs_of_kind(lead, kind) == 0 || (kind == STK_LEAD_ANY && !stk_lead_may_run(lead)))
        return false;
    pthread_mutex_lock(&lead->mutex);
    job = jobs_next(t, queue);
    if (job != NULL) {
        atomic_store_explicit(&t->at_job, true, memory_order_relaxed);
        jobs_take(lead, queue, job);
    }
    pthread_mutex_unlock(&lead->mutex);
    if (job == NULL)
        return false;
    job->run(job, t);
    atomic_store_explicit(&t->at_job, false, memory_order_relaxed);
    return true;
}

bool stk_lead_is_computing(struct stk_lead *lead)
{
    stk_nsec now = stk_time_mono_ns();
    bool computing = false;

    for (unsigned i = 0; i < lead->nthreads; i++) {
        struct stk_lead_thread *t = &lead->threads[i];
        uint64_t calls = atomic_load_explicit(&t->calls, memory_order_relaxed);
        struct timespec ts;
        stk_nsec cpu;

        if (!(calls & 1) || !__atomic_load_n(&t->attached, __ATOMIC_ACQUIRE))
            continue;
        if (clock_gettime(t->cpu_clock, &ts) < 0)
            continue;
        cpu = (stk_nsec)ts.tv_sec * STK_NSEC_PER_SEC + ts.tv_nsec;
        if (calls != t->seen_calls) {
            t->seen_calls = calls;
            t->seen_since = now;
        }
        if (now - t->seen_since < JOBS_COMPUTE_NS &&
            ((cpu - t->seen_cpu) * 2 > now - t->seen_at || stk_thread_is_runnable(t->state_fd)))
            computing = true;
        t->seen_cpu = cpu;
        t->seen_at = now;
    }
    return computing;
}

void stk_lead_publish_idle(struct stk_lead *lead)
{
    uint32_t n = atomic_load(&lead->computing) ? 0 : atomic_load(&lead->idle);

    atomic_store_explicit(lead->share.parked, n, memory_order_relaxed);
}

void stk_lead_set_computing(struct stk_lead *lead, bool computing)
{
    if (atomic_exchange(&lead->computing, computing) == computing)
        return;
    pthread_mutex_lock(&lead->mutex);
    stk_lead_publish_idle(lead);
    pthread_mutex_unlock(&lead->mutex);
}

/* Wakes as many parked threads as there are jobs for, at most `most`. Mutex held. */
static void jobs_wake_locked(struct stk_lead *lead, unsigned most)
{
    unsigned idle = atomic_load_explicit(&lead->idle, memory_order_relaxed);
    unsigned jobs = jobs_of_kind(lead, STK_LEAD_ANY);

    if (jobs > most)
        jobs = most;
    while (lead->tokens < idle && lead->tokens < jobs) {
        lead->tokens++;
        pthread_cond_signal(&lead->cond);
    }
}

/* Whether jobs wait although threads have nothing to do. */
static bool jobs_is_to_share(const struct stk_lead *lead)
{
    return jobs_of_kind(lead, STK_LEAD_ANY) > 0 && stk_lead_idle(lead) > 0;
}

bool stk_lead_share_jobs(struct stk_lead *lead)
{
    stk_nsec now;

    if (lead->nthreads == 1)
        return false;
    if (jobs_of_kind(lead, STK_LEAD_ANY) == 0) {
        if (lead->mixed) /* nobody ends a lead of the stand-by's, which would do it */
            stk_lead_set_computing(lead, false);
        return false;
    }
    now = stk_time_mono_ns();
    if (now - lead->sampled_at < JOBS_SAMPLE_NS)
        return jobs_is_to_share(lead);
    lead->sampled_at = now;
    stk_lead_set_computing(lead, stk_lead_is_computing(lead));
    if (!atomic_load(&lead->computing)) {
        pthread_mutex_lock(&lead->mutex);
        jobs_wake_locked(lead, UINT_MAX);
        pthread_mutex_unlock(&lead->mutex);
    }
    return jobs_is_to_share(lead);
}

/*
 * A job waits for a thread beside that of the event loop, which leads and is not watched as long as
 * it gets on: has the stand-by look whether a further thread is to be woken.
 */
static void jobs_have_shared(struct stk_lead *lead)
{
    enum stk_lead_state state = STK_LEAD_STATE(stk_lead_seen(lead));

    if (state != STK_LEAD_SB_TURNING && (stk_lead_idle(lead) > 0 || lead->shares || lead->bounded))
        stk_lead_rouse(lead);
}

void stk_lead_post(struct stk_lead *lead, struct stk_job *job)
{
    enum stk_lead_kind kind = lead->mixed && job->loop ? STK_LEAD_LOOP : STK_LEAD_ANY;
    struct stk_lead_queue *queue = &lead->queues[kind];
    struct stk_list *at;
    bool waits;

    stk_list_init(&job->link);
    if (job->since == 0)
        job->since = stk_time_mono_ns();
    pthread_mutex_lock(&lead->mutex);
    for (at = &queue->jobs; at->prev != &queue->jobs; at = at->prev) {
        if (jobs_of(at->prev)->since <= job->since)
            break;
    }
    stk_list_insert_before(at, &job->link);
    queue->gated += job->gated;
    jobs_count(lead, queue, 1);
    if (kind == STK_LEAD_ANY && !stk_lead_is_any_running(lead))
        jobs_wake_locked(lead, 1);
    else if (kind == STK_LEAD_ANY && lead->mixed && !lead->has_standby)
        jobs_wake_locked(lead, UINT_MAX);
    waits = jobs_of_kind(lead, kind) > lead->tokens; /* else a thread is on its way to it */
    pthread_mutex_unlock(&lead->mutex);
    if (kind == STK_LEAD_LOOP || !lead->mixed)
        stk_lead_ring(lead);
    else if (waits)
        jobs_have_shared(lead);
}

void stk_lead_hold(struct stk_lead *lead, bool hold)
{
    struct stk_lead_thread *t = &lead->threads[0];

    __atomic_store_n(&t->full, hold, __ATOMIC_RELAXED);
    t->picky = lead->mixed || hold;
    if (!hold && stk_lead_jobs_of(lead, lead->mixed) > 0)
        stk_lead_ring(lead);
}

bool stk_lead_is_held(const struct stk_lead *lead)
{
    return __atomic_load_n(&lead->threads[0].full, __ATOMIC_RELAXED);
}

/* The oldest or the newest of a queue that may be taken; or NULL. Mutex held. */
static struct stk_job *jobs_find(const struct stk_lead_queue *queue, bool newest,
                                 bool (*may)(void *arg, struct stk_job *job), void *arg)
{
    const struct stk_list *head = &queue->jobs;
    unsigned looked = 0;

    for (struct stk_list *it = newest ? head->prev : head->next; it != head && looked++ < JOBS_LOOK;
         it = newest ? it->prev : it->next) {
        if (may(arg, jobs_of(it)))
            return jobs_of(it);
    }
    return NULL;
}

struct stk_job *stk_lead_withdraw(struct stk_lead *lead, bool newest,
                                  bool (*may)(void *arg, struct stk_job *job), void *arg)
{
    struct stk_lead_queue *from = NULL;
    struct stk_job *found = NULL;

    if (stk_lead_jobs(lead) == 0)
        return NULL;
    pthread_mutex_lock(&lead->mutex);
    for (unsigned i = 0; i < STK_LEAD_KINDS; i++) {
        struct stk_job *job = jobs_find(&lead->queues[i], newest, may, arg);

        if (job != NULL && (found == NULL || (job->since < found->since) != newest)) {
            found = job;
            from = &lead->queues[i];
        }
    }
    if (found != NULL) {
        jobs_take(lead, from, found);
    }
    pthread_mutex_unlock(&lead->mutex);
    return found;
}

stk_nsec stk_lead_oldest_of(struct stk_lead *lead, bool loop)
{
    struct stk_lead_queue *queue = &lead->queues[loop ? STK_LEAD_LOOP : STK_LEAD_ANY];
    stk_nsec since = 0;

    if (stk_lead_jobs_of(lead, loop) == 0)
        return 0;
    pthread_mutex_lock(&lead->mutex);
    if (!stk_list_is_empty(&queue->jobs))
        since = jobs_of(queue->jobs.next)->since;
    pthread_mutex_unlock(&lead->mutex);
    return since;
}

stk_nsec stk_lead_oldest(struct stk_lead *lead)
{
    stk_nsec any = stk_lead_oldest_of(lead, false);
    stk_nsec loop = stk_lead_oldest_of(lead, true);

    return any == 0 || (loop != 0 && loop < any) ? loop : any;
}
