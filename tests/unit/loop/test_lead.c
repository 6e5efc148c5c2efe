/*
 * Leadership with many threads, and a mutex in place of the interpreter's lock: one owner at a
 * time, no event or job lost, every stop ends.
 *
 * A "client" is an eventfd with a number of tokens to be served one by one, as a connection's
 * requests are. The owner of the loop that sees a token takes the source out of the set, and serves
 * it inline, or posts a job when it is the stand-by; the end of the service puts the source back.
 */
#include <errno.h>
#include <poll.h>
#include <pthread.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stdatomic.h>
#include <stddef.h>
#include <stdlib.h>
#include <string.h>
#include <sys/epoll.h>
#include <sys/eventfd.h>
#include <sys/syscall.h>
#include <time.h>
#include <unistd.h>

#include <cmocka.h>

#include "base/macros.h"
#include "base/mem.h"
#include "base/time.h"
#include "loop/lead.h"
#include "loop/loop.h"

enum { THREADS_MAX = 4 };

struct world;

struct peer {
    struct stk_source src;
    struct stk_job job;
    struct world *w;
    atomic_bool busy; /* as in a connection, what it is handed over by */
    unsigned seed;
};

struct world {
    struct stk_loop *loop;
    struct stk_lead *lead;
    pthread_mutex_t lock; /* the interpreter's */
    atomic_int owners;    /* threads that handle an event of the loop */
    atomic_int holders;   /* threads with the lock */
    atomic_long served;
    long goal;
    struct peer *peers;
    unsigned npeers, nthreads;
    unsigned sleep_one_in; /* a service that sleeps; 0: none */
    unsigned spin_one_in;  /* one that computes for some milliseconds */
    atomic_int looks;      /* of the stand-by */
    atomic_bool rouses;    /* it is roused within one */
    bool pending;
    long ticks; /* of a timer in the loop; of the owner */
    struct stk_timer timer;
};

static void world_lock(void *arg, struct stk_lead_thread *t)
{
    struct world *w = arg;

    pthread_mutex_lock(&w->lock);
    assert_int_equal(atomic_fetch_add(&w->holders, 1), 0);
}

static void world_unlock(void *arg, struct stk_lead_thread *t)
{
    struct world *w = arg;

    assert_int_equal(atomic_fetch_sub(&w->holders, 1), 1);
    pthread_mutex_unlock(&w->lock);
}

static bool world_on_tick(void *arg)
{
    struct world *w = arg;

    if (atomic_exchange(&w->rouses, false))
        stk_lead_rouse(w->lead);
    atomic_fetch_add(&w->looks, 1);
    return w->pending;
}

static void nap_us(long us)
{
    struct timespec ts = {.tv_nsec = us * 1000};

    nanosleep(&ts, NULL);
}

/* The application. Lock held. */
static void serve(struct peer *p, struct stk_lead_thread *t)
{
    struct world *w = p->w;
    unsigned dice = (unsigned)rand_r(&p->seed);

    stk_lead_enter(t);
    if (w->sleep_one_in > 0 && dice % w->sleep_one_in == 0) {
        world_unlock(w, t);
        nap_us(dice % 3000);
        world_lock(w, t);
    } else if (w->spin_one_in > 0 && dice / 7 % w->spin_one_in == 0) {
        stk_nsec end = stk_time_mono_ns() + dice % 3000000;

        while (stk_time_mono_ns() < end) {
        }
    }
    (void)stk_lead_leave(t);
    /* The token is spent; the source goes back into the set, whoever owns the loop now. */
    atomic_store(&p->busy, false);
    assert_int_equal(stk_loop_add(w->loop, &p->src, EPOLLIN), 0);
    if (atomic_fetch_add(&w->served, 1) + 1 == w->goal)
        stk_lead_stop(w->lead);
}

static void peer_job(struct stk_job *job, struct stk_lead_thread *t)
{
    assert_false(t->standby);
    serve(stk_container_of(job, struct peer, job), t);
}

static void peer_event(struct stk_source *src, uint32_t events, void *who)
{
    struct peer *p = stk_container_of(src, struct peer, src);
    struct stk_lead_thread *t = who;
    struct world *w = p->w;
    uint64_t one;

    assert_true(t->own);
    assert_false(atomic_exchange(&p->busy, true));
    assert_int_equal(atomic_fetch_add(&w->owners, 1), 0);
    assert_int_equal(read(src->fd, &one, sizeof one), sizeof one);
    stk_loop_del(w->loop, src);
    assert_int_equal(atomic_fetch_sub(&w->owners, 1), 1);
    if (t->standby)
        stk_lead_post(w->lead, &p->job);
    else
        serve(p, t);
}

