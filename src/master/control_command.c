/*
 * The commands of the control socket.
 *
 * A request is strict: a field that its command does not know is an error and not ignored, for it
 * may have been the one that mattered. What takes a while is begun at once and answered when it is
 * done; the turn of the master in which it may have become so looks (stk_control_check), so nothing
 * has to remember to tell.
 */
#include <errno.h>
#include <fcntl.h>
#include <stdlib.h>
#include <string.h>
#include <sys/epoll.h>
#include <unistd.h>

#include "base/assert.h"
#include "base/fd.h"
#include "base/log.h"
#include "base/mem.h"
#include "ipc/channel.h"
#include "master/control.h"
#include "master/master_priv.h"

/* How long a worker may take to write its stacks. */
#define COMMAND_STACKS_MS 10000

struct command_request {
    struct stk_json_field fields[STK_CONTROL_FIELDS];
    size_t n;
};

typedef void (*command_fn)(struct stk_control_client *c, const struct command_request *req);

struct command {
    const char *name;
    const char *fields[3]; /* that it takes besides "command" */
    command_fn fn;
};

/* --- fields ---------------------------------------------------------------------------------- */

static const struct stk_json_field *command_field(const struct command_request *req,
                                                  const char *name)
{
    return stk_json_find(req->fields, req->n, name);
}

/* An integer between two bounds, *ret_value unchanged when it is not there. False: answered. */
static bool command_integer(struct stk_control_client *c, const struct command_request *req,
                            const char *name, int64_t min, int64_t max, int64_t *ret_value)
{
    const struct stk_json_field *f = command_field(req, name);

    if (f == NULL || f->kind == STK_JSON_NULL)
        return true;
    if (f->kind == STK_JSON_INTEGER && f->integer >= min && f->integer <= max) {
        *ret_value = f->integer;
        return true;
    }
    stk_control_answer_error(c, "\"%s\" must be a number from %lld to %lld", name, (long long)min,
                             (long long)max);
    return false;
}

static bool command_bool(struct stk_control_client *c, const struct command_request *req,
                         const char *name, bool *ret_value)
{
    const struct stk_json_field *f = command_field(req, name);

    if (f == NULL || f->kind == STK_JSON_NULL)
        return true;
    if (f->kind == STK_JSON_BOOL) {
        *ret_value = f->boolean;
        return true;
    }
    stk_control_answer_error(c, "\"%s\" must be true or false", name);
    return false;
}

/* Answers that the server ends, if it does. */
static bool command_is_stopping(struct stk_control_client *c)
{
    if (c->control->master->stopping == 0)
        return false;
    stk_control_answer_error(c, "the server is stopping");
    return true;
}

static void command_log(const struct stk_control_client *c, const char *what)
{
    stk_log_info("control: process %d of user %u asks to %s", (int)c->pid, (unsigned)c->uid, what);
}

static void command_wait(struct stk_control_client *c, enum stk_control_wait wait)
{
    STK_ASSERT(c->wait == STK_CONTROL_WAIT_NONE);
    c->wait = wait;
    c->control->nwaiting++;
}

/* The outcome of what a client waits for; it is answered at the end of the turn. */
static void command_on_told(void *arg, bool ok, const char *text)
{
    struct stk_control_client *c = arg;

    STK_CHECK_MAGIC(c, STK_CONTROL_CLIENT_MAGIC);
    free(c->text);
    c->text = stk_mem_strdup(text);
    c->ok = ok;
    c->told = true;
}

static void command_answer_told(struct stk_control_client *c)
{
    STK_CLEANUP(stk_mem_freep) char *text = stk_steal(&c->text);
    bool ok = c->ok;

    stk_control_unwait(c);
    if (ok)
        stk_control_answer_ok(c, text);
    else
        stk_control_answer_error(c, "%s", text);
}

