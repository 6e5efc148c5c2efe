/*
 * start_response(status, headers, exc_info=None) and the write() that it returns.
 *
 * The head is checked and handed to the server inside start_response, so that a mistake is reported
 * where it is made and no reference to the lists has to be kept; the server holds it back until the
 * first block (or the end), so it can still be replaced (exc_info). Both objects point to the call
 * on the C stack and are cut off it when it ends: an application that keeps them gets an exception,
 * not a use after free. An object that nobody kept serves the thread's next request.
 */
#include "pyhost/respond.h"

#include <errno.h>
#include <inttypes.h>
#include <poll.h>
#include <strings.h>

#include "base/log.h"
#include "pyhost/green.h"
#include "pyhost/guest.h"
#include "pyhost/head_cache.h"
#include "wire/http_status.h"

typedef struct {
    PyObject_HEAD
    vectorcallfunc vectorcall;
    struct stk_call *call;
} StkWriteObject;

typedef struct {
    PyObject_HEAD
    vectorcallfunc vectorcall;
    struct stk_call *call; /* NULL between requests */
    StkWriteObject *write; /* made on the first start_response */
} StkStartObject;

enum { SHOWN_MAX = 200 }; /* characters of an application's object shown in a message */

/* "int 200": the type and the beginning of the representation, for messages. Never fails. */
static PyObject *respond_describe(PyObject *obj)
{
    PyObject *repr = PyObject_Repr(obj);
    PyObject *text;

    if (!repr) {
        PyErr_Clear();
        return PyUnicode_FromString(Py_TYPE(obj)->tp_name);
    }
    text = PyUnicode_FromFormat("%s %.200U%s", Py_TYPE(obj)->tp_name, repr,
                                PyUnicode_GET_LENGTH(repr) > SHOWN_MAX ? "..." : "");
    Py_DECREF(repr);
    return text;
}

/* Raises `type` with a format that has one %U for the described object. */
static STK_COLD int respond_raise_got(PyObject *type, const char *format, PyObject *obj)
{
    PyObject *text = respond_describe(obj);

    if (text) {
        PyErr_Format(type, format, text);
        Py_DECREF(text);
    }
    return -1;
}

/* The response belongs to the thread and to the process that run the request. */
static inline bool respond_may_use(const struct stk_call *call, const char *who)
{
    if (stk_unlikely(PyThreadState_Get() != call->ts)) {
        PyErr_Format(PyExc_RuntimeError, "%s was called in another thread than its request's", who);
        return false;
    }
    if (stk_unlikely(stk_host_is_stray(call->host))) {
        PyErr_Format(PyExc_RuntimeError,
                     "%s was called in a forked process; the response belongs to its parent", who);
        return false;
    }
    return true;
}

int stk_respond_wait(struct stk_call *call, unsigned what)
{
    struct stk_request *req = call->req;
    struct stk_wait wait = {.fd = -1, .timeout = -1};
    struct pollfd pfd;
    int timeout;
    int r;

    if (call->green)
        return stk_green_wait(call, what);
    req->ops->wait_for(req, &wait);
    pfd = (struct pollfd){.fd = wait.fd, .events = wait.events};
    if (wait.timeout < 0)
        timeout = wait.fd < 0 ? 0 : -1; /* never sleep for ever on nothing */
    else
        timeout = wait.timeout > INT_MAX ? INT_MAX : (int)wait.timeout;
    Py_BEGIN_ALLOW_THREADS
    r = poll(&pfd, 1, timeout);
    Py_END_ALLOW_THREADS
    /* A failed poll other than EINTR cannot be waited out; the next call of the service decides. */
    return r < 0 && errno == EINTR ? PyErr_CheckSignals() : 0;
}

/* ---- the head ------------------------------------------------------------------------------ */

STK_COLD const char *stk_respond_field_fault(int error)
{
    switch (error) {
    case STK_RESPONSE_E_NAME:
        return "its name is not a token of RFC 9110 (letters, digits and !#$%&'*+-.^_`|~)";
    case STK_RESPONSE_E_VALUE:
        return "its value has a line break or another control character";
    case STK_RESPONSE_E_HOP_BY_HOP:
        return "it is hop-by-hop, which only the server may set (PEP 3333)";
    case STK_RESPONSE_E_LENGTH:
        return "its value is not a number, or differs from an earlier one";
    default:
        return "the server refuses it";
    }
}

