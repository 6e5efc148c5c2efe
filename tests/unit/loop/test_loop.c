/* The dispatcher, its timers, wake-ups and deferred frees, driven by one thread. */
#include <errno.h>
#include <pthread.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <sys/epoll.h>
#include <sys/socket.h>
#include <time.h>
#include <unistd.h>

#include <cmocka.h>

#include "base/macros.h"
#include "loop/loop.h"
#include "loop/loop_priv.h"

struct end {
    struct stk_source src;
    struct stk_deferred deferred;
    struct stk_loop *loop;
    struct end *victim; /* closed by this one's handler */
    int peer, calls;
    bool freed;
};

static int who;

static void end_free(struct stk_deferred *deferred)
{
    stk_container_of(deferred, struct end, deferred)->freed = true;
}

static void end_close(struct end *e)
{
    stk_loop_del(e->loop, &e->src);
    close(e->src.fd);
    stk_loop_defer(e->loop, &e->deferred);
}

static void end_event(struct stk_source *src, uint32_t events, void *arg)
{
    struct end *e = stk_container_of(src, struct end, src);

    assert_ptr_equal(arg, &who);
    assert_false(e->freed);
    e->calls++;
    if (e->victim != NULL) {
        end_close(e->victim);
        assert_false(e->victim->freed);
        e->victim = NULL;
    }
}

static void end_open(struct end *e, struct stk_loop *loop)
{
    int fds[2];

    assert_int_equal(socketpair(AF_UNIX, SOCK_STREAM, 0, fds), 0);
    *e = (struct end){.src = {.fn = end_event, .fd = fds[0]},
                      .deferred.free_fn = end_free,
                      .loop = loop,
                      .peer = fds[1]};
    assert_int_equal(stk_loop_add(loop, &e->src, EPOLLIN), 0);
}

static void turn(struct stk_loop *loop, stk_msec timeout)
{
    assert_int_equal(stk_loop_run_once(loop, timeout, &who), 0);
}

static void events_are_level_triggered(void **state)
{
    struct stk_loop *loop;
    struct end e;

    assert_int_equal(stk_loop_new(&loop), 0);
    end_open(&e, loop);
    turn(loop, 0);
    assert_int_equal(e.calls, 0);
    assert_int_equal(write(e.peer, "x", 1), 1);
    turn(loop, -1);
    turn(loop, -1);
    assert_int_equal(e.calls, 2);
    assert_int_equal(stk_loop_mod(loop, &e.src, EPOLLOUT), 0);
    turn(loop, -1);
    assert_int_equal(e.calls, 3);
    stk_loop_del(loop, &e.src);
    stk_loop_del(loop, &e.src);
    turn(loop, 0);
    assert_int_equal(e.calls, 3);
    assert_int_equal(stk_loop_mod(loop, &e.src, EPOLLIN), -ENOENT);
    close(e.src.fd);
    close(e.peer);
    stk_loop_free(loop);
}

/* A handler closes a source of the same batch: no event of it comes, its memory stays till later.
 */
static void closed_sources_are_skipped(void **state)
{
    for (int order = 0; order < 2; order++) {
        struct stk_loop *loop;
        struct end e[2];

        assert_int_equal(stk_loop_new(&loop), 0);
        end_open(&e[0], loop);
        end_open(&e[1], loop);
        e[0].victim = &e[1];
        e[1].victim = &e[0];
        assert_int_equal(write(e[order].peer, "x", 1), 1);
        assert_int_equal(write(e[!order].peer, "x", 1), 1);
        turn(loop, -1);
        assert_int_equal(e[0].calls + e[1].calls, 1);
        assert_false(e[0].freed || e[1].freed);
        turn(loop, 0);
        assert_int_equal(e[0].freed + e[1].freed, 1);
        close(e[0].peer);
        close(e[1].peer);
        close(e[e[0].freed ? 1 : 0].src.fd);
        stk_loop_free(loop);
    }
}

struct alarm {
    struct stk_timer timer;
    struct stk_loop *loop;
    struct alarm *stops;
    stk_msec again, fired_at;
    int fired;
};

static void alarm_fn(struct stk_timer *timer, void *arg)
{
    struct alarm *a = stk_container_of(timer, struct alarm, timer);

    assert_false(stk_timer_is_set(timer));
    a->fired++;
    a->fired_at = stk_loop_now(a->loop);
    assert_true(a->fired_at >= timer->deadline);
    if (a->stops != NULL)
        stk_timer_stop(a->loop, &a->stops->timer);
    if (a->again > 0)
        stk_timer_set(a->loop, timer, a->again);
}

