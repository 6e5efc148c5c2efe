/*
 * ASGI by the book: what an application costs that a bare server starts by asyncio's own means.
 *
 * A module for Python 3.12 and newer: one level-triggered epoll set that asyncio watches as a
 * descriptor, one recv() and one send() for each request, and each request an
 * asyncio.Task(eager_start=True), whose first step runs at once. There is no parser but a look for
 * the path, a scope is a copy of one template, and a response is what start and body say. So it is
 * the cheapest that a server can be which gives each request a task (and with it a context) of its
 * own; a server that is below it has found something better.
 *
 * It understands what wrk sends and no more: a request has to come in one piece and to have no
 * body, and a response goes out in one piece. Where something else happens it closes.
 *
 *     eager_limit.start(app, loop, task_type, receive, port)
 */
#define PY_SSIZE_T_CLEAN
#include <Python.h>

#include <errno.h>
#include <netinet/in.h>
#include <netinet/tcp.h>
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <string.h>
#include <sys/epoll.h>
#include <sys/socket.h>
#include <unistd.h>

#define MAX_FDS    65536
#define MAX_EVENTS 512
#define READ_SIZE  65536
#define HEAD_SIZE  4096

/* send(), and the connection that it sends on. */
typedef struct {
    PyObject_HEAD
    vectorcallfunc vectorcall;
    int fd;
    size_t head; /* bytes of the head that waits for the body */
    char out[HEAD_SIZE];
} Connection;

struct limit {
    int epoll_fd, listen_fd;
    PyObject *app, *receive, *task_type, *loop, *template, *done;
    PyObject *names; /* ("loop", "eager_start") */
    PyObject *type, *start, *status, *headers, *body, *path;
    Connection *conns[MAX_FDS]; /* by descriptor */
    char input[READ_SIZE];
};

static struct limit limit;

/* ---- what send() returns: an awaitable that has finished ----------------------------------- */

static PyObject *done_self(PyObject *op)
{
    return Py_NewRef(op);
}

static PyObject *done_next(PyObject *op)
{
    (void)op;
    return NULL;
}

static PySendResult done_am_send(PyObject *op, PyObject *arg, PyObject **result)
{
    (void)op;
    (void)arg;
    *result = Py_NewRef(Py_None);
    return PYGEN_RETURN;
}

static PyAsyncMethods done_async = {.am_await = done_self, .am_send = done_am_send};
static PyTypeObject done_type = {
    PyVarObject_HEAD_INIT(NULL, 0).tp_name = "eager_limit.done",
    .tp_basicsize = sizeof(PyObject),
    .tp_flags = Py_TPFLAGS_DEFAULT,
    .tp_as_async = &done_async,
    .tp_iter = done_self,
    .tp_iternext = done_next,
};

/* ---- send() -------------------------------------------------------------------------------- */

static int append(Connection *conn, const char *text, size_t size)
{
    if (size > sizeof(conn->out) - conn->head) {
        PyErr_SetString(PyExc_ValueError, "the response is too large");
        return -1;
    }
    memcpy(conn->out + conn->head, text, size);
    conn->head += size;
    return 0;
}

static int append_bytes(Connection *conn, PyObject *bytes)
{
    if (bytes == NULL || !PyBytes_Check(bytes)) {
        PyErr_SetString(PyExc_TypeError, "bytes are missing");
        return -1;
    }
    return append(conn, PyBytes_AS_STRING(bytes), (size_t)PyBytes_GET_SIZE(bytes));
}

static int send_start(Connection *conn, PyObject *message)
{
    PyObject *status = PyDict_GetItemWithError(message, limit.status);
    PyObject *headers = PyDict_GetItemWithError(message, limit.headers);
    char line[64];
    int size = 0;

    if (status == NULL || headers == NULL || !PyList_Check(headers)) {
        PyErr_SetString(PyExc_TypeError, "status or headers are missing");
        return -1;
    }
    size = snprintf(line, sizeof(line), "HTTP/1.1 %ld OK\r\n", PyLong_AsLong(status));
    conn->head = 0;
    if (size < 0 || append(conn, line, (size_t)size) < 0) {
        return -1;
    }
    for (Py_ssize_t i = 0; i < PyList_GET_SIZE(headers); i++) {
        PyObject *pair = PyList_GET_ITEM(headers, i);

        if (!PyTuple_Check(pair) || PyTuple_GET_SIZE(pair) != 2) {
            PyErr_SetString(PyExc_TypeError, "a header is no pair");
            return -1;
        }
        if (append_bytes(conn, PyTuple_GET_ITEM(pair, 0)) < 0 || append(conn, ": ", 2) < 0 ||
            append_bytes(conn, PyTuple_GET_ITEM(pair, 1)) < 0 || append(conn, "\r\n", 2) < 0) {
            return -1;
        }
    }
    return append(conn, "\r\n", 2);
}

