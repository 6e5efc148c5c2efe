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
static void jobs_count(struct stk_lead *lead, int change)
{
    unsigned n = atomic_load_explicit(&lead->njobs, memory_order_relaxed) + (unsigned)change;

    /* Behind at_job of the thread that has taken one. */
    atomic_store_explicit(&lead->njobs, n, memory_order_release);
    stk_lead_set_backlog(lead, n);
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

uint64_t stk_lead_calls(const struct stk_lead *lead)
{
    uint64_t sum = 0;

    for (unsigned i = 0; i < lead->nthreads; i++)
        sum += atomic_load_explicit(&lead->threads[i].calls, memory_order_relaxed);
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
    struct stk_list *node;

    if (atomic_load_explicit(&lead->njobs, memory_order_relaxed) == 0 || !stk_lead_may_run(lead))
        return false;
    pthread_mutex_lock(&lead->mutex);
    node = stk_list_pop(&lead->jobs);
    if (node != NULL) {
        atomic_store_explicit(&t->at_job, true, memory_order_relaxed);
        jobs_count(lead, -1);
    }
    pthread_mutex_unlock(&lead->mutex);
    if (node == NULL)
        return false;
    jobs_of(node)->run(jobs_of(node), t);
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
    unsigned jobs = atomic_load_explicit(&lead->njobs, memory_order_relaxed);

    if (jobs > most)
        jobs = most;
    while (lead->tokens < idle && lead->tokens < jobs) {
        lead->tokens++;
        pthread_cond_signal(&lead->cond);
    }
}

void stk_lead_share_jobs(struct stk_lead *lead)
{
    stk_nsec now;

    if (stk_lead_jobs(lead) == 0 || lead->nthreads == 1)
        return;
    now = stk_time_mono_ns();
    if (now - lead->sampled_at < JOBS_SAMPLE_NS)
        return;
    lead->sampled_at = now;
    stk_lead_set_computing(lead, stk_lead_is_computing(lead));
    if (atomic_load(&lead->computing))
        return;
    pthread_mutex_lock(&lead->mutex);
    jobs_wake_locked(lead, UINT_MAX);
    pthread_mutex_unlock(&lead->mutex);
}

void stk_lead_post(struct stk_lead *lead, struct stk_job *job)
{
    struct stk_list *at;

    stk_list_init(&job->link);
    if (job->since == 0)
        job->since = stk_time_mono_ns();
    pthread_mutex_lock(&lead->mutex);
    for (at = &lead->jobs; at->prev != &lead->jobs; at = at->prev) {
        if (jobs_of(at->prev)->since <= job->since)
            break;
    }
    stk_list_insert_before(at, &job->link);
    jobs_count(lead, 1);
    if (!stk_lead_is_any_running(lead))
        jobs_wake_locked(lead, 1);
    pthread_mutex_unlock(&lead->mutex);
    stk_lead_ring(lead);
}

struct stk_job *stk_lead_withdraw(struct stk_lead *lead, bool newest,
                                  bool (*may)(void *arg, struct stk_job *job), void *arg)
{
    struct stk_job *found = NULL;
    unsigned looked = 0;

    if (stk_lead_jobs(lead) == 0)
        return NULL;
    pthread_mutex_lock(&lead->mutex);
    for (struct stk_list *it = newest ? lead->jobs.prev : lead->jobs.next;
         it != &lead->jobs && looked++ < JOBS_LOOK; it = newest ? it->prev : it->next) {
        if (!may(arg, jobs_of(it)))
            continue;
        found = jobs_of(it);
        stk_list_remove(it);
        jobs_count(lead, -1);
        break;
    }
    pthread_mutex_unlock(&lead->mutex);
    return found;
}

stk_nsec stk_lead_oldest(struct stk_lead *lead)
{
    stk_nsec since = 0;

    if (stk_lead_jobs(lead) == 0)
        return 0;
    pthread_mutex_lock(&lead->mutex);
    if (!stk_list_is_empty(&lead->jobs))
        since = jobs_of(lead->jobs.next)->since;
    pthread_mutex_unlock(&lead->mutex);
    return since;
}
