/*
 * stoker._core without the server: pyhost/ and the functions below in the place of cli/. The tests
 * of this folder and bench/instructions call applications through the real host and the request
 * services of fake_request.c. The host lives in a capsule that each function gets as its first
 * argument.
 */
#include <stdlib.h>
#include <string.h>

#include "base/log.h"
#include "base/mem.h"
#include "fake_asgi.h"
#include "fake_request.h"
#include "pyhost/pyhost.h"
#include "wire/http1.h"
#include "wire/uwsgi.h"

/* What the worker would own: one per host(). */
struct fake_world {
    void *host;
    struct stk_endpoint endpoints[2];
};

static const struct stk_http1_limits fake_limits = {
    .line_max = 8192, .head_max = 32768, .fields_max = 128, .underscores = true};

static void fake_world_free(PyObject *capsule)
{
    struct fake_world *world = PyCapsule_GetPointer(capsule, "world");

    stk_pyhost_free(world->host);
    free(world);
}

static PyObject *fake_host(PyObject *module, PyObject *unused)
{
    struct fake_world *world = stk_new0(struct fake_world);

    world->host = stk_pyhost_new(module);
    if (!world->host) {
        free(world);
        return NULL;
    }
    world->endpoints[0] = (struct stk_endpoint){.index = 0,
                                                .scheme = STK_SPAN_LIT("http"),
                                                .server_name = STK_SPAN_LIT("127.0.0.1"),
                                                .server_port = STK_SPAN_LIT("8000")};
    world->endpoints[1] = (struct stk_endpoint){.index = 1,
                                                .scheme = STK_SPAN_LIT("http"),
                                                .server_name = STK_SPAN_LIT("localhost"),
                                                .server_port = STK_SPAN_LIT(""),
                                                .is_unix = true};
    return PyCapsule_New(world, "world", fake_world_free);
}

static struct fake_world *fake_world_of(PyObject *capsule)
{
    return PyCapsule_GetPointer(capsule, "world");
}

/* load(host, target, pythonpath=(), threads=1): the result of host_ops.load. */
static PyObject *fake_load(PyObject *module, PyObject *args, PyObject *kwargs)
{
    static char k0[] = "host", k1[] = "target", k2[] = "pythonpath", k3[] = "threads";
    static char *keywords[] = {k0, k1, k2, k3, NULL};
    const char *paths[8] = {NULL};
    const char *target = NULL;
    struct stk_host_params params = {
        .targets = &target, .ntargets = 1, .pythonpath = paths, .threads = 1, .workers = 2};
    PyObject *pythonpath = NULL;
    PyObject *capsule;
    struct fake_world *world;

    if (!PyArg_ParseTupleAndKeywords(args, kwargs, "Os|O!I", keywords, &capsule, &target,
                                     &PyTuple_Type, &pythonpath, &params.threads))
        return NULL;
    world = fake_world_of(capsule);
    if (!world)
        return NULL;
    for (Py_ssize_t i = 0; pythonpath && i < PyTuple_GET_SIZE(pythonpath) && i < 7; i++)
        paths[i] = PyUnicode_AsUTF8(PyTuple_GET_ITEM(pythonpath, i));
    params.endpoints = world->endpoints;
    params.nendpoints = STK_ARRAY_LEN(world->endpoints);
    return PyLong_FromLong(stk_pyhost_ops()->load(world->host, &params));
}

/* ---- one request --------------------------------------------------------------------------- */

/* Everything but the head and the buffers. */
static void fake_request_init(struct fake_request *r, struct fake_world *world, const char *scheme,
                              unsigned endpoint)
{
    memset(r, 0, offsetof(struct fake_request, head));
    r->base.ops = &fake_request_ops;
    r->base.head = &r->head;
    r->base.endpoint = &world->endpoints[endpoint];
    r->base.scheme = stk_span_str(scheme);
    r->npieces = r->piece = r->offset = r->nwrites = r->out_len = r->head_len = 0;
    r->stalled = r->slow_reader = r->refused = false;
    r->started = r->committed = r->ended = r->failed = false;
    r->body_error = 0;
    r->host_buffer = NULL;
    r->gone_after = -1;
    r->length = -1;
    r->body = 0;
    r->waits = 0;
    if (endpoint == 0) {
        memcpy(r->base.peer.addr, "192.0.2.7", 9);
        r->base.peer.addr_len = 9;
        r->base.peer.port = 54321;
    }
}