static int send_body(Connection *conn, PyObject *message)
{
    if (append_bytes(conn, PyDict_GetItemWithError(message, limit.body)) < 0) {
        return -1;
    }
    if (send(conn->fd, conn->out, conn->head, MSG_NOSIGNAL | MSG_DONTWAIT) != (ssize_t)conn->head) {
        PyErr_SetString(PyExc_OSError, "the socket does not take the response");
        return -1;
    }
    conn->head = 0;
    return 0;
}

static PyObject *connection_call(PyObject *op, PyObject *const *args, size_t nargsf,
                                 PyObject *kwnames)
{
    Connection *conn = (Connection *)op;
    PyObject *type = NULL;
    int r = 0;

    if (PyVectorcall_NARGS(nargsf) != 1 || kwnames != NULL || !PyDict_Check(args[0])) {
        PyErr_SetString(PyExc_TypeError, "send() takes a dict");
        return NULL;
    }
    type = PyDict_GetItemWithError(args[0], limit.type);
    if (type == NULL || !PyUnicode_Check(type)) {
        PyErr_SetString(PyExc_TypeError, "the message has no type");
        return NULL;
    }
    r = PyUnicode_Compare(type, limit.start) == 0 ? send_start(conn, args[0])
                                                  : send_body(conn, args[0]);
    return r < 0 ? NULL : Py_NewRef(limit.done);
}

static void connection_dealloc(PyObject *op)
{
    PyObject_Free(op);
}

static PyTypeObject connection_type = {
    PyVarObject_HEAD_INIT(NULL, 0).tp_name = "eager_limit.send",
    .tp_basicsize = sizeof(Connection),
    .tp_flags = Py_TPFLAGS_DEFAULT | Py_TPFLAGS_HAVE_VECTORCALL,
    .tp_vectorcall_offset = offsetof(Connection, vectorcall),
    .tp_call = PyVectorcall_Call,
    .tp_dealloc = connection_dealloc,
};

/* ---- requests ------------------------------------------------------------------------------ */

static void watch(int fd, int operation)
{
    struct epoll_event event = {.events = EPOLLIN, .data.fd = fd};

    if (epoll_ctl(limit.epoll_fd, operation, fd, &event) != 0) {
        perror("epoll_ctl");
    }
}

static void drop(int fd)
{
    PyErr_Clear();
    close(fd);
    Py_CLEAR(limit.conns[fd]);
}

/* The scope of a request: a copy of the template, with its path. */
static PyObject *make_scope(const char *data, size_t size)
{
    const char *begin = memchr(data, ' ', size);
    const char *end =
        begin != NULL ? memchr(begin + 1, ' ', size - (size_t)(begin + 1 - data)) : NULL;
    PyObject *path = NULL;
    PyObject *scope = NULL;

    if (end == NULL) {
        PyErr_SetString(PyExc_ValueError, "no request line");
        return NULL;
    }
    path = PyUnicode_DecodeLatin1(begin + 1, end - begin - 1, NULL);
    scope = path != NULL ? PyDict_Copy(limit.template) : NULL;
    if (scope != NULL && PyDict_SetItem(scope, limit.path, path) < 0) {
        Py_CLEAR(scope);
    }
    Py_XDECREF(path);
    return scope;
}

/* One recv and a task; false when the connection is to be closed. */
static bool serve(int fd)
{
    ssize_t size = recv(fd, limit.input, sizeof(limit.input), 0);
    PyObject *send = (PyObject *)limit.conns[fd];
    PyObject *scope = NULL;
    PyObject *coro = NULL;
    PyObject *task = NULL;

    if (size <= 0) {
        return size < 0 && (errno == EAGAIN || errno == EINTR);
    }
    if (size < 4 || memcmp(limit.input + size - 4, "\r\n\r\n", 4) != 0) {
        return false;
    }
    scope = make_scope(limit.input, (size_t)size);
    if (scope != NULL) {
        PyObject *args[] = {NULL, scope, limit.receive, send};

        coro = PyObject_Vectorcall(limit.app, args + 1, 3 | PY_VECTORCALL_ARGUMENTS_OFFSET, NULL);
    }
    if (coro != NULL) {
        PyObject *args[] = {NULL, coro, limit.loop, Py_True};

        task = PyObject_Vectorcall(limit.task_type, args + 1, 1 | PY_VECTORCALL_ARGUMENTS_OFFSET,
                                   limit.names);
    }
    Py_XDECREF(scope);
    Py_XDECREF(coro);
    Py_XDECREF(task); /* one that waits is held by what it waits for */
    return task != NULL;
}

