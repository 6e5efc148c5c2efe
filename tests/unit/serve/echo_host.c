#include "echo_host.h"

#include <errno.h>
#include <poll.h>
#include <pthread.h>
#include <stdatomic.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>
#include <unistd.h>

#include "base/mem.h"
#include "base/time.h"
#include "config/strv.h"

struct echo_host {
    pthread_mutex_t lock;
};

struct echo_thread {
    struct echo_host *host;
    stk_host_thread_fn fn;
    void *arg;
    unsigned index;
    pthread_t id;
    _Atomic uint64_t cancelled; /* the id of the request that was cancelled last */
};

void echo_host_config(struct stk_config *config, int threads, bool takeover)
{
    *config = (struct stk_config){
        .threads = threads,
        .workers = 1,
        .takeover = takeover,
        .limit_request_line = 8192,
        .limit_request_head = 32768,
        .limit_request_fields = 128,
        .body_buffer = 1 << 20,
        .response_buffer = 1 << 20,
        .response_file_max = 1 << 30,
        .keepalive_timeout = 75000,
        .head_timeout = 10000,
        .body_timeout = 30000,
        .body_min_rate = 500,
        .send_timeout = 60000,
        .graceful_timeout = 20000,
        .exit_timeout = 20000,
        .access_log = stk_mem_strdup("off"),
        .error_log = stk_mem_strdup("-"),
        .server_header = stk_mem_strdup("stoker"),
    };
}

void echo_host_config_deinit(struct stk_config *config)
{
    free(config->access_log);
    free(config->error_log);
    free(config->server_header);
    free(config->tmpdir);
    free(config->app);
    stk_strv_deinit(&config->mount);
}

struct echo_host *echo_host_new(void)
{
    struct echo_host *host = stk_new0(struct echo_host);

    pthread_mutex_init(&host->lock, NULL);
    return host;
}

void echo_host_free(struct echo_host *host)
{
    pthread_mutex_destroy(&host->lock);
    free(host);
}

static void echo_lock(void *host, void *thread)
{
    pthread_mutex_lock(&((struct echo_host *)host)->lock);
}

static void echo_unlock(void *host, void *thread)
{
    pthread_mutex_unlock(&((struct echo_host *)host)->lock);
}

static void *echo_thread_main(void *arg)
{
    struct echo_thread *t = arg;

    echo_lock(t->host, t);
    t->fn(t->arg, t->index, t);
    echo_unlock(t->host, t);
    return NULL;
}

static int echo_run(void *host, unsigned threads, stk_host_thread_fn fn, void *arg,
                    const struct stk_host_engine *engine)
{
    struct echo_thread *all = stk_new0_array(struct echo_thread, threads);

    for (unsigned i = 0; i < threads; i++) {
        all[i] = (struct echo_thread){.host = host, .fn = fn, .arg = arg, .index = i};
        if (i > 0 && pthread_create(&all[i].id, NULL, echo_thread_main, &all[i]) != 0)
            abort();
    }
    echo_lock(host, NULL);
    fn(arg, 0, &all[0]);
    echo_unlock(host, NULL);
    for (unsigned i = 1; i < threads; i++)
        pthread_join(all[i].id, NULL);
    free(all);
    return 0;
}

static int echo_load(void *host, const struct stk_host_params *params)
{
    return 0;
}

static void echo_nothing(void *host)
{
}

static void echo_check_signals(void *host, void *thread)
{
}

/* Waits in the way of a thread: unlocked. */
static void echo_wait(struct echo_host *host, struct stk_request *req)
{
    struct stk_wait wait;
    struct pollfd pfd;

    req->ops->wait_for(req, &wait);
    pfd = (struct pollfd){.fd = wait.fd, .events = wait.events};
    echo_unlock(host, NULL);
    (void)poll(&pfd, 1, (int)wait.timeout);
    echo_lock(host, NULL);
}

static void echo_write(struct echo_host *host, struct stk_request *req, const char *data,
                       size_t len, unsigned flags)
{
    while (req->ops->write(req, data, len, flags) == -EAGAIN)
        echo_wait(host, req);
}

static void echo_start(struct stk_request *req, const char *length)
{
    req->ops->start(req, 200, STK_SPAN_LIT("OK"));
    req->ops->header(req, STK_SPAN_LIT("Content-Type"), STK_SPAN_LIT("text/plain"));
    if (length != NULL)
        req->ops->header(req, STK_SPAN_LIT("Content-Length"), stk_span_str(length));
}