/* (status line and fields, body, writes, failed, ended, waits) */
static PyObject *fake_result(const struct fake_request *r)
{
    PyObject *writes = PyList_New(0);

    for (size_t i = 0; writes && i < r->nwrites; i++) {
        PyObject *item = Py_BuildValue("(nIO)", (Py_ssize_t)r->writes[i].len, r->writes[i].flags,
                                       r->writes[i].file ? Py_True : Py_False);

        if (item)
            PyList_Append(writes, item);
        Py_XDECREF(item);
    }
    return Py_BuildValue("(y#y#NOOI)", r->out, (Py_ssize_t)r->head_len, r->out + r->head_len,
                         (Py_ssize_t)(r->committed ? r->out_len - r->head_len : 0), writes,
                         r->failed ? Py_True : Py_False, r->ended ? Py_True : Py_False, r->waits);
}

/* Points the body at the pieces (list of bytes), the first in the host's memory if asked for. */
static int fake_set_body(struct fake_request *r, struct fake_world *world, PyObject *pieces,
                         int host_buffer)
{
    for (Py_ssize_t i = 0; i < PyList_GET_SIZE(pieces) && i < FAKE_PIECES_MAX; i++) {
        char *data;
        Py_ssize_t len;

        if (PyBytes_AsStringAndSize(PyList_GET_ITEM(pieces, i), &data, &len) < 0)
            return -1;
        r->pieces[r->npieces++] = stk_span_make(data, (size_t)len);
    }
    if (host_buffer && r->npieces == 1) {
        char *data;

        r->host_buffer = stk_pyhost_ops()->body_alloc(world->host, r->pieces[0].len, &data);
        if (!r->host_buffer)
            return -1;
        memcpy(data, r->pieces[0].ptr, r->pieces[0].len);
        r->pieces[0].ptr = data;
    }
    return 0;
}

/* Room for the packets of a gateway protocol. */
struct fake_gateway {
    struct stk_gateway vars;
    char *scratch;
};

static struct fake_gateway *fake_gateway_new(void)
{
    struct fake_gateway *g = stk_new0(struct fake_gateway);

    g->scratch = stk_mem_zalloc(stk_gateway_room(&fake_limits));
    return g;
}

static void fake_gateway_free(struct fake_gateway *g)
{
    free(g->scratch);
    free(g);
}

/* A head, of HTTP or (a packet begins with a zero) of uwsgi. */
static bool fake_parse(struct fake_request *r, struct fake_gateway *g, const char *head, size_t len)
{
    if (len == 0 || head[0] != STK_UWSGI_WSGI)
        return stk_http1_parse(&r->head, head, len, &fake_limits) == STK_HTTP1_OK;
    return stk_uwsgi_parse(&g->vars, g->scratch, &r->head, head, len, &fake_limits) == STK_HTTP1_OK;
}

/* What a front end has told. */
static void fake_apply(struct fake_request *r, const struct fake_gateway *g)
{
    if (!r->head.path_apart)
        return;
    r->base.script_name = g->vars.mount;
    r->base.vars = g->vars.vars;
    r->base.nvars = g->vars.nvars;
    r->base.vars_of_head = true;
}

struct fake_call {
    struct fake_world *world;
    struct fake_request *r;
};

static void fake_call_in_thread(void *arg, unsigned index, void *thread)
{
    struct fake_call *call = arg;

    stk_pyhost_ops()->call(call->world->host, thread, &call->r->base);
}

/*
 * request(host, head, body=[], body_length=None, *, body_error=0, host_buffer=False, scheme="http",
 * script_name="", endpoint=0, forwarded_host=None, slow_reader=False, gone_after=-1, serial=0,
 * port=54321)
 *
 * The head is HTTP's or a packet of uwsgi, whose variables then count (but not its address).
 */
