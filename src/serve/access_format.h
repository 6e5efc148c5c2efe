/*
 * Formats of the access log, compiled once into a list of operations.
 *
 *   combined   {addr} - {user} [{time}] "{request}" {status} {bytes} "{referer}" "{agent}"
 *   common     the same without referer and agent
 *   json       one object a line with all useful fields
 *   json:A,B   one object with the fields A and B, such as json:time_iso,status,header:x-request-id
 *   otherwise  a template: text with {field} in it; {{ and }} stand for braces
 *   {{...}}    such a template is an object of JSON: values are escaped as its strings are
 *   text:...   a template that need not have a field
 *
 * The fields are the rows of STK_ACCESS_FIELDS, and those of STK_ACCESS_FAMILIES with a parameter:
 * {header:NAME} is a field of the request (the last, if there are several). A value that is missing
 * or empty is "-"; in JSON, null when it is missing. Client bytes are escaped
 * (serve/access_escape.h). A value has at most STK_ACCESS_VALUE_MAX bytes and a line at most
 * STK_LOG_LINE_MAX (less 16); what is cut ends in
 * "...".
 */
#pragma once

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "app/request.h"
#include "base/log_sink.h"
#include "base/macros.h"
#include "base/time.h"

enum {
    STK_ACCESS_VALUE_MAX = 2048,
    STK_ACCESS_ERROR_MAX = 256, /* bytes of a message of stk_access_format_new */
};

/* X(id, name, kind, help) */
#define STK_ACCESS_FIELDS(X)                                                                     \
    X(ADDR, "addr", STRING, "address of the client, - for a unix socket")                        \
    X(PORT, "port", NUMBER, "port of the client")                                                \
    X(USER, "user", STRING, "user name of Basic authentication, not verified")                   \
    X(TIME, "time", CLF, "local time of the entry, as in 23/Nov/2026:03:10:00 +0100")            \
    X(TIME_ISO, "time_iso", ISO, "local time of the entry, as in 2026-11-23T03:10:00.123+01:00") \
    X(UNIX, "unix", NUMBER, "time of the entry in seconds since 1970")                           \
    X(UNIX_MS, "unix_ms", NUMBER, "time of the entry in milliseconds since 1970")                \
    X(REQUEST, "request", REQUEST, "request line: method, target, protocol")                     \
    X(METHOD, "method", STRING, "method")                                                        \
    X(TARGET, "target", STRING, "request target as it was sent")                                 \
    X(PATH, "path", STRING, "path, not decoded, without the query")                              \
    X(QUERY, "query", STRING, "query, without the question mark")                                \
    X(PROTOCOL, "protocol", STRING, "protocol, as in HTTP/1.1")                                  \
    X(STATUS, "status", NUMBER, "status of the response")                                        \
    X(BYTES, "bytes", NUMBER, "bytes of the response body")                                      \
    X(TIME_US, "time_us", NUMBER, "time taken, in microseconds")                                 \
    X(TIME_MS, "time_ms", NUMBER, "time taken, in milliseconds")                                 \
    X(TIME_S, "time_s", SECONDS, "time taken, in seconds with six decimals")                     \
    X(REFERER, "referer", STRING, "Referer")                                                     \
    X(AGENT, "agent", STRING, "User-Agent")                                                      \
    X(HOST, "host", STRING, "Host, or what a trusted proxy says of it")                          \
    X(SCHEME, "scheme", STRING, "http or https")                                                 \
    X(ID, "id", NUMBER, "number of the request within its worker")                               \
    X(PID, "pid", NUMBER, "process id of the worker")                                            \
    X(WORKER, "worker", NUMBER, "number of the worker, from 1")                                  \
    X(THREAD, "thread", COUNT, "number of the thread within its worker, from 0")                 \
    X(START, "start", TEXT, "local time of the request's start, written as time")                \
    X(START_UNIX, "start_unix", COUNT, "its start in seconds since 1970")                        \
    X(START_MS, "start_ms", COUNT, "its start in milliseconds since 1970")                       \
    X(START_US, "start_us", COUNT, "its start in microseconds since 1970")                       \
    X(HEAD_BYTES, "head_bytes", COUNT, "bytes of the response head")                             \
    X(TOTAL_BYTES, "total_bytes", COUNT, "bytes of the response head and body")                  \
    X(HEADERS, "headers", COUNT, "number of fields in the response head")                        \
    X(LENGTH, "length", COUNT, "bytes of the request body that the client announced")            \
    X(REQUEST_BYTES, "request_bytes", COUNT, "bytes of the request head")                        \
    X(VARS, "vars", COUNT, "number of CGI variables that describe the request")                  \
    X(RSS, "rss", COUNT, "resident memory of the worker in bytes, a second old at most")         \
    X(VSZ, "vsz", COUNT, "its address space in bytes")                                           \
    X(RSS_MB, "rss_mb", COUNT, "its resident memory in MiB")                                     \
    X(VSZ_MB, "vsz_mb", COUNT, "its address space in MiB")                                       \
    X(READ_ERRORS, "read_errors", COUNT, "1 where the request body broke off")                   \
    X(WRITE_ERRORS, "write_errors", COUNT, "1 where the response could not be sent")             \
    X(IO_ERRORS, "io_errors", COUNT, "the sum of both")

