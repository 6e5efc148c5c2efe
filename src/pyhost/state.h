/*
 * The state of the module stoker._core: its types and the interned names it uses. There is one per
 * module object. It holds no instance of a type: the garbage collector does not see that an
 * instance without references of its own holds its type, and with it the module, so that neither
 * would go.
 */
#pragma once

#include "pyhost/compat.h"

struct stk_pyhost;

/* Names: X(identifier, text). Interned, so that a dict finds them by their address. */
#define STK_STATE_NAMES(X)                                    \
    X(REQUEST_METHOD, "REQUEST_METHOD")                       \
    X(SCRIPT_NAME, "SCRIPT_NAME")                             \
    X(PATH_INFO, "PATH_INFO")                                 \
    X(QUERY_STRING, "QUERY_STRING")                           \
    X(REQUEST_URI, "REQUEST_URI")                             \
    X(RAW_URI, "RAW_URI")                                     \
    X(SERVER_NAME, "SERVER_NAME")                             \
    X(SERVER_PORT, "SERVER_PORT")                             \
    X(SERVER_PROTOCOL, "SERVER_PROTOCOL")                     \
    X(SERVER_SOFTWARE, "SERVER_SOFTWARE")                     \
    X(GATEWAY_INTERFACE, "GATEWAY_INTERFACE")                 \
    X(REQUEST_SCHEME, "REQUEST_SCHEME")                       \
    X(DOCUMENT_ROOT, "DOCUMENT_ROOT")                         \
    X(REMOTE_ADDR, "REMOTE_ADDR")                             \
    X(REMOTE_PORT, "REMOTE_PORT")                             \
    X(CONTENT_TYPE, "CONTENT_TYPE")                           \
    X(CONTENT_LENGTH, "CONTENT_LENGTH")                       \
    X(HTTPS, "HTTPS")                                         \
    X(HTTP_HOST, "HTTP_HOST")                                 \
    X(HTTP_COOKIE, "HTTP_COOKIE")                             \
    X(wsgi_version, "wsgi.version")                           \
    X(wsgi_url_scheme, "wsgi.url_scheme")                     \
    X(wsgi_input, "wsgi.input")                               \
    X(wsgi_errors, "wsgi.errors")                             \
    X(wsgi_multithread, "wsgi.multithread")                   \
    X(wsgi_multiprocess, "wsgi.multiprocess")                 \
    X(wsgi_run_once, "wsgi.run_once")                         \
    X(wsgi_file_wrapper, "wsgi.file_wrapper")                 \
    X(wsgi_input_terminated, "wsgi.input_terminated")         \
    X(stoker_version, "stoker.version")                       \
    X(stoker_disconnected, "stoker.disconnected")             \
    X(stoker_set_timeout, "stoker.set_timeout")               \
    X(GET, "GET")                                             \
    X(HTTP_1_0, "HTTP/1.0")                                   \
    X(HTTP_1_1, "HTTP/1.1")                                   \
    X(EMPTY, "")                                              \
    X(SLASH, "/")                                             \
    X(COMMA, ", ")                                            \
    X(SEMICOLON, "; ")                                        \
    X(close, "close")                                         \
    X(read, "read")                                           \
    X(tell, "tell")                                           \
    X(flush, "flush")                                         \
    X(fileno, "fileno")                                       \
    X(file, "file")                                           \
    X(exc_info, "exc_info")                                   \
    X(status, "status")                                       \
    X(headers, "headers")                                     \
    X(s_type, "type")                                         \
    X(s_http, "http")                                         \
    X(s_asgi, "asgi")                                         \
    X(s_method, "method")                                     \
    X(s_scheme, "scheme")                                     \
    X(s_path, "path")                                         \
    X(s_raw_path, "raw_path")                                 \
    X(s_query_string, "query_string")                         \
    X(s_root_path, "root_path")                               \
    X(s_client, "client")                                     \
    X(s_server, "server")                                     \
    X(s_state, "state")                                       \
    X(s_tls, "tls")                                           \
    X(s_extensions, "extensions")                             \
    X(s_body, "body")                                         \
    X(s_more_body, "more_body")                               \
    X(s_trailers, "trailers")                                 \
    X(s_more_trailers, "more_trailers")                       \
    X(s_links, "links")                                       \
    X(s_offset, "offset")                                     \
    X(s_count, "count")                                       \
    X(s_add_done_callback, "add_done_callback")               \
    X(s_set_result, "set_result")                             \
    X(s_done, "done")                                         \
    X(s_cancel, "cancel")                                     \
    X(s_throw, "throw")                                       \
    X(s_loop, "loop")                                         \
    X(s_name, "name")                                         \
    X(s_context, "context")                                   \
    X(s_eager_start, "eager_start")                           \
    X(s_get_name, "get_name")                                 \
    X(s_cancelling, "cancelling")                             \
    X(s_uncancel, "uncancel")                                 \
    X(s__callbacks, "_callbacks")                             \
    X(s__must_cancel, "_must_cancel")                         \
    X(s__asyncio_future_blocking, "_asyncio_future_blocking") \
    X(s_http_version, "http_version")                         \
    X(s_call_soon, "call_soon")                               \
    X(http_request, "http.request")                           \
    X(http_disconnect, "http.disconnect")                     \
    X(websocket, "websocket")                                 \
    X(ws, "ws")                                               \
    X(wss, "wss")                                             \
    X(s_subprotocols, "subprotocols")                         \
    X(s_subprotocol, "subprotocol")                           \
    X(s_text, "text")                                         \
    X(s_bytes, "bytes")                                       \
    X(s_code, "code")                                         \
    X(s_reason, "reason")                                     \
    X(websocket_connect, "websocket.connect")                 \
    X(websocket_receive, "websocket.receive")                 \
    X(websocket_disconnect, "websocket.disconnect")           \
    X(one_zero, "1.0")                                        \
    X(one_one, "1.1")

enum stk_state_name {
#define X(id, text) STK_NAME_##id,
    STK_STATE_NAMES(X)
#undef X
        STK_NAME_COUNT
};

struct stk_state {
    PyTypeObject *input_type;
    PyTypeObject *errors_type;
    PyTypeObject *file_wrapper_type;
    PyTypeObject *start_type;
    PyTypeObject *write_type;
    PyTypeObject *receive_type; /* of ASGI, as the next four: asgi*.c */
    PyTypeObject *send_type;
    PyTypeObject *wait_type;
    PyTypeObject *done_type;
    PyTypeObject *runner_type;
    PyObject *cancelled_type; /* exception classes: cancel.c */
    PyObject *timeout_type;
    PyObject *disconnected_type;
    struct stk_pyhost *host; /* of this process; NULL: there is none, or no more */
    PyObject *names[STK_NAME_COUNT];
};

/* The state of the module that stk_core_def made. */
struct stk_state *stk_state_of(PyObject *module);
/* An interned name, borrowed. */
static inline PyObject *stk_state_name(const struct stk_state *st, enum stk_state_name id)
{
    return st->names[id];
}
