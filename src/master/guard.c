/*
 * The guard: a process that does nothing until the master is gone, and then kills the groups of the
 * commands that are left.
 *
 * The kernel kills only the first process of a command when the master dies by SIGKILL; what a
 * shell has started would go on, and hold its port and its files against the next server. The
 * guard waits for the end of a pipe that only the master holds open, and finds the groups in
 * memory that it shares with it. A master that ends by itself has ended them before.
 *
 * It is forked with the first command, and again if somebody kills it.
 */
#include <errno.h>
#include <fcntl.h>
#include <signal.h>
#include <stdatomic.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/wait.h>
#include <unistd.h>

#include "base/assert.h"
#include "base/fd.h"
#include "base/log.h"
#include "master/beside.h"
#include "master/master_priv.h"

enum { GUARD_GROUPS = 1024 }; /* more than that are not guarded */

struct stk_guard_list {
    _Atomic pid_t groups[GUARD_GROUPS];
};

/* Waits for the end of the master. */
STK_NORETURN static void guard_run(struct stk_master *m, int pipe)
{
    static const int ignored[] = {SIGHUP,  SIGINT,  SIGQUIT, SIGTERM, SIGUSR1,
                                  SIGUSR2, SIGTTIN, SIGTTOU, SIGPIPE};
    const struct stk_guard_list *list = m->beside.guard_list;
    char byte;

    for (size_t i = 0; i < STK_ARRAY_LEN(ignored); i++)
        STK_ASSERT(signal(ignored[i], SIG_IGN) != SIG_ERR);
    if (setsid() < 0 || dup2(pipe, STDIN_FILENO) < 0)
        _exit(EXIT_FAILURE);
    stk_child_close_all();
    while (read(STDIN_FILENO, &byte, 1) != 0 && errno == EINTR) {
    }
    for (size_t i = 0; i < GUARD_GROUPS; i++) {
        pid_t group = atomic_load(&list->groups[i]);

        if (group > 1 && kill(-group, SIGKILL) < 0) {
            /* It has gone with the master. */
        }
    }
    _exit(EXIT_SUCCESS);
}

/* 0 or a negative errno. */
static int guard_make(struct stk_beside *b)
{
    void *memory;
    int fds[2];

    if (b->guard_list != NULL)
        return 0;
    memory = mmap(NULL, sizeof *b->guard_list, PROT_READ | PROT_WRITE, MAP_SHARED | MAP_ANONYMOUS,
                  -1, 0);
    if (memory == MAP_FAILED)
        return -errno;
    if (pipe2(fds, O_CLOEXEC) < 0) {
        int r = -errno;

        (void)munmap(memory, sizeof *b->guard_list);
        return r;
    }
    b->guard_list = memory;
    b->guard_theirs = fds[0];
    b->guard_ours = fds[1];
    return 0;
}

/* Forks it when it is not there. */
static void guard_start(struct stk_master *m)
{
    struct stk_beside *b = &m->beside;
    int r = guard_make(b);

    if (r == 0 && b->guard == 0) {
        pid_t pid = fork();

        if (pid == 0) {
            int pipe = stk_fd_steal(&b->guard_theirs);

            stk_spawn_child_setup(m, -1, "guard");
            guard_run(m, pipe);
        }
        r = pid < 0 ? -errno : 0;
        b->guard = pid > 0 ? pid : 0;
    }
    if (r < 0)
        stk_log_warning("what programs leave behind is not guarded against the death of this "
                        "process: %s",
                        strerror(-r));
}

void stk_guard_add(struct stk_master *m, pid_t group)
{
    struct stk_guard_list *list;

    guard_start(m);
    list = m->beside.guard_list;
    for (size_t i = 0; list != NULL && i < GUARD_GROUPS; i++) {
        pid_t none = 0;

        if (atomic_compare_exchange_strong(&list->groups[i], &none, group))
            return;
    }
}

void stk_guard_remove(struct stk_master *m, pid_t group)
{
    struct stk_guard_list *list = m->beside.guard_list;

    for (size_t i = 0; list != NULL && i < GUARD_GROUPS; i++) {
        pid_t same = group;

        if (atomic_compare_exchange_strong(&list->groups[i], &same, 0))
            return;
    }
}

void stk_guard_reap(struct stk_master *m)
{
    struct stk_beside *b = &m->beside;

    if (b->guard == 0 || waitpid(b->guard, NULL, WNOHANG) != b->guard)
        return;
    b->guard = 0;
    if (!stk_list_is_empty(&m->children))
        guard_start(m);
}

void stk_guard_leave(struct stk_master *m)
{
    stk_fd_close(&m->beside.guard_ours);
    stk_fd_close(&m->beside.guard_theirs);
}

void stk_guard_stop(struct stk_master *m)
{
    struct stk_beside *b = &m->beside;

    if (b->guard > 0 && kill(b->guard, SIGKILL) == 0 && waitpid(b->guard, NULL, 0) < 0) {
        /* Somebody else has waited for it. */
    }
    b->guard = 0;
    stk_guard_leave(m);
    if (b->guard_list != NULL)
        (void)munmap(b->guard_list, sizeof *b->guard_list);
    b->guard_list = NULL;
}
