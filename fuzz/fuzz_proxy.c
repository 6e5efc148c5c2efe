/* PROXY headers: what comes out lies within the header, and no prefix of one says otherwise. */
#include <stdint.h>
#include <stdlib.h>
#include <string.h>

#include "wire/proxy.h"

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

static void check_text(stk_span s, const char *buf, size_t len)
{
    if (s.len > 0 && (s.ptr < buf || s.ptr + s.len > buf + len))
        abort();
    for (size_t i = 0; i < s.len; i++)
        if ((uint8_t)s.ptr[i] < ' ' || s.ptr[i] == 0x7f)
            abort();
}

static void check_addr(const struct stk_proxy_addr *addr, bool there)
{
    if (addr->len != strlen(addr->text) || (addr->len > 0) != there)
        abort();
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    char *copy = malloc(size + 1);
    struct stk_proxy p, q;
    enum stk_proxy_result r, half;
    size_t cut = size / 2;

    if (copy == NULL)
        return 0;
    if (size > 0)
        memcpy(copy, data, size);
    r = stk_proxy_parse(&p, copy, size);
    half = stk_proxy_parse(&q, copy, cut);
    if (r == STK_PROXY_OK) {
        if (p.len > size || p.len > STK_PROXY_MAX || (half == STK_PROXY_OK) != (cut >= p.len))
            abort();
        check_addr(&p.client, p.source == STK_PROXY_IP);
        check_addr(&p.server, p.source == STK_PROXY_IP);
        check_text(p.authority, copy, p.len);
        check_text(p.tls_version, copy, p.len);
        check_text(p.tls_cipher, copy, p.len);
        check_text(p.common_name, copy, p.len);
    } else if ((half != STK_PROXY_PARTIAL && half != r) ||
               (r == STK_PROXY_PARTIAL && size > STK_PROXY_MAX)) {
        abort();
    }
    free(copy);
    return 0;
}
