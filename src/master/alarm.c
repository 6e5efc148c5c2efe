/*
 * Alarms: a command that reads the message from its standard input, or a line of the log.
 *
 * The message lies in a file in memory, so nobody waits for somebody to read it. The same message
 * is not told again for a while, and no more than some commands of alarms run at a time: whatever
 * goes wrong a thousand times a second must not start a thousand processes.
 */
#include <errno.h>
#include <netinet/in.h>
#include <netinet/tcp.h>
#include <signal.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/socket.h>
#include <sys/wait.h>
#include <unistd.h>

#include "base/fd.h"
#include "base/log.h"
#include "base/mem.h"
#include "master/beside.h"
#include "master/master_priv.h"

enum {
    ALARM_RUNS_MAX = 16,
    ALARM_GRACE_MS = 5000,
    ALARM_TIMEOUT_MS = 60000,
    ALARM_LAST_MS = 1000, /* when the server is about to end */
};

struct alarm_run {
    struct stk_child child;
    struct stk_list link;
    struct stk_timer timeout;
    struct stk_alarm *alarm;
};

static void alarm_free_run(struct alarm_run *run)
{
    struct stk_master *m = run->child.master;

    stk_timer_stop(m->loop, &run->timeout);
    stk_list_remove(&run->link);
    m->beside.nalarm_runs--;
    free(run);
}

static void alarm_on_timeout(struct stk_timer *timer, void *who)
{
    struct alarm_run *run = stk_container_of(timer, struct alarm_run, timeout);

    stk_log_error("%s: its command (%d) runs for more than %.0f s: it is stopped", run->alarm->name,
                  (int)run->child.group, (double)stk_child_age(&run->child) / 1000);
    stk_child_stop(&run->child, SIGTERM, ALARM_GRACE_MS);
}

static void alarm_on_gone(struct stk_child *c, int status)
{
    struct alarm_run *run = stk_container_of(c, struct alarm_run, child);
    STK_CLEANUP(stk_mem_freep) char *how = stk_reap_describe(status);

    if (status < 0 || !WIFEXITED(status) || WEXITSTATUS(status) != 0)
        stk_log_error("%s: its command (%d) %s", run->alarm->name, (int)c->gone, how);
    alarm_free_run(run);
}

/* A file with the message, to be read from its beginning. -1 with errno. */
static int alarm_file(const char *text, size_t len)
{
    STK_CLEANUP(stk_fd_closep) int fd = memfd_create("stoker alarm", MFD_CLOEXEC);
    int r;

    if (fd < 0)
        return -1;
    r = stk_fd_write_all(fd, text, len);
    if (r == 0)
        r = stk_fd_write_all(fd, "\n", 1);
    if (r == 0 && lseek(fd, 0, SEEK_SET) < 0)
        r = -errno;
    if (r == 0)
        return stk_fd_steal(&fd);
    errno = -r;
    return -1;
}

static void alarm_run(struct stk_master *m, struct stk_alarm *alarm, const char *text, size_t len)
{
    STK_CLEANUP(stk_fd_closep) int input = alarm_file(text, len);
    const struct stk_child_params params = {.command = alarm->spec->text, .input = input};
    struct alarm_run *run;
    int r;

    if (input < 0) {
        stk_log_error("%s: the message cannot be written: %m", alarm->name);
        return;
    }
    run = stk_new0(struct alarm_run);
    run->alarm = alarm;
    stk_list_init(&run->link);
    stk_timer_init(&run->timeout, alarm_on_timeout);
    stk_child_init(&run->child, m, alarm->name, alarm_on_gone, SIGTERM, ALARM_GRACE_MS);
    r = stk_child_start(&run->child, &params);
    if (r < 0) {
        stk_log_error("%s: its command cannot be started: %s", alarm->name, strerror(-r));
        free(run);
        return;
    }
    stk_list_append(&m->beside.alarm_runs, &run->link);
    m->beside.nalarm_runs++;
    /* Those before it have been told to end: the server waits for this one as well. */
    stk_timer_set(m->loop, &run->timeout,
                  m->beside.programs_told ? ALARM_LAST_MS : ALARM_TIMEOUT_MS);
}

