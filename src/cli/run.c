/*
 * Serving: the one place where master, worker and application host meet. The master gets functions
 * for what it does not know (a worker's life, Python's rules around fork, loading for `preload`),
 * the worker gets the host.
 */
#include <stdlib.h>
#include <string.h>

#include "app/host.h"
#include "base/log.h"
#include "base/mem.h"
#include "cli/cli.h"
#include "config/site.h"
#include "master/master.h"
#include "net/listen.h"
#include "pyhost/pyhost.h"
#include "services/caches.h"
#include "worker/worker.h"

struct run {
    const struct stk_config *config;
    const char *python;
    unsigned nworkers;
    const struct stk_host_ops *ops;
    void *host;
    PyObject *on_event;             /* or NULL */
    int daemon_fd;                  /* to the command that waits, or -1 */
    struct stk_endpoint *endpoints; /* of the listeners, for an application loaded ahead */
    size_t nendpoints;
    struct stk_caches *caches; /* the master's */
};

static void run_listening(void *arg, struct stk_listener *const *listeners, size_t n)
{
    struct run *run = arg;

    run->endpoints = stk_new0_array(struct stk_endpoint, n);
    run->nendpoints = n;
    for (size_t i = 0; i < n; i++)
        run->endpoints[i] = (struct stk_endpoint){
            .index = (unsigned)i,
            .scheme = stk_span_str(strcmp(listeners[i]->scheme, "https") == 0 ? "https" : "http"),
            .server_name = stk_span_str(listeners[i]->server_name),
            .server_port = stk_span_str(listeners[i]->server_port),
            .is_unix = listeners[i]->is_unix,
        };
    stk_banner_log(run->config, run->nworkers, run->python, listeners, n);
    stk_caches_log(run->caches);
}

static void run_caches(void *arg, struct stk_caches *caches)
{
    struct run *run = arg;

    run->caches = caches;
    stk_pyhost_set_caches(run->host, caches);
}

static void run_ready(void *arg)
{
    struct run *run = arg;

    stk_daemon_report(&run->daemon_fd, STK_CLI_EXIT_OK);
}

static void run_load_failed(void *arg, const char *text)
{
    struct run *run = arg;

    stk_daemon_tell(run->daemon_fd, text);
}

/* Tells Python; what it raises is printed, and the master goes on. SystemExit is a wish to end. */
static int run_on_event(void *arg, enum stk_master_event event, unsigned number, pid_t pid)
{
    static const char *const names[] = {
        [STK_MASTER_EVENT_ROOT] = "root",   [STK_MASTER_EVENT_START] = "start",
        [STK_MASTER_EVENT_FORK] = "fork",   [STK_MASTER_EVENT_GONE] = "gone",
        [STK_MASTER_EVENT_READY] = "ready", [STK_MASTER_EVENT_RELOAD] = "reload",
        [STK_MASTER_EVENT_SCALE] = "scale", [STK_MASTER_EVENT_EXIT] = "exit",
    };
    struct run *run = arg;
    PyObject *result = PyObject_CallFunction(run->on_event, "sIi", names[event], number, (int)pid);

    Py_XDECREF(result);
    if (result)
        return 0;
    if (PyErr_ExceptionMatches(PyExc_SystemExit)) {
        PyErr_Clear();
        return STK_MASTER_EXIT_CONFIG;
    }
    PyErr_WriteUnraisable(run->on_event);
    return 0;
}

static void run_on_mistake(void *arg, enum stk_option_id option, size_t item, const char *text)
{
    stk_log_error("%s: %s", stk_options_rows()[option].name, text);
}

static int run_template_load(void *arg)
{
    struct run *run = arg;
    STK_CLEANUP(stk_site_freep)
    struct stk_site *site = stk_site_new(run->config, run_on_mistake, NULL);
    const struct stk_host_params params = {
        .targets = site ? (const char *const *)site->apps.items : NULL,
        .places = site ? (const char *const *)site->places.items : NULL,
        .ntargets = site ? site->apps.n : 0,
        .pythonpath = (const char *const *)run->config->pythonpath.items,
        .endpoints = run->endpoints,
        .nendpoints = run->nendpoints,
        .threads = (unsigned)run->config->threads,
        .workers = run->nworkers,
        .preload = true,
        .interface = (uint8_t)run->config->interface,
        .loop = (uint8_t)run->config->loop,
        .lifespan = (uint8_t)run->config->lifespan,
        .task_grace = run->config->exit_timeout / 2,
        .gevent = (unsigned)run->config->gevent,
        .monkey_patch = run->config->gevent_monkey_patch,
        .limits_async = run->config->max_concurrency > 0,
    };

    return run->ops->load(run->host, &params) == 0 ? 0 : STK_MASTER_EXIT_LOAD;
}

static void run_template_freeze(void *arg)
{
    struct run *run = arg;

    run->ops->freeze(run->host);
}

