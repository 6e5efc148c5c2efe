/*
 * The compiler of access-log formats; access_line.c runs what it makes.
 *
 * A format becomes operations of a piece of text and a value each. Lines are bounded by PIPE_BUF,
 * and a line that was cut must still end well (JSON must stay valid), so each operation knows how
 * many bytes those after it need at least; a value may use what is left beyond that.
 */
#include "serve/access_format.h"

#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "base/mem.h"
#include "serve/access_escape.h"
#include "serve/access_format_priv.h"
#include "serve/server.h"
#include "wire/http1.h"

#define FORMAT_COMMON   "{addr} - {user} [{time}] \"{request}\" {status} {bytes}"
#define FORMAT_COMBINED FORMAT_COMMON " \"{referer}\" \"{agent}\""
#define FORMAT_JSON                                                                             \
    "time_iso,addr,user,method,target,protocol,scheme,host,status,bytes,time_us,referer,agent," \
    "worker,pid,id"

static const struct {
    const char *name;
    enum access_kind kind;
} format_fields[] = {
#define X(id, name, kind, help) [ACCESS_##id] = {name, ACCESS_KIND_##kind},
    STK_ACCESS_FIELDS(X)
#undef X
#define X(id, prefix, kind, help) [ACCESS_##id] = {prefix ":NAME", ACCESS_KIND_##kind},
        STK_ACCESS_FAMILIES(X)
#undef X
};

/* The least room, in bytes, that a value of a kind needs; plain numbers never exceed it. */
static const uint8_t format_least[] = {
    [ACCESS_KIND_NONE] = 0,    [ACCESS_KIND_STRING] = 5, /* "..." in quotes */
    [ACCESS_KIND_NUMBER] = 20, [ACCESS_KIND_SECONDS] = 24, [ACCESS_KIND_CLF] = 34,
    [ACCESS_KIND_ISO] = 34,    [ACCESS_KIND_REQUEST] = 24, /* "... ... HTTP/1.1" in quotes */
    [ACCESS_KIND_TEXT] = 5,    [ACCESS_KIND_COUNT] = 20,
};

struct format_builder {
    struct stk_access_format *f;
    char *error;
    size_t literal; /* where the text before the next value begins in the pool */
};

#define format_fail(b, ...) \
    (snprintf((b)->error, STK_ACCESS_ERROR_MAX, "access-log-format: " __VA_ARGS__), -EINVAL)

/* Edit distance of two short names, bounded by 255; names over 31 bytes are far from all others. */
static unsigned format_distance(const char *a, size_t alen, const char *b)
{
    unsigned row[32];
    size_t blen = strlen(b);

    if (blen >= STK_ARRAY_LEN(row) || alen >= STK_ARRAY_LEN(row))
        return 255;
    for (unsigned j = 0; j <= blen; j++)
        row[j] = j;
    for (size_t i = 1; i <= alen; i++) {
        unsigned corner = row[0];

        row[0] = (unsigned)i;
        for (size_t j = 1; j <= blen; j++) {
            unsigned best = corner + (a[i - 1] != b[j - 1]);

            corner = row[j];
            if (row[j] + 1 < best)
                best = row[j] + 1;
            if (row[j - 1] + 1 < best)
                best = row[j - 1] + 1;
            row[j] = best;
        }
    }
    return row[blen];
}

static int format_unknown(struct format_builder *b, const char *name, size_t len)
{
    unsigned best = 255, distance;
    const char *nearest = "";

    for (size_t i = 1; i < STK_ARRAY_LEN(format_fields); i++) {
        const char *field = format_fields[i].name;
        size_t family = i >= ACCESS_HEADER ? strlen(field) - strlen("NAME") : 0;

        distance = format_distance(name, len, field);
        if (family > 0) { /* its name without the parameter */
            char prefix[32];

            snprintf(prefix, sizeof prefix, "%.*s", (int)family, field);
            distance = format_distance(name, len < family ? len : family, prefix);
        }
        if (distance < best) {
            best = distance;
            nearest = field;
        }
    }
    if (best > 3 || best >= len)
        return format_fail(b, "no field \"%.*s\"", len < 64 ? (int)len : 64, name);
    return format_fail(b, "no field \"%.*s\"; did you mean \"%s\"?", len < 64 ? (int)len : 64, name,
                       nearest);
}

static void format_text(struct format_builder *b, const char *text, size_t len)
{
    memcpy(b->f->pool + b->f->pool_len, text, len);
    b->f->pool_len += len;
}

