/*
 * JSON.
 *
 * The writer keeps one bit for each level (something is in it) and puts commas by that, so a caller
 * only says what there is. Running out of memory is remembered and told once, at the end. Numbers
 * are written by integer arithmetic: printf and strtod follow the locale, which an application may
 * have set.
 *
 * The reader is strict where being lax could mean two things (a name twice, NUL in a string, bytes
 * that are no UTF-8), and has no depth and no allocation to exhaust: one flat object, decoded in
 * place, which works because no escape is shorter than what it stands for.
 */
#include "base/json.h"

#include <errno.h>
#include <stdlib.h>
#include <string.h>

#include "base/assert.h"
#include "base/mem.h"
#include "base/utf8.h"

#define JSON_FIRST_SIZE 512
#define JSON_NUMBER_MAX 64

static const char json_hex[] = "0123456789abcdef";

/* The length of the UTF-8 character at the start, of more than one byte; 0: it is none. */
static size_t json_utf8_len(const char *text, size_t len)
{
    const unsigned char *p = (const unsigned char *)text;

    /* The controls U+0080 to U+009F, which are nothing to show but may be sent. */
    if (len >= 2 && p[0] == 0xc2 && p[1] >= 0x80 && p[1] <= 0x9f)
        return 2;
    return stk_utf8_wide_len(text, len);
}

/* --- writing --------------------------------------------------------------------------------- */

void stk_json_deinit(struct stk_json *j)
{
    free(j->text);
    *j = (struct stk_json){0};
}

int stk_json_end(struct stk_json *j, char **ret_text, size_t *ret_len)
{
    STK_ASSERT(j->depth == 0 && !j->named);
    if (j->failed || j->text == NULL) {
        stk_json_deinit(j);
        return -ENOMEM;
    }
    *ret_len = j->len;
    *ret_text = stk_steal(&j->text);
    stk_json_deinit(j);
    return 0;
}

/* Room for `len` bytes and a NUL; false when there is none. */
static bool json_reserve(struct stk_json *j, size_t len)
{
    size_t size = j->size > 0 ? j->size : JSON_FIRST_SIZE;
    char *text;

    if (j->failed)
        return false;
    if (len < j->size - j->len)
        return true;
    while (size - j->len <= len) {
        if (size > SIZE_MAX / 4) {
            j->failed = true;
            return false;
        }
        size *= 2;
    }
    text = stk_try_realloc(j->text, size);
    if (text == NULL) {
        j->failed = true;
        return false;
    }
    j->text = text;
    j->size = size;
    return true;
}

static void json_append(struct stk_json *j, const char *bytes, size_t len)
{
    if (!json_reserve(j, len))
        return;
    memcpy(j->text + j->len, bytes, len);
    j->len += len;
    j->text[j->len] = '\0';
}

static void json_char(struct stk_json *j, char c)
{
    json_append(j, &c, 1);
}

/* What stands in front of a value or a name. */
static void json_begin_value(struct stk_json *j)
{
    uint64_t bit = UINT64_C(1) << j->depth;

    if (j->named) {
        j->named = false;
        return;
    }
    STK_ASSERT(j->depth > 0 || (j->filled & bit) == 0); /* one value is a document */
    if ((j->filled & bit) != 0)
        json_char(j, ',');
    j->filled |= bit;
}

static void json_open(struct stk_json *j, char c)
{
    json_begin_value(j);
    STK_ASSERT(j->depth < STK_JSON_DEPTH);
    j->depth++;
    j->filled &= ~(UINT64_C(1) << j->depth);
    json_char(j, c);
}

static void json_close(struct stk_json *j, char c)
{
    STK_ASSERT(j->depth > 0 && !j->named);
    j->depth--;
    json_char(j, c);
}

void stk_json_object_begin(struct stk_json *j)
{
    json_open(j, '{');
}

void stk_json_object_end(struct stk_json *j)
{
    json_close(j, '}');
}

void stk_json_array_begin(struct stk_json *j)
{
    json_open(j, '[');
}

void stk_json_array_end(struct stk_json *j)
{
    json_close(j, ']');
}

static void json_escape(struct stk_json *j, unsigned char c)
{
    static const char letters[] = "\"\\\b\f\n\r\t";
    static const char escapes[] = "\"\\bfnrt";
    const char *at = memchr(letters, c, sizeof letters - 1);
    char text[6] = {'\\', 'u', '0', '0', json_hex[c >> 4], json_hex[c & 15]};

    if (at != NULL) {
        text[1] = escapes[at - letters];
        json_append(j, text, 2);
    } else {
        json_append(j, text, sizeof text);
    }
}