static STK_COLD int respond_raise_server(int error, stk_span name)
{
    switch (error) {
    case STK_RESPONSE_E_STATUS:
        PyErr_Format(PyExc_ValueError,
                     "start_response: the status must be within 200..599 and its reason free of "
                     "control characters");
        return -1;
    case STK_RESPONSE_E_HEAD_SIZE:
        PyErr_Format(PyExc_ValueError, "start_response: the response head is over 64 KiB, with the "
                                       "fields that the server adds");
        return -1;
    case STK_RESPONSE_E_STARTED:
        PyErr_Format(PyExc_AssertionError, "start_response: the head has already been sent");
        return -1;
    default:
        break;
    }
    PyObject *shown = PyUnicode_DecodeLatin1(
        name.ptr, (Py_ssize_t)(name.len < SHOWN_MAX ? name.len : SHOWN_MAX), NULL);
    if (shown)
        PyErr_Format(PyExc_ValueError, "start_response: header %R: %s", shown,
                     stk_respond_field_fault(error));
    Py_XDECREF(shown);
    return -1;
}

/* Names the first character that latin-1 does not have. */
static STK_COLD int respond_raise_latin1(const char *what, PyObject *name, PyObject *text)
{
    for (Py_ssize_t i = 0; i < PyUnicode_GET_LENGTH(text); i++) {
        unsigned ch = (unsigned)PyUnicode_READ_CHAR(text, i);
        char shown[16];

        if (ch < 256)
            continue;
        snprintf(shown, sizeof(shown), "U+%04X", ch);
        if (name)
            PyErr_Format(PyExc_ValueError,
                         "start_response: %s of header %R has a character outside latin-1 (%s "
                         "at %zd); encode it first",
                         what, name, shown, i);
        else
            PyErr_Format(PyExc_ValueError,
                         "start_response: %s has a character outside latin-1 (%s at %zd); "
                         "encode it first",
                         what, shown, i);
        return -1;
    }
    PyErr_Format(PyExc_ValueError, "start_response: %s cannot be read", what);
    return -1;
}

static int respond_parse_status(PyObject *status, unsigned *ret_code, stk_span *ret_reason)
{
    const char *p;
    size_t len;

    if (!PyUnicode_Check(status))
        return respond_raise_got(
            PyExc_TypeError, "start_response: status must be a str like '200 OK', got %U", status);
    if (!stk_py_latin1(status, &p, &len))
        return respond_raise_latin1("the status", NULL, status);
    if (len < 3 || p[0] < '0' || p[0] > '9' || p[1] < '0' || p[1] > '9' || p[2] < '0' ||
        p[2] > '9' || (len > 3 && p[3] != ' '))
        return respond_raise_got(
            PyExc_ValueError,
            "start_response: status must be three digits, a space and a reason, like '200 OK', got "
            "%U",
            status);
    *ret_code = (unsigned)(p[0] - '0') * 100 + (unsigned)(p[1] - '0') * 10 + (unsigned)(p[2] - '0');
    *ret_reason = len > 4 ? stk_span_make(p + 4, len - 4) : stk_http_status_reason(*ret_code);
    return 0;
}

static int64_t respond_parse_length(const char *p, size_t len)
{
    int64_t n = 0;

    if (len == 0 || len > 18)
        return -1;
    for (size_t i = 0; i < len; i++) {
        if (p[i] < '0' || p[i] > '9')
            return -1;
        n = n * 10 + (p[i] - '0');
    }
    return n;
}

static STK_COLD int respond_raise_pair(PyObject *pair)
{
    static const char *const parts[] = {"name", "value"};

    if (!PyTuple_Check(pair) || PyTuple_GET_SIZE(pair) != 2)
        return respond_raise_got(PyExc_TypeError,
                                 "start_response: each header must be a (str, str) tuple, got %U",
                                 pair);
    for (Py_ssize_t i = 0; i < 2; i++) {
        PyObject *part = PyTuple_GET_ITEM(pair, i);
        PyObject *text;

        if (PyUnicode_Check(part))
            continue;
        text = respond_describe(part);
        if (text)
            PyErr_Format(PyExc_TypeError,
                         "start_response: the %s of header %R must be a str, got %U", parts[i],
                         PyTuple_GET_ITEM(pair, 0), text);
        Py_XDECREF(text);
        return -1;
    }
    return 0;
}