/* Whether a field tells a time by the clock more finely than in seconds, or one that is computed.
 */
static bool format_is_fine(enum access_field field)
{
    return field == ACCESS_TIME_ISO || field == ACCESS_UNIX_MS ||
           (field >= ACCESS_START && field <= ACCESS_START_US) || field == ACCESS_STRFTIME;
}

/* Ends an operation: the text since the last one, and this value after it. */
static struct access_op *format_op(struct format_builder *b, enum access_field field)
{
    struct access_op *op = &b->f->ops[b->f->nops++];

    op->field = (uint8_t)field;
    op->kind = (uint8_t)format_fields[field].kind;
    op->style = (uint8_t)(b->f->object           ? STK_ACCESS_JSON
                          : field == ACCESS_USER ? STK_ACCESS_WORD
                                                 : STK_ACCESS_TEXT);
    op->text = stk_span_make(b->f->pool + b->literal, b->f->pool_len - b->literal);
    b->literal = b->f->pool_len;
    b->f->fine |= format_is_fine(field);
    b->f->counts |=
        field == ACCESS_HEAD_BYTES || field == ACCESS_TOTAL_BYTES || field == ACCESS_HEADERS;
    return op;
}

static int format_header(struct format_builder *b, const char *name, size_t len)
{
    stk_span span = stk_span_make(name, len);
    struct access_op *op;

    if (!stk_http1_is_token(span))
        return format_fail(b, "\"%.*s\" cannot be the name of a header", len < 64 ? (int)len : 64,
                           name);
    op = format_op(b, ACCESS_HEADER);
    op->known = (uint8_t)stk_http1_known_field(span);
    op->hash = stk_http1_field_hash(span);
    op->name = span;
    return 0;
}

/* A field of a family; 0, a negative errno, or 1: it is none. */
static int format_family(struct format_builder *b, const char *name, size_t len)
{
    for (unsigned i = ACCESS_HEADER; i < STK_ARRAY_LEN(format_fields); i++) {
        size_t prefix = strlen(format_fields[i].name) - strlen("NAME");

        if (len <= prefix || memcmp(name, format_fields[i].name, prefix) != 0)
            continue;
        name += prefix;
        len -= prefix;
        if (i == ACCESS_HEADER)
            return format_header(b, name, len);
        if (len > ACCESS_PARAMETER_MAX)
            return format_fail(b, "\"%.64s\" is too long for a parameter", name);
        for (size_t j = 0; b->f->json && j < len; j++)
            if (name[j] == '"' || name[j] == '\\')
                return format_fail(b, "\"%.*s\" cannot be a key of JSON", (int)len, name);
        format_op(b, (enum access_field)i)->name = stk_span_make(name, len);
        return 0;
    }
    return 1;
}

static int format_field(struct format_builder *b, const char *name, size_t len)
{
    int r = format_family(b, name, len);

    if (r <= 0)
        return r;
    for (unsigned i = 1; i < ACCESS_HEADER; i++) {
        if (stk_span_eq(stk_span_make(name, len), stk_span_str(format_fields[i].name))) {
            format_op(b, (enum access_field)i);
            return 0;
        }
    }
    return format_unknown(b, name, len);
}

/* Whether what a template makes is meant to be an object of JSON. */
static bool format_is_object(const char *text)
{
    size_t len = strlen(text);

    return len > 4 && memcmp(text, "{{", 2) == 0 && memcmp(text + len - 2, "}}", 2) == 0;
}

static int format_template(struct format_builder *b, const char *text)
{
    b->f->object = format_is_object(text);
    while (*text != '\0') {
        size_t plain = strcspn(text, "{}");
        const char *end;
        int r;

        format_text(b, text, plain);
        text += plain;
        if (*text == '\0')
            break;
        if (text[1] == text[0]) {
            format_text(b, text, 1);
            text += 2;
            continue;
        }
        end = *text == '{' ? strchr(text, '}') : NULL;
        if (end == NULL)
            return format_fail(b, "a lone \"%c\"; write \"%c%c\" for the character itself", *text,
                               *text, *text);
        r = format_field(b, text + 1, (size_t)(end - text - 1));
        if (r < 0)
            return r;
        text = end + 1;
    }
    return 0;
}

static int format_json(struct format_builder *b, const char *names)
{
    const char *before = "{\"";

    for (;;) {
        size_t len = strcspn(names, ",");
        int r;

        format_text(b, before, strlen(before));
        format_text(b, names, len);
        format_text(b, "\":", 2);
        r = format_field(b, names, len);
        if (r < 0)
            return r;
        if (names[len] == '\0')
            break;
        names += len + 1;
        before = ",\"";
    }
    format_text(b, "}", 1);
    return 0;
}