/* How many bytes of the next character are written as they are; 0: it needs something else. */
static size_t json_plain_len(const char *text, size_t len)
{
    unsigned char c = (unsigned char)text[0];

    if (c < 0x80)
        return c >= ' ' && c != '"' && c != '\\' && c != 0x7f;
    return stk_utf8_wide_len(text, len);
}

static void json_quote(struct stk_json *j, const char *text, size_t len)
{
    size_t start = 0, i = 0; /* what lies between them is written as it is */

    json_char(j, '"');
    while (i < len) {
        size_t n = json_plain_len(text + i, len - i);

        if (n > 0) {
            i += n;
            continue;
        }
        json_append(j, text + start, i - start);
        n = json_utf8_len(text + i, len - i);
        if (n > 0) /* U+0080 to U+009F: a terminal would obey them */
            json_escape(j, (unsigned char)text[i + 1]);
        else if ((unsigned char)text[i] < 0x80)
            json_escape(j, (unsigned char)text[i]);
        else
            json_append(j, "\xef\xbf\xbd", 3);
        i += n > 0 ? n : 1;
        start = i;
    }
    json_append(j, text + start, len - start);
    json_char(j, '"');
}

void stk_json_name(struct stk_json *j, const char *name)
{
    STK_ASSERT(!j->named && j->depth > 0);
    json_begin_value(j);
    json_quote(j, name, strlen(name));
    json_char(j, ':');
    j->named = true;
}

void stk_json_bytes(struct stk_json *j, const char *text, size_t len)
{
    json_begin_value(j);
    json_quote(j, text, len);
}

void stk_json_string(struct stk_json *j, const char *text)
{
    if (text == NULL)
        stk_json_null(j);
    else
        stk_json_bytes(j, text, strlen(text));
}

/* Digits, with a point before the last `decimals` of them. */
static void json_digits(struct stk_json *j, uint64_t value, bool negative, unsigned decimals)
{
    char buf[48];
    size_t at = sizeof buf;

    STK_ASSERT(decimals <= 18);
    for (unsigned n = 0; n < decimals; n++) {
        buf[--at] = (char)('0' + value % 10);
        value /= 10;
    }
    if (decimals > 0)
        buf[--at] = '.';
    do {
        buf[--at] = (char)('0' + value % 10);
        value /= 10;
    } while (value > 0);
    if (negative)
        buf[--at] = '-';
    json_append(j, buf + at, sizeof buf - at);
}

void stk_json_uint(struct stk_json *j, uint64_t value)
{
    json_begin_value(j);
    json_digits(j, value, false, 0);
}

void stk_json_int(struct stk_json *j, int64_t value)
{
    stk_json_fixed(j, value, 0);
}

void stk_json_fixed(struct stk_json *j, int64_t value, unsigned decimals)
{
    uint64_t positive = value < 0 ? -(uint64_t)value : (uint64_t)value;

    json_begin_value(j);
    json_digits(j, positive, value < 0, decimals);
}

void stk_json_bool(struct stk_json *j, bool value)
{
    json_begin_value(j);
    json_append(j, value ? "true" : "false", value ? 4 : 5);
}

void stk_json_null(struct stk_json *j)
{
    json_begin_value(j);
    json_append(j, "null", 4);
}

void stk_json_raw(struct stk_json *j, const char *text, size_t len)
{
    json_begin_value(j);
    json_append(j, text, len);
}

/* --- reading --------------------------------------------------------------------------------- */

struct json_reader {
    char *at;
    char *end;
};

static void json_skip_blanks(struct json_reader *r)
{
    while (r->at < r->end && (*r->at == ' ' || *r->at == '\t' || *r->at == '\n' || *r->at == '\r'))
        r->at++;
}

/* Takes the next character if it is this one. */
static bool json_take(struct json_reader *r, char c)
{
    if (r->at == r->end || *r->at != c)
        return false;
    r->at++;
    return true;
}

/* Four hexadecimal digits; -1: there are none. */
static int32_t json_read_hex(struct json_reader *r)
{
    int32_t value = 0;

    if (r->end - r->at < 4)
        return -1;
    for (int i = 0; i < 4; i++) {
        char c = *r->at++;

        if (c >= '0' && c <= '9')
            value = value * 16 + (c - '0');
        else if ((c | 0x20) >= 'a' && (c | 0x20) <= 'f')
            value = value * 16 + ((c | 0x20) - 'a' + 10);
        else
            return -1;
    }
    return value;
}

