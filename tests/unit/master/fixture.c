/* The master under test, its fake workers, and the pipe on which they report. */
#include "fixture.h"

#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>

#include <cmocka.h>

#include <dirent.h>
#include <errno.h>
#include <fcntl.h>
#include <poll.h>
#include <signal.h>
#include <stdatomic.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/wait.h>
#include <unistd.h>

#include "base/fd.h"
#include "base/log.h"
#include "base/mem.h"
#include "ipc/channel.h"
#include "ipc/scoreboard.h"
#include "loop/lead.h"

/* Where workers report, and what they share; set before the master is forked. */
static int report_fd = -1;
static struct fixture_control *shared;
static volatile sig_atomic_t got_term, got_usr2;

__attribute__((format(printf, 1, 2))) static void report(const char *fmt, ...)
{
    char line[64] = {0};
    va_list ap;

    va_start(ap, fmt);
    vsnprintf(line, sizeof line, fmt, ap);
    va_end(ap);
    if (write(report_fd, line, sizeof line) < 0)
        _exit(99);
}

static void on_term(int sig)
{
    got_term = 1;
}

static void on_usr2(int sig)
{
    got_usr2 = 1;
}

/* What a worker's threads do, as the master sees it. */
static void show(const struct stk_heritage *h)
{
    bool busy = atomic_load(&shared->busy[h->slot]);

    atomic_store(&h->row->threads, 1);
    atomic_store(&h->row->lead_word, busy ? STK_LEAD_IN_APP : STK_LEAD_BLOCKED);
}

static void hog(void)
{
    char *p;

    if (!atomic_load(&shared->hog))
        return;
    p = mmap(NULL, FIXTURE_HOG, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS | MAP_POPULATE,
             -1, 0);
    if (p == MAP_FAILED)
        _exit(91);
}

static void send_sources(int channel)
{
    const char *paths[] = {shared->source, NULL};

    if (shared->source[0] != '\0' && stk_channel_send_sources(channel, paths) < 0)
        _exit(98);
}

static void write_stacks(int fd)
{
    int n = atomic_load(&shared->stacks);

    if (n == 0)
        raise(SIGKILL);
    for (; n > 0; n -= 16)
        if (stk_fd_write_all(fd, "in a function()\n", 16) < 0)
            _exit(90);
    stk_fd_close(&fd);
}

/* The messages of a worker that serves; returns its exit code. */
static int worker_serve(const struct stk_heritage *h)
{
    struct stk_message msg;

    for (;;) {
        struct pollfd pfd = {.fd = h->channel, .events = POLLIN};
        int r;

        if (got_term) {
            got_term = 0;
            if (stk_channel_send_simple(h->channel, STK_MESSAGE_LEAVING, h->slot, 0) < 0)
                return 97;
        }
        if (got_usr2 && atomic_load(&shared->modules)) {
            const char *names[] = {"one", "two.three", NULL};

            got_usr2 = 0;
            if (stk_channel_send_list(h->channel, STK_MESSAGE_MODULES, names) < 0)
                return 89;
        }
        if (got_usr2) {
            got_usr2 = 0;
            if (stk_channel_send_simple(h->channel, STK_MESSAGE_RETIRE,
                                        (uint32_t)atomic_load(&shared->retire), 1234) < 0)
                return 90;
        }
        show(h);
        r = stk_channel_recv(h->channel, STK_CHANNEL_WORKER, &msg);
        if (r == -EAGAIN) {
            poll(&pfd, 1, 20);
            continue;
        }
        if (atomic_load(&shared->ignores_all)) {
            pause();
            continue;
        }
        if (r != 0) {
            report("eof %u", h->slot);
            return 0;
        }
        switch (msg.type) {
        case STK_MESSAGE_DRAIN:
            report("drain %u %lld%s", h->slot, (long long)msg.value,
                   msg.slot == STK_CHANNEL_DRAIN_LAST ? " last" : "");
            if (stk_channel_send_simple(h->channel, STK_MESSAGE_DRAINS, h->slot, 0) < 0)
                return 88;
            if (atomic_load(&shared->ignores_drain))
                break;
            return 0;
        case STK_MESSAGE_STOP:
            report("stop %u", h->slot);
            return 0;
        case STK_MESSAGE_ADOPT:
            report("adopt %u %u", h->slot, msg.slot);
            break;
        case STK_MESSAGE_RELEASE:
            report("release %u %u", h->slot, msg.slot);
            break;
        case STK_MESSAGE_PING:
            if (stk_channel_send_simple(h->channel, STK_MESSAGE_PONG, h->slot, msg.value) < 0)
                return 91;
            break;
        case STK_MESSAGE_REOPEN:
            report("reopen %u", h->slot);
            break;
        case STK_MESSAGE_STACK:
            write_stacks(msg.fd);
            break;
        default:
            return 96;
        }
    }
}