static PyObject *fake_do_request(PyObject *module, PyObject *args, PyObject *kwargs)
{
    static char k0[] = "host", k1[] = "head", k2[] = "body", k3[] = "body_length",
                k4[] = "body_error", k5[] = "host_buffer", k6[] = "scheme", k7[] = "script_name",
                k8[] = "endpoint", k9[] = "forwarded_host", k10[] = "slow_reader",
                k11[] = "gone_after", k12[] = "serial", k13[] = "port";
    static char *keywords[] = {k0, k1, k2, k3, k4, k5, k6, k7, k8, k9, k10, k11, k12, k13, NULL};
    PyObject *capsule, *pieces = NULL, *result = NULL;
    Py_ssize_t head_len;
    long long body_length = 0;
    const char *head, *scheme = "http", *script_name = "", *forwarded_host = NULL;
    int body_error = 0, host_buffer = 0, slow_reader = 0, gone_after = -1;
    unsigned endpoint = 0;
    unsigned long long serial = 0;
    unsigned port = 54321;
    struct fake_call call;
    struct fake_gateway *gateway;

    if (!PyArg_ParseTupleAndKeywords(args, kwargs, "Oy#|O!LipssIzpiKI", keywords, &capsule, &head,
                                     &head_len, &PyList_Type, &pieces, &body_length, &body_error,
                                     &host_buffer, &scheme, &script_name, &endpoint,
                                     &forwarded_host, &slow_reader, &gone_after, &serial, &port))
        return NULL;
    call.world = fake_world_of(capsule);
    if (!call.world)
        return NULL;
    call.r = stk_new0(struct fake_request);
    call.r->out = stk_mem_zalloc(FAKE_OUT_SIZE + 128 * 1024);
    call.r->writes = stk_new0_array(struct fake_write, FAKE_WRITES_MAX);
    gateway = fake_gateway_new();
    if (!fake_parse(call.r, gateway, head, (size_t)head_len)) {
        PyErr_SetString(PyExc_ValueError, "the head cannot be parsed");
        goto out;
    }
    call.r->head.serial = serial;
    fake_request_init(call.r, call.world, scheme, endpoint);
    if (endpoint == 0)
        call.r->base.peer.port = (uint16_t)port;
    call.r->base.host =
        forwarded_host ? stk_span_str(forwarded_host) : stk_head_host(&call.r->head);
    call.r->base.script_name = stk_span_str(script_name);
    fake_apply(call.r, gateway);
    call.r->base.body_length = body_length;
    call.r->body_error = body_error;
    call.r->slow_reader = slow_reader != 0;
    call.r->gone_after = gone_after;
    if (pieces && fake_set_body(call.r, call.world, pieces, host_buffer) < 0)
        goto out;
    stk_pyhost_ops()->run(call.world->host, 1, fake_call_in_thread, &call, NULL);
    if (call.r->host_buffer)
        stk_pyhost_ops()->body_free(call.world->host, call.r->host_buffer);
    result = fake_result(call.r);
out:
    fake_gateway_free(gateway);
    free(call.r->writes);
    free(call.r->out);
    free(call.r);
    return result;
}

/* ---- many requests ------------------------------------------------------------------------- */

struct fake_loop {
    struct fake_world *world;
    struct fake_request *r;
    struct fake_gateway *gateway;
    char *head;
    size_t len;
    char *port; /* the digits of REMOTE_PORT in a packet, or NULL */
    long n;
    bool again;
    uint64_t serial;
};

/* With `again` a packet may be known but for its port. */
static bool fake_loop_parse(struct fake_loop *loop)
{
    struct fake_request *r = loop->r;

    if (loop->again && stk_gateway_again(&loop->gateway->vars, &r->head, loop->head, loop->len))
        return true;
    if (!fake_parse(r, loop->gateway, loop->head, loop->len))
        return false;
    if (loop->again)
        r->head.serial = loop->gateway->vars.serial = ++loop->serial;
    return true;
}