static void echo_body(struct echo_host *host, struct stk_request *req)
{
    struct stk_body_view view;
    char *body = NULL;
    size_t len = 0;
    int r;

    for (;;) {
        r = req->ops->body_peek(req, &view);
        if (r == -EAGAIN) {
            echo_wait(host, req);
            continue;
        }
        if (r < 0 || view.len == 0)
            break;
        body = realloc(body, len + view.len);
        if (body == NULL)
            abort();
        memcpy(body + len, view.ptr, view.len);
        len += view.len;
        req->ops->body_skip(req, view.len);
    }
    echo_start(req, NULL);
    if (r < 0)
        req->ops->fail(req);
    else
        echo_write(host, req, body, len, STK_WRITE_END);
    free(body);
}

static void echo_spin(void)
{
    stk_nsec end = stk_time_mono_ns() + 20 * STK_NSEC_PER_MSEC;

    while (stk_time_mono_ns() < end) {
    }
}

static void echo_stream(struct echo_host *host, struct stk_request *req)
{
    char block[1024];

    memset(block, 'x', sizeof block);
    echo_start(req, NULL);
    for (int i = 0; i < 64; i++)
        echo_write(host, req, block, sizeof block, i == 0 ? STK_WRITE_FLUSH : 0);
    echo_write(host, req, NULL, 0, STK_WRITE_END);
}

static void echo_fill(char *buf, size_t off, size_t len)
{
    for (size_t i = 0; i < len; i++)
        buf[i] = echo_pattern(off + i);
}

/* N bytes in blocks of `block`; one block: with the end of the body. */
static void echo_size(struct echo_host *host, struct stk_request *req, size_t n, size_t block)
{
    char *buf = stk_mem_zalloc(block);
    struct timespec nap = {.tv_nsec = 1000 * 1000};

    echo_start(req, NULL);
    for (size_t off = 0; off < n; off += block) {
        echo_fill(buf, off, block);
        echo_write(host, req, buf, block, n == block ? STK_WRITE_END : 0);
        if (block == 1024 && off % 16384 == 0) {
            echo_unlock(host, NULL);
            nanosleep(&nap, NULL);
            echo_lock(host, NULL);
        }
    }
    if (n != block)
        echo_write(host, req, NULL, 0, STK_WRITE_END);
    free(buf);
}

static void echo_file(struct echo_host *host, struct stk_request *req, size_t n)
{
    char *buf = stk_mem_zalloc(n + 1);
    FILE *file = tmpfile();

    if (file == NULL)
        abort();
    echo_fill(buf, 0, n);
    if (fwrite(buf, 1, n, file) != n || fflush(file) != 0)
        abort();
    free(buf);
    echo_start(req, NULL);
    while (req->ops->sendfile(req, fileno(file), 0, n, 0) == -EAGAIN)
        echo_wait(host, req);
    fclose(file);
    echo_write(host, req, "end", 3, STK_WRITE_END);
}

static void echo_fork(struct echo_host *host, struct stk_request *req)
{
    char text[24];
    pid_t pid = fork();

    if (pid == 0) {
        pause();
        _exit(0);
    }
    echo_start(req, NULL);
    echo_write(host, req, text, (size_t)snprintf(text, sizeof text, "%d", (int)pid), STK_WRITE_END);
}

static void echo_nap(struct echo_host *host, long ms)
{
    struct timespec nap = {.tv_sec = ms / 1000, .tv_nsec = ms % 1000 * 1000000};

    echo_unlock(host, NULL);
    nanosleep(&nap, NULL);
    echo_lock(host, NULL);
}

/* Until the time is over, or somebody cancels the request. */
static void echo_await_cancel(struct echo_host *host, struct echo_thread *t,
                              struct stk_request *req, long ms)
{
    while (ms-- > 0 && atomic_load(&t->cancelled) != req->id)
        echo_nap(host, 1);
}

static void echo_cancel(void *host, void *thread, uint64_t call, int why)
{
    struct echo_thread *t = thread;

    atomic_store(&t->cancelled, call);
}

static void echo_hello(struct echo_host *host, struct stk_request *req)
{
    echo_start(req, "13");
    echo_write(host, req, "Hello, World!", 13, STK_WRITE_END);
}