/* X(id, prefix, kind, help): fields with a parameter behind a colon. */
#define STK_ACCESS_FAMILIES(X)                                                                \
    X(HEADER, "header", STRING, "a field of the request's head")                              \
    X(VAR, "var", TEXT, "a CGI variable, as HTTP_HOST, SERVER_PORT or what a front end sent") \
    X(LOGVAR, "logvar", TEXT, "what the application has set by uwsgi.set_logvar")             \
    X(METRIC, "metric", COUNT, "a metric that uWSGI's configuration names")                   \
    X(STRFTIME, "strftime", TEXT, "local time of the request's start, as strftime writes it")

/*
 * What a thread keeps of its last line, for requests that differ in nothing but their times: a
 * client, or a front end, sends the same head again and again. Begins zeroed.
 */
enum {
    STK_ACCESS_MEMO_TEXT = 1024, /* longer lines are made each time */
    STK_ACCESS_MEMO_RUNS = 8,
};

struct stk_access_memo {
    uint64_t seen;   /* serial of the last head */
    uint64_t serial; /* of the head that the line was made of; 0: it is not kept */
    int64_t second;
    uint64_t body_bytes;
    unsigned status;
    unsigned nruns;
    uint16_t ends[STK_ACCESS_MEMO_RUNS]; /* of the pieces in text */
    struct stk_peer peer;
    char text[STK_ACCESS_MEMO_TEXT];
};

/* What a line is made of. */
struct stk_access_entry {
    const struct stk_request *req; /* its head may be NULL: the request was not understood */
    uint64_t body_bytes;           /* of the response, sent */
    stk_nsec duration;
    struct stk_access_memo *memo; /* of the thread; or NULL */
};

struct stk_access_format;
struct stk_server;

/*
 * Compiles a format for worker number `worker` and this process. 0 and *ret_format, or -EINVAL and
 * a message in `error`, such as `access-log-format: no field "adr"; did you mean "addr"?`.
 */
int stk_access_format_new(struct stk_access_format **ret_format, const char *text, unsigned worker,
                          char error[STK_ACCESS_ERROR_MAX]) STK_MUST_CHECK;
/* Accepts NULL; returns NULL. */
struct stk_access_format *stk_access_format_free(struct stk_access_format *format);
/* In a forked child: {pid} is this process from now on. */
void stk_access_format_after_fork(struct stk_access_format *format);
/* The server whose requests are logged; before the first line. Without one, what only the server
 * knows of a request is 0 or missing. */
void stk_access_format_serve(struct stk_access_format *format, struct stk_server *server);
/* Whether the format shows the time of the entry more finely than in seconds. */
bool stk_access_format_is_fine(const struct stk_access_format *format);
/*
 * Writes the line of an entry made at `now` (nanoseconds since 1970), its new line included, and
 * returns its length. From any thread.
 */
size_t stk_access_format_line(struct stk_access_format *format,
                              const struct stk_access_entry *entry, stk_nsec now,
                              char out[STK_LOG_LINE_MAX]);