static void fake_loop_packets(struct fake_loop *loop, void *thread)
{
    struct fake_request *r = loop->r;

    for (long i = 0; i < loop->n; i++) {
        loop->port[4] = (char)('1' + i % 5);
        if (!fake_loop_parse(loop))
            return;
        fake_request_init(r, loop->world, "http", 0);
        r->base.host = stk_head_host(&r->head);
        fake_apply(r, loop->gateway);
        r->base.peer.port = (uint16_t)(r->base.peer.port + i % 5);
        stk_pyhost_ops()->call(loop->world->host, thread, &r->base);
    }
}

static void fake_loop_in_thread(void *arg, unsigned index, void *thread)
{
    struct fake_loop *loop = arg;
    struct fake_request *r = loop->r;

    if (loop->port != NULL) {
        fake_loop_packets(loop, thread);
        return;
    }
    for (long i = 0; i < loop->n; i++) {
        if (stk_http1_parse(&r->head, loop->head, loop->len, &fake_limits) != STK_HTTP1_OK)
            return;
        fake_request_init(r, loop->world, "http", 0);
        r->base.host = stk_head_host(&r->head);
        stk_pyhost_ops()->call(loop->world->host, thread, &r->base);
    }
}

/* loop(host, head, n, again=False): parses the head and answers it n times; the last response. */
static PyObject *fake_do_loop(PyObject *module, PyObject *args)
{
    PyObject *capsule;
    PyObject *result;
    Py_ssize_t len;
    const char *head;
    int again = 0;
    struct fake_loop loop;

    if (!PyArg_ParseTuple(args, "Oy#l|p", &capsule, &head, &len, &loop.n, &again))
        return NULL;
    loop.world = fake_world_of(capsule);
    if (!loop.world)
        return NULL;
    loop.head = stk_mem_zalloc((size_t)len);
    memcpy(loop.head, head, (size_t)len);
    loop.len = (size_t)len;
    loop.again = again != 0;
    loop.serial = 0;
    loop.port = memmem(loop.head, loop.len, "REMOTE_PORT\005", 12);
    if (loop.port != NULL)
        loop.port += 13; /* behind the length */
    loop.gateway = fake_gateway_new();
    loop.r = stk_new0(struct fake_request);
    loop.r->out = stk_mem_zalloc(FAKE_OUT_SIZE + 128 * 1024);
    stk_pyhost_ops()->run(loop.world->host, 1, fake_loop_in_thread, &loop, NULL);
    result = PyBytes_FromStringAndSize(loop.r->out, (Py_ssize_t)loop.r->out_len);
    fake_gateway_free(loop.gateway);
    free(loop.head);
    free(loop.r->out);
    free(loop.r);
    return result;
}

/* startup(host): the result of host_ops.startup, for asynchronous applications. */
static PyObject *fake_startup(PyObject *module, PyObject *capsule)
{
    struct fake_world *world = fake_world_of(capsule);

    return world ? PyLong_FromLong(stk_pyhost_ops()->startup(world->host)) : NULL;
}

struct fake_asgi_loop {
    struct fake_world *world;
    const char *head;
    size_t len;
};

static void fake_asgi_begin(struct fake_asgi *run, struct fake_request *r)
{
    const struct fake_asgi_loop *loop = run->arg;

    (void)stk_http1_parse(&r->head, loop->head, loop->len, &fake_limits);
    fake_request_init(r, loop->world, "http", 0);
    r->base.host = stk_head_host(&r->head);
}

/*
 * asgi_loop(host, head, n, websocket=False): n requests of an asynchronous application; with
 * `websocket` one, and n messages on it. The last response, or the last message sent.
 */
static PyObject *fake_do_asgi_loop(PyObject *module, PyObject *args)
{
    struct fake_asgi run = {.host_ops = stk_pyhost_ops(), .begin = fake_asgi_begin};
    struct fake_asgi_loop loop;
    PyObject *capsule;
    Py_ssize_t len;
    int websocket = 0;

    if (!PyArg_ParseTuple(args, "Oy#l|p", &capsule, &loop.head, &len, &run.n, &websocket))
        return NULL;
    loop.world = fake_world_of(capsule);
    if (!loop.world)
        return NULL;
    loop.len = (size_t)len;
    run.host = loop.world->host;
    run.arg = &loop;
    run.websocket = websocket != 0;
    fake_asgi_run(&run);
    return PyBytes_FromStringAndSize(run.last, (Py_ssize_t)run.last_len);
}