static int respond_add_field(struct stk_call *call, PyObject *pair)
{
    struct stk_request *req = call->req;
    PyObject *name;
    PyObject *value;
    stk_span n;
    stk_span v;
    int r;

    if (stk_unlikely(!PyTuple_Check(pair) || PyTuple_GET_SIZE(pair) != 2))
        return respond_raise_pair(pair);
    name = PyTuple_GET_ITEM(pair, 0);
    value = PyTuple_GET_ITEM(pair, 1);
    if (stk_unlikely(!PyUnicode_Check(name) || !PyUnicode_Check(value)))
        return respond_raise_pair(pair);
    if (stk_unlikely(!stk_py_latin1(name, &n.ptr, &n.len)))
        return respond_raise_latin1("the name", name, name);
    if (stk_unlikely(!stk_py_latin1(value, &v.ptr, &v.len)))
        return respond_raise_latin1("the value", name, value);
    r = req->ops->header(req, n, v);
    if (stk_unlikely(r != 0))
        return r == STK_RESPONSE_E_HOP_BY_HOP && stk_guest_forgives(call->host, n.ptr, n.len)
                   ? 0
                   : respond_raise_server(r, n);
    if (n.len == 14 && (n.ptr[0] | 0x20) == 'c' && strncasecmp(n.ptr, "content-length", 14) == 0)
        call->length = respond_parse_length(v.ptr, v.len);
    return 0;
}

/* No list: but a status that is wrong as well is told first. */
static STK_COLD int respond_raise_list(PyObject *status, PyObject *headers)
{
    stk_span reason;
    unsigned code;

    if (respond_parse_status(status, &code, &reason) < 0)
        return -1;
    return respond_raise_got(PyExc_TypeError,
                             "start_response: headers must be a list of (str, str) tuples, got %U",
                             headers);
}

/* States a head that has not been stated by these objects before. */
static int respond_state(struct stk_call *call, PyObject *status, PyObject *headers)
{
    struct stk_request *req = call->req;
    unsigned code = 0;
    stk_span reason = {NULL, 0};
    int r;

    if (respond_parse_status(status, &code, &reason) < 0)
        return -1;
    r = req->ops->start(req, code, reason);
    if (r != 0)
        return respond_raise_server(r, stk_span_make("", 0));
    for (Py_ssize_t i = 0; i < PyList_GET_SIZE(headers); i++) {
        if (respond_add_field(call, PyList_GET_ITEM(headers, i)) < 0)
            return -1;
    }
    call->status = code;
    return 0;
}

static int respond_start(struct stk_call *call, PyObject *status, PyObject *headers)
{
    struct stk_head_entry *entry;
    bool found;

    call->started = false;
    call->length = -1;
    if (stk_unlikely(!PyList_Check(headers)))
        return respond_raise_list(status, headers);
    entry = stk_head_cache_find(call->app->heads, status, headers, &found);
    if (stk_likely(found && call->req->ops->head_load(call->req, &entry->head) == 0)) {
        call->length = entry->length;
        call->status = entry->head.status;
    } else {
        if (respond_state(call, status, headers) < 0)
            return -1;
        if (entry && !found)
            stk_head_cache_put(entry, call, status, headers);
    }
    call->started = true;
    return 0;
}

/* ---- start_response ------------------------------------------------------------------------ */

/* PEP 3333: once the head has been sent, the exception that exc_info carries goes on its way. */
static STK_COLD int respond_reraise(PyObject *exc_info)
{
    PyObject *value;

    if (!PyTuple_Check(exc_info) || PyTuple_GET_SIZE(exc_info) != 3)
        return respond_raise_got(PyExc_TypeError,
                                 "start_response: exc_info must be the tuple of sys.exc_info(), "
                                 "got %U",
                                 exc_info);
    value = PyTuple_GET_ITEM(exc_info, 1);
    if (PyExceptionInstance_Check(value)) {
        PyObject *tb = PyTuple_GET_ITEM(exc_info, 2);

        if (PyTraceBack_Check(tb) && PyException_SetTraceback(value, tb) < 0)
            return -1;
        stk_py_raise_taken(stk_py_newref(value));
        return -1;
    }
    PyErr_SetString(PyExc_AssertionError,
                    "start_response: the head has already been sent, it cannot be replaced");
    return -1;
}