static void world_on_timer(struct stk_timer *timer, void *who)
{
    struct world *w = stk_container_of(timer, struct world, timer);

    assert_int_equal(atomic_fetch_add(&w->owners, 1), 0);
    w->ticks++;
    stk_timer_set(w->loop, timer, 50);
    assert_int_equal(atomic_fetch_sub(&w->owners, 1), 1);
}

static const struct stk_lead_ops world_ops = {
    .unlock = world_unlock,
    .lock = world_lock,
    .on_tick = world_on_tick,
};

static void world_open(struct world *w, unsigned threads, bool standby, unsigned npeers,
                       unsigned tokens)
{
    struct stk_lead_params params = {.threads = threads, .standby = standby, .ops = &world_ops};

    pthread_mutex_init(&w->lock, NULL);
    assert_int_equal(stk_loop_new(&w->loop), 0);
    params.loop = w->loop;
    params.arg = w;
    stk_timer_init(&w->timer, world_on_timer);
    stk_timer_set(w->loop, &w->timer, 50);
    w->nthreads = threads;
    w->npeers = npeers;
    w->goal = (long)npeers * tokens;
    w->peers = stk_new0_array(struct peer, npeers);
    for (unsigned i = 0; i < npeers; i++) {
        struct peer *p = &w->peers[i];

        *p = (struct peer){.w = w, .seed = i + 1, .job.run = peer_job};
        p->src = (struct stk_source){.fn = peer_event,
                                     .fd = eventfd(tokens, EFD_SEMAPHORE | EFD_NONBLOCK)};
        assert_true(p->src.fd >= 0);
        assert_int_equal(stk_loop_add(w->loop, &p->src, EPOLLIN), 0);
    }
    assert_int_equal(stk_lead_new(&w->lead, &params), 0);
}

static void world_close(struct world *w)
{
    w->lead = stk_lead_free(w->lead);
    for (unsigned i = 0; i < w->npeers; i++)
        close(w->peers[i].src.fd);
    free(w->peers);
    w->loop = stk_loop_free(w->loop);
    pthread_mutex_destroy(&w->lock);
}

static void *world_thread(void *arg)
{
    struct stk_lead_thread *t = arg;
    struct world *w = t->user;

    world_lock(w, t);
    stk_lead_run(t);
    world_unlock(w, t);
    return NULL;
}

static void world_start(struct world *w, pthread_t *ids)
{
    for (unsigned i = 0; i < w->nthreads; i++) {
        struct stk_lead_thread *t = stk_lead_thread_get(w->lead, i);

        t->user = w;
        assert_int_equal(pthread_create(&ids[i], NULL, world_thread, t), 0);
    }
}

static void world_join(struct world *w, pthread_t *ids)
{
    for (unsigned i = 0; i < w->nthreads; i++)
        assert_int_equal(pthread_join(ids[i], NULL), 0);
}

static void run_to_the_goal(struct world *w, unsigned threads, bool standby, unsigned npeers,
                            unsigned tokens)
{
    pthread_t ids[THREADS_MAX];

    world_open(w, threads, standby, npeers, tokens);
    world_start(w, ids);
    world_join(w, ids); /* a lost event would let this wait for ever: the test's limit ends it */
    assert_int_equal(atomic_load(&w->served), w->goal);
    world_close(w);
}

static void one_thread_without_standby(void **state)
{
    struct world w = {0};

    run_to_the_goal(&w, 1, false, 10, 2000);
}

static void threads_without_standby(void **state)
{
    struct world w = {.sleep_one_in = 500};

    run_to_the_goal(&w, 4, false, 10, 1000);
}

static void one_thread_with_standby(void **state)
{
    struct world w = {.sleep_one_in = 100, .spin_one_in = 500};

    run_to_the_goal(&w, 1, true, 20, 1500);
}

static void threads_with_standby(void **state)
{
    struct world w = {.sleep_one_in = 50, .spin_one_in = 500};

    run_to_the_goal(&w, 4, true, 30, 1500);
}

static void only_sleepers(void **state)
{
    struct world w = {.sleep_one_in = 1};

    run_to_the_goal(&w, 4, true, 64, 30);
}