/* ---- the rest of the host ------------------------------------------------------------------ */

struct fake_run {
    struct fake_world *world;
    PyObject *callable;
};

static void fake_run_in_thread(void *arg, unsigned index, void *thread)
{
    struct fake_run *run = arg;
    PyObject *result;

    stk_pyhost_ops()->unlock(run->world->host, thread);
    stk_pyhost_ops()->lock(run->world->host, thread);
    result = PyObject_CallFunction(run->callable, "I", index);
    if (!result)
        PyErr_WriteUnraisable(run->callable);
    Py_XDECREF(result);
    stk_pyhost_ops()->check_signals(run->world->host, thread);
}

/* run(host, threads, callable): callable(index) on each thread of the engine. */
static PyObject *fake_do_run(PyObject *module, PyObject *args)
{
    struct fake_run run;
    PyObject *capsule;
    unsigned threads;

    if (!PyArg_ParseTuple(args, "OIO", &capsule, &threads, &run.callable))
        return NULL;
    run.world = fake_world_of(capsule);
    if (!run.world)
        return NULL;
    return PyLong_FromLong(
        stk_pyhost_ops()->run(run.world->host, threads, fake_run_in_thread, &run, NULL));
}

static PyObject *fake_source_files(PyObject *module, PyObject *capsule)
{
    struct fake_world *world = fake_world_of(capsule);
    char **files = world ? stk_pyhost_ops()->source_files(world->host) : NULL;
    PyObject *list = PyList_New(0);

    for (size_t i = 0; files && list && files[i]; i++) {
        PyObject *text = PyUnicode_DecodeFSDefault(files[i]);

        PyList_Append(list, text);
        Py_DECREF(text);
        free(files[i]);
    }
    free(files);
    return list;
}

static PyObject *fake_freeze(PyObject *module, PyObject *capsule)
{
    struct fake_world *world = fake_world_of(capsule);

    if (!world)
        return NULL;
    stk_pyhost_ops()->freeze(world->host);
    Py_RETURN_NONE;
}

static PyObject *fake_unload(PyObject *module, PyObject *capsule)
{
    struct fake_world *world = fake_world_of(capsule);

    if (!world)
        return NULL;
    stk_pyhost_ops()->unload(world->host);
    Py_RETURN_NONE;
}

/* log_to(path, debug=False) */
static PyObject *fake_log_to(PyObject *module, PyObject *args)
{
    const char *path;
    int debug = 0;

    if (!PyArg_ParseTuple(args, "s|p", &path, &debug))
        return NULL;
    stk_log_set_level(debug ? STK_LOG_DEBUG : STK_LOG_INFO);
    return PyLong_FromLong(stk_log_open(path));
}

#define FAKE_KW(fn) (PyCFunction)(void (*)(void))(fn), METH_VARARGS | METH_KEYWORDS

PyMethodDef stk_cli_methods[] = {
    {"host", fake_host, METH_NOARGS, "A new host."},
    {"load", FAKE_KW(fake_load), "load(host, target, pythonpath=(), threads=1)"},
    {"request", FAKE_KW(fake_do_request), "request(host, head, body=[], ...)"},
    {"loop", fake_do_loop, METH_VARARGS, "loop(host, head, n)"},
    {"startup", fake_startup, METH_O, "startup(host)"},
    {"asgi_loop", fake_do_asgi_loop, METH_VARARGS, "asgi_loop(host, head, n, websocket=False)"},
    {"run", fake_do_run, METH_VARARGS, "run(host, threads, callable)"},
    {"source_files", fake_source_files, METH_O, "source_files(host)"},
    {"freeze", fake_freeze, METH_O, "freeze(host)"},
    {"unload", fake_unload, METH_O, "unload(host)"},
    {"log_to", fake_log_to, METH_VARARGS, "log_to(path, debug=False)"},
    {NULL, NULL, 0, NULL},
};