static int worker_main(void *arg, struct stk_heritage *h)
{
    struct sigaction sa = {.sa_handler = on_term};

    sigaction(SIGTERM, &sa, NULL);
    sa.sa_handler = on_usr2;
    sigaction(SIGUSR2, &sa, NULL);
    report("start %u%s", h->slot, h->preloaded ? " preloaded" : "");
    send_sources(h->channel);
    switch (atomic_load(&shared->load[h->slot])) {
    case FIXTURE_EXIT:
        if (stk_channel_send_failure(h->channel, h->slot, 3, -1) < 0)
            return 95;
        return atomic_load(&shared->exit_code);
    case FIXTURE_ABORT:
        abort();
    case FIXTURE_HANG:
        for (;;)
            pause();
    default:
        break;
    }
    stk_scoreboard_add(h->row, STK_COUNTER_requests, 7);
    hog();
    show(h);
    atomic_store(&shared->pids[h->slot], getpid());
    if (stk_channel_send_simple(h->channel, STK_MESSAGE_READY, h->slot, 0) < 0)
        return 94;
    report("ready %u v%d", h->slot, atomic_load(&shared->version));
    return worker_serve(h);
}

static int template_load(void *arg)
{
    atomic_fetch_add(&shared->templates, 1);
    atomic_store(&shared->template_pid, getpid());
    report("load");
    return atomic_load(&shared->template_code);
}

static void template_freeze(void *arg)
{
    report("freeze");
}

static char **template_sources(void *arg)
{
    char **paths = stk_new0_array(char *, 2);

    if (shared->source[0] != '\0')
        paths[0] = stk_mem_strdup(shared->source);
    return paths;
}

static void template_import(void *arg, const char *const *names)
{
    for (; *names != NULL; names++)
        report("import %s", *names);
    if (atomic_load(&shared->template_code) != 0)
        _exit(1);
}

static void template_unload(void *arg)
{
    report("unload");
}

int fixture_setup(void **state)
{
    struct fixture *f = stk_new0(struct fixture);

    f->control =
        mmap(NULL, sizeof *f->control, PROT_READ | PROT_WRITE, MAP_SHARED | MAP_ANONYMOUS, -1, 0);
    assert_true(f->control != MAP_FAILED);
    shared = f->control;
    snprintf(f->dir, sizeof f->dir, "/tmp/stk-master-XXXXXX");
    assert_non_null(mkdtemp(f->dir));
    snprintf(f->log, sizeof f->log, "%s/log", f->dir);
    f->events = -1;
    f->bind[0] = stk_mem_strdup("127.0.0.1:0");
    f->config = (struct stk_config){
        .bind = {.items = f->bind, .n = 1},
        .backlog = 16,
        .socket_mode = -1,
        .graceful_timeout = 30000,
        .exit_timeout = 10000,
        .recycle_parallel = 1,
    };
    f->params = (struct stk_master_params){
        .config = &f->config,
        .worker_main = worker_main,
        .template_load = template_load,
        .template_freeze = template_freeze,
        .template_sources = template_sources,
        .template_import = template_import,
        .template_unload = template_unload,
    };
    *state = f;
    return 0;
}

int fixture_teardown(void **state)
{
    struct fixture *f = *state;
    struct dirent *de;
    DIR *dir;

    if (f->master > 0) {
        kill(f->master, SIGQUIT);
        waitpid(f->master, NULL, 0);
    }
    stk_fd_close(&f->events);
    dir = opendir(f->dir);
    while (dir != NULL && (de = readdir(dir)) != NULL)
        unlinkat(dirfd(dir), de->d_name, 0);
    if (dir != NULL)
        closedir(dir);
    rmdir(f->dir);
    munmap(f->control, sizeof *f->control);
    free(f->bind[0]);
    free(f);
    return 0;
}