/* Whether a field has the same text for requests with the same head, client, status and size, in
 * the same second. */
static bool format_is_alike(enum access_field field)
{
    switch (field) {
    case ACCESS_PORT:
    case ACCESS_TIME_ISO:
    case ACCESS_UNIX_MS:
    case ACCESS_TIME_US:
    case ACCESS_TIME_MS:
    case ACCESS_TIME_S:
    case ACCESS_HOST:
    case ACCESS_SCHEME:
    case ACCESS_ID:
    case ACCESS_PID:
        return false;
    default:
        return format_fields[field].kind != ACCESS_KIND_TEXT &&
               format_fields[field].kind != ACCESS_KIND_COUNT;
    }
}

static void format_find_runs(struct format_builder *b)
{
    unsigned run = 0;

    for (size_t i = b->f->nops; i-- > 0;) {
        run = format_is_alike((enum access_field)b->f->ops[i].field) ? run + (run < 255) : 0;
        b->f->ops[i].run = (uint8_t)run;
    }
}

/* How many bytes each operation must leave to what follows it. */
static int format_reserve(struct format_builder *b)
{
    size_t after = ACCESS_SLACK;

    b->f->least = ACCESS_SLACK;
    for (size_t i = b->f->nops; i-- > 0;) {
        struct access_op *op = &b->f->ops[i];

        op->reserve = (uint16_t)after;
        after += op->text.len + format_least[op->kind];
        b->f->least += format_least[op->kind];
        if (after > STK_LOG_LINE_MAX)
            return format_fail(b, "too long, a line has at most %d bytes",
                               STK_LOG_LINE_MAX - ACCESS_SLACK);
    }
    return 0;
}

static int format_compile(struct format_builder *b, const char *text)
{
    bool constant = strncmp(text, "text:", 5) == 0;
    int r;

    for (const char *p = text; *p != '\0'; p++)
        if ((unsigned char)*p < 0x20 && *p != '\t')
            return format_fail(b, "control characters cannot stand in a format");
    if (strcmp(text, "combined") == 0)
        r = format_template(b, FORMAT_COMBINED);
    else if (strcmp(text, "common") == 0)
        r = format_template(b, FORMAT_COMMON);
    else if (strncmp(text, "json:", 5) == 0)
        r = format_json(b, text + 5);
    else if (strcmp(text, "json") == 0)
        r = format_json(b, FORMAT_JSON);
    else
        r = format_template(b, constant ? text + 5 : text);
    if (r < 0)
        return r;
    if (b->f->nops == 0 && !constant)
        return format_fail(b, "\"%.64s\" is not combined, common or json, nor has it a {field}",
                           text);
    format_text(b, "\n", 1);
    format_op(b, ACCESS_NONE);
    format_find_runs(b);
    return format_reserve(b);
}

int stk_access_format_new(struct stk_access_format **ret_format, const char *text, unsigned worker,
                          char error[STK_ACCESS_ERROR_MAX])
{
    struct stk_access_format *f = stk_new0(struct stk_access_format);
    struct format_builder b = {.f = f, .error = error};
    size_t len = strlen(text) + sizeof FORMAT_COMBINED + sizeof FORMAT_JSON;
    int r;

    /* A field takes two characters at least, and gets four more in JSON. */
    f->ops = stk_new0_array(struct access_op, len);
    f->pool = stk_mem_zalloc(4 * len + ACCESS_SLACK);
    f->json = strcmp(text, "json") == 0 || strncmp(text, "json:", 5) == 0;
    f->worker = worker;
    f->pid = getpid();
    f->source = stk_mem_strdup(text);
    r = format_compile(&b, f->source);
    if (r < 0) {
        stk_access_format_free(f);
        return r;
    }
    *ret_format = f;
    return 0;
}

struct stk_access_format *stk_access_format_free(struct stk_access_format *format)
{
    if (format != NULL) {
        free(format->ops);
        free(format->pool);
        free(format->source);
        free(format);
    }
    return NULL;
}

void stk_access_format_after_fork(struct stk_access_format *format)
{
    format->pid = getpid();
}

void stk_access_format_serve(struct stk_access_format *format, struct stk_server *server)
{
    format->server = server;
    server->counts_heads |= format->counts;
    server->response_rules |= format->counts;
}

bool stk_access_format_is_fine(const struct stk_access_format *format)
{
    return format->fine;
}