/* Whether it has said the same a moment ago; notes what it says now. */
static bool alarm_repeats(const struct stk_master *m, struct stk_alarm *alarm, const char *text,
                          size_t len)
{
    stk_nsec now = stk_time_mono_ns();

    if (alarm->when > 0 && alarm->len == len && memcmp(alarm->said, text, len) == 0 &&
        now - alarm->when < m->config->alarm_freq * STK_NSEC_PER_MSEC)
        return true;
    free(alarm->said);
    alarm->said = stk_mem_strndup(text, len);
    alarm->len = len;
    alarm->when = now;
    return false;
}

void stk_alarm_raise(struct stk_master *m, uint64_t alarms, const char *text, size_t len)
{
    struct stk_beside *b = &m->beside;

    if (len > (size_t)m->config->alarm_msg_size)
        len = (size_t)m->config->alarm_msg_size;
    for (size_t i = 0; b->config != NULL && i < b->config->nalarms; i++) {
        struct stk_alarm *alarm = &b->alarms[i];

        if (!(alarms >> i & 1) || alarm_repeats(m, alarm, text, len))
            continue;
        alarm->raised++;
        if (alarm->spec->kind == STK_ALARM_LOG)
            stk_log_warning("%s: %s%s%.*s", alarm->name, alarm->spec->text,
                            *alarm->spec->text ? ": " : "", (int)len, text);
        else if (b->nalarm_runs >= ALARM_RUNS_MAX)
            stk_log_error("%s: %u commands of alarms run already: it is not raised", alarm->name,
                          b->nalarm_runs);
        else
            alarm_run(m, alarm, text, len);
    }
}

void stk_alarm_on_crash(struct stk_master *m, const char *text)
{
    if (m->beside.config != NULL && m->beside.config->on_crash != 0)
        stk_alarm_raise(m, m->beside.config->on_crash, text, strlen(text));
}

/* Whether a queue of a listener is full; the kernel tells of TCP only. */
static bool alarm_is_full(const struct stk_listener *l)
{
    for (unsigned i = 0; !l->is_unix && i < (l->shared ? 1 : l->nslots); i++) {
        struct tcp_info info;
        socklen_t len = sizeof info;

        if (l->slots[i] >= 0 && getsockopt(l->slots[i], IPPROTO_TCP, TCP_INFO, &info, &len) == 0 &&
            info.tcpi_state == TCP_LISTEN && info.tcpi_sacked > 0 &&
            info.tcpi_unacked >= info.tcpi_sacked)
            return true;
    }
    return false;
}

void stk_alarm_look(struct stk_master *m)
{
    if (m->beside.config->on_backlog == 0)
        return;
    for (size_t i = 0; i < m->listeners.n; i++) {
        const struct stk_listener *l = m->listeners.items[i];
        STK_CLEANUP(stk_mem_freep) char *text = NULL;

        if (!alarm_is_full(l))
            continue;
        text = stk_mem_printf("the queue of connections of %s is full", l->display);
        stk_alarm_raise(m, m->beside.config->on_backlog, text, strlen(text));
    }
}

void stk_alarm_stop(struct stk_master *m, stk_msec grace)
{
    stk_list_for_each (it, &m->beside.alarm_runs) {
        stk_child_stop(&stk_container_of(it, struct alarm_run, link)->child, SIGTERM, grace);
    }
}

void stk_alarm_deinit(struct stk_master *m)
{
    struct stk_list *node;

    while ((node = stk_list_pop(&m->beside.alarm_runs)) != NULL) {
        struct alarm_run *run = stk_container_of(node, struct alarm_run, link);

        stk_child_forget(&run->child);
        alarm_free_run(run);
    }
}
