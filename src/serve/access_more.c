/*
 * The fields of the access log that are not in every format: what only the server knows of a
 * request, CGI variables by name, what the application has set for the log, times of the
 * request's start, and the memory of the process.
 *
 * The bytes of a response head are counted only where a format shows them (serve/response.c has
 * one branch for all that looks at heads).
 */
#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "base/fd.h"
#include "base/log_date.h"
#include "serve/access_escape.h"
#include "serve/access_format.h"
#include "serve/access_format_priv.h"
#include "serve/body.h"
#include "serve/conn.h"
#include "serve/logvar.h"
#include "serve/request.h"
#include "serve/server.h"
#include "wire/uri.h"

enum {
    MORE_TEXT_MAX = 2048,
    /* What every request has besides its fields: REQUEST_METHOD, REQUEST_URI, PATH_INFO,
       QUERY_STRING, SERVER_PROTOCOL, SCRIPT_NAME, SERVER_NAME, SERVER_PORT, REMOTE_ADDR,
       REMOTE_PORT, REQUEST_SCHEME, GATEWAY_INTERFACE. */
    MORE_VARS = 12,
};

/* A value as text: a span, and room for one that has to be made. */
struct more {
    const struct access_op *op;
    const struct stk_request *req;
    const struct stk_serve_request *rq; /* NULL: the server is not known */
    struct stk_server *server;
    int64_t start; /* nanoseconds since 1970 */
    char buf[MORE_TEXT_MAX];
};

/* Whether a field of HTTP is what the CGI variable HTTP_NAME tells. */
static bool more_is_field(stk_span field, const char *name, size_t len)
{
    if (field.len != len)
        return false;
    for (size_t i = 0; i < len; i++) {
        char c = field.ptr[i];

        c = c == '-' ? '_' : c >= 'a' && c <= 'z' ? (char)(c - 'a' + 'A') : c;
        if (c != name[i])
            return false;
    }
    return true;
}

/* The variable of a field, which is the last one of its name. */
static stk_span more_http(const struct stk_head *head, const char *name, size_t len)
{
    for (unsigned i = head->nfields; i-- > 0;)
        if (more_is_field(stk_head_field_name(head, &head->fields[i]), name, len))
            return stk_head_field_value(head, &head->fields[i]);
    return stk_span_make(NULL, 0);
}

static stk_span more_path(struct more *m)
{
    stk_span path = stk_head_path(m->req->head);

    if (!m->req->head->path_escaped || path.len > sizeof m->buf)
        return path;
    return stk_span_make(m->buf, stk_uri_unescape(m->buf, path));
}

static stk_span more_print(struct more *m, unsigned long long value)
{
    int n = snprintf(m->buf, sizeof m->buf, "%llu", value);

    return stk_span_make(m->buf, (size_t)n);
}

/* A variable that is made of the request itself; false: it is none of those. */
static bool more_own_var(struct more *m, stk_span *ret)
{
    const struct stk_request *req = m->req;
    const struct stk_head *head = req->head;
    stk_span name = m->op->name;

#define IS(lit) stk_span_eq(name, STK_SPAN_LIT(lit))
    if (IS("REQUEST_METHOD"))
        *ret = stk_head_method(head);
    else if (IS("REQUEST_URI"))
        *ret = stk_head_target(head);
    else if (IS("PATH_INFO"))
        *ret = more_path(m);
    else if (IS("QUERY_STRING"))
        *ret = stk_head_query(head);
    else if (IS("SCRIPT_NAME"))
        *ret = req->script_name;
    else if (IS("REQUEST_SCHEME"))
        *ret = req->scheme;
    else if (IS("HTTP_HOST"))
        *ret = req->host;
    else if (IS("REMOTE_ADDR"))
        *ret = stk_span_make(req->peer.addr, req->peer.addr_len);
    else if (IS("REMOTE_PORT"))
        *ret = more_print(m, req->peer.port);
    else if (IS("SERVER_NAME") && req->endpoint != NULL)
        *ret = req->endpoint->server_name;
    else if (IS("SERVER_PORT") && req->endpoint != NULL)
        *ret = req->endpoint->server_port;
    else if (IS("CONTENT_TYPE"))
        *ret = stk_head_known_value(head, STK_HEAD_CONTENT_TYPE);
    else if (IS("CONTENT_LENGTH"))
        *ret = stk_head_known_value(head, STK_HEAD_CONTENT_LENGTH);
    else
        return false;
#undef IS
    return true;
}

