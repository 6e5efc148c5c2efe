/*
 * SCGI requests: "LENGTH:" NAME NUL VALUE NUL ... "," BODY. CONTENT_LENGTH comes first and is
 * always there, and SCGI is "1": that is how a request is told from anything else.
 */
#include "wire/scgi.h"

#include <string.h>

enum { SCGI_DIGITS_MAX = 7 };

/* The netstring's size and the bytes in front of it. 0: more bytes are needed; -1: it is none. */
static int scgi_size(const char *buf, size_t len, size_t *ret_size)
{
    size_t n = 0, size = 0;

    while (n < len && n <= SCGI_DIGITS_MAX && buf[n] >= '0' && buf[n] <= '9')
        size = size * 10 + (size_t)(buf[n++] - '0');
    if (n == len)
        return n <= SCGI_DIGITS_MAX ? 0 : -1;
    if (buf[n] != ':' || n == 0 || n > SCGI_DIGITS_MAX || (buf[0] == '0' && n > 1))
        return -1;
    *ret_size = size;
    return (int)n + 1;
}

static bool scgi_string(const char **pos, const char *end, stk_span *ret)
{
    const char *nul = memchr(*pos, '\0', (size_t)(end - *pos));

    if (nul == NULL)
        return false;
    *ret = stk_span_make(*pos, (size_t)(nul - *pos));
    *pos = nul + 1;
    return true;
}

static bool scgi_is_http(const char *buf)
{
    return (buf[0] >= 'A' && buf[0] <= 'Z') || (buf[0] >= 'a' && buf[0] <= 'z');
}

enum stk_http1_result stk_scgi_parse(struct stk_gateway *gw, char *scratch, struct stk_head *head,
                                     const char *buf, size_t len,
                                     const struct stk_http1_limits *limits)
{
    size_t size = 0;
    bool marked = false;
    const char *p, *end;
    enum stk_http1_result r;
    int front;

    if (len == 0)
        return STK_HTTP1_PARTIAL;
    if (scgi_is_http(buf))
        return STK_HTTP1_E_HTTP_BYTES;
    front = scgi_size(buf, len, &size);
    if (front <= 0)
        return front == 0 ? STK_HTTP1_PARTIAL : STK_HTTP1_E_BAD_PACKET;
    if (size + (size_t)front + 1 > limits->head_max)
        return STK_HTTP1_E_HEAD_TOO_LARGE;
    if (len < (size_t)front + size + 1)
        return STK_HTTP1_PARTIAL;
    if (buf[(size_t)front + size] != ',')
        return STK_HTTP1_E_BAD_PACKET;
    stk_gateway_begin(gw, scratch, limits);
    buf = stk_gateway_hold(gw, buf, (size_t)front + size + 1);
    p = buf + front;
    end = p + size;
    for (bool first = true; p < end; first = false) {
        stk_span name, value;

        if (!scgi_string(&p, end, &name) || !scgi_string(&p, end, &value) ||
            (first && !stk_span_eq(name, STK_SPAN_LIT("CONTENT_LENGTH"))))
            return STK_HTTP1_E_BAD_PACKET;
        if (stk_span_eq(name, STK_SPAN_LIT("SCGI")))
            marked = stk_span_eq(value, STK_SPAN_LIT("1"));
        stk_gateway_add(gw, name, value);
    }
    if (!marked || gw->content_length.len == 0)
        return STK_HTTP1_E_BAD_PACKET;
    r = stk_gateway_finish(gw, head, false);
    head->len = (uint32_t)(end + 1 - buf);
    return r;
}