void fixture_start(struct fixture *f, unsigned nworkers)
{
    int fds[2];

    f->params.nworkers = nworkers;
    assert_int_equal(pipe2(fds, O_CLOEXEC), 0);
    report_fd = fds[1];
    f->master = fork();
    if (f->master == 0) {
        int code;

        /* cmocka's handlers, which are for the test itself. */
        signal(SIGSEGV, SIG_DFL);
        signal(SIGABRT, SIG_DFL);
        close(fds[0]);
        if (chdir(f->dir) < 0 || stk_log_open(f->log) < 0)
            _exit(93);
        stk_log_set_level(STK_LOG_DEBUG);
        code = stk_master_run(&f->params);
        /* Signals must be back as they were: blocked ones would stay so in what comes next. */
        sigset_t mask;
        sigprocmask(SIG_SETMASK, NULL, &mask);
        _exit(sigismember(&mask, SIGTERM) ? 92 : code);
    }
    close(fds[1]);
    f->events = fds[0];
}

/* Reads one more line. False at the end of the pipe. */
static bool fixture_read(struct fixture *f, int timeout, const char *why)
{
    struct pollfd pfd = {.fd = f->events, .events = POLLIN};
    char line[64];
    ssize_t n;
    int r = poll(&pfd, 1, timeout);

    if (r == 0 && timeout == 0)
        return false;
    if (r <= 0)
        fail_msg("nothing happened while waiting for \"%s\"", why);
    n = read(f->events, line, sizeof line);
    if (n == 0)
        return false;
    assert_int_equal(n, sizeof line);
    assert_true(f->npending < 64);
    memcpy(f->pending[f->npending++], line, sizeof line);
    return true;
}

static bool fixture_take(struct fixture *f, const char *line)
{
    for (unsigned i = 0; i < f->npending; i++) {
        if (strcmp(f->pending[i], line) != 0)
            continue;
        f->npending--;
        memmove(f->pending[i], f->pending[i + 1], (f->npending - i) * sizeof f->pending[0]);
        return true;
    }
    return false;
}

void fixture_expect(struct fixture *f, const char *fmt, ...)
{
    char line[64];
    va_list ap;

    va_start(ap, fmt);
    vsnprintf(line, sizeof line, fmt, ap);
    va_end(ap);
    while (!fixture_take(f, line)) {
        if (!fixture_read(f, 20000, line)) {
            for (unsigned i = 0; i < f->npending; i++)
                print_message("unread: %s\n", f->pending[i]);
            fail_msg("all ended while waiting for \"%s\"", line);
        }
    }
}

void fixture_expect_not(struct fixture *f, const char *line)
{
    while (f->npending < 64 && fixture_read(f, 0, line)) {
    }
    if (fixture_take(f, line))
        fail_msg("there was \"%s\"", line);
}

pid_t fixture_pid(struct fixture *f, unsigned slot, pid_t not )
{
    for (int i = 0; i < 20000; i++) {
        pid_t pid = atomic_load(&f->control->pids[slot]);

        if (pid != 0 && pid != not )
            return pid;
        usleep(1000);
    }
    fail_msg("slot %u has no new worker", slot);
    return 0;
}

void fixture_signal(struct fixture *f, int signal)
{
    assert_int_equal(kill(f->master, signal), 0);
}

int fixture_wait(struct fixture *f)
{
    int status;

    assert_int_equal(waitpid(f->master, &status, 0), f->master);
    f->master = 0;
    return WIFEXITED(status) ? WEXITSTATUS(status) : -WTERMSIG(status);
}

int fixture_stop(struct fixture *f)
{
    fixture_signal(f, SIGTERM);
    return fixture_wait(f);
}

unsigned fixture_log_count(struct fixture *f, const char *text)
{
    static char buf[1 << 16];
    int fd = open(f->log, O_RDONLY | O_CLOEXEC);
    ssize_t n = fd < 0 ? 0 : read(fd, buf, sizeof buf - 1);
    unsigned count = 0;

    stk_fd_close(&fd);
    buf[n > 0 ? n : 0] = '\0';
    for (const char *p = buf; (p = strstr(p, text)) != NULL; p++)
        count++;
    return count;
}

void fixture_wait_log(struct fixture *f, const char *text)
{
    for (int i = 0; i < 2000 && fixture_log_count(f, text) == 0; i++)
        usleep(10000);
    assert_true(fixture_log_has(f, text));
}

bool fixture_log_has(struct fixture *f, const char *text)
{
    if (fixture_log_count(f, text) > 0)
        return true;
    print_message("the log lacks \"%s\"\n", text);
    return false;
}
