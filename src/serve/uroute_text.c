/*
 * Texts with variables, as uWSGI reads them. It goes through a text twice, for groups and then for
 * variables, so that a client's path could name variables to be put in. Here both are found when
 * the text is compiled, with the same result for what an administrator writes:
 *
 *   $1        the group; nothing where the pattern has none
 *   ${NAME}   the variable; $1 in the name is put in first
 *   $x        stays as it is, with the character behind it
 *   $         at the end is dropped where groups are known, and stays where they are not
 */
#include "serve/uroute_text.h"

#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "base/mem.h"

enum text_kind { TEXT_BYTES, TEXT_GROUP, TEXT_VALUE };

struct text_piece {
    enum text_kind kind;
    bool dynamic; /* TEXT_VALUE: there are groups in the name */
    unsigned group;
    stk_span text;
};

struct stk_utext {
    char *bytes;
    bool groups;
    size_t n, cap;
    struct text_piece *pieces;
};

void stk_utext_put(struct stk_utext_out *out, stk_span bytes)
{
    if (out->full || bytes.len > out->cap - out->len) {
        out->full = true;
        return;
    }
    if (bytes.len > 0)
        memcpy(out->buf + out->len, bytes.ptr, bytes.len);
    out->len += bytes.len;
}

void stk_utext_put_number(struct stk_utext_out *out, long long number)
{
    char text[24];
    int n = snprintf(text, sizeof text, "%lld", number);

    stk_utext_put(out, stk_span_make(text, (size_t)n));
}

/* ---- compiling ------------------------------------------------------------------------------ */

static void text_add(struct stk_utext *t, struct text_piece piece)
{
    struct text_piece *last = t->n > 0 ? &t->pieces[t->n - 1] : NULL;

    if (piece.kind == TEXT_BYTES && piece.text.len == 0)
        return;
    if (piece.kind == TEXT_BYTES && last && last->kind == TEXT_BYTES &&
        last->text.ptr + last->text.len == piece.text.ptr) {
        last->text.len += piece.text.len;
        return;
    }
    t->pieces[t->n++] = piece;
}

static bool text_is_digit(char c)
{
    return c >= '0' && c <= '9';
}

/* Names with brackets that uWSGI has and that are not here. */
static bool text_check(stk_span name, char **ret_error)
{
    static const char *const absent[] = {"math[", "metric[", "geoip[", "xattr[", "lord["};

    for (size_t i = 0; i < STK_ARRAY_LEN(absent); i++) {
        size_t len = strlen(absent[i]);

        if (name.len > len && memcmp(name.ptr, absent[i], len) == 0) {
            *ret_error = stk_mem_printf("${%s...]} is not there", absent[i]);
            return false;
        }
    }
    if (name.len > STK_UTEXT_NAME_MAX) {
        *ret_error =
            stk_mem_printf("the name of a variable is longer than %d bytes", STK_UTEXT_NAME_MAX);
        return false;
    }
    return true;
}

/* A variable at p[0..], behind "${"; the bytes that it takes, 0: it is none, and -1: refused. */
static ssize_t text_variable(struct stk_utext *t, const char *p, size_t len, char **ret_error)
{
    const char *end = memchr(p, '}', len);
    struct text_piece piece = {.kind = TEXT_VALUE};

    if (end == NULL)
        return 0;
    piece.text = stk_span_make(p, (size_t)(end - p));
    if (!text_check(piece.text, ret_error))
        return -1;
    for (size_t i = 0; t->groups && i + 1 < piece.text.len; i++)
        piece.dynamic |= p[i] == '$' && text_is_digit(p[i + 1]);
    text_add(t, piece);
    return end - p + 1;
}

static bool text_compile(struct stk_utext *t, stk_span s, char **ret_error)
{
    size_t i = 0;

    while (i < s.len) {
        const char *dollar = memchr(s.ptr + i, '$', s.len - i);
        size_t at = dollar ? (size_t)(dollar - s.ptr) : s.len;
        ssize_t n;

        text_add(t, (struct text_piece){.text = stk_span_make(s.ptr + i, at - i)});
        if (at == s.len)
            break;
        i = at + 2;
        if (at + 1 == s.len) {
            if (!t->groups)
                text_add(t, (struct text_piece){.text = stk_span_make(dollar, 1)});
        } else if (t->groups && text_is_digit(dollar[1])) {
            text_add(t,
                     (struct text_piece){.kind = TEXT_GROUP, .group = (unsigned)(dollar[1] - '0')});
        } else if (dollar[1] != '{') {
            text_add(t, (struct text_piece){.text = stk_span_make(dollar, 2)});
        } else {
            n = text_variable(t, dollar + 2, s.len - at - 2, ret_error);
            if (n < 0)
                return false;
            if (n == 0) /* without an end: the rest is bytes */
                text_add(t, (struct text_piece){.text = stk_span_make(dollar, s.len - at)});
            i = n == 0 ? s.len : at + 2 + (size_t)n;
        }
    }
    return true;
}

struct stk_utext *stk_utext_new(stk_span text, bool groups, char **ret_error)
{
    struct stk_utext *t = stk_new0(struct stk_utext);

    t->groups = groups;
    t->bytes = stk_mem_strndup(text.len > 0 ? text.ptr : "", text.len);
    t->pieces = stk_new0_array(struct text_piece, text.len + 1);
    if (!text_compile(t, stk_span_make(t->bytes, text.len), ret_error))
        return stk_utext_free(t);
    return t;
}

struct stk_utext *stk_utext_free(struct stk_utext *text)
{
    if (text) {
        free(text->pieces);
        free(text->bytes);
    }
    free(text);
    return NULL;
}

stk_span stk_utext_literal(const struct stk_utext *text)
{
    return text->n > 0 && text->pieces[0].kind == TEXT_BYTES ? text->pieces[0].text
                                                             : stk_span_make("", 0);
}

bool stk_utext_is_literal(const struct stk_utext *text)
{
    return text->n == 0 || (text->n == 1 && text->pieces[0].kind == TEXT_BYTES);
}

/* ---- filling -------------------------------------------------------------------------------- */

/* A name with groups in it. */
static void text_dynamic(const struct text_piece *piece, const struct stk_utext_source *source,
                         struct stk_utext_out *out)
{
    char name[STK_UTEXT_NAME_MAX];
    struct stk_utext_out to = {.buf = name, .cap = sizeof name};

    for (size_t i = 0; i < piece->text.len; i++) {
        const char *p = piece->text.ptr + i;

        if (*p == '$' && i + 1 < piece->text.len && text_is_digit(p[1])) {
            stk_utext_put(&to, source->groups[p[1] - '0']);
            i++;
        } else {
            stk_utext_put(&to, stk_span_make(p, 1));
        }
    }
    if (!to.full) /* no variable has a name as long */
        source->value(source->arg, stk_span_make(name, to.len), out);
}

bool stk_utext_fill(const struct stk_utext *text, const struct stk_utext_source *source,
                    struct stk_utext_out *out)
{
    for (size_t i = 0; i < text->n && !out->full; i++) {
        const struct text_piece *piece = &text->pieces[i];

        if (piece->kind == TEXT_BYTES)
            stk_utext_put(out, piece->text);
        else if (piece->kind == TEXT_GROUP)
            stk_utext_put(out, source->groups[piece->group]);
        else if (piece->dynamic)
            text_dynamic(piece, source, out);
        else
            source->value(source->arg, piece->text, out);
    }
    return !out->full;
}
