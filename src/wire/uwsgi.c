/*
 * uwsgi packets: modifier1, the size of what follows (two bytes, little endian), modifier2, then
 * names and values, each with its length in front.
 */
#include "wire/uwsgi.h"

#include <string.h>

const char stk_uwsgi_pong[STK_UWSGI_HEADER] = {STK_UWSGI_PING, 0, 0, 1};

static size_t uwsgi_u16(const char *p)
{
    return (size_t)(unsigned char)p[0] | (size_t)(unsigned char)p[1] << 8;
}

/* Takes a string with its length off the front. */
static bool uwsgi_string(const char **pos, const char *end, stk_span *ret)
{
    size_t len;

    if (end - *pos < 2)
        return false;
    len = uwsgi_u16(*pos);
    *pos += 2;
    if ((size_t)(end - *pos) < len)
        return false;
    *ret = stk_span_make(*pos, len);
    *pos += len;
    return true;
}

/* First bytes that a web browser, and no front end, would send. */
static bool uwsgi_is_http(const char *buf)
{
    static const char methods[][5] = {"GET ", "POST", "HEAD", "PUT ", "DELE", "OPTI", "PATC"};

    for (size_t i = 0; i < STK_ARRAY_LEN(methods); i++)
        if (memcmp(buf, methods[i], STK_UWSGI_HEADER) == 0)
            return true;
    return false;
}

enum stk_http1_result stk_uwsgi_parse(struct stk_gateway *gw, char *scratch, struct stk_head *head,
                                      const char *buf, size_t len,
                                      const struct stk_http1_limits *limits)
{
    const char *p = buf + STK_UWSGI_HEADER, *end;
    unsigned modifier;
    size_t size;
    enum stk_http1_result r;

    if (len < STK_UWSGI_HEADER)
        return STK_HTTP1_PARTIAL;
    if (uwsgi_is_http(buf))
        return STK_HTTP1_E_HTTP_BYTES;
    modifier = (unsigned char)buf[0];
    if (modifier == STK_UWSGI_PING)
        return STK_HTTP1_E_UWSGI_PING;
    if (modifier != STK_UWSGI_WSGI && modifier != STK_UWSGI_MANAGED)
        return STK_HTTP1_E_UWSGI_MODIFIER;
    end = p + uwsgi_u16(buf + 1);
    if ((size_t)(end - buf) > limits->head_max)
        return STK_HTTP1_E_HEAD_TOO_LARGE;
    if (len < (size_t)(end - buf))
        return STK_HTTP1_PARTIAL;
    stk_gateway_begin(gw, scratch, limits);
    size = (size_t)(end - buf);
    p = stk_gateway_hold(gw, buf, size) + STK_UWSGI_HEADER;
    end = p + size - STK_UWSGI_HEADER;
    while (p < end) {
        stk_span name, value;

        if (!uwsgi_string(&p, end, &name) || name.len == 0 || !uwsgi_string(&p, end, &value))
            return STK_HTTP1_E_BAD_PACKET;
        stk_gateway_add(gw, name, value);
    }
    r = stk_gateway_finish(gw, head, modifier == STK_UWSGI_MANAGED);
    head->len = (uint32_t)size;
    return r;
}