static stk_span more_var(struct more *m)
{
    const struct stk_request *req = m->req;
    stk_span name = m->op->name;
    stk_span found = stk_span_make(NULL, 0);

    if (req->head == NULL)
        return found;
    for (size_t i = 0; i < req->nvars; i++)
        if (stk_span_eq(req->vars[i].name, name))
            return req->vars[i].value;
    if (more_own_var(m, &found))
        return found;
    if (name.len > 5 && memcmp(name.ptr, "HTTP_", 5) == 0)
        return more_http(req->head, name.ptr + 5, name.len - 5);
    return found;
}

static stk_span more_date(struct more *m, const char *format)
{
    return stk_span_make(m->buf, stk_log_date(m->buf, 128, format, m->start / STK_NSEC_PER_SEC));
}

static stk_span more_text(struct more *m)
{
    char format[ACCESS_PARAMETER_MAX + 1];

    switch (m->op->field) {
    case ACCESS_START:
        return more_date(m, "%d/%b/%Y:%H:%M:%S %z");
    case ACCESS_STRFTIME:
        memcpy(format, m->op->name.ptr, m->op->name.len);
        format[m->op->name.len] = '\0';
        return more_date(m, format);
    case ACCESS_LOGVAR:
        if (m->server == NULL)
            return stk_span_make(NULL, 0);
        return stk_span_make(m->buf, stk_logvar_get(&m->server->logvars, m->req->id, m->op->name,
                                                    m->buf, sizeof m->buf));
    default:
        return more_var(m);
    }
}

/* Reads the memory of this process, once a second. */
static void more_memory(struct stk_access_format *f, int64_t second)
{
    STK_CLEANUP(stk_fd_closep) int fd = -1;
    unsigned long long pages[2] = {0, 0};
    uint64_t size = (uint64_t)sysconf(_SC_PAGESIZE);
    char text[128];
    ssize_t n;
    char *end;

    if (atomic_load_explicit(&f->memory_second, memory_order_relaxed) == second)
        return;
    fd = open("/proc/self/statm", O_RDONLY | O_CLOEXEC);
    n = fd >= 0 ? read(fd, text, sizeof text - 1) : 0;
    if (n <= 0)
        return;
    text[n] = '\0';
    pages[0] = strtoull(text, &end, 10);
    pages[1] = strtoull(end, NULL, 10);
    atomic_store_explicit(&f->vsz, pages[0] * size, memory_order_relaxed);
    atomic_store_explicit(&f->rss, pages[1] * size, memory_order_relaxed);
    atomic_store_explicit(&f->memory_second, second, memory_order_relaxed);
}

static uint64_t more_read_errors(const struct more *m)
{
    const char *text;

    return m->rq != NULL && m->rq->body != NULL && stk_body_fault(m->rq->body, &text) != 0;
}

static uint64_t more_write_errors(const struct more *m)
{
    return m->rq != NULL && (m->rq->gone || m->rq->truncated);
}

