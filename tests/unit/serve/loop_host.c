#include "loop_host.h"

#include <errno.h>
#include <pthread.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/epoll.h>
#include <sys/timerfd.h>
#include <time.h>
#include <unistd.h>

#include "base/assert.h"
#include "base/list.h"
#include "base/mem.h"
#include "echo_host.h"

enum { BLOCK = 65536, BATCH = 16, LOOP_THREADS = 16 };

/* How a step ends. */
enum outcome {
    DONE,
    SLEEP, /* task->ms */
    YIELD, /* until the next round */
    INPUT, /* until there is input, or room for output, or anything */
    OUTPUT,
    STAY,
};

struct task;

typedef enum outcome (*step_fn)(struct task *task);

/* A thread of the engine; number 0 has the event loop. */
struct loop_thread {
    struct loop_host *host;
    pthread_t id;
    stk_host_thread_fn fn;
    void *arg;
};

struct loop_host {
    struct loop_thread threads[LOOP_THREADS];
    pthread_mutex_t lock;
    bool turns;
    int epfd;
    struct stk_list ready, joined;
    unsigned seen[6]; /* by bit of enum stk_wake */
};

struct task {
    struct loop_host *host;
    struct stk_request *req;
    step_fn step;
    struct stk_list ready, joined;
    bool detached;
    int timer;
    long ms;
    size_t n, done;
    unsigned steps, woken;
    unsigned thread; /* of its call */
    char *body;
    size_t len;
};

void *loop_host_new(bool turns)
{
    struct loop_host *host = stk_new0(struct loop_host);

    pthread_mutex_init(&host->lock, NULL);
    host->turns = turns;
    host->epfd = -1;
    stk_list_init(&host->ready);
    stk_list_init(&host->joined);
    return host;
}

void loop_host_free(void *arg)
{
    struct loop_host *host = arg;

    pthread_mutex_destroy(&host->lock);
    free(host);
}

static void host_lock(void *host, void *thread)
{
    pthread_mutex_lock(&((struct loop_host *)host)->lock);
}

static void host_unlock(void *host, void *thread)
{
    pthread_mutex_unlock(&((struct loop_host *)host)->lock);
}

/* The first application is asynchronous, further ones are not. */
static bool host_is_async(void *host, unsigned app)
{
    return app == 0;
}

static void schedule(struct task *task)
{
    if (stk_list_is_empty(&task->ready))
        stk_list_append(&task->host->ready, &task->ready);
}

static void nap_ms(long ms)
{
    struct timespec ts = {.tv_sec = ms / 1000, .tv_nsec = ms % 1000 * 1000000};

    nanosleep(&ts, NULL);
}

int loop_host_gate[2] = {-1, -1};

static void block(long ms)
{
    char byte;

    if (ms > 0)
        nap_ms(ms);
    else
        STK_ASSERT(read(loop_host_gate[0], &byte, 1) == 1);
}

/* ---- what tasks do ------------------------------------------------------------------------- */

static void start(struct task *task, const char *length)
{
    struct stk_request *req = task->req;

    STK_ASSERT(req->ops->start(req, 200, STK_SPAN_LIT("OK")) == 0);
    req->ops->header(req, STK_SPAN_LIT("Content-Type"), STK_SPAN_LIT("text/plain"));
    if (length != NULL)
        req->ops->header(req, STK_SPAN_LIT("Content-Length"), stk_span_str(length));
}

/* What is not taken at once is written again after a step. */
static int put(struct task *task, const char *data, size_t len, unsigned flags)
{
    return task->req->ops->write(task->req, data, len, flags);
}

static enum outcome hello(struct task *task)
{
    start(task, "13");
    put(task, "Hello, World!", 13, STK_WRITE_END);
    return DONE;
}

static enum outcome step_nap(struct task *task)
{
    if (task->steps++ > 0)
        return hello(task);
    task->ms = (long)task->n;
    return SLEEP;
}

static enum outcome step_yield(struct task *task)
{
    return task->steps++ > 0 ? hello(task) : YIELD;
}

static enum outcome step_block(struct task *task)
{
    if (task->steps++ == 0)
        return YIELD;
    block((long)task->n);
    return hello(task);
}

static enum outcome step_hold(struct task *task)
{
    bool sync = !host_is_async(task->host, task->req->app);

