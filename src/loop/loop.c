/*
 * The epoll dispatcher and its timers.
 *
 * Level-triggered, without any epoll_ctl per request: edge-triggered sets, one-shot sets and
 * re-arming measured equal or worse. Timers are a wheel of 64 ms slots with a bitmap of the
 * occupied ones, so that an idle process sleeps until something is due. Owners with deadlines that
 * move on every request do not move their timer: they let it fire and look again, which costs
 * nothing in the request path.
 *
 * `events` of a source is read by the thread that drives the loop and may be written by the thread
 * that owns the source meanwhile (a busy connection): relaxed atomics, ordered by the kernel's own
 * synchronisation of epoll_ctl and epoll_wait.
 */
#include "loop/loop.h"

#include <errno.h>
#include <limits.h>
#include <stdlib.h>
#include <sys/eventfd.h>
#include <unistd.h>

#include "base/assert.h"
#include "base/fd.h"
#include "base/mem.h"
#include "loop/loop_priv.h"

static void loop_on_wake(struct stk_source *src, uint32_t events, void *who)
{
    uint64_t n;

    while (read(src->fd, &n, sizeof n) < 0 && errno == EINTR) {
    }
}

int stk_loop_new(struct stk_loop **ret_loop)
{
    struct stk_loop *loop = stk_new0(struct stk_loop);
    int r;

    loop->epfd = epoll_create1(EPOLL_CLOEXEC);
    loop->wakefd = eventfd(0, EFD_NONBLOCK | EFD_CLOEXEC);
    if (loop->epfd < 0 || loop->wakefd < 0) {
        r = -errno;
        stk_loop_free(loop);
        return r;
    }
    for (size_t i = 0; i < STK_LOOP_SLOTS; i++)
        stk_list_init(&loop->slots[i]);
    stk_list_init(&loop->deferred);
    stk_loop_refresh(loop);
    loop->tick = (uint64_t)loop->now / STK_LOOP_SLOT_MS;
    loop->wake_src = (struct stk_source){.fn = loop_on_wake, .fd = loop->wakefd};
    r = stk_loop_add(loop, &loop->wake_src, EPOLLIN);
    if (r < 0) {
        stk_loop_free(loop);
        return r;
    }
    *ret_loop = loop;
    return 0;
}

struct stk_loop *stk_loop_free(struct stk_loop *loop)
{
    if (loop != NULL) {
        if (loop->deferred.next != NULL)
            stk_loop_reap(loop);
        stk_fd_close(&loop->epfd);
        stk_fd_close(&loop->wakefd);
        free(loop);
    }
    return NULL;
}

int stk_loop_fd(const struct stk_loop *loop)
{
    return loop->epfd;
}

static int loop_ctl(struct stk_loop *loop, int op, struct stk_source *src, uint32_t events)
{
    struct epoll_event ev = {.events = events, .data.ptr = src};

    __atomic_store_n(&src->events, events, __ATOMIC_RELAXED);
    if (epoll_ctl(loop->epfd, op, src->fd, &ev) < 0) {
        int r = -errno;

        if (op == EPOLL_CTL_ADD)
            __atomic_store_n(&src->events, 0, __ATOMIC_RELAXED);
        return r;
    }
    return 0;
}

int stk_loop_add(struct stk_loop *loop, struct stk_source *src, uint32_t events)
{
    return loop_ctl(loop, EPOLL_CTL_ADD, src, events);
}

int stk_loop_mod(struct stk_loop *loop, struct stk_source *src, uint32_t events)
{
    return loop_ctl(loop, EPOLL_CTL_MOD, src, events);
}

void stk_loop_del(struct stk_loop *loop, struct stk_source *src)
{
    if (__atomic_exchange_n(&src->events, 0, __ATOMIC_RELAXED) == 0)
        return;
    if (epoll_ctl(loop->epfd, EPOLL_CTL_DEL, src->fd, NULL) < 0)
        STK_ASSERT(errno == ENOENT || errno == EBADF);
}

void stk_timer_init(struct stk_timer *timer, stk_timer_fn fn)
{
    stk_list_init(&timer->link);
    timer->fn = fn;
    timer->deadline = 0;
    timer->slot = STK_LOOP_NO_SLOT;
}

void stk_timer_stop(struct stk_loop *loop, struct stk_timer *timer)
{
    uint32_t slot = timer->slot;

    if (slot == STK_LOOP_NO_SLOT)
        return;
    stk_list_remove(&timer->link);
    timer->slot = STK_LOOP_NO_SLOT;
    loop->ntimers--;
    if (stk_list_is_empty(&loop->slots[slot]))
        loop->occupied[slot / 64] &= ~(UINT64_C(1) << (slot % 64));
}

bool stk_timer_is_set(const struct stk_timer *timer)
{
    return timer->slot != STK_LOOP_NO_SLOT;
}

static void timer_link(struct stk_loop *loop, struct stk_timer *timer)
{
    uint64_t due = ((uint64_t)timer->deadline + STK_LOOP_SLOT_MS - 1) / STK_LOOP_SLOT_MS;
    uint32_t slot;

    if (due <= loop->tick)
        due = loop->tick + 1;
    if (due > loop->tick + STK_LOOP_SLOTS - 1)
        due = loop->tick + STK_LOOP_SLOTS - 1;
    slot = (uint32_t)(due % STK_LOOP_SLOTS);
    timer->slot = slot;
    stk_list_append(&loop->slots[slot], &timer->link);
    loop->occupied[slot / 64] |= UINT64_C(1) << (slot % 64);
    loop->ntimers++;
}