/* What is known of the connection's request alone. */
static uint64_t more_request(const struct more *m)
{
    const struct stk_head *head = m->req->head;

    switch (m->op->field) {
    case ACCESS_THREAD:
        return m->rq != NULL ? m->rq->t->lead_thread->index : 0;
    case ACCESS_HEAD_BYTES:
        return m->rq != NULL ? m->rq->head_bytes : 0;
    case ACCESS_HEADERS:
        return m->rq != NULL ? m->rq->head_fields : 0;
    case ACCESS_READ_ERRORS:
        return more_read_errors(m);
    case ACCESS_WRITE_ERRORS:
        return more_write_errors(m);
    case ACCESS_IO_ERRORS:
        return more_read_errors(m) + more_write_errors(m);
    case ACCESS_LENGTH:
        return head != NULL && head->has_content_length ? head->content_length : 0;
    case ACCESS_REQUEST_BYTES:
        return head != NULL ? head->len : 0;
    default: /* ACCESS_VARS */
        return head != NULL ? head->nfields + m->req->nvars + MORE_VARS : 0;
    }
}

/* A number that the application counts; 0 where there is none of that name, as in uWSGI. */
static uint64_t more_metric(const struct more *m)
{
    const struct stk_host_ops *ops = m->server != NULL ? m->server->host_ops : NULL;
    int64_t value = 0;

    if (ops == NULL || ops->metric == NULL || !ops->metric(m->server->host, m->op->name, &value) ||
        value < 0)
        return 0;
    return (uint64_t)value;
}

static uint64_t more_count(struct stk_access_format *f, const struct more *m, uint64_t body_bytes)
{
    switch (m->op->field) {
    case ACCESS_START_UNIX:
        return (uint64_t)(m->start / STK_NSEC_PER_SEC);
    case ACCESS_START_MS:
        return (uint64_t)(m->start / STK_NSEC_PER_MSEC);
    case ACCESS_START_US:
        return (uint64_t)(m->start / STK_NSEC_PER_USEC);
    case ACCESS_METRIC:
        return more_metric(m);
    case ACCESS_TOTAL_BYTES:
        return body_bytes + (m->rq != NULL ? m->rq->head_bytes : 0);
    case ACCESS_RSS:
        return atomic_load_explicit(&f->rss, memory_order_relaxed);
    case ACCESS_VSZ:
        return atomic_load_explicit(&f->vsz, memory_order_relaxed);
    case ACCESS_RSS_MB:
        return atomic_load_explicit(&f->rss, memory_order_relaxed) >> 20;
    case ACCESS_VSZ_MB:
        return atomic_load_explicit(&f->vsz, memory_order_relaxed) >> 20;
    default:
        return more_request(m);
    }
}

static char *more_digits(char *p, uint64_t value)
{
    char digits[20];
    size_t n = sizeof digits;

    do {
        digits[--n] = (char)('0' + value % 10);
        value /= 10;
    } while (value > 0);
    memcpy(p, digits + n, sizeof digits - n);
    return p + (sizeof digits - n);
}

char *stk_access_more(struct stk_access_format *f, const struct access_op *op,
                      const struct stk_access_entry *entry, stk_nsec now, char *p, char *limit)
{
    struct more m;
    stk_span value;

    m.op = op;
    m.req = entry->req;
    m.server = f->server;
    m.rq = f->server != NULL ? (const void *)entry->req : NULL; /* its first member */
    m.start = now - (entry->duration > 0 ? entry->duration : 0);
    if (op->kind == ACCESS_KIND_COUNT) {
        if (op->field >= ACCESS_RSS && op->field <= ACCESS_VSZ_MB)
            more_memory(f, now / STK_NSEC_PER_SEC);
        return more_digits(p, more_count(f, &m, entry->body_bytes));
    }
    value = more_text(&m);
    if (!f->json) {
        if (value.len > 0)
            return stk_access_escape(p, limit, value, (enum stk_access_style)op->style);
        *p++ = '-';
        return p;
    }
    if (value.ptr == NULL || (value.ptr == m.buf && value.len == 0)) {
        memcpy(p, "null", 4);
        return p + 4;
    }
    *p++ = '"';
    p = stk_access_escape(p, limit - 1, value, STK_ACCESS_JSON);
    *p++ = '"';
    return p;
}