    if (sync)
        host_unlock(task->host, NULL);
    block((long)task->n);
    if (sync)
        host_lock(task->host, NULL);
    return hello(task);
}

static enum outcome step_where(struct task *task)
{
    char text[64];
    int n = snprintf(text, sizeof text, "app %u on thread %u", task->req->app, task->thread);

    start(task, NULL);
    put(task, text, (size_t)n, STK_WRITE_END);
    return DONE;
}

static enum outcome step_fail(struct task *task)
{
    if (task->steps++ == 0)
        return YIELD;
    task->req->ops->fail(task->req);
    return DONE;
}

static enum outcome step_nothing(struct task *task)
{
    return task->steps++ > 0 ? DONE : YIELD;
}

static enum outcome step_echo(struct task *task)
{
    for (;;) {
        ssize_t n;

        task->body = realloc(task->body, task->len + BLOCK);
        STK_ASSERT(task->body != NULL);
        n = task->req->ops->body_read(task->req, task->body + task->len, BLOCK);
        if (n == -EAGAIN)
            return INPUT;
        if (n < 0) {
            task->req->ops->fail(task->req);
            return DONE;
        }
        if (n == 0)
            break;
        task->len += (size_t)n;
    }
    start(task, NULL);
    put(task, task->body, task->len, STK_WRITE_END);
    return DONE;
}

static enum outcome step_pump(struct task *task)
{
    char block[4096];

    if (task->steps++ == 0)
        start(task, NULL);
    for (;;) {
        ssize_t n;

        if (task->req->ops->is_congested(task->req))
            return OUTPUT;
        n = task->req->ops->body_read(task->req, block, sizeof block);
        if (n == -EAGAIN)
            return INPUT;
        if (n < 0) {
            task->req->ops->fail(task->req);
            return DONE;
        }
        if (put(task, block, (size_t)n, n == 0 ? STK_WRITE_END : 0) < 0 || n == 0)
            return DONE;
    }
}

static enum outcome step_stream(struct task *task)
{
    char block[BLOCK];

    if (task->steps++ == 0)
        start(task, NULL);
    while (task->done < task->n) {
        if (task->req->ops->is_congested(task->req))
            return OUTPUT;
        for (size_t i = 0; i < BLOCK; i++)
            block[i] = echo_pattern(task->done * BLOCK + i);
        task->done++;
        if (put(task, block, BLOCK, task->done == task->n ? STK_WRITE_END : 0) < 0)
            return DONE;
    }
    return DONE;
}

static enum outcome step_head(struct task *task)
{
    if (task->steps++ == 0) {
        start(task, NULL);
        task->ms = (long)task->n;
        return SLEEP;
    }
    task->req->ops->header(task->req, STK_SPAN_LIT("X-Late"), STK_SPAN_LIT("yes"));
    put(task, "late", 4, STK_WRITE_END);
    return DONE;
}

static enum outcome step_part(struct task *task)
{
    if (task->steps++ == 0) {
        start(task, NULL);
        put(task, "some", 4, STK_WRITE_FLUSH);
        task->ms = (long)task->n;
        return SLEEP;
    }
    put(task, "more", 4, STK_WRITE_END);
    return DONE;
}

static enum outcome step_join(struct task *task)
{
    if (task->steps++ == 0) {
        start(task, NULL);
        put(task, "joined\n", 7, STK_WRITE_FLUSH);
        stk_list_append(&task->host->joined, &task->joined);
        return STAY;
    }
    stk_list_remove(&task->joined);
    put(task, "", 0, STK_WRITE_END);
    return DONE;
}

static enum outcome step_say(struct task *task)
{
    stk_span path = stk_head_path(task->req->head);

    stk_list_for_each (it, &task->host->joined) {
        struct task *other = stk_container_of(it, struct task, joined);

        put(other, path.ptr + 5, path.len - 5, 0);
    }
    return hello(task);
}

static enum outcome step_leave(struct task *task)
{
    stk_list_for_each (it, &task->host->joined)
        schedule(stk_container_of(it, struct task, joined));
    return hello(task);
}

static enum outcome step_wait(struct task *task)
{
    if (task->steps++ == 0)
        return STAY;
    return task->woken & STK_WAKE_DRAIN ? hello(task) : DONE;
}