void stk_control_unwait(struct stk_control_client *c)
{
    if (c->wait == STK_CONTROL_WAIT_NONE)
        return;
    if (c->pipe.fd >= 0) {
        stk_loop_del(c->control->master->loop, &c->pipe);
        stk_fd_close(&c->pipe.fd);
    }
    if (c->wait == STK_CONTROL_WAIT_RELOAD)
        stk_reload_forget(c->control->master, c);
    else if (c->wait == STK_CONTROL_WAIT_SCALE)
        stk_scale_forget(c->control->master, c);
    else if (c->wait == STK_CONTROL_WAIT_UPGRADE && !c->told)
        stk_upgrade_on_done(c->control->master, NULL, NULL);
    free(stk_steal(&c->stacks));
    free(stk_steal(&c->text));
    c->nstacks = 0;
    c->told = false;
    c->wait = STK_CONTROL_WAIT_NONE;
    c->control->nwaiting--;
}

/* --- commands that answer at once ------------------------------------------------------------ */

static void command_ping(struct stk_control_client *c, const struct command_request *req)
{
    struct stk_json j = {0};

    stk_json_object_begin(&j);
    stk_json_put_bool(&j, "ok", true);
    stk_json_put_int(&j, "pid", getpid());
    stk_json_put_string(&j, "version", STK_VERSION);
    stk_json_put_string(&j, "app", stk_config_app_name(c->control->master->config));
    stk_json_put_string(&j, "state", stk_control_state(c->control->master));
    stk_json_object_end(&j);
    stk_control_answer(c, &j);
}

static void command_status(struct stk_control_client *c, const struct command_request *req)
{
    struct stk_json j = {0};

    stk_json_object_begin(&j);
    stk_json_put_bool(&j, "ok", true);
    stk_control_put_status(&j, c->control->master);
    stk_json_object_end(&j);
    stk_control_answer(c, &j);
}

static void command_config(struct stk_control_client *c, const struct command_request *req)
{
    const char *text = c->control->master->params->config_json;
    struct stk_json j = {0};

    if (text == NULL) {
        stk_control_answer_error(c, "this server does not know where its configuration is from");
        return;
    }
    stk_json_object_begin(&j);
    stk_json_put_bool(&j, "ok", true);
    stk_json_name(&j, "config");
    stk_json_raw(&j, text, strlen(text));
    stk_json_object_end(&j);
    stk_control_answer(c, &j);
}

static void command_logs(struct stk_control_client *c, const struct command_request *req)
{
    const struct stk_json_field *f = command_field(req, "action");

    if (f == NULL || f->kind != STK_JSON_STRING || strcmp(f->text.ptr, "reopen") != 0) {
        stk_control_answer_error(c, "\"action\" must be \"reopen\"");
        return;
    }
    command_log(c, "open the log files again");
    stk_master_reopen_logs(c->control->master);
    stk_control_answer_ok(c, NULL);
}

/* --- commands that take a while -------------------------------------------------------------- */

static void command_stop(struct stk_control_client *c, const struct command_request *req)
{
    bool now = false;

    if (!command_bool(c, req, "now", &now))
        return;
    command_log(c, now ? "stop now" : "stop");
    stk_master_stop(c->control->master, now);
    command_wait(c, STK_CONTROL_WAIT_STOP);
}

static void command_reload(struct stk_control_client *c, const struct command_request *req)
{
    struct stk_master *m = c->control->master;

    if (command_is_stopping(c))
        return;
    command_log(c, "reload");
    command_wait(c, STK_CONTROL_WAIT_RELOAD);
    stk_reload_notify(m, command_on_told, c);
    stk_reload_rolling(m);
}

static void command_scale(struct stk_control_client *c, const struct command_request *req)
{
    const struct stk_json_field *f = command_field(req, "workers");
    struct stk_master *m = c->control->master;
    int64_t workers = 0;

    if (command_is_stopping(c))
        return;
    if (f == NULL || f->kind == STK_JSON_NULL) {
        stk_control_answer_error(c, "\"workers\" must be a number, or \"auto\"");
        return;
    }
    if (!(f->kind == STK_JSON_STRING && strcmp(f->text.ptr, "auto") == 0) &&
        !command_integer(c, req, "workers", 1, m->params->nworkers, &workers))
        return;
    command_log(c, "change the number of workers");
    command_wait(c, STK_CONTROL_WAIT_SCALE);
    stk_scale_set(m, (unsigned)workers);
    stk_scale_notify(m, command_on_told, c);
}