/* Bursts with pauses in which everybody blocks: the way from idle to work and back. */
static void bursts(void **state)
{
    struct world w = {.sleep_one_in = 20};
    pthread_t ids[THREADS_MAX];
    unsigned rounds = 200, burst = 5;

    world_open(&w, 2, true, burst, 0);
    w.goal = (long)rounds * burst;
    world_start(&w, ids);
    for (unsigned i = 0; i < rounds; i++) {
        long want = (long)(i + 1) * burst;
        uint64_t one = 1;

        for (unsigned p = 0; p < burst; p++) {
            assert_int_equal(write(w.peers[p].src.fd, &one, sizeof one), sizeof one);
            if (i % 3 == 0)
                nap_us(100);
        }
        while (atomic_load(&w.served) < want)
            nap_us(50);
        nap_us(i % 10 == 0 ? 6000 : 300);
    }
    world_join(&w, ids);
    world_close(&w);
}

/* The loop's timers run while all threads are in the application. */
static void stuck_job(struct peer *p, struct stk_lead_thread *t, long until)
{
    struct world *w = p->w;

    stk_lead_enter(t);
    world_unlock(w, t);
    while (__atomic_load_n(&w->ticks, __ATOMIC_RELAXED) < until)
        nap_us(1000);
    world_lock(w, t);
    (void)stk_lead_leave(t);
    stk_lead_stop(w->lead);
}

static void stuck_event(struct stk_source *src, uint32_t events, void *who)
{
    struct peer *p = stk_container_of(src, struct peer, src);
    struct stk_lead_thread *t = who;

    stk_loop_del(p->w->loop, src);
    assert_false(t->standby);
    stuck_job(p, t, 5);
}

static void atomic_timer(struct stk_timer *timer, void *who)
{
    struct world *w = stk_container_of(timer, struct world, timer);

    __atomic_fetch_add(&w->ticks, 1, __ATOMIC_RELAXED);
    stk_timer_set(w->loop, timer, 20);
}

static void the_standby_runs_timers(void **state)
{
    struct world w = {0};
    pthread_t ids[THREADS_MAX];

    /* The event is there before the first turn: nobody has waited in epoll yet. */
    world_open(&w, 1, true, 1, 1);
    w.peers[0].src.fn = stuck_event;
    w.timer.fn = atomic_timer;
    world_start(&w, ids);
    world_join(&w, ids);
    assert_true(w.ticks >= 5);
    world_close(&w);
}

/* A rouse is answered by a look wherever the stand-by is. */
static void a_rouse_is_heard(void **state)
{
    struct world w = {.sleep_one_in = 3};
    pthread_t ids[THREADS_MAX];

    world_open(&w, 2, true, 4, 0);
    w.goal = 1L << 40;
    world_start(&w, ids);
    for (int i = 0; i < 300; i++) {
        int before;
        uint64_t one = 1;

        if (i % 2 == 0)
            assert_int_equal(write(w.peers[i % 4].src.fd, &one, sizeof one), sizeof one);
        nap_us(i % 5 == 0 ? 5000 : i * 3);
        before = atomic_load(&w.looks);
        stk_lead_rouse(w.lead);
        while (atomic_load(&w.looks) == before)
            nap_us(50);
    }
    stk_lead_stop(w.lead);
    world_join(&w, ids);
    world_close(&w);
}

/* Stops at any moment, with threads turning, parked, blocked or in the application. */
static void stops_end(void **state)
{
    for (unsigned i = 0; i < 60; i++) {
        struct world w = {.sleep_one_in = 3, .spin_one_in = 100};
        pthread_t ids[THREADS_MAX];

        world_open(&w, 1 + i % THREADS_MAX, i % 3 != 0, 8, i % 2 ? 1000000 : 0);
        world_start(&w, ids);
        nap_us(i * 100 % 7000);
        stk_lead_stop(w.lead);
        world_join(&w, ids);
        world_close(&w);
    }
}

/* A ring of another thread's that comes between any two of our system calls on the bell. */
static struct {
    int fd;
    void (*before_read)(void), (*before_write)(void);
    struct stk_lead_thread *t;
} bell = {.fd = -1};

static void bell_run(void (**hook)(void))
{
    void (*run)(void) = *hook;

    *hook = NULL;
    if (run != NULL)
        run();
}

ssize_t read(int fd, void *buf, size_t len)
{
    if (fd == bell.fd)
        bell_run(&bell.before_read);
    return syscall(SYS_read, fd, buf, len);
}

ssize_t write(int fd, const void *buf, size_t len)
{
    if (fd == bell.fd)
        bell_run(&bell.before_write);
    return syscall(SYS_write, fd, buf, len);
}

