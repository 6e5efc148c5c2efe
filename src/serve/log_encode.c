/*
 * Encoders of log lines. They are uWSGI's, with one difference: a line is one line. There the bytes
 * of an encoded line are written as they are, so that `json` without `nl` runs all of them
 * together, and `suffix` writes behind the new line; here each ends with one new line, whatever the
 * encoders are.
 */
#include "serve/log_encode.h"

#include <errno.h>
#include <inttypes.h>
#include <stdbool.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "base/log_date.h"
#include "base/mem.h"
#include "serve/access_escape.h"

enum encode_kind {
    ENCODE_PREFIX,
    ENCODE_SUFFIX,
    ENCODE_NL,
    ENCODE_FORMAT,
    ENCODE_JSON,
};

enum { ENCODE_PARTS_MAX = 64, ENCODE_DATE_MAX = 128, ENCODE_NUMBER_MAX = 24 };

static const char *const encode_names[] = {
    [ENCODE_PREFIX] = "prefix", [ENCODE_SUFFIX] = "suffix", [ENCODE_NL] = "nl",
    [ENCODE_FORMAT] = "format", [ENCODE_JSON] = "json",
};

enum encode_variable {
    ENCODE_TEXT, /* none: the text as it is */
    ENCODE_MSG,
    ENCODE_UNIX,
    ENCODE_MILLIS,
    ENCODE_MICROS,
    ENCODE_STRFTIME,
};

struct encode_part {
    enum encode_variable variable;
    char *text;    /* of strftime: the format */
    size_t behind; /* bytes that what is behind it takes, with what values take at least */
};

struct stk_log_encoder {
    enum encode_kind kind;
    char *logger; /* NULL: all */
    char *argument;
    struct encode_part parts[ENCODE_PARTS_MAX];
    size_t nparts;
};

/* Where an encoded line grows. */
struct encode_out {
    char *at, *end;
};

static void encode_put(struct encode_out *out, stk_span text)
{
    size_t room = (size_t)(out->end - out->at);
    size_t len = text.len < room ? text.len : room;

    memcpy(out->at, text.ptr, len);
    out->at += len;
}

static void encode_put_number(struct encode_out *out, int64_t value)
{
    char text[24];
    int n = snprintf(text, sizeof text, "%" PRId64, value);

    encode_put(out, stk_span_make(text, (size_t)n));
}

/* Text that stands in a string of JSON, for that encoder: what is behind it must have room, or the
 * line would be no JSON. */
static void encode_put_value(struct encode_out *out, bool json, size_t behind, stk_span text)
{
    if (!json)
        encode_put(out, text);
    else if ((size_t)(out->end - out->at) >= behind + 3)
        out->at = stk_access_escape(out->at, out->end - behind, text, STK_ACCESS_JSON);
}

static int encode_refuse(char **ret_error, char *text)
{
    *ret_error = text;
    return -EINVAL;
}

/* ${NAME} */
static int encode_variable(struct stk_log_encoder *e, const char *name, size_t len,
                           char **ret_error)
{
    static const struct {
        const char *name;
        enum encode_variable variable;
    } known[] = {
        {"msg", ENCODE_MSG},       {"msgnl", ENCODE_MSG},     {"unix", ENCODE_UNIX},
        {"millis", ENCODE_MILLIS}, {"micros", ENCODE_MICROS},
    };
    struct encode_part *part = &e->parts[e->nparts];

    if (len > 9 && memcmp(name, "strftime:", 9) == 0) {
        part->variable = ENCODE_STRFTIME;
        part->text = stk_mem_strndup(name + 9, len - 9);
        e->nparts++;
        return 0;
    }
    for (size_t i = 0; i < STK_ARRAY_LEN(known); i++) {
        if (!stk_span_eq(stk_span_make(name, len), stk_span_str(known[i].name)))
            continue;
        part->variable = known[i].variable;
        e->nparts++;
        return 0;
    }
    return encode_refuse(ret_error,
                         stk_mem_printf("there is no ${%.*s}: ${msg}, ${unix}, ${millis}, "
                                        "${micros} and ${strftime:FORMAT} are there",
                                        len < 64 ? (int)len : 64, name));
}

static int encode_parse(struct stk_log_encoder *e, const char *text, char **ret_error)
{
    while (*text != '\0') {
        const char *open = strstr(text, "${");
        const char *close = open != NULL ? strchr(open, '}') : NULL;
        size_t len = close != NULL ? (size_t)(open - text) : strlen(text);
        int r;

        if (e->nparts + 2 > ENCODE_PARTS_MAX)
            return encode_refuse(ret_error, stk_mem_printf("more than %d parts", ENCODE_PARTS_MAX));
        if (len > 0)
            e->parts[e->nparts++].text = stk_mem_strndup(text, len);
        if (close == NULL)
            return 0;
        r = encode_variable(e, open + 2, (size_t)(close - open - 2), ret_error);
        if (r < 0)
            return r;
        text = close + 1;
    }
    return 0;
}