static void alarm_init(struct alarm *a, struct stk_loop *loop, stk_msec timeout)
{
    *a = (struct alarm){.loop = loop};
    stk_timer_init(&a->timer, alarm_fn);
    stk_timer_set(loop, &a->timer, timeout);
}

/* Moves the loop's clock, without waiting. */
static void advance(struct stk_loop *loop, stk_msec ms)
{
    loop->now += ms;
    stk_loop_run_timers(loop, &who);
}

static void timers_fire_late_never_early(void **state)
{
    static const stk_msec timeouts[] = {0, 1, 63, 64, 65, 1000, 32704, 32768, 40000, 75000, 200000};
    struct stk_loop *loop;
    struct alarm a[STK_ARRAY_LEN(timeouts)];
    stk_msec start;

    assert_int_equal(stk_loop_new(&loop), 0);
    start = stk_loop_now(loop);
    for (size_t i = 0; i < STK_ARRAY_LEN(timeouts); i++)
        alarm_init(&a[i], loop, timeouts[i]);
    for (int i = 0; i < 210000 / 7; i++) {
        stk_msec next = stk_loop_next_timeout(loop);

        assert_true(next >= -1 && next <= 32768);
        advance(loop, 7);
    }
    for (size_t i = 0; i < STK_ARRAY_LEN(timeouts); i++) {
        assert_int_equal(a[i].fired, 1);
        assert_true(a[i].fired_at >= start + timeouts[i]);
        assert_true(a[i].fired_at <= start + timeouts[i] + 2 * STK_LOOP_SLOT_MS + 7);
    }
    assert_int_equal(stk_loop_next_timeout(loop), -1);
    stk_loop_free(loop);
}

static void timers_survive_a_long_stop(void **state)
{
    struct stk_loop *loop;
    struct alarm soon, late, later;

    assert_int_equal(stk_loop_new(&loop), 0);
    alarm_init(&soon, loop, 100);
    alarm_init(&late, loop, 60000);
    alarm_init(&later, loop, 4000000);
    advance(loop, 3600000);
    assert_int_equal(soon.fired, 1);
    assert_int_equal(late.fired, 1);
    assert_int_equal(later.fired, 0);
    for (int i = 0; i < 8000; i++)
        advance(loop, 64);
    assert_int_equal(later.fired, 1);
    stk_loop_free(loop);
}

static void timers_may_stop_each_other(void **state)
{
    struct stk_loop *loop;
    struct alarm a, b, again;

    assert_int_equal(stk_loop_new(&loop), 0);
    alarm_init(&a, loop, 10);
    alarm_init(&b, loop, 10);
    alarm_init(&again, loop, 10);
    a.stops = &b;
    b.stops = &a;
    again.again = 1;
    advance(loop, 128);
    assert_int_equal(a.fired + b.fired, 1);
    assert_int_equal(again.fired, 1);
    advance(loop, 128);
    assert_int_equal(again.fired, 2);
    stk_timer_stop(loop, &again.timer);
    stk_timer_stop(loop, &again.timer);
    assert_int_equal(stk_loop_next_timeout(loop), -1);
    stk_loop_free(loop);
}

static void *waker(void *arg)
{
    stk_loop_wake(arg);
    return NULL;
}

static void a_wake_up_ends_the_wait(void **state)
{
    struct stk_loop *loop;
    pthread_t id;

    assert_int_equal(stk_loop_new(&loop), 0);
    for (int i = 0; i < 50; i++) {
        assert_int_equal(pthread_create(&id, NULL, waker, loop), 0);
        turn(loop, -1);
        assert_int_equal(pthread_join(id, NULL), 0);
    }
    stk_loop_free(loop);
}

int main(void)
{
    static const struct CMUnitTest tests[] = {
        cmocka_unit_test(events_are_level_triggered),
        cmocka_unit_test(closed_sources_are_skipped),
        cmocka_unit_test(timers_fire_late_never_early),
        cmocka_unit_test(timers_survive_a_long_stop),
        cmocka_unit_test(timers_may_stop_each_other),
        cmocka_unit_test(a_wake_up_ends_the_wait),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}