static void bell_ring(void)
{
    stk_lead_ring(bell.t->lead);
}

static void bell_turn(void)
{
    assert_true(stk_lead_hosted_turn(bell.t));
}

static bool bell_is_readable(void)
{
    struct pollfd pfd = {.fd = bell.fd, .events = POLLIN};

    return poll(&pfd, 1, 0) == 1;
}

/* Another event loop looks at nothing but the bell: each ring is heard, and none for ever. */
static void a_bell_of_another_loop(void **state)
{
    struct world w = {0};

    world_open(&w, 1, false, 1, 0);
    assert_int_equal(stk_lead_host(w.lead), 0);
    bell.t = stk_lead_thread_get(w.lead, 0);
    bell.fd = stk_lead_bell(w.lead);
    world_lock(&w, bell.t);
    stk_lead_hosted_begin(bell.t);
    bell_turn();
    assert_false(bell_is_readable());

    bell_ring();
    assert_true(bell_is_readable());
    bell.before_read = bell_ring;
    bell_turn();
    bell_ring();
    assert_true(bell_is_readable());
    for (int i = 0; i < 3; i++)
        bell_turn();
    assert_false(bell_is_readable());

    bell.before_write = bell_turn;
    bell_ring();
    for (int i = 0; i < 3; i++)
        bell_turn();
    assert_false(bell_is_readable());
    bell_ring();
    assert_true(bell_is_readable());

    stk_lead_hosted_end(bell.t);
    world_unlock(&w, bell.t);
    bell.fd = -1;
    world_close(&w);
}

static void wait_for_looks(struct world *w, int more)
{
    int until = atomic_load(&w->looks) + more;

    while (atomic_load(&w->looks) < until)
        nap_us(50);
}

/* The stand-by looks now and then at another event loop that does not wait: a rouse between two
 * steps of such a look is not its last one. */
static void a_rouse_within_a_look(void **state)
{
    struct world w = {0};
    struct stk_lead_thread *t;

    world_open(&w, 1, true, 1, 0);
    assert_int_equal(stk_lead_host(w.lead), 0);
    t = stk_lead_thread_get(w.lead, 0);
    world_lock(&w, t);
    stk_lead_hosted_begin(t);
    for (int i = 0; i < 10; i++) {
        assert_true(stk_lead_hosted_turn(t));
        wait_for_looks(&w, 4);
        atomic_store(&w.rouses, true);
        while (atomic_load(&w.rouses))
            nap_us(50);
        wait_for_looks(&w, 2);
    }
    stk_lead_hosted_end(t);
    world_unlock(&w, t);
    world_close(&w);
}

/* Longer than a tick of the kernel's coarse clock, and without a call of the application. */
static void long_event(struct stk_source *src, uint32_t events, void *who)
{
    struct peer *p = stk_container_of(src, struct peer, src);

    stk_loop_del(p->w->loop, src);
    nap_us(12000);
    atomic_fetch_add(&p->w->served, 1);
}

/* An event loop that hosts ours gets its turn behind an event that took long, whatever that did. */
static void long_events_come_one_by_one(void **state)
{
    struct world w = {0};
    struct stk_lead_thread *t;

    world_open(&w, 1, false, 4, 1);
    for (unsigned i = 0; i < w.npeers; i++)
        w.peers[i].src.fn = long_event;
    assert_int_equal(stk_lead_host(w.lead), 0);
    t = stk_lead_thread_get(w.lead, 0);
    world_lock(&w, t);
    stk_lead_hosted_begin(t);
    for (int i = 1; i <= 4; i++) {
        assert_true(stk_lead_hosted_turn(t));
        assert_int_equal(atomic_load(&w.served), i);
    }
    stk_lead_hosted_end(t);
    world_unlock(&w, t);
    world_close(&w);
}

int main(void)
{
    static const struct CMUnitTest tests[] = {
        cmocka_unit_test(one_thread_without_standby),
        cmocka_unit_test(threads_without_standby),
        cmocka_unit_test(one_thread_with_standby),
        cmocka_unit_test(threads_with_standby),
        cmocka_unit_test(only_sleepers),
        cmocka_unit_test(bursts),
        cmocka_unit_test(the_standby_runs_timers),
        cmocka_unit_test(a_rouse_is_heard),
        cmocka_unit_test(stops_end),
        cmocka_unit_test(a_bell_of_another_loop),
        cmocka_unit_test(a_rouse_within_a_look),
        cmocka_unit_test(long_events_come_one_by_one),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}
