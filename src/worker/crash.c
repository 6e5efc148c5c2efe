/*
 * The handler of fatal signals. It writes with write(2) and nothing else: no buffer, no lock, no
 * allocation. What the C library needs for a backtrace is loaded ahead, because loading it would
 * allocate. The Python stacks are taken by the host from a snapshot of the process (see
 * app/host.h), so that a damaged frame ends the snapshot and not the report.
 *
 * Last come the requests that were in the application, found where their threads have them, so that
 * requests pay nothing for it, and the lines of the access log that were to be written soon.
 *
 * Then the handler before this one is put back and the signal raised again: the default ends the
 * process with the signal's number and a core file, the one of a sanitizer or of the application's
 * faulthandler reports in its own way. An application that enables faulthandler later is called
 * first, and hands on to this one.
 */
#include "worker/crash.h"

#include <errno.h>
#include <pthread.h>
#include <signal.h>
#include <stdatomic.h>
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/syscall.h>
#include <sys/uio.h>
#include <time.h>
#include <unistd.h>

#include "base/log.h"
#include "loop/lead.h"
#include "serve/access_log.h"
#include "serve/request.h"
#include "serve/server.h"

#if defined(__has_include)
#    if __has_include(<execinfo.h>)
#        include <execinfo.h>
#        define CRASH_HAS_BACKTRACE 1
#    endif
#endif

enum {
    CRASH_FRAMES = 64,
    CRASH_STACK = 128 * 1024,
    CRASH_PATIENCE_S = 5,
    CRASH_SHOWN = 200, /* bytes of a path */
};

static const struct crash_signal {
    int number;
    const char *name;
} crash_signals[] = {
    {SIGSEGV, "SIGSEGV"}, {SIGBUS, "SIGBUS"},   {SIGILL, "SIGILL"},
    {SIGFPE, "SIGFPE"},   {SIGABRT, "SIGABRT"},
};

/* What the handler knows: it gets no argument. */
static struct {
    char name[32];
    const struct stk_host_ops *ops;
    void *host;
    struct stk_server *server; /* NULL: not yet, or no more */
    pid_t pid;              /* of the worker: a child that the application forks has its memory */
    _Atomic pid_t reporter; /* the thread that reports; 0: none has */
    struct sigaction before[STK_ARRAY_LEN(crash_signals)];
} crash_state;

static void crash_puts(int fd, const char *text)
{
    if (write(fd, text, strlen(text)) < 0) {
        /* Nobody reads the log. */
    }
}

static void crash_put_number(int fd, uintptr_t n, unsigned base)
{
    char text[2 * sizeof n + 8];
    size_t i = sizeof text - 1;

    text[i] = '\0';
    do
        text[--i] = "0123456789abcdef"[n % base];
    while ((n /= base) != 0);
    crash_puts(fd, text + i);
}

static void crash_backtrace(int fd)
{
#ifdef CRASH_HAS_BACKTRACE
    void *frames[CRASH_FRAMES];
    int n = backtrace(frames, CRASH_FRAMES);

    crash_puts(fd, "C stack of the thread, innermost call first:\n");
    backtrace_symbols_fd(frames, n, fd);
#endif
}

/*
 * Copies memory that may be damaged, without another fault. Where a sandbox forbids the call the
 * memory is read as it is: all the rest of the report is out by then.
 */
static bool crash_copy(void *to, const void *from, size_t size)
{
    struct iovec local = {to, size};
    struct iovec remote = {(void *)(uintptr_t)from, size};
    ssize_t n = process_vm_readv(getpid(), &local, 1, &remote, 1, 0);

    if (n < 0 && (errno == ENOSYS || errno == EPERM)) {
        memcpy(to, from, size);
        return true;
    }
    return n == (ssize_t)size;
}

/* Text of a client, cut, and without what could forge a line. */
static void crash_put_text(int fd, const char *from, size_t len)
{
    char text[CRASH_SHOWN + 1];

    if (len > CRASH_SHOWN)
        len = CRASH_SHOWN;
    if (!crash_copy(text, from, len))
        len = 0;
    for (size_t i = 0; i < len; i++)
        if (text[i] <= ' ' || text[i] >= 0x7f)
            text[i] = '?';
    text[len] = '\0';
    crash_puts(fd, len > 0 ? text : "?");
}