static void command_recycle(struct stk_control_client *c, const struct command_request *req)
{
    struct stk_master *m = c->control->master;
    int64_t worker = 0;

    if (command_is_stopping(c) ||
        !command_integer(c, req, "worker", 1, m->params->nworkers, &worker))
        return;
    if (worker == 0) {
        stk_control_answer_error(c, "\"worker\" must say which one");
        return;
    }
    command_log(c, "replace a worker");
    c->slot = (unsigned)worker - 1;
    if (stk_recycle_worker(m, c->slot) < 0) {
        stk_control_answer_error(c, "worker %lld does not serve at the moment", (long long)worker);
        return;
    }
    c->worker = m->slots[c->slot].current->pid;
    command_wait(c, STK_CONTROL_WAIT_RECYCLE);
}

/* Over when the slot's worker is another one that serves. */
static void command_check_recycle(struct stk_control_client *c)
{
    const struct stk_master *m = c->control->master;
    const struct stk_proc *p = m->slots[c->slot].current;
    STK_CLEANUP(stk_mem_freep) char *text = NULL;

    if (m->stopping != 0) {
        stk_control_unwait(c);
        stk_control_answer_error(c, "the server is stopping");
    } else if (stk_proc_is_serving(p) && p->pid != c->worker) {
        text = stk_mem_printf("worker %u is process %d now", c->slot + 1, (int)p->pid);
        stk_control_unwait(c);
        stk_control_answer_ok(c, text);
    } else if (m->recycle.waits && m->slots[c->slot].next == NULL) {
        stk_control_unwait(c);
        stk_control_answer_error(c, "a new worker cannot be started (the error log says why): the "
                                    "old one goes on, and it is tried again");
    }
}

static void command_on_upgraded(void *arg, int result, const char *sentence)
{
    command_on_told(arg, result == 0, sentence);
}

static void command_upgrade(struct stk_control_client *c, const struct command_request *req)
{
    struct stk_master *m = c->control->master;
    int r;

    if (command_is_stopping(c))
        return;
    command_log(c, "upgrade");
    r = stk_upgrade_start(m);
    if (r < 0) {
        stk_control_answer_error(c, "%s",
                                 r == -EALREADY ? "an upgrade is under way already"
                                 : r == -EBUSY  ? "the server is starting still: try again"
                                 : r == -ENOTSUP
                                     ? "the server does not know the command line to start again"
                                     : "a new server cannot be started: the error log says why");
        return;
    }
    command_wait(c, STK_CONTROL_WAIT_UPGRADE);
    stk_upgrade_on_done(m, command_on_upgraded, c);
}

/* --- stacks ---------------------------------------------------------------------------------- */

/* The worker that "worker" or "pid" names; NULL: answered. */
static struct stk_proc *command_find_worker(struct stk_control_client *c,
                                            const struct command_request *req)
{
    struct stk_master *m = c->control->master;
    int64_t worker = 0, pid = 0;

    if (!command_integer(c, req, "worker", 1, m->params->nworkers, &worker) ||
        !command_integer(c, req, "pid", 1, INT32_MAX, &pid))
        return NULL;
    if ((worker == 0) == (pid == 0)) {
        stk_control_answer_error(c, "either \"worker\" or \"pid\" must say which worker");
        return NULL;
    }
    stk_list_for_each (it, &m->procs) {
        struct stk_proc *p = stk_container_of(it, struct stk_proc, link);

        if (p->kind == STK_PROC_WORKER &&
            (pid != 0 ? p->pid == pid : p == m->slots[worker - 1].current))
            return p;
    }
    if (pid != 0)
        stk_control_answer_error(c, "process %lld is no worker of this server", (long long)pid);
    else
        stk_control_answer_error(c, "worker %lld does not run", (long long)worker);
    return NULL;
}