/* The room that each part leaves to what is behind it. */
static void encode_reserve(struct stk_log_encoder *e)
{
    size_t behind = 0;

    for (size_t i = e->nparts; i-- > 0;) {
        const struct encode_part *part = &e->parts[i];

        e->parts[i].behind = behind;
        behind += part->variable == ENCODE_TEXT       ? strlen(part->text)
                  : part->variable == ENCODE_STRFTIME ? ENCODE_DATE_MAX
                                                      : ENCODE_NUMBER_MAX;
    }
}

static int encode_kind(const char *name, size_t len, char **ret_error)
{
    for (size_t i = 0; i < STK_ARRAY_LEN(encode_names); i++)
        if (stk_span_eq(stk_span_make(name, len), stk_span_str(encode_names[i])))
            return (int)i;
    if (stk_span_eq(stk_span_make(name, len), STK_SPAN_LIT("gzip")) ||
        stk_span_eq(stk_span_make(name, len), STK_SPAN_LIT("compress")))
        return encode_refuse(ret_error, stk_mem_printf("%.*s makes a file that no tool reads while "
                                                       "it grows: compress it when it is rotated",
                                                       (int)len, name));
    return encode_refuse(ret_error,
                         stk_mem_printf("there is no encoder '%.*s': prefix, suffix, nl, "
                                        "format and json are there",
                                        len < 64 ? (int)len : 64, name));
}

int stk_log_encoder_new(struct stk_log_encoder **ret_encoder, const char *text, char **ret_error)
{
    struct stk_log_encoder *e;
    size_t len = strcspn(text, " ");
    size_t name = strcspn(text, " :");
    int kind = encode_kind(text, name, ret_error);
    int r = 0;

    if (kind < 0)
        return kind;
    e = stk_new0(struct stk_log_encoder);
    e->kind = (enum encode_kind)kind;
    if (name + 1 < len)
        e->logger = stk_mem_strndup(text + name + 1, len - name - 1);
    e->argument = stk_mem_strdup(text[len] == ' ' ? text + len + 1 : "");
    if (e->kind == ENCODE_FORMAT || e->kind == ENCODE_JSON)
        r = encode_parse(e, e->argument, ret_error);
    encode_reserve(e);
    if (r == 0 && strchr(e->argument, '\n') != NULL)
        r = encode_refuse(ret_error, stk_mem_strdup("a new line cannot stand in a line"));
    if (r < 0) {
        stk_log_encoder_free(e);
        return r;
    }
    *ret_encoder = e;
    return 0;
}

struct stk_log_encoder *stk_log_encoder_free(struct stk_log_encoder *e)
{
    if (e == NULL)
        return NULL;
    for (size_t i = 0; i < e->nparts; i++)
        free(e->parts[i].text);
    free(e->logger);
    free(e->argument);
    free(e);
    return NULL;
}

const char *stk_log_encoder_logger(const struct stk_log_encoder *e)
{
    return e->logger;
}

static void encode_part(const struct encode_part *part, bool json, stk_span line, int64_t micros,
                        struct encode_out *out)
{
    char date[ENCODE_DATE_MAX];

    switch (part->variable) {
    case ENCODE_TEXT:
        encode_put(out, stk_span_str(part->text));
        break;
    case ENCODE_MSG:
        encode_put_value(out, json, part->behind, line);
        break;
    case ENCODE_UNIX:
        encode_put_number(out, micros / 1000000);
        break;
    case ENCODE_MILLIS:
        encode_put_number(out, micros / 1000);
        break;
    case ENCODE_MICROS:
        encode_put_number(out, micros);
        break;
    case ENCODE_STRFTIME:
        encode_put_value(
            out, json, part->behind,
            stk_span_make(date, stk_log_date(date, sizeof date, part->text, micros / 1000000)));
        break;
    }
}

size_t stk_log_encode(const struct stk_log_encoder *e, stk_span line, int64_t micros, char *dst,
                      size_t size)
{
    struct encode_out out = {dst, dst + size};

    switch (e->kind) {
    case ENCODE_PREFIX:
        encode_put(&out, stk_span_str(e->argument));
        encode_put(&out, line);
        break;
    case ENCODE_SUFFIX:
        encode_put(&out, line);
        encode_put(&out, stk_span_str(e->argument));
        break;
    case ENCODE_NL:
        encode_put(&out, line);
        break;
    case ENCODE_FORMAT:
    case ENCODE_JSON:
        for (size_t i = 0; i < e->nparts; i++)
            encode_part(&e->parts[i], e->kind == ENCODE_JSON, line, micros, &out);
        break;
    }
    return (size_t)(out.at - dst);
}