/* The requests that were in the application: what the threads say of themselves. */
static void crash_put_requests(int fd)
{
    const struct stk_server *server = crash_state.server;
    bool any = false;
    clockid_t here = 0;

    if (pthread_getcpuclockid(pthread_self(), &here) != 0)
        here = 0;
    for (unsigned i = 0; server != NULL && i < server->nthreads; i++) {
        const struct stk_serve_thread *t = &server->threads[i];
        const struct stk_serve_request *rq = atomic_load(&t->running);
        const struct stk_head *at;
        struct stk_head head;

        if (rq == NULL || !crash_copy(&at, &rq->base.head, sizeof at) ||
            !crash_copy(&head, at, offsetof(struct stk_head, query_off)))
            continue;
        if (!any)
            crash_puts(fd, "Requests in the application:\n");
        any = true;
        crash_puts(fd, "  ");
        crash_put_text(fd, head.base + head.method_off, head.method_len);
        crash_puts(fd, " ");
        crash_put_text(fd, head.base + head.path_off, head.path_len);
        crash_puts(fd, here != 0 && t->lead_thread != NULL && t->lead_thread->cpu_clock == here
                           ? ", in the thread that crashed\n"
                           : "\n");
    }
}

static void crash_report(const struct crash_signal *sig, const siginfo_t *info)
{
    int fd = stk_log_fd();

    crash_puts(fd, "[");
    crash_puts(fd, crash_state.name);
    crash_puts(fd, " ");
    crash_put_number(fd, (uintptr_t)getpid(), 10);
    crash_puts(fd, "] critical: the process dies of ");
    crash_puts(fd, sig->name);
    if (info->si_code > 0 && sig->number != SIGABRT) {
        crash_puts(fd, " at address 0x");
        crash_put_number(fd, (uintptr_t)info->si_addr, 16);
    } else if (info->si_code <= 0 && info->si_pid != getpid()) {
        crash_puts(fd, ", sent by process ");
        crash_put_number(fd, (uintptr_t)info->si_pid, 10);
    }
    crash_puts(fd, "\n");
    crash_backtrace(fd);
    if (crash_state.ops->stacks != NULL) {
        crash_puts(fd, "Python stacks:\n");
        crash_state.ops->stacks(crash_state.host, NULL, fd);
    }
    crash_put_requests(fd);
    crash_puts(fd, "[end of the report]\n");
    if (crash_state.server != NULL && crash_state.pid == getpid())
        stk_access_log_crash(crash_state.server->access_log);
}

/*
 * Of threads that crash at the same time one reports, and the others wait for the end that is near.
 * A thread that comes here twice has crashed in its own report. A child that the application has
 * forked reports too.
 */
static bool crash_may_report(void)
{
    struct timespec patience = {.tv_sec = CRASH_PATIENCE_S};
    pid_t self = (pid_t)syscall(SYS_gettid);
    pid_t nobody = 0;

    if (atomic_compare_exchange_strong(&crash_state.reporter, &nobody, self))
        return true;
    if (nobody != self)
        (void)nanosleep(&patience, NULL);
    return false;
}

static void crash_on_signal(int number, siginfo_t *info, void *context)
{
    size_t i = 0;

    while (i + 1 < STK_ARRAY_LEN(crash_signals) && crash_signals[i].number != number)
        i++;
    if (crash_may_report())
        crash_report(&crash_signals[i], info);
    (void)sigaction(number, &crash_state.before[i], NULL);
    /* SA_NODEFER: it comes at once. A fault that is met again comes by itself, with its address. */
    if (info->si_code <= 0 || number == SIGABRT)
        raise(number);
}

void stk_crash_thread(void)
{
    long least = sysconf(_SC_PAGESIZE);
    size_t size = CRASH_STACK;
    stack_t old, ss = {.ss_sp = NULL};

    if (sigaltstack(NULL, &old) == 0 && !(old.ss_flags & SS_DISABLE))
        return; /* the application's faulthandler, or a sanitizer, has given it one */
#ifdef _SC_SIGSTKSZ
    least = sysconf(_SC_SIGSTKSZ);
#endif
    if (least > 0)
        size += (size_t)least;
    ss.ss_size = size;
    ss.ss_sp = mmap(NULL, size, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
    if (ss.ss_sp == MAP_FAILED)
        return;
    if (sigaltstack(&ss, NULL) < 0)
        munmap(ss.ss_sp, size);
}

void stk_crash_set_server(struct stk_server *server)
{
    crash_state.server = server;
}

int stk_crash_init(const char *name, const struct stk_host_ops *ops, void *host)
{
    struct sigaction sa = {.sa_sigaction = crash_on_signal,
                           .sa_flags = SA_SIGINFO | SA_ONSTACK | SA_NODEFER};

    sigemptyset(&sa.sa_mask);
    strncpy(crash_state.name, name, sizeof crash_state.name - 1);
    crash_state.ops = ops;
    crash_state.host = host;
    crash_state.pid = getpid();
#ifdef CRASH_HAS_BACKTRACE
    {
        void *frame;

        (void)backtrace(&frame, 1); /* loads libgcc_s */
    }
#endif
    stk_crash_thread();
    for (size_t i = 0; i < STK_ARRAY_LEN(crash_signals); i++) {
        if (sigaction(crash_signals[i].number, NULL, &crash_state.before[i]) < 0 ||
            sigaction(crash_signals[i].number, &sa, NULL) < 0)
            return -errno;
    }
    return 0;
}
