/*
 * Requests of uwsgi and SCGI: the first byte chooses. What comes out lies where it should, and
 * HTTP takes the same request for the same.
 */
#include <stdint.h>
#include <stdlib.h>
#include <string.h>

#include "wire/scgi.h"
#include "wire/uwsgi.h"

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

static void check(stk_span s, const char *buf, size_t len)
{
    if (s.len > 0 && (s.ptr < buf || s.ptr + s.len > buf + len))
        abort();
}

static char *put(char *p, stk_span s)
{
    if (s.len > 0)
        memcpy(p, s.ptr, s.len);
    return p + s.len;
}

/* Writes the head out as HTTP/1 and parses it. */
static void check_http(const struct stk_head *head, const struct stk_http1_limits *limits)
{
    static struct stk_head http;
    char text[8192], *p = text;

    p = put(put(p, stk_head_method(head)), STK_SPAN_LIT(" "));
    p = put(put(p, stk_head_target(head)), STK_SPAN_LIT(" HTTP/1."));
    *p++ = (char)('0' + head->version_minor);
    p = put(p, STK_SPAN_LIT("\r\n"));
    for (size_t i = 0; i < head->nfields; i++) {
        p = put(put(p, stk_head_field_name(head, &head->fields[i])), STK_SPAN_LIT(": "));
        p = put(put(p, stk_head_field_value(head, &head->fields[i])), STK_SPAN_LIT("\r\n"));
    }
    p = put(p, STK_SPAN_LIT("\r\n"));
    if (stk_http1_parse(&http, text, (size_t)(p - text), limits) != STK_HTTP1_OK ||
        http.nfields != head->nfields || http.len != (size_t)(p - text) ||
        !stk_span_eq(stk_head_host(&http), stk_head_host(head)) ||
        http.has_content_length != head->has_content_length ||
        (http.has_content_length && http.content_length != head->content_length) ||
        memcmp(http.known, head->known, sizeof http.known) != 0)
        abort();
    for (size_t i = 0; i < head->nfields; i++) {
        const struct stk_head_field *a = &http.fields[i], *b = &head->fields[i];

        if (!stk_span_eq(stk_head_field_name(&http, a), stk_head_field_name(head, b)) ||
            !stk_span_eq(stk_head_field_value(&http, a), stk_head_field_value(head, b)) ||
            a->hash != b->hash || a->known != b->known)
            abort();
    }
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    static const struct stk_http1_limits limits = {
        .line_max = 512, .head_max = 2048, .fields_max = 16};
    static struct stk_gateway gw;
    static struct stk_head head;
    size_t room = stk_gateway_room(&limits);
    char *scratch = calloc(1, room), *copy = malloc(size + 1);
    enum stk_http1_result r;

    if (scratch == NULL || copy == NULL || size == 0) {
        free(scratch);
        free(copy);
        return 0;
    }
    memcpy(copy, data + 1, size - 1);
    r = (data[0] & 1 ? stk_scgi_parse : stk_uwsgi_parse)(&gw, scratch, &head, copy, size - 1,
                                                         &limits);
    if (r == STK_HTTP1_OK) {
        if (head.len > size - 1 || head.keep_alive || head.chunked)
            abort();
        check(stk_head_path(&head), scratch, room);
        check(stk_head_query(&head), scratch, room);
        check(stk_head_target(&head), scratch, room);
        check(gw.mount, scratch, room);
        for (size_t i = 0; i < head.nfields; i++)
            check(stk_head_field_value(&head, &head.fields[i]), scratch, room);
        for (size_t i = 0; i < gw.nvars; i++)
            check(gw.vars[i].value, scratch, room);
        check_http(&head, &limits);
    }
    free(scratch);
    free(copy);
    return 0;
}