void stk_timer_start(struct stk_loop *loop, struct stk_timer *timer, stk_msec timeout)
{
    timer->deadline = loop->now + (timeout < 0 ? 0 : timeout);
    timer_link(loop, timer);
}

void stk_timer_set(struct stk_loop *loop, struct stk_timer *timer, stk_msec timeout)
{
    stk_timer_stop(loop, timer);
    stk_timer_start(loop, timer, timeout);
}

stk_msec stk_loop_now(const struct stk_loop *loop)
{
    return __atomic_load_n(&loop->now, __ATOMIC_RELAXED);
}

void stk_loop_refresh(struct stk_loop *loop)
{
    __atomic_store_n(&loop->now, stk_time_mono_coarse_ms(), __ATOMIC_RELAXED);
}

void stk_loop_wake(struct stk_loop *loop)
{
    uint64_t one = 1;
    int saved = errno;

    if (write(loop->wakefd, &one, sizeof one) < 0) {
        /* EAGAIN: the counter is full, so the wake-up is pending anyhow. */
    }
    errno = saved;
}

/* The first occupied slot after the current tick, as a distance of 1..SLOTS-1; 0: none. */
static unsigned loop_next_slot(const struct stk_loop *loop)
{
    for (unsigned d = 1; d < STK_LOOP_SLOTS;) {
        unsigned slot = (unsigned)((loop->tick + d) % STK_LOOP_SLOTS);
        uint64_t bits = loop->occupied[slot / 64] >> (slot % 64);

        if (bits != 0) {
            d += (unsigned)__builtin_ctzll(bits);
            return d < STK_LOOP_SLOTS ? d : 0;
        }
        d += 64 - slot % 64;
    }
    return 0;
}

stk_msec stk_loop_next_timeout(const struct stk_loop *loop)
{
    unsigned d;
    stk_msec due;

    if (loop->ntimers == 0)
        return -1;
    d = loop_next_slot(loop);
    if (d == 0)
        return STK_LOOP_SLOT_MS;
    due = (stk_msec)(loop->tick + d) * STK_LOOP_SLOT_MS - loop->now;
    return due < 0 ? 0 : due;
}

void stk_loop_run_timers(struct stk_loop *loop, void *who)
{
    uint64_t target = (uint64_t)loop->now / STK_LOOP_SLOT_MS;

    if (loop->ntimers == 0 || target > loop->tick + STK_LOOP_SLOTS) {
        if (loop->ntimers == 0) {
            loop->tick = target;
            return;
        }
        /* After a long stop of the process every slot is due once. */
        loop->tick = target - STK_LOOP_SLOTS;
    }
    while (loop->tick < target) {
        struct stk_list due;
        struct stk_list *node;
        uint32_t slot;

        loop->tick++;
        slot = (uint32_t)(loop->tick % STK_LOOP_SLOTS);
        if (!(loop->occupied[slot / 64] & (UINT64_C(1) << (slot % 64))))
            continue;
        loop->occupied[slot / 64] &= ~(UINT64_C(1) << (slot % 64));
        stk_list_init(&due);
        while ((node = stk_list_pop(&loop->slots[slot])) != NULL)
            stk_list_append(&due, node);
        while ((node = stk_list_pop(&due)) != NULL) {
            struct stk_timer *timer = stk_container_of(node, struct stk_timer, link);

            loop->ntimers--;
            timer->slot = STK_LOOP_NO_SLOT;
            if (timer->deadline > loop->now)
                timer_link(loop, timer);
            else
                timer->fn(timer, who);
        }
    }
}

void stk_loop_defer(struct stk_loop *loop, struct stk_deferred *deferred)
{
    stk_list_init(&deferred->link);
    stk_list_append(&loop->deferred, &deferred->link);
}

void stk_loop_reap(struct stk_loop *loop)
{
    struct stk_list *node;

    while ((node = stk_list_pop(&loop->deferred)) != NULL) {
        struct stk_deferred *deferred = stk_container_of(node, struct stk_deferred, link);

        deferred->free_fn(deferred);
    }
}

int stk_loop_run_once(struct stk_loop *loop, stk_msec timeout, void *who)
{
    struct epoll_event events[STK_LOOP_BATCH];
    stk_msec next;
    int n;

    stk_loop_reap(loop);
    stk_loop_refresh(loop);
    next = stk_loop_next_timeout(loop);
    if (timeout < 0 || (next >= 0 && next < timeout))
        timeout = next;
    n = epoll_wait(loop->epfd, events, STK_LOOP_BATCH, timeout > INT_MAX ? INT_MAX : (int)timeout);
    if (n < 0) {
        if (errno != EINTR)
            return -errno;
        n = 0;
    }
    stk_loop_refresh(loop);
    for (int i = 0; i < n; i++)
        stk_loop_dispatch(&events[i], who);
    stk_loop_run_timers(loop, who);
    return 0;
}