static void accept_all(void)
{
    for (;;) {
        int fd = accept4(limit.listen_fd, NULL, NULL, SOCK_NONBLOCK | SOCK_CLOEXEC);

        if (fd < 0) {
            return;
        }
        if (fd >= MAX_FDS) {
            close(fd);
            continue;
        }
        limit.conns[fd] = PyObject_New(Connection, &connection_type);
        if (limit.conns[fd] == NULL) {
            PyErr_Clear();
            close(fd);
            continue;
        }
        limit.conns[fd]->vectorcall = connection_call;
        limit.conns[fd]->fd = fd;
        limit.conns[fd]->head = 0;
        watch(fd, EPOLL_CTL_ADD);
    }
}

/* What the event loop calls when the epoll set is readable. */
static PyObject *turn(PyObject *self, PyObject *unused)
{
    struct epoll_event events[MAX_EVENTS];
    int ready = epoll_wait(limit.epoll_fd, events, MAX_EVENTS, 0);

    (void)self;
    (void)unused;
    for (int i = 0; i < ready; i++) {
        int fd = events[i].data.fd;

        if (fd == limit.listen_fd) {
            accept_all();
        } else if (!serve(fd)) {
            if (PyErr_Occurred()) {
                PyErr_Print();
            }
            drop(fd);
        }
    }
    Py_RETURN_NONE;
}

/* ---- set-up -------------------------------------------------------------------------------- */

static int listen_on(uint16_t port)
{
    int fd = socket(AF_INET, SOCK_STREAM | SOCK_NONBLOCK | SOCK_CLOEXEC, 0);
    int on = 1;
    struct sockaddr_in address = {
        .sin_family = AF_INET, .sin_port = htons(port), .sin_addr.s_addr = htonl(INADDR_LOOPBACK)};

    if (fd < 0 || setsockopt(fd, SOL_SOCKET, SO_REUSEADDR, &on, sizeof(on)) != 0 ||
        setsockopt(fd, IPPROTO_TCP, TCP_NODELAY, &on, sizeof(on)) != 0 ||
        bind(fd, (const struct sockaddr *)&address, sizeof(address)) != 0 ||
        listen(fd, 4096) != 0) {
        PyErr_SetFromErrno(PyExc_OSError);
        return -1;
    }
    return fd;
}

/* What the scope of a request without header fields that anybody asks for looks like. */
static PyObject *make_template(void)
{
    return Py_BuildValue("{s:s,s:{s:s,s:s},s:s,s:s,s:s,s:s,s:y,s:s,s:y,s:[],s:(si),s:(si)}", "type",
                         "http", "asgi", "version", "3.0", "spec_version", "2.5", "http_version",
                         "1.1", "method", "GET", "scheme", "http", "root_path", "", "raw_path", "/",
                         "path", "/", "query_string", "", "headers", "client", "127.0.0.1", 0,
                         "server", "127.0.0.1", 0);
}

static PyMethodDef turn_def = {"turn", turn, METH_NOARGS, NULL};

/* start(app, loop, task_type, receive, port): the epoll set, and what is to be called for it. */
static PyObject *start(PyObject *self, PyObject *args)
{
    unsigned short port = 0;

    (void)self;
    if (!PyArg_ParseTuple(args, "OOOOH", &limit.app, &limit.loop, &limit.task_type, &limit.receive,
                          &port) ||
        (limit.listen_fd = listen_on(port)) < 0) {
        return NULL;
    }
    limit.epoll_fd = epoll_create1(EPOLL_CLOEXEC);
    limit.template = make_template();
    limit.names = Py_BuildValue("(ss)", "loop", "eager_start");
    limit.type = PyUnicode_InternFromString("type");
    limit.start = PyUnicode_InternFromString("http.response.start");
    limit.status = PyUnicode_InternFromString("status");
    limit.headers = PyUnicode_InternFromString("headers");
    limit.body = PyUnicode_InternFromString("body");
    limit.path = PyUnicode_InternFromString("path");
    limit.done = (PyObject *)PyObject_New(PyObject, &done_type);
    if (limit.epoll_fd < 0 || PyErr_Occurred()) {
        return NULL;
    }
    Py_INCREF(limit.app);
    Py_INCREF(limit.loop);
    Py_INCREF(limit.task_type);
    Py_INCREF(limit.receive);
    watch(limit.listen_fd, EPOLL_CTL_ADD);
    return Py_BuildValue("(iN)", limit.epoll_fd, PyCFunction_New(&turn_def, NULL));
}

static PyMethodDef methods[] = {{"start", start, METH_VARARGS, NULL}, {NULL, NULL, 0, NULL}};
static struct PyModuleDef module = {
    PyModuleDef_HEAD_INIT,
    .m_name = "eager_limit",
    .m_size = -1,
    .m_methods = methods,
};

PyMODINIT_FUNC PyInit_eager_limit(void);
PyMODINIT_FUNC PyInit_eager_limit(void)
{
    if (PyType_Ready(&done_type) < 0 || PyType_Ready(&connection_type) < 0) {
        return NULL;
    }
    return PyModule_Create(&module);
}
