/*
 * Reporting exceptions: one message of the error log each, with the title first, then the
 * traceback as Python itself would print it (chained exceptions, notes and groups included), by the
 * module `traceback`. Where even that fails (no memory, a broken __str__), the name of the type.
 */
#include "pyhost/report.h"

#include <string.h>

#include "base/mem.h"
#include "pyhost/cancel.h"
#include "pyhost/green.h"
#include "pyhost/outcast.h"

enum { REPORT_TARGET_MAX = 256 };

#define REPORT_FROZEN "  File \"<frozen importlib"

/* Takes the frames of the import system out of a list of lines: they say nothing to its reader. */
static int report_cut_frames(PyObject *lines)
{
    for (Py_ssize_t i = PyList_GET_SIZE(lines) - 1; i >= 0; i--) {
        const char *line = PyUnicode_AsUTF8(PyList_GET_ITEM(lines, i));

        if (!line)
            PyErr_Clear(); /* lone surrogates in a path: not a frame of ours */
        else if (strncmp(line, REPORT_FROZEN, sizeof REPORT_FROZEN - 1) == 0 &&
                 PyList_SetSlice(lines, i, i + 1, NULL) < 0)
            return -1;
    }
    return 0;
}

/* The text of the traceback as UTF-8 bytes, or NULL without an exception. */
static PyObject *report_format(PyObject *exc)
{
    PyObject *tb = PyException_GetTraceback(exc);
    PyObject *module = PyImport_ImportModule("traceback");
    PyObject *lines = NULL;
    PyObject *empty = NULL;
    PyObject *text = NULL;
    PyObject *bytes = NULL;

    if (module)
        lines = PyObject_CallMethod(module, "format_exception", "OOO", (PyObject *)Py_TYPE(exc),
                                    exc, tb ? tb : Py_None);
    if (lines && PyList_Check(lines) && report_cut_frames(lines) == 0)
        empty = PyUnicode_FromString("");
    if (empty)
        text = PyUnicode_Join(empty, lines);
    if (text)
        bytes = PyUnicode_AsEncodedString(text, "utf-8", "backslashreplace");
    Py_XDECREF(tb);
    Py_XDECREF(module);
    Py_XDECREF(lines);
    Py_XDECREF(empty);
    Py_XDECREF(text);
    if (!bytes)
        PyErr_Clear();
    return bytes;
}

static void report_log(enum stk_log_level level, const char *title, PyObject *exc)
{
    PyObject *bytes = report_format(exc);
    const char *text = bytes ? PyBytes_AS_STRING(bytes) : Py_TYPE(exc)->tp_name;
    size_t len = bytes ? (size_t)PyBytes_GET_SIZE(bytes) : strlen(text);
    size_t title_len = strlen(title);
    char *message;

    while (len > 0 && text[len - 1] == '\n')
        len--;
    message = stk_try_alloc(title_len + 2 + len);
    if (message) {
        memcpy(message, title, title_len);
        memcpy(message + title_len, ":\n", 2);
        memcpy(message + title_len + 2, text, len);
        stk_log_bytes(level, message, title_len + 2 + len);
        free(message);
    } else {
        stk_log(level, "%s: %s", title, Py_TYPE(exc)->tp_name);
    }
    Py_XDECREF(bytes);
}

void stk_report_exception(enum stk_log_level level, const char *title)
{
    PyObject *exc = stk_py_take_exception();

    if (!exc)
        return;
    report_log(level, title, exc);
    Py_DECREF(exc);
}

/* Whether the exception says no more than that the client has left or was too slow. */
static bool report_is_noise(const struct stk_call *call, PyObject *exc)
{
    if (!call->gone && !call->input_failed)
        return false;
    return PyErr_GivenExceptionMatches(exc, PyExc_ConnectionError) ||
           PyErr_GivenExceptionMatches(exc, PyExc_TimeoutError);
}

void stk_report_request(const struct stk_call *call, const char *what)
{
    const struct stk_head *head = call->req->head;
    stk_span method = stk_head_method(head);
    stk_span target = stk_head_target(head);
    PyObject *exc = stk_py_take_exception();
    char title[REPORT_TARGET_MAX + 256];

    if (!exc)
        return;
    snprintf(title, sizeof(title), "%.*s %.*s%s: %s", (int)(method.len < 32 ? method.len : 32),
             method.ptr, (int)(target.len < REPORT_TARGET_MAX ? target.len : REPORT_TARGET_MAX),
             target.ptr, target.len > REPORT_TARGET_MAX ? "..." : "", what);
    if (stk_cancel_is_own(call, exc)) {
        stk_log_debug("%s: cancelled", title); /* the server has told, with the stack */
    } else if (call->green && stk_green_is_exit(call, exc)) {
        stk_log(call->gone ? STK_LOG_DEBUG : STK_LOG_WARNING, "%s: its greenlet was killed", title);
    } else if (report_is_noise(call, exc)) {
        stk_log_debug("%s: the client has left", title);
    } else {
        report_log(STK_LOG_ERROR, title, exc);
        stk_outcast_check(call->host, exc);
    }
    Py_DECREF(exc);
}