static char *json_put_utf8(char *out, int32_t c)
{
    if (c < 0x80) {
        *out++ = (char)c;
    } else if (c < 0x800) {
        *out++ = (char)(0xc0 | c >> 6);
        *out++ = (char)(0x80 | (c & 0x3f));
    } else if (c < 0x10000) {
        *out++ = (char)(0xe0 | c >> 12);
        *out++ = (char)(0x80 | (c >> 6 & 0x3f));
        *out++ = (char)(0x80 | (c & 0x3f));
    } else {
        *out++ = (char)(0xf0 | c >> 18);
        *out++ = (char)(0x80 | (c >> 12 & 0x3f));
        *out++ = (char)(0x80 | (c >> 6 & 0x3f));
        *out++ = (char)(0x80 | (c & 0x3f));
    }
    return out;
}

/* Behind "\u": a character, or two halves of one. NULL: neither, or NUL. */
static char *json_read_unicode(struct json_reader *r, char *out)
{
    int32_t c = json_read_hex(r);

    if (c <= 0 || (c >= 0xdc00 && c <= 0xdfff))
        return NULL;
    if (c >= 0xd800 && c <= 0xdbff) {
        int32_t low;

        if (!json_take(r, '\\') || !json_take(r, 'u'))
            return NULL;
        low = json_read_hex(r);
        if (low < 0xdc00 || low > 0xdfff)
            return NULL;
        c = 0x10000 + ((c - 0xd800) << 10) + (low - 0xdc00);
    }
    return json_put_utf8(out, c);
}

/* Behind a backslash. */
static char *json_read_escape(struct json_reader *r, char *out)
{
    static const char letters[] = "\"\\/bfnrt";
    static const char values[] = "\"\\/\b\f\n\r\t";
    const char *found;

    if (r->at == r->end)
        return NULL;
    if (*r->at == 'u') {
        r->at++;
        return json_read_unicode(r, out);
    }
    found = memchr(letters, *r->at, sizeof letters - 1);
    if (found == NULL)
        return NULL;
    r->at++;
    *out++ = values[found - letters];
    return out;
}

/* A string behind its first quote. The NUL takes the place of the last one, or of an earlier. */
static int json_read_string(struct json_reader *r, stk_span *ret_text)
{
    char *start = r->at, *out = r->at;

    while (r->at < r->end) {
        unsigned char c = (unsigned char)*r->at;
        size_t len = 1;

        if (c == '"') {
            r->at++;
            *out = '\0';
            *ret_text = stk_span_make(start, (size_t)(out - start));
            return 0;
        }
        if (c == '\\') {
            r->at++;
            out = json_read_escape(r, out);
            if (out == NULL)
                return STK_JSON_E_TEXT;
            continue;
        }
        if (c < ' ')
            return STK_JSON_E_TEXT;
        if (c >= 0x80)
            len = json_utf8_len(r->at, (size_t)(r->end - r->at));
        if (len == 0)
            return STK_JSON_E_TEXT;
        memmove(out, r->at, len);
        out += len;
        r->at += len;
    }
    return STK_JSON_E_SYNTAX;
}

static size_t json_take_digits(struct json_reader *r)
{
    const char *start = r->at;

    while (r->at < r->end && *r->at >= '0' && *r->at <= '9')
        r->at++;
    return (size_t)(r->at - start);
}

/* The value of digits, if it fits. */
static bool json_to_integer(stk_span text, int64_t *ret_value)
{
    bool negative = text.ptr[0] == '-';
    uint64_t limit = (uint64_t)INT64_MAX + (negative ? 1 : 0);
    uint64_t value = 0;

    for (size_t i = negative ? 1 : 0; i < text.len; i++) {
        unsigned digit = (unsigned)(text.ptr[i] - '0');

        if (value > (limit - digit) / 10)
            return false;
        value = value * 10 + digit;
    }
    *ret_value = (int64_t)(negative ? -value : value);
    return true;
}

