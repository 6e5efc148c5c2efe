/*
 * Lines of the log that raise alarms (alarm-log).
 *
 * The log is written by each process for itself, so each one looks at its own lines, and sends what
 * fits to the master as one datagram: any thread may, nobody waits, and what finds no room is lost,
 * for then there are alarms enough. What the server says of alarms raises none, or it would never
 * end. Where there is no alarm-log, nobody looks, and writing a line costs one comparison more.
 */
#include <errno.h>
#include <stdlib.h>
#include <string.h>
#include <sys/epoll.h>
#include <sys/socket.h>
#include <sys/uio.h>

#include "base/fd.h"
#include "base/log.h"
#include "base/mem.h"
#include "master/beside.h"
#include "master/master_priv.h"
#include "serve/regex.h"

enum { WATCHMAN_BATCH = 32, WATCHMAN_TEXT = 65536 };

/* As this process has it; made by the master and inherited. */
static struct {
    const struct stk_alarm_rule *rules;
    struct stk_regex **patterns;
    size_t n;
    size_t size; /* the longest text */
    int fd;      /* to the master; -1: nobody looks */
} watchman = {.fd = -1};

/* The alarms that a text raises, a bit for each. */
static uint64_t watchman_match(const char *text, size_t len)
{
    struct stk_regex_scratch *scratch = stk_regex_scratch_new();
    stk_span groups[STK_REGEX_GROUPS];
    uint64_t raised = 0, silent = 0;

    for (size_t i = 0; scratch != NULL && i < watchman.n; i++) {
        const struct stk_alarm_rule *rule = &watchman.rules[i];

        if (stk_regex_match(watchman.patterns[i], scratch, stk_span_make(text, len), groups) !=
            STK_REGEX_MATCH)
            continue;
        if (rule->negate)
            silent |= rule->alarms;
        else
            raised |= rule->alarms;
    }
    stk_regex_scratch_free(scratch);
    return raised & ~silent;
}

static void watchman_on_line(const char *text, size_t len)
{
    static const char own[] = "alarm ";
    uint64_t alarms;
    struct iovec iov[2] = {{.iov_base = &alarms, .iov_len = sizeof alarms}};
    struct msghdr hdr = {.msg_iov = iov, .msg_iovlen = 2};
    union {
        const char *c;
        void *v;
    } base = {.c = text};

    if (watchman.fd < 0 || (len >= sizeof own - 1 && memcmp(text, own, sizeof own - 1) == 0))
        return;
    if (len > watchman.size)
        len = watchman.size;
    alarms = watchman_match(text, len);
    if (alarms == 0)
        return;
    iov[1] = (struct iovec){.iov_base = base.v, .iov_len = len};
    if (sendmsg(watchman.fd, &hdr, MSG_DONTWAIT | MSG_NOSIGNAL) < 0) {
        /* The master has enough of them, or is gone. */
    }
}

static void watchman_on_raised(struct stk_source *src, uint32_t events, void *who)
{
    struct stk_beside *b = stk_container_of(src, struct stk_beside, lines);
    struct stk_master *m = stk_container_of(b, struct stk_master, beside);
    STK_CLEANUP(stk_mem_freep) char *buf = stk_mem_zalloc(sizeof(uint64_t) + WATCHMAN_TEXT);

    for (unsigned i = 0; i < WATCHMAN_BATCH; i++) {
        ssize_t n = recv(src->fd, buf, sizeof(uint64_t) + WATCHMAN_TEXT, MSG_DONTWAIT);
        uint64_t alarms;

        if (n < (ssize_t)sizeof alarms)
            return;
        memcpy(&alarms, buf, sizeof alarms);
        stk_alarm_raise(m, alarms, buf + sizeof alarms, (size_t)n - sizeof alarms);
    }
}

int stk_watchman_start(struct stk_master *m)
{
    const struct stk_programs *config = m->beside.config;
    int fds[2], r;

    watchman.patterns = stk_new0_array(struct stk_regex *, config->nrules);
    watchman.rules = config->rules;
    watchman.n = config->nrules;
    watchman.size = (size_t)m->config->alarm_msg_size;
    for (size_t i = 0; i < config->nrules; i++) {
        STK_CLEANUP(stk_mem_freep) char *error = NULL;

        watchman.patterns[i] = stk_regex_new(config->rules[i].pattern, &error);
        if (watchman.patterns[i] == NULL) {
            stk_log_error("alarm-log: %s", error);
            return -EINVAL;
        }
    }
    if (socketpair(AF_UNIX, SOCK_DGRAM | SOCK_CLOEXEC | SOCK_NONBLOCK, 0, fds) < 0)
        return -errno;
    m->beside.lines = (struct stk_source){.fn = watchman_on_raised, .fd = fds[0]};
    watchman.fd = fds[1];
    r = stk_loop_add(m->loop, &m->beside.lines, EPOLLIN);
    if (r == 0)
        stk_log_watch(watchman_on_line);
    return r;
}

void stk_watchman_stop(struct stk_master *m)
{
    stk_log_watch(NULL);
    if (m->beside.lines.fd >= 0)
        stk_loop_del(m->loop, &m->beside.lines);
    stk_fd_close(&m->beside.lines.fd);
    stk_fd_close(&watchman.fd);
    for (size_t i = 0; i < watchman.n; i++)
        stk_regex_free(watchman.patterns[i]);
    free(watchman.patterns);
    watchman.patterns = NULL;
    watchman.n = 0;
}