static void command_answer_stacks(struct stk_control_client *c)
{
    STK_CLEANUP(stk_mem_freep) char *stacks = stk_steal(&c->stacks);
    size_t n = c->nstacks;
    struct stk_json j = {0};

    stk_control_unwait(c);
    if (n == 0) {
        stk_control_answer_error(c, "worker %u (%d) has ended, or cannot write stacks", c->slot + 1,
                                 (int)c->worker);
        return;
    }
    stk_json_object_begin(&j);
    stk_json_put_bool(&j, "ok", true);
    stk_json_put_uint(&j, "worker", c->slot + 1);
    stk_json_put_int(&j, "pid", c->worker);
    stk_json_put_bool(&j, "complete", n < STK_CONTROL_STACKS);
    stk_json_name(&j, "stacks");
    stk_json_bytes(&j, stacks, n);
    stk_json_object_end(&j);
    stk_control_answer(c, &j);
}

void stk_control_give_up(struct stk_control_client *c)
{
    if (c->nstacks > 0) {
        command_answer_stacks(c);
        return;
    }
    stk_control_unwait(c);
    stk_control_answer_error(c,
                             "worker %u (%d) did not write its stacks within %d s: it is stopped, "
                             "or its event loop is stuck",
                             c->slot + 1, (int)c->worker, COMMAND_STACKS_MS / 1000);
}

/* What the worker writes; its end is the end of the answer. */
static void command_on_pipe(struct stk_source *src, uint32_t events, void *who)
{
    struct stk_control_client *c = stk_container_of(src, struct stk_control_client, pipe);
    char surplus[4096];
    ssize_t n;

    STK_CHECK_MAGIC(c, STK_CONTROL_CLIENT_MAGIC);
    do {
        size_t room = STK_CONTROL_STACKS - c->nstacks;
        char *to = room > 0 ? c->stacks + c->nstacks : surplus;

        n = read(src->fd, to, room > 0 ? room : sizeof surplus);
        if (n > 0 && room > 0)
            c->nstacks += (size_t)n;
    } while (n > 0 || (n < 0 && errno == EINTR));
    if (n < 0 && errno == EAGAIN)
        return;
    stk_loop_del(c->control->master->loop, src);
    stk_fd_close(&src->fd); /* the turn's end answers */
}

static void command_stack(struct stk_control_client *c, const struct command_request *req)
{
    struct stk_master *m = c->control->master;
    struct stk_proc *p = command_find_worker(c, req);
    STK_CLEANUP(stk_fd_closep) int out = -1;
    struct stk_message msg = {.type = STK_MESSAGE_STACK};
    int fds[2];
    int r;

    if (p == NULL || !command_integer(c, req, "request", 1, INT64_MAX, &msg.value))
        return;
    if (p->channel.fd < 0 || p->pid == 0 ||
        (p->state != STK_PROC_STARTING && p->state != STK_PROC_READY &&
         p->state != STK_PROC_DRAINING)) {
        stk_control_answer_error(c, "worker %u (%d) is being forked, or ending", p->slot + 1,
                                 (int)p->pid);
        return;
    }
    c->stacks = stk_try_alloc(STK_CONTROL_STACKS);
    r = c->stacks == NULL ? -ENOMEM : pipe2(fds, O_CLOEXEC) < 0 ? -errno : 0;
    if (r == 0) {
        out = fds[1];
        c->pipe = (struct stk_source){.fn = command_on_pipe, .fd = fds[0]};
        c->slot = p->slot;
        c->worker = p->pid;
        command_wait(c, STK_CONTROL_WAIT_STACK);
        r = stk_fd_set_nonblock(c->pipe.fd, true);
    }
    if (r == 0)
        r = stk_loop_add(m->loop, &c->pipe, EPOLLIN);
    if (r == 0) {
        msg.fd = out;
        r = stk_channel_send(p->channel.fd, &msg);
    }
    if (r == 0 && p->state == STK_PROC_STARTING && kill(p->pid, STK_CHANNEL_LOOK) < 0)
        stk_log_debug("worker %d cannot be asked for its stacks: %m", (int)p->pid);
    if (r == 0) {
        stk_timer_set(m->loop, &c->timer, COMMAND_STACKS_MS);
        return;
    }
    stk_control_unwait(c);
    free(stk_steal(&c->stacks));
    stk_control_answer_error(c, "worker %u (%d) cannot be asked: %s", p->slot + 1, (int)p->pid,
                             strerror(-r));
}