static int json_read_number(struct json_reader *r, struct stk_json_field *field)
{
    const char *start = r->at;
    const char *first;
    bool whole = true;

    (void)json_take(r, '-');
    first = r->at;
    if (json_take_digits(r) == 0 || (*first == '0' && r->at - first > 1))
        return STK_JSON_E_NUMBER;
    if (json_take(r, '.')) {
        whole = false;
        if (json_take_digits(r) == 0)
            return STK_JSON_E_NUMBER;
    }
    if (json_take(r, 'e') || json_take(r, 'E')) {
        whole = false;
        if (!json_take(r, '+'))
            (void)json_take(r, '-');
        if (json_take_digits(r) == 0)
            return STK_JSON_E_NUMBER;
    }
    if (r->at - start > JSON_NUMBER_MAX)
        return STK_JSON_E_NUMBER;
    field->text = stk_span_make(start, (size_t)(r->at - start));
    field->kind =
        whole && json_to_integer(field->text, &field->integer) ? STK_JSON_INTEGER : STK_JSON_NUMBER;
    return 0;
}

static bool json_take_word(struct json_reader *r, const char *word)
{
    size_t len = strlen(word);

    if ((size_t)(r->end - r->at) < len || memcmp(r->at, word, len) != 0)
        return false;
    r->at += len;
    return true;
}

static int json_read_value(struct json_reader *r, struct stk_json_field *field)
{
    if (json_take(r, '"')) {
        field->kind = STK_JSON_STRING;
        return json_read_string(r, &field->text);
    }
    if (r->at < r->end && (*r->at == '{' || *r->at == '['))
        return STK_JSON_E_NESTED;
    if (r->at < r->end && (*r->at == '-' || (*r->at >= '0' && *r->at <= '9')))
        return json_read_number(r, field);
    field->boolean = json_take_word(r, "true");
    if (field->boolean || json_take_word(r, "false"))
        field->kind = STK_JSON_BOOL;
    else if (!json_take_word(r, "null"))
        return STK_JSON_E_SYNTAX;
    return 0;
}

/* A name and its value, with the blanks behind them. */
static int json_read_field(struct json_reader *r, struct stk_json_field *ret_field)
{
    struct stk_json_field field = {.kind = STK_JSON_NULL};
    int e;

    if (!json_take(r, '"'))
        return STK_JSON_E_SYNTAX;
    e = json_read_string(r, &field.name);
    if (e != 0)
        return e;
    json_skip_blanks(r);
    if (!json_take(r, ':'))
        return STK_JSON_E_SYNTAX;
    json_skip_blanks(r);
    e = json_read_value(r, &field);
    if (e != 0)
        return e;
    json_skip_blanks(r);
    *ret_field = field;
    return 0;
}

static bool json_has_name(const struct stk_json_field *fields, size_t n, stk_span name)
{
    for (size_t i = 0; i < n; i++)
        if (stk_span_eq(fields[i].name, name))
            return true;
    return false;
}

int stk_json_read_object(char *text, size_t len, struct stk_json_field *fields, size_t max,
                         size_t *ret_n)
{
    struct json_reader r = {.at = text, .end = text + len};
    size_t n = 0;

    json_skip_blanks(&r);
    if (!json_take(&r, '{'))
        return STK_JSON_E_SYNTAX;
    json_skip_blanks(&r);
    if (!json_take(&r, '}')) {
        do {
            struct stk_json_field field;
            int e;

            json_skip_blanks(&r);
            e = json_read_field(&r, &field);
            if (e != 0)
                return e;
            if (json_has_name(fields, n, field.name))
                return STK_JSON_E_TWICE;
            if (n == max)
                return STK_JSON_E_FIELDS;
            fields[n++] = field;
        } while (json_take(&r, ','));
        if (!json_take(&r, '}'))
            return STK_JSON_E_SYNTAX;
    }
    json_skip_blanks(&r);
    if (r.at != r.end)
        return STK_JSON_E_SYNTAX;
    *ret_n = n;
    return 0;
}

const char *stk_json_error_text(int error)
{
    switch (error) {
    case STK_JSON_E_NESTED:
        return "has an object or an array as a value";
    case STK_JSON_E_FIELDS:
        return "has too many fields";
    case STK_JSON_E_TWICE:
        return "has a name twice";
    case STK_JSON_E_TEXT:
        return "has a string that is not valid";
    case STK_JSON_E_NUMBER:
        return "has a number that is not valid";
    default:
        return "is not a JSON object";
    }
}

const struct stk_json_field *stk_json_find(const struct stk_json_field *fields, size_t n,
                                           const char *name)
{
    for (size_t i = 0; i < n; i++)
        if (stk_span_eq(fields[i].name, stk_span_str(name)))
            return &fields[i];
    return NULL;
}
