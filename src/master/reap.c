/*
 * Waiting for the dead.
 *
 * Known processes are waited for by their id, one by one: there are few, and a waitpid(-1) would
 * take children that belong to whoever called us. Strangers reach the master where it is the first
 * process of a container, or the reaper of what its templates forked: they are waited for too, or
 * they would stay as zombies; but not while a worker's process id is unknown, for it could be the
 * one.
 */
#include <errno.h>
#include <fcntl.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/prctl.h>
#include <sys/wait.h>
#include <unistd.h>

#include "base/assert.h"
#include "base/fd.h"
#include "base/log.h"
#include "base/mem.h"
#include "master/master_priv.h"

/* Names of the signals that end processes. */
static const struct reap_signal {
    int number;
    const char *name;
} reap_signals[] = {
    {SIGHUP, "SIGHUP"},   {SIGINT, "SIGINT"},   {SIGQUIT, "SIGQUIT"}, {SIGILL, "SIGILL"},
    {SIGTRAP, "SIGTRAP"}, {SIGABRT, "SIGABRT"}, {SIGBUS, "SIGBUS"},   {SIGFPE, "SIGFPE"},
    {SIGKILL, "SIGKILL"}, {SIGUSR1, "SIGUSR1"}, {SIGSEGV, "SIGSEGV"}, {SIGUSR2, "SIGUSR2"},
    {SIGPIPE, "SIGPIPE"}, {SIGALRM, "SIGALRM"}, {SIGTERM, "SIGTERM"}, {SIGXCPU, "SIGXCPU"},
    {SIGXFSZ, "SIGXFSZ"}, {SIGSYS, "SIGSYS"},
};

char *stk_reap_describe(int status)
{
    const char *dumped;

    if (status < 0)
        return stk_mem_strdup("is gone before it could be heard of");
    if (WIFEXITED(status))
        return stk_mem_printf("ended with exit code %d", WEXITSTATUS(status));
    dumped = WCOREDUMP(status) ? " (core dumped)" : "";
    for (size_t i = 0; i < STK_ARRAY_LEN(reap_signals); i++)
        if (reap_signals[i].number == WTERMSIG(status))
            return stk_mem_printf("was killed by %s%s", reap_signals[i].name, dumped);
    return stk_mem_printf("was killed by signal %d%s", WTERMSIG(status), dumped);
}

typedef void (*reap_child_fn)(struct stk_master *m, pid_t pid);

/* Calls a function for each child of this process. */
static void reap_for_each(struct stk_master *m, reap_child_fn fn)
{
    STK_CLEANUP(stk_mem_freep)
    char *path = stk_mem_printf("/proc/self/task/%d/children", (int)gettid());
    STK_CLEANUP(stk_mem_freep) char *line = NULL;
    size_t size = 0;
    FILE *f = fopen(path, "re");

    if (f == NULL)
        return;
    if (getline(&line, &size, f) > 0) {
        char *end = line;

        for (long pid; (pid = strtol(end, &end, 10)) > 0;)
            fn(m, (pid_t)pid);
    }
    (void)fclose(f);
}

static void reap_add_prior(struct stk_master *m, pid_t pid)
{
    pid_t *prior = realloc(m->prior, (m->nprior + 1) * sizeof *prior);

    STK_ASSERT(prior != NULL);
    prior[m->nprior++] = pid;
    m->prior = prior;
}

void stk_reap_init(struct stk_master *m)
{
    if (m->config->preload) {
        int was = 0;

        if (prctl(PR_GET_CHILD_SUBREAPER, &was) == 0 && was == 0)
            m->subreaper_set = prctl(PR_SET_CHILD_SUBREAPER, 1) == 0;
    }
    m->reaps_strangers = m->config->preload || getpid() == 1;
    reap_for_each(m, reap_add_prior);
}

static bool reap_is_prior(const struct stk_master *m, pid_t pid)
{
    for (size_t i = 0; i < m->nprior; i++)
        if (m->prior[i] == pid)
            return true;
    return false;
}

static bool reap_is_ours(struct stk_master *m, pid_t pid)
{
    stk_list_for_each (it, &m->procs) {
        const struct stk_proc *p = stk_container_of(it, struct stk_proc, link);

        if (p->pid == pid || p->pid == 0)
            return true;
    }
    return stk_child_is_ours(m, pid) || stk_upgrade_is_ours(m, pid);
}

static void reap_stranger(struct stk_master *m, pid_t pid)
{
    if (!reap_is_ours(m, pid) && !reap_is_prior(m, pid) && waitpid(pid, NULL, WNOHANG) == pid)
        stk_log_debug("waited for process %d, which a worker left behind", (int)pid);
}

/* A child that was there before has ended, and the kernel names none behind it. */
static void reap_behind_prior(struct stk_master *m)
{
    reap_for_each(m, reap_stranger);
}

static void reap_strangers(struct stk_master *m)
{
    for (;;) {
        siginfo_t info = {0};

        if (waitid(P_ALL, 0, &info, WEXITED | WNOHANG | WNOWAIT) < 0 || info.si_pid == 0)
            return;
        if (reap_is_ours(m, info.si_pid))
            return;
        if (reap_is_prior(m, info.si_pid)) {
            reap_behind_prior(m);
            return;
        }
        if (waitpid(info.si_pid, NULL, WNOHANG) <= 0)
            return;
        stk_log_debug("waited for process %d, which a worker left behind", (int)info.si_pid);
    }
}

/* One that has died, or NULL; the list may change with each, so it is begun again. */
static struct stk_proc *reap_next(struct stk_master *m, int *ret_status)
{
    stk_list_for_each (it, &m->procs) {
        struct stk_proc *p = stk_container_of(it, struct stk_proc, link);
        pid_t r;
        int status;

        if (p->pid == 0)
            continue;
        r = waitpid(p->pid, &status, WNOHANG);
        if (r == p->pid) {
            *ret_status = status;
            return p;
        }
        if (r < 0 && errno == ECHILD) {
            *ret_status = -1; /* somebody else has waited for it */
            return p;
        }
    }
    return NULL;
}

void stk_reap_all(struct stk_master *m)
{
    struct stk_proc *p;
    int status;

    while ((p = reap_next(m, &status)) != NULL)
        stk_proc_exited(p, status);
    stk_child_reap(m);
    if (m->reaps_strangers)
        reap_strangers(m);
}