/* Requests that take long; false: this is none of them. */
static bool echo_call_long(struct echo_host *host, struct echo_thread *t, struct stk_request *req,
                           stk_span path)
{
    if (stk_span_eq(path, STK_SPAN_LIT("/wait"))) {
        echo_await_cancel(host, t, req, 60000);
    } else if (stk_span_eq(path, STK_SPAN_LIT("/stuck"))) {
        for (;;)
            echo_nap(host, 60000);
    } else if (stk_span_eq(path, STK_SPAN_LIT("/hold"))) {
        struct timespec nap = {.tv_nsec = 300 * 1000000};

        nanosleep(&nap, NULL);
    } else if (stk_span_eq(path, STK_SPAN_LIT("/part"))) {
        echo_start(req, NULL);
        echo_write(host, req, "some", 4, STK_WRITE_FLUSH);
        echo_await_cancel(host, t, req, 60000);
        echo_write(host, req, "more", 4, STK_WRITE_END);
        return true;
    } else {
        return false;
    }
    echo_hello(host, req);
    return true;
}

/* Paths that end with a number; false: this is none of them. */
static bool echo_call_number(struct echo_host *host, struct echo_thread *t, struct stk_request *req,
                             stk_span path)
{
    char text[64];
    size_t n = 0;

    if (path.len >= sizeof text)
        return false;
    memcpy(text, path.ptr, path.len);
    text[path.len] = '\0';
    if (sscanf(text, "/size/%zu", &n) == 1)
        echo_size(host, req, n, n);
    else if (sscanf(text, "/blocks/%zu", &n) == 1)
        echo_size(host, req, n * 65536, 65536);
    else if (sscanf(text, "/lines/%zu", &n) == 1)
        echo_size(host, req, n * 1024, 1024);
    else if (sscanf(text, "/file/%zu", &n) == 1)
        echo_file(host, req, n);
    else if (sscanf(text, "/nap/%zu", &n) == 1) {
        echo_await_cancel(host, t, req, (long)n);
        echo_hello(host, req);
    } else if (sscanf(text, "/limit/%zu", &n) == 1) {
        if (req->ops->set_timeout(req, (stk_msec)n) == 0)
            echo_await_cancel(host, t, req, 60000);
        echo_hello(host, req);
    } else if (sscanf(text, "/mire/%zu", &n) == 1) {
        while (req->ops->set_timeout(req, (stk_msec)n) == 0) {
            echo_nap(host, 60000);
            n = 0;
        }
    } else
        return false;
    return true;
}

static enum stk_host_call echo_call(void *arg, void *thread, struct stk_request *req)
{
    struct echo_host *host = arg;
    stk_span path = stk_head_path(req->head);
    struct timespec nap = {.tv_nsec = 50 * 1000 * 1000};

    if (stk_span_eq(path, STK_SPAN_LIT("/echo"))) {
        echo_body(host, req);
    } else if (stk_span_eq(path, STK_SPAN_LIT("/stream"))) {
        echo_stream(host, req);
    } else if (stk_span_eq(path, STK_SPAN_LIT("/big"))) {
        char *big = stk_mem_zalloc(1 << 20);

        echo_start(req, NULL);
        echo_write(host, req, big, 1 << 20, STK_WRITE_END);
        free(big);
    } else if (stk_span_eq(path, STK_SPAN_LIT("/cut"))) {
        echo_start(req, NULL);
        echo_write(host, req, "some", 4, STK_WRITE_FLUSH);
        req->ops->fail(req);
    } else if (stk_span_eq(path, STK_SPAN_LIT("/fork"))) {
        echo_fork(host, req);
    } else if (echo_call_number(host, thread, req, path) ||
               echo_call_long(host, thread, req, path)) {
        return STK_HOST_DONE;
    } else if (stk_span_eq(path, STK_SPAN_LIT("/fail"))) {
        req->ops->fail(req);
    } else if (stk_span_eq(path, STK_SPAN_LIT("/short"))) {
        echo_start(req, "100");
        echo_write(host, req, "short", 5, STK_WRITE_END);
    } else {
        if (stk_span_eq(path, STK_SPAN_LIT("/sleep"))) {
            echo_unlock(host, thread);
            nanosleep(&nap, NULL);
            echo_lock(host, thread);
        } else if (stk_span_eq(path, STK_SPAN_LIT("/hang"))) {
            nap.tv_sec = 60;
            echo_unlock(host, thread);
            nanosleep(&nap, NULL);
            echo_lock(host, thread);
        } else if (stk_span_eq(path, STK_SPAN_LIT("/spin"))) {
            echo_spin();
        }
        echo_start(req, "13");
        echo_write(host, req, "Hello, World!", 13, STK_WRITE_END);
    }
    return STK_HOST_DONE;
}

const struct stk_host_ops echo_host_ops = {
    .name = "echo",
    .load = echo_load,
    .run = echo_run,
    .unlock = echo_unlock,
    .lock = echo_lock,
    .check_signals = echo_check_signals,
    .call = echo_call,
    .cancel = echo_cancel,
    .unload = echo_nothing,
    .freeze = echo_nothing,
};