static enum outcome step_limit(struct task *task)
{
    if (task->steps == 0) {
        task->steps++;
        return YIELD;
    }
    if (task->steps++ == 1) {
        task->req->ops->set_timeout(task->req, (stk_msec)task->n);
        return STAY;
    }
    return DONE;
}

static enum outcome step_seen(struct task *task)
{
    const unsigned *seen = task->host->seen;
    char text[128];
    int n = snprintf(text, sizeof text, "input=%u output=%u gone=%u timeout=%u drain=%u cancel=%u",
                     seen[0], seen[1], seen[2], seen[3], seen[4], seen[5]);

    start(task, NULL);
    put(task, text, (size_t)n, STK_WRITE_END);
    return DONE;
}

static const struct {
    const char *prefix;
    step_fn step;
} steps[] = {
    {"/nap/", step_nap},
    {"/yield", step_yield},
    {"/block/", step_block},
    {"/hold/", step_hold},
    {"/echo", step_echo},
    {"/pump", step_pump},
    {"/stream/", step_stream},
    {"/head/", step_head},
    {"/part/", step_part},
    {"/join", step_join},
    {"/say/", step_say},
    {"/leave", step_leave},
    {"/wait", step_wait},
    {"/limit/", step_limit},
    {"/fail", step_fail},
    {"/nothing", step_nothing},
    {"/seen", step_seen},
    {"/where", step_where},
    {"/", hello},
};

/* ---- their life ---------------------------------------------------------------------------- */

static void task_free(struct task *task)
{
    stk_list_remove(&task->ready);
    stk_list_remove(&task->joined);
    if (task->timer >= 0)
        close(task->timer);
    free(task->body);
    free(task);
}

static struct task *task_new(struct loop_host *host, struct stk_request *req)
{
    struct task *task = stk_new0(struct task);
    stk_span path = stk_head_path(req->head);

    path.ptr += req->script_skip;
    path.len -= req->script_skip;
    if (path.len == 0)
        path = STK_SPAN_LIT("/");

    *task = (struct task){.host = host, .req = req, .timer = -1};
    stk_list_init(&task->ready);
    stk_list_init(&task->joined);
    for (size_t i = 0; task->step == NULL; i++) {
        size_t len = strlen(steps[i].prefix);

        if (path.len < len || memcmp(path.ptr, steps[i].prefix, len) != 0)
            continue;
        task->step = steps[i].step;
        for (; len < path.len && path.ptr[len] >= '0' && path.ptr[len] <= '9'; len++)
            task->n = task->n * 10 + (size_t)(path.ptr[len] - '0');
    }
    req->host_data = task;
    return task;
}

/* Sees to it that a detached task goes on. */
static void task_arm(struct task *task, enum outcome how)
{
    struct epoll_event ev = {.events = EPOLLIN, .data.ptr = task};
    struct itimerspec its = {
        .it_value = {.tv_sec = task->ms / 1000, .tv_nsec = task->ms % 1000 * 1000000 + 1}};

    switch (how) {
    case SLEEP:
        task->timer = timerfd_create(CLOCK_MONOTONIC, TFD_CLOEXEC);
        STK_ASSERT(task->timer >= 0 && timerfd_settime(task->timer, 0, &its, NULL) == 0);
        STK_ASSERT(epoll_ctl(task->host->epfd, EPOLL_CTL_ADD, task->timer, &ev) == 0);
        break;
    case YIELD:
        schedule(task);
        break;
    case INPUT:
        task->req->ops->want(task->req, STK_WAKE_INPUT);
        break;
    case OUTPUT:
        task->req->ops->want(task->req, STK_WAKE_OUTPUT);
        break;
    default:
        break;
    }
}

static void task_resume(struct task *task)
{
    enum outcome how = task->step(task);

    if (how == DONE) {
        task->req->ops->finish(task->req);
        task_free(task);
    } else {
        task_arm(task, how);
    }
}

static enum stk_host_call host_call(void *arg, void *thread, struct stk_request *req)
{
    struct task *task = task_new(arg, req);
    enum outcome how;

    for (task->thread = 0; thread != &task->host->threads[task->thread];)
        task->thread++;
    STK_ASSERT(host_is_async(arg, req->app) == (task->thread == 0));
    how = task->step(task);
    task->req = how != DONE ? req->ops->detach(req) : NULL;
    if (task->req == NULL) {
        task_free(task);
        return STK_HOST_DONE;
    }
    task_arm(task, how);
    return STK_HOST_PENDING;
}

