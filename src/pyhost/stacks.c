/*
 * Python's own way to print stacks without its lock is faulthandler: a signal handler that walks
 * the frames of all threads and writes them with write(2). It is registered here, by the public
 * API, for a real-time signal that nobody sends, on a descriptor of ours.
 *
 * Frames of a thread that runs change while they are walked, and a pointer that is no longer one
 * would end the process. So the walk is not done here but in a snapshot: a bare clone() of the
 * process, in which no other thread exists, which raises the signal, writes, and is gone. It costs
 * a copy of the page tables, about a millisecond, and whatever it runs into, this process goes on.
 * The clone announces its end by no signal, and is not among the children that wait() of the
 * application finds. Where it cannot be made, the walk is done in place.
 */
#include "pyhost/stacks.h"

#include <errno.h>
#include <fcntl.h>
#include <inttypes.h>
#include <signal.h>
#include <stdio.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/prctl.h>
#include <sys/resource.h>
#include <sys/stat.h>
#include <sys/syscall.h>
#include <sys/wait.h>
#include <unistd.h>

#include "base/assert.h"
#include "base/fd.h"
#include "base/log.h"
#include "pyhost/report.h"

enum { STACKS_SECONDS = 1 }; /* of a snapshot, whose reader may not read */

int stk_stacks_free_signal(void)
{
    for (int sig = SIGRTMAX - 1; sig > SIGRTMIN; sig--) {
        struct sigaction sa;

        if (sigaction(sig, NULL, &sa) == 0 && !(sa.sa_flags & SA_SIGINFO) &&
            (sa.sa_handler == SIG_DFL || sa.sa_handler == SIG_IGN))
            return sig;
    }
    return 0;
}

/* faulthandler.register(signal, file=fd, all_threads=True, chain=False); 0 or -1. */
static int stacks_register(int sig, int fd)
{
    PyObject *module = PyImport_ImportModule("faulthandler");
    PyObject *done =
        module ? PyObject_CallMethod(module, "register", "iiOO", sig, fd, Py_True, Py_False) : NULL;

    Py_XDECREF(done);
    Py_XDECREF(module);
    return done ? 0 : -1;
}

void stk_stacks_init(struct stk_pyhost *host)
{
    int fd, sig;

    if (host->stacks_signal > 0)
        return;
    sig = stk_stacks_free_signal();
    fd = open("/dev/null", O_WRONLY | O_CLOEXEC);
    if (sig == 0 || fd < 0 || stacks_register(sig, fd) < 0) {
        if (PyErr_Occurred())
            stk_report_exception(STK_LOG_WARNING, "Python stacks cannot be shown");
        else if (fd < 0)
            stk_log_warning("Python stacks cannot be shown: /dev/null: %s", strerror(errno));
        stk_fd_close(&fd);
        return;
    }
    host->stacks_fd = fd;
    host->stacks_signal = sig;
}

void stk_stacks_deinit(struct stk_pyhost *host)
{
    PyObject *module, *done;

    if (host->stacks_signal == 0)
        return;
    module = PyImport_ImportModule("faulthandler");
    done = module ? PyObject_CallMethod(module, "unregister", "i", host->stacks_signal) : NULL;
    if (!done)
        PyErr_Clear(); /* the interpreter ends; nobody raises the signal any more */
    Py_XDECREF(done);
    Py_XDECREF(module);
    host->stacks_signal = 0;
    stk_fd_close(&host->stacks_fd);
}

static void stacks_puts(int fd, const char *text)
{
    if (write(fd, text, strlen(text)) < 0) {
        /* The reader is gone: there is nobody to tell. */
    }
}

/* Has this thread raise the signal, and run its handler, whatever it blocks. */
static void stacks_raise(int sig)
{
    sigset_t set, old;

    sigemptyset(&set);
    sigaddset(&set, sig);
    if (sigprocmask(SIG_UNBLOCK, &set, &old) < 0)
        return;
    /* Not raise(): in a snapshot libc still takes this thread for another. */
    syscall(SYS_tgkill, (pid_t)syscall(SYS_getpid), (pid_t)syscall(SYS_gettid), sig);
    sigprocmask(SIG_SETMASK, &old, NULL);
}