static int respond_call_start(StkStartObject *self, PyObject *status, PyObject *headers,
                              PyObject *exc_info)
{
    struct stk_call *call = self->call;

    if (!call) {
        PyErr_SetString(PyExc_RuntimeError,
                        "start_response was called after its request had ended");
        return -1;
    }
    if (!respond_may_use(call, "start_response"))
        return -1;
    if (exc_info && exc_info != Py_None) {
        if (call->wrote || call->req->ops->is_committed(call->req))
            return respond_reraise(exc_info);
    } else if (call->started) {
        if (call->taken) /* frameworks have a response behind a WebSocket as well */
            return 0;
        PyErr_SetString(PyExc_AssertionError,
                        "start_response was called a second time without exc_info");
        return -1;
    }
    return respond_start(call, status, headers);
}

/* Sorts positional and keyword arguments into status, headers, exc_info. */
static STK_COLD int respond_parse_args(PyObject *const *args, Py_ssize_t n, PyObject *kwnames,
                                       PyObject *ret_args[3])
{
    static const char *const names[] = {"status", "headers", "exc_info"};
    Py_ssize_t nkw = kwnames ? PyTuple_GET_SIZE(kwnames) : 0;

    for (Py_ssize_t i = 0; i < n && i < 3; i++)
        ret_args[i] = args[i];
    for (Py_ssize_t k = 0; k < nkw; k++) {
        PyObject *name = PyTuple_GET_ITEM(kwnames, k);
        size_t i = 0;

        while (i < 3 && PyUnicode_CompareWithASCIIString(name, names[i]) != 0)
            i++;
        if (i == 3 || ret_args[i]) {
            PyErr_Format(PyExc_TypeError, "start_response: unexpected keyword argument %R", name);
            return -1;
        }
        ret_args[i] = args[n + k];
    }
    if (n > 3 || !ret_args[0] || !ret_args[1]) {
        PyErr_Format(PyExc_TypeError,
                     "start_response(status, headers, exc_info=None) got %zd arguments", n + nkw);
        return -1;
    }
    return 0;
}

static PyObject *write_vectorcall(PyObject *op, PyObject *const *args, size_t nargsf,
                                  PyObject *kwnames);

static PyObject *start_vectorcall(PyObject *op, PyObject *const *args, size_t nargsf,
                                  PyObject *kwnames)
{
    StkStartObject *self = (StkStartObject *)op;
    Py_ssize_t n = PyVectorcall_NARGS(nargsf);
    PyObject *sorted[3] = {NULL, NULL, NULL};

    if (stk_likely(n == 2 && !kwnames)) {
        sorted[0] = args[0];
        sorted[1] = args[1];
    } else if (respond_parse_args(args, n, kwnames, sorted) < 0) {
        return NULL;
    }
    if (respond_call_start(self, sorted[0], sorted[1], sorted[2]) < 0)
        return NULL;
    if (!self->write) {
        struct stk_state *st = (struct stk_state *)PyType_GetModuleState(Py_TYPE(op));

        self->write = PyObject_New(StkWriteObject, st->write_type);
        if (!self->write)
            return NULL;
        self->write->vectorcall = write_vectorcall;
        self->write->call = self->call;
    }
    return stk_py_newref((PyObject *)self->write);
}

static void start_dealloc(PyObject *op)
{
    StkStartObject *self = (StkStartObject *)op;
    PyTypeObject *type = Py_TYPE(op);

    if (self->write)
        self->write->call = NULL;
    Py_XDECREF(self->write);
    PyObject_Free(op);
    Py_DECREF(type);
}