static void host_wake(void *arg, void *thread, struct stk_request *req, unsigned what)
{
    struct loop_host *host = arg;
    struct task *task = req->host_data;

    STK_ASSERT(task->req == req);
    for (unsigned i = 0; i < STK_ARRAY_LEN(host->seen); i++)
        host->seen[i] += what >> i & 1;
    task->woken |= what;
    /* A sleeper is not disturbed. */
    if (task->timer < 0)
        schedule(task);
}

/* ---- the event loop ------------------------------------------------------------------------ */

/* Looks at its own set; true: the engine is to be turned. */
static bool host_select(struct loop_host *host, int timeout)
{
    struct epoll_event events[BATCH];
    bool turn = false;
    int n;

    if (timeout != 0)
        host_unlock(host, NULL);
    n = epoll_wait(host->epfd, events, BATCH, timeout);
    if (timeout != 0)
        host_lock(host, NULL);
    for (int i = 0; i < n; i++) {
        struct task *task = events[i].data.ptr;

        if (task == NULL) {
            turn = true;
            continue;
        }
        close(task->timer);
        task->timer = -1;
        schedule(task);
    }
    return turn;
}

static void host_run_ready(struct loop_host *host)
{
    struct stk_list now, *node;

    stk_list_init(&now);
    while ((node = stk_list_pop(&host->ready)) != NULL)
        stk_list_append(&now, node);
    while ((node = stk_list_pop(&now)) != NULL)
        task_resume(stk_container_of(node, struct task, ready));
}

static void host_watch(struct loop_host *host, int fd)
{
    struct epoll_event ev = {.events = EPOLLIN};

    STK_ASSERT(epoll_ctl(host->epfd, EPOLL_CTL_ADD, fd, &ev) == 0);
}

static void *host_thread(void *arg)
{
    struct loop_thread *t = arg;

    host_lock(t->host, t);
    t->fn(t->arg, (unsigned)(t - t->host->threads), t);
    host_unlock(t->host, t);
    return NULL;
}

static int host_run(void *arg, unsigned threads, stk_host_thread_fn fn, void *fn_arg,
                    const struct stk_host_engine *engine)
{
    struct loop_host *host = arg;
    bool alive = true;

    host->epfd = epoll_create1(EPOLL_CLOEXEC);
    STK_ASSERT(host->epfd >= 0);
    STK_ASSERT(threads <= LOOP_THREADS);
    for (unsigned i = 1; i < threads; i++) {
        host->threads[i] = (struct loop_thread){.host = host, .fn = fn, .arg = fn_arg};
        STK_ASSERT(pthread_create(&host->threads[i].id, NULL, host_thread, &host->threads[i]) == 0);
    }
    host_lock(host, NULL);
    if (host->turns) {
        host_watch(host, engine->fd);
        host_watch(host, engine->bell);
    }
    engine->begin(engine->arg, &host->threads[0]);
    while (alive) {
        bool idle = stk_list_is_empty(&host->ready), own = false;

        if (host->turns) {
            if (host_select(host, idle ? -1 : 0))
                alive = engine->turn(engine->arg);
        } else {
            alive = engine->wait(engine->arg, host->epfd, idle ? -1 : 0, &own);
            if (own)
                (void)host_select(host, 0);
        }
        host_run_ready(host);
    }
    engine->end(engine->arg);
    host_unlock(host, NULL);
    for (unsigned i = 1; i < threads; i++)
        STK_ASSERT(pthread_join(host->threads[i].id, NULL) == 0);
    close(host->epfd);
    return 0;
}

static int host_load(void *host, const struct stk_host_params *params)
{
    return 0;
}

static bool host_has_loop(void *host)
{
    return true;
}

static void host_nothing(void *host)
{
}

static void host_check_signals(void *host, void *thread)
{
}

const struct stk_host_ops loop_host_ops = {
    .name = "loop",
    .load = host_load,
    .run = host_run,
    .has_loop = host_has_loop,
    .is_async = host_is_async,
    .wake = host_wake,
    .unlock = host_unlock,
    .lock = host_lock,
    .check_signals = host_check_signals,
    .call = host_call,
    .unload = host_nothing,
    .freeze = host_nothing,
};
