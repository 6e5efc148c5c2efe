/*
 * Accept-Encoding. A list of a few words that nearly every client sends: it is read in one pass,
 * and a member that is not understood is left out rather than the whole field, because sending
 * without a coding is always right.
 */
#include "wire/accept.h"

#include <stddef.h>

static bool accept_is_blank(char c)
{
    return c == ' ' || c == '\t';
}

static stk_span accept_trim(const char *p, const char *end)
{
    while (p < end && accept_is_blank(*p))
        p++;
    while (end > p && accept_is_blank(end[-1]))
        end--;
    return stk_span_make(p, (size_t)(end - p));
}

/* qvalue of RFC 9110 12.4.2 in thousandths, or -1. */
static int accept_weight(stk_span s)
{
    int value, scale = 100;

    if (s.len == 0 || s.len > 5 || (s.ptr[0] != '0' && s.ptr[0] != '1'))
        return -1;
    value = (s.ptr[0] - '0') * STK_ACCEPT_MAX;
    if (s.len == 1)
        return value;
    if (s.ptr[1] != '.')
        return -1;
    for (size_t i = 2; i < s.len; i++) {
        if (s.ptr[i] < '0' || s.ptr[i] > '9')
            return -1;
        value += (s.ptr[i] - '0') * scale;
        scale /= 10;
    }
    return value > STK_ACCEPT_MAX ? -1 : value;
}

static void accept_keep(int16_t *q, int weight)
{
    if (*q < weight)
        *q = (int16_t)weight;
}

/* One member: coding [ ";" "q=" weight ]. */
static void accept_member(struct stk_accept *accept, const char *p, const char *end)
{
    const char *semicolon = memchr(p, ';', (size_t)(end - p));
    stk_span name = accept_trim(p, semicolon ? semicolon : end);
    int weight = STK_ACCEPT_MAX;

    if (semicolon) {
        stk_span param = accept_trim(semicolon + 1, end);

        if (param.len < 2 || (param.ptr[0] | 0x20) != 'q' || param.ptr[1] != '=')
            return;
        weight = accept_weight(stk_span_make(param.ptr + 2, param.len - 2));
        if (weight < 0)
            return;
    }
    if (stk_span_eq(name, STK_SPAN_LIT("*"))) {
        accept_keep(&accept->any, weight);
        return;
    }
    if (stk_span_ieq(name, STK_SPAN_LIT("x-gzip")))
        name = stk_coding_name(STK_CODING_GZIP);
    for (int i = 0; i < STK_CODINGS; i++)
        if (stk_span_ieq(name, stk_coding_name((enum stk_coding)i)))
            accept_keep(&accept->q[i], weight);
}

stk_span stk_coding_name(enum stk_coding coding)
{
    switch (coding) {
    case STK_CODING_GZIP:
        return STK_SPAN_LIT("gzip");
    case STK_CODING_BR:
        return STK_SPAN_LIT("br");
    case STK_CODING_ZSTD:
        return STK_SPAN_LIT("zstd");
    case STK_CODING_IDENTITY:
    case STK_CODINGS:
        break;
    }
    return STK_SPAN_LIT("identity");
}

void stk_accept_init(struct stk_accept *accept)
{
    accept->present = false;
    accept->any = -1;
    for (int i = 0; i < STK_CODINGS; i++)
        accept->q[i] = -1;
}

void stk_accept_add(struct stk_accept *accept, stk_span value)
{
    const char *p = value.ptr, *end = p + value.len;

    accept->present = true;
    while (p < end) {
        const char *comma = memchr(p, ',', (size_t)(end - p));
        const char *stop = comma ? comma : end;

        accept_member(accept, p, stop);
        p = comma ? comma + 1 : end;
    }
}

unsigned stk_accept_quality(const struct stk_accept *accept, enum stk_coding coding)
{
    int q = accept->q[coding];

    if (!accept->present)
        return coding == STK_CODING_IDENTITY ? STK_ACCEPT_MAX : 0;
    if (q < 0)
        q = accept->any;
    if (q < 0)
        q = coding == STK_CODING_IDENTITY ? 1 : 0;
    return (unsigned)q;
}