PyObject *stk_respond_acquire(struct stk_pythread *thread, struct stk_call *call)
{
    StkStartObject *start = (StkStartObject *)thread->start;

    if (stk_likely(start != NULL)) {
        thread->start = NULL;
    } else {
        start = PyObject_New(StkStartObject, call->host->st->start_type);
        if (!start)
            return NULL;
        start->vectorcall = start_vectorcall;
        start->write = NULL;
    }
    start->call = call;
    if (start->write)
        start->write->call = call;
    return (PyObject *)start;
}

void stk_respond_release(struct stk_pythread *thread, PyObject *op)
{
    StkStartObject *start = (StkStartObject *)op;

    start->call = NULL;
    if (start->write) {
        start->write->call = NULL;
        if (Py_REFCNT(start->write) != 1)
            Py_CLEAR(start->write);
    }
    if (stk_likely(Py_REFCNT(op) == 1 && !thread->start))
        thread->start = op;
    else
        Py_DECREF(op);
}

void stk_respond_forget(struct stk_pythread *thread)
{
    Py_CLEAR(thread->start);
}

/* ---- sending ------------------------------------------------------------------------------- */

static STK_COLD int respond_too_long(struct stk_call *call)
{
    stk_span target = stk_head_target(call->req->head);

    if (!call->cut)
        stk_log_error("%.*s: the response is longer than its Content-Length of %" PRId64
                      "; the rest was cut off",
                      (int)(target.len < SHOWN_MAX ? target.len : SHOWN_MAX), target.ptr,
                      call->length);
    call->cut = true;
    return STK_RESPOND_STOP;
}

/* Turns what a service returned into a result of this file. */
static STK_COLD int respond_result(struct stk_call *call, int r)
{
    switch (r) {
    case STK_RESPONSE_E_TOO_LONG:
        return respond_too_long(call);
    case STK_RESPONSE_E_NOT_STARTED:
        PyErr_SetString(PyExc_AssertionError,
                        "a body was sent before start_response had been called");
        return -1;
    case -EPIPE:
    case -ECONNRESET:
    case -ECONNABORTED:
    case -ETIMEDOUT:
        call->gone = true;
        return STK_RESPOND_STOP;
    default:
        if (r > 0)
            return respond_raise_server(r, stk_span_make("", 0));
        errno = -r;
        PyErr_SetFromErrno(PyExc_OSError);
        return -1;
    }
}

static STK_COLD int respond_not_started(struct stk_call *call)
{
    if (call->gone)
        return STK_RESPOND_STOP;
    return respond_result(call, STK_RESPONSE_E_NOT_STARTED);
}

int stk_respond_relax(struct stk_call *call)
{
    return call->green ? stk_green_relax(call) : 0;
}

int stk_respond_write(struct stk_call *call, const char *data, size_t len, unsigned flags)
{
    struct stk_request *req = call->req;
    int r;

    if (stk_unlikely(!call->started || call->gone))
        return respond_not_started(call);
    for (;;) {
        r = req->ops->write(req, data, len, flags);
        if (r != -EAGAIN)
            break;
        if (stk_respond_wait(call, STK_WAKE_OUTPUT) < 0)
            return -1;
        req = call->req;
    }
    call->wrote = true;
    call->ended = (flags & STK_WRITE_END) != 0;
    call->sent += (int64_t)len;
    return stk_likely(r == 0) ? STK_RESPOND_SENT : respond_result(call, r);
}

int stk_respond_sendfile(struct stk_call *call, int fd, int64_t off, uint64_t len)
{
    struct stk_request *req = call->req;
    int r;

    if (!call->started || call->gone)
        return respond_not_started(call);
    for (;;) {
        r = req->ops->sendfile(req, fd, off, len, STK_WRITE_END);
        if (r != -EAGAIN)
            break;
        if (stk_respond_wait(call, STK_WAKE_OUTPUT) < 0)
            return -1;
        req = call->req;
    }
    call->wrote = true;
    call->ended = true;
    call->sent += (int64_t)len;
    return r == 0 ? STK_RESPOND_SENT : respond_result(call, r);
}