static char **run_template_sources(void *arg)
{
    struct run *run = arg;

    return run->ops->source_files(run->host);
}

static void run_template_import(void *arg, const char *const *names)
{
    struct run *run = arg;

    run->ops->import_modules(run->host, names);
}

static void run_template_unload(void *arg)
{
    struct run *run = arg;

    run->ops->unload(run->host);
}

/* In a process of its own: loads the applications, and does what a module of ours has asked for. */
static int run_task(void *arg, const char *task)
{
    struct run *run = arg;
    int code = run_template_load(run);

    if (code == 0) {
        code = stk_pyhost_run_task(run->host, task);
        run->ops->unload(run->host);
    }
    return code;
}

static bool run_bind_is_default(const struct stk_load *load)
{
    const struct stk_option *opt = &stk_options_rows()[STK_OPTION_ID_BIND];

    return stk_load_provenance(load, opt)->top.kind == STK_ORIGIN_DEFAULT;
}

/* Builds the host, hands everything to the master, and stays until it ends. */
static int run_master(struct stk_cli *cli, struct run *run)
{
    STK_CLEANUP(stk_mem_freep) char *config_json = stk_control_config(cli);
    STK_CLEANUP(stk_mem_freep)
    char *runtime = stk_mem_strndup(Py_GetVersion(), strcspn(Py_GetVersion(), " "));
    struct stk_worker_params worker = {.host_ops = run->ops, .host = run->host, .runtime = runtime};
    const struct stk_master_params params = {
        .config = run->config,
        .config_json = config_json,
        .nworkers = run->nworkers,
        .worker_main = stk_worker_main,
        .worker_arg = &worker,
        .fork_prepare = run->ops->fork_prepare,
        .fork_parent = run->ops->fork_parent,
        .fork_child = run->ops->fork_child,
        .fork_arg = run->host,
        .template_load = run_template_load,
        .template_freeze = run_template_freeze,
        .template_sources = run_template_sources,
        .template_import = run_template_import,
        .template_unload = run_template_unload,
        .template_arg = run,
        .task_main = run_task,
        .task_arg = run,
        .on_listening = run_listening,
        .on_listening_arg = run,
        .on_caches = run_caches,
        .on_ready = run_ready,
        .on_load_failed = run_load_failed,
        .on_start_arg = run,
        .on_event = run->on_event ? run_on_event : NULL,
        .on_event_arg = run,
        .startup = &cli->startup,
        .bind_is_default = run_bind_is_default(cli->load),
    };
    const struct stk_strv *warnings = stk_load_warnings(cli->load);

    for (size_t i = 0; i < warnings->n; i++)
        stk_log_warning("%s", warnings->items[i]);
    return stk_master_run(&params);
}

/* Makes `import uwsgi` work, in all processes. -1 with an exception. */
static int run_install_uwsgi(PyObject *core)
{
    PyObject *module = PyImport_ImportModule("stoker.compat.uwsgi_module");
    PyObject *made = module ? PyObject_CallMethod(module, "install", "O", core) : NULL;

    Py_XDECREF(module);
    Py_XDECREF(made);
    return made ? 0 : -1;
}

/* From a process that is set up to the end of the server. */
static int run_serve(struct stk_cli *cli, struct run *run)
{
    int code;

    stk_setup_target(stk_load_config(cli->load));
    run->host = stk_pyhost_new(cli->module);
    if (!run->host || (run->config->uwsgi_module && run_install_uwsgi(cli->module) < 0)) {
        stk_pyhost_free(run->host);
        PyErr_Print();
        return STK_CLI_EXIT_LOAD;
    }
    code = run_master(cli, run);
    stk_pyhost_free(run->host);
    free(run->endpoints);
    return code;
}

int stk_run_server(struct stk_cli *cli)
{
    STK_CLEANUP(stk_mem_freep) char *python = stk_banner_python();
    struct run run = {
        .config = stk_load_config(cli->load),
        .python = python,
        .nworkers = cli->nworkers,
        .ops = stk_pyhost_ops(),
        .on_event = cli->on_event,
        .daemon_fd = -1,
    };
    int code = stk_setup_startup(cli);

    if (code == 0)
        code = stk_setup_process(cli);
    /* A successor has left the terminal with its predecessor. */
    if (code == 0 && run.config->daemon && cli->startup.predecessor == 0) {
        code = stk_daemon_detach(run.config, &run.daemon_fd);
        if (code >= 0)
            return code;
        code = 0;
    }
    if (code == 0 && cli->capture)
        stk_log_capture();
    if (code == 0)
        code = run_serve(cli, &run);
    stk_daemon_report(&run.daemon_fd, code);
    if (code != 0 && cli->startup.predecessor > 0)
        stk_startup_say_why(cli->startup.control);
    stk_startup_deinit(&cli->startup);
    return code;
}