/* --- waiting --------------------------------------------------------------------------------- */

void stk_control_check(struct stk_control_client *c)
{
    switch (c->wait) {
    case STK_CONTROL_WAIT_RELOAD:
    case STK_CONTROL_WAIT_SCALE:
    case STK_CONTROL_WAIT_UPGRADE:
        if (c->told)
            command_answer_told(c);
        break;
    case STK_CONTROL_WAIT_RECYCLE:
        command_check_recycle(c);
        break;
    case STK_CONTROL_WAIT_STACK:
        if (c->pipe.fd < 0)
            command_answer_stacks(c);
        break;
    case STK_CONTROL_WAIT_STOP:
    case STK_CONTROL_WAIT_NONE:
        break;
    }
}

void stk_control_finish(struct stk_control_client *c)
{
    bool stop = c->wait == STK_CONTROL_WAIT_STOP;

    stk_control_unwait(c);
    if (stop)
        stk_control_answer_ok(c, NULL);
    else
        stk_control_answer_error(c, "the server has stopped");
}

/* --- requests -------------------------------------------------------------------------------- */

static const struct command commands[] = {
    {"ping", {NULL}, command_ping},
    {"status", {NULL}, command_status},
    {"config", {NULL}, command_config},
    {"logs", {"action"}, command_logs},
    {"reload", {NULL}, command_reload},
    {"upgrade", {NULL}, command_upgrade},
    {"stop", {"now"}, command_stop},
    {"scale", {"workers"}, command_scale},
    {"recycle", {"worker"}, command_recycle},
    {"stack", {"worker", "pid", "request"}, command_stack},
};

static const struct command *command_find(const char *name)
{
    for (size_t i = 0; i < STK_ARRAY_LEN(commands); i++)
        if (strcmp(commands[i].name, name) == 0)
            return &commands[i];
    return NULL;
}

static bool command_takes(const struct command *command, const char *name)
{
    if (strcmp(name, "command") == 0)
        return true;
    for (size_t i = 0; i < STK_ARRAY_LEN(command->fields) && command->fields[i] != NULL; i++)
        if (strcmp(command->fields[i], name) == 0)
            return true;
    return false;
}

void stk_control_run(struct stk_control_client *c, char *line, size_t len)
{
    struct command_request req = {.n = 0};
    const struct stk_json_field *name;
    const struct command *command;
    int e = stk_json_read_object(line, len, req.fields, STK_CONTROL_FIELDS, &req.n);

    if (e != 0) {
        stk_control_answer_error(c, "the request %s", stk_json_error_text(e));
        return;
    }
    name = command_field(&req, "command");
    if (name == NULL || name->kind != STK_JSON_STRING) {
        stk_control_answer_error(c, "the request names no command, as in {\"command\":\"status\"}");
        return;
    }
    command = command_find(name->text.ptr);
    if (command == NULL) {
        stk_control_answer_error(c, "unknown command \"%.64s\"", name->text.ptr);
        return;
    }
    for (size_t i = 0; i < req.n; i++)
        if (!command_takes(command, req.fields[i].name.ptr)) {
            stk_control_answer_error(c, "\"%s\" does not take \"%.64s\"", command->name,
                                     req.fields[i].name.ptr);
            return;
        }
    command->fn(c, &req);
}