int stk_respond_add_length(struct stk_call *call, uint64_t length)
{
    struct stk_request *req = call->req;
    char text[24];
    int n;
    int r;

    if (!call->started || call->wrote || call->length >= 0 || call->status == 204 ||
        call->status == 304)
        return 0;
    n = snprintf(text, sizeof(text), "%" PRIu64, length);
    r = req->ops->header(req, STK_SPAN_LIT("Content-Length"), stk_span_make(text, (size_t)n));
    if (r != 0)
        return respond_raise_server(r, STK_SPAN_LIT("Content-Length"));
    call->length = (int64_t)length;
    return 0;
}

/* ---- write() ------------------------------------------------------------------------------- */

static PyObject *write_vectorcall(PyObject *op, PyObject *const *args, size_t nargsf,
                                  PyObject *kwnames)
{
    StkWriteObject *self = (StkWriteObject *)op;
    struct stk_call *call = self->call;
    int r;

    if (PyVectorcall_NARGS(nargsf) != 1 || (kwnames && PyTuple_GET_SIZE(kwnames) != 0)) {
        PyErr_SetString(PyExc_TypeError, "write(data) takes one argument, a bytes");
        return NULL;
    }
    if (!PyBytes_Check(args[0])) {
        respond_raise_got(PyExc_TypeError, "write(data): data must be bytes, got %U", args[0]);
        return NULL;
    }
    if (!call) {
        PyErr_SetString(PyExc_RuntimeError, "write() was called after its request had ended");
        return NULL;
    }
    if (!respond_may_use(call, "write()"))
        return NULL;
    if (PyBytes_GET_SIZE(args[0]) == 0)
        Py_RETURN_NONE;
    r = stk_respond_write(call, PyBytes_AS_STRING(args[0]), (size_t)PyBytes_GET_SIZE(args[0]),
                          STK_WRITE_FLUSH);
    if (r < 0 || (r == 0 && stk_respond_relax(call) < 0))
        return NULL;
    if (r == STK_RESPOND_STOP && call->gone) {
        stk_py_raise_errno(EPIPE, "write(): the client has left");
        return NULL;
    }
    Py_RETURN_NONE;
}

static void write_dealloc(PyObject *op)
{
    PyTypeObject *type = Py_TYPE(op);

    PyObject_Free(op);
    Py_DECREF(type);
}

/* ---- types --------------------------------------------------------------------------------- */

PyType_Spec *stk_respond_start_spec(void)
{
    static char doc[] =
        "start_response(status, headers, exc_info=None) of PEP 3333; returns write().";
    static PyMemberDef members[] = {
        {"__vectorcalloffset__", STK_PY_SSIZE_MEMBER, offsetof(StkStartObject, vectorcall),
         STK_PY_READONLY, NULL},
        {NULL, 0, 0, 0, NULL},
    };
    static PyType_Slot slots[] = {
        {Py_tp_dealloc, start_dealloc},
        {Py_tp_call, PyVectorcall_Call},
        {Py_tp_members, members},
        {Py_tp_doc, doc},
        {0, NULL},
    };
    static PyType_Spec spec = {
        .name = "stoker._core.start_response",
        .basicsize = sizeof(StkStartObject),
        .flags = Py_TPFLAGS_DEFAULT | Py_TPFLAGS_HAVE_VECTORCALL | STK_PY_TYPE_NO_NEW,
        .slots = slots,
    };

    return &spec;
}

PyType_Spec *stk_respond_write_spec(void)
{
    static char doc[] = "write(data) of PEP 3333: sends a block of the body at once.";
    static PyMemberDef members[] = {
        {"__vectorcalloffset__", STK_PY_SSIZE_MEMBER, offsetof(StkWriteObject, vectorcall),
         STK_PY_READONLY, NULL},
        {NULL, 0, 0, 0, NULL},
    };
    static PyType_Slot slots[] = {
        {Py_tp_dealloc, write_dealloc},
        {Py_tp_call, PyVectorcall_Call},
        {Py_tp_members, members},
        {Py_tp_doc, doc},
        {0, NULL},
    };
    static PyType_Spec spec = {
        .name = "stoker._core.write",
        .basicsize = sizeof(StkWriteObject),
        .flags = Py_TPFLAGS_DEFAULT | Py_TPFLAGS_HAVE_VECTORCALL | STK_PY_TYPE_NO_NEW,
        .slots = slots,
    };

    return &spec;
}