/* The life of a snapshot: one signal, and out. Whatever it dies of, it leaves no core behind. */
static STK_NORETURN void stacks_snapshot(const struct stk_pyhost *host, int fd)
{
    static const int fatal[] = {SIGSEGV, SIGBUS, SIGILL, SIGFPE, SIGABRT, SIGALRM, SIGPIPE};
    struct sigaction sa = {.sa_handler = SIG_DFL};
    struct rlimit none = {0, 0};
    sigset_t set;

    (void)setrlimit(RLIMIT_CORE, &none);
    (void)prctl(PR_SET_DUMPABLE, 0);
    sigemptyset(&sa.sa_mask);
    sigfillset(&set);
    for (size_t i = 0; i < STK_ARRAY_LEN(fatal); i++) {
        (void)sigaction(fatal[i], &sa, NULL);
        sigdelset(&set, fatal[i]);
    }
    (void)sigprocmask(SIG_SETMASK, &set, NULL);
    alarm(STACKS_SECONDS);
    if (dup2(fd, host->stacks_fd) >= 0)
        stacks_raise(host->stacks_signal);
    syscall(SYS_exit_group, 0);
    __builtin_unreachable();
}

/* The walk in this process, by the one thread that gets to it. */
static void stacks_in_place(struct stk_pyhost *host, int fd)
{
    if (atomic_exchange(&host->stacks_busy, true)) {
        stacks_puts(fd, "The stacks are being written elsewhere already.\n");
        return;
    }
    if (dup3(fd, host->stacks_fd, O_CLOEXEC) >= 0)
        stacks_raise(host->stacks_signal);
    atomic_store(&host->stacks_busy, false);
}

static void stacks_all(struct stk_pyhost *host, int fd)
{
    pid_t pid = (pid_t)syscall(SYS_clone, 0, NULL, NULL, NULL, NULL);
    int status;

    if (pid == 0)
        stacks_snapshot(host, fd);
    if (pid < 0) {
        stacks_in_place(host, fd);
        return;
    }
    while (waitpid(pid, &status, __WALL) < 0 && errno == EINTR) {
    }
}

/* The lines about one thread in the text about all of them. */
static stk_span stacks_find(stk_span text, unsigned long ident)
{
    char mark[2 + 2 * sizeof ident + 1];
    const char *p, *end = text.ptr + text.len, *stop;
    int n = snprintf(mark, sizeof mark, "0x%0*lx", (int)(2 * sizeof ident), ident);

    for (p = text.ptr; p < end; p = stop + 1) {
        bool head;

        stop = memchr(p, '\n', (size_t)(end - p));
        if (!stop)
            break;
        head = *p == 'T' || *p == 'C'; /* "Thread 0x...", "Current thread 0x..." */
        if (head && memmem(p, (size_t)(stop - p), mark, (size_t)n)) {
            const char *blank = memmem(stop, (size_t)(end - stop), "\n\n", 2);

            return stk_span_make(stop + 1, (size_t)((blank ? blank + 1 : end) - stop - 1));
        }
    }
    return stk_span_make("", 0);
}

/* One thread's, by way of a file in memory. */
static void stacks_one(struct stk_pyhost *host, unsigned long ident, int fd)
{
    int file = memfd_create("stacks", MFD_CLOEXEC);
    struct stat st = {0};
    void *map = MAP_FAILED;
    stk_span found = stk_span_make("", 0);

    if (file >= 0) {
        stacks_all(host, file);
        if (fstat(file, &st) == 0 && st.st_size > 0)
            map = mmap(NULL, (size_t)st.st_size, PROT_READ, MAP_PRIVATE, file, 0);
    }
    if (map != MAP_FAILED)
        found = stacks_find(stk_span_make(map, (size_t)st.st_size), ident);
    if (found.len == 0)
        stacks_puts(fd, "  (its stack could not be taken)\n");
    else if (write(fd, found.ptr, found.len) < 0) {
        /* As in stacks_puts. */
    }
    if (map != MAP_FAILED)
        munmap(map, (size_t)st.st_size);
    stk_fd_close(&file);
}

void stk_stacks_write(void *host, void *thread, int fd)
{
    struct stk_pyhost *h = host;
    const struct stk_pythread *t = thread;

    STK_CHECK_MAGIC(h, STK_PYHOST_MAGIC);
    if (h->stacks_signal == 0) {
        stacks_puts(fd, "(Python stacks cannot be shown in this process)\n");
        return;
    }
    if (t)
        stacks_one(h, t->ident, fd);
    else
        stacks_all(h, fd);
}
