/*
 * The small codecs of single values. The first byte chooses which: escapes and hosts, the lists
 * of proxies, dates.
 */
#include "fuzz.h"

#include <arpa/inet.h>
#include <stdbool.h>
#include <stdlib.h>
#include <string.h>

#include "wire/forwarded.h"
#include "wire/http_date.h"
#include "wire/uri.h"

static bool is_inside(stk_span part, stk_span all)
{
    return part.len == 0 || (part.ptr >= all.ptr && part.ptr + part.len <= all.ptr + all.len);
}

static void fuzz_escapes(stk_span text)
{
    char *copy = malloc(text.len + 1), *place = malloc(text.len + 1);
    size_t len, escapes = 0;

    FUZZ_CHECK(copy && place);
    len = stk_uri_unescape(copy, text);
    FUZZ_CHECK(len <= text.len && (text.len - len) % 2 == 0);
    memcpy(place, text.ptr, text.len);
    FUZZ_CHECK(stk_uri_unescape(place, stk_span_make(place, text.len)) == len);
    FUZZ_CHECK(memcmp(copy, place, len) == 0);
    for (size_t i = 0; i < text.len; i++)
        escapes += text.ptr[i] == '%';
    FUZZ_CHECK(stk_uri_escapes_are_valid(text) == (text.len - len == 2 * escapes));
    free(copy);
    free(place);
}

static void fuzz_host(stk_span text)
{
    stk_span host = {NULL, 0}, port = {NULL, 0}, again, none;

    if (!stk_uri_split_host(text, &host, &port)) {
        FUZZ_CHECK(!host.ptr && !port.ptr);
        return;
    }
    FUZZ_CHECK(host.len > 0 && host.ptr == text.ptr && is_inside(port, text));
    FUZZ_CHECK(port.ptr + port.len == text.ptr + text.len && port.len <= 5);
    FUZZ_CHECK(stk_uri_split_host(host, &again, &none));
    FUZZ_CHECK(stk_span_eq(host, again) && none.len == 0);
    for (size_t i = 0; i < text.len; i++)
        FUZZ_CHECK(text.ptr[i] > 0x20 && text.ptr[i] < 0x7f && !strchr("/@?#\\", text.ptr[i]));
}

static void check_addr(stk_span addr)
{
    struct in6_addr buffer;
    char text[64];

    if (addr.len == 0)
        return;
    FUZZ_CHECK(addr.len < sizeof(text));
    memcpy(text, addr.ptr, addr.len);
    text[addr.len] = 0;
    FUZZ_CHECK(inet_pton(AF_INET, text, &buffer) == 1 || inet_pton(AF_INET6, text, &buffer) == 1);
}

/* Whatever stands at the left, what was appended last comes first. */
static void fuzz_list(stk_span text, bool (*pop)(stk_span *, struct stk_forwarded *),
                      stk_span appended)
{
    char *all = malloc(text.len + appended.len);
    stk_span list = {all, text.len + appended.len}, whole = list;
    struct stk_forwarded f;
    size_t before;

    FUZZ_CHECK(all);
    memcpy(all, text.ptr, text.len);
    memcpy(all + text.len, appended.ptr, appended.len);
    FUZZ_CHECK(pop(&list, &f));
    FUZZ_CHECK(stk_span_eq(f.addr, STK_SPAN_LIT("192.0.2.1")));
    FUZZ_CHECK(list.len == text.len);
    for (before = list.len; pop(&list, &f); before = list.len) {
        FUZZ_CHECK(list.len < before && list.ptr == all);
        FUZZ_CHECK(is_inside(f.addr, whole) && is_inside(f.port, whole));
        FUZZ_CHECK(is_inside(f.proto, whole) && is_inside(f.host, whole));
        FUZZ_CHECK(f.addr.len > 0 || f.port.len == 0);
        FUZZ_CHECK(f.host.len == 0 || stk_uri_split_host(f.host, NULL, NULL));
        check_addr(f.addr);
    }
    FUZZ_CHECK(list.len == 0);
    free(all);
}

static void fuzz_date(stk_span text)
{
    char out[STK_HTTP_DATE_LEN];
    int64_t seconds = 0, again = 0;

    if (text.len == sizeof(seconds)) {
        memcpy(&seconds, text.ptr, sizeof(seconds));
        stk_http_date_format(out, seconds);
        FUZZ_CHECK(stk_http_date_parse(stk_span_make(out, sizeof(out)), &again) == 0);
        FUZZ_CHECK(again == seconds || again == INT64_C(-62167219200) ||
                   again == INT64_C(253402300799));
        return;
    }
    if (stk_http_date_parse(text, &seconds) != 0)
        return;
    stk_http_date_format(out, seconds);
    FUZZ_CHECK(stk_http_date_parse(stk_span_make(out, sizeof(out)), &again) == 0);
    /* A leap second at the very end of the year 9999 is beyond what can be written. */
    FUZZ_CHECK(again == seconds || seconds == INT64_C(253402300800));
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    stk_span text;

    if (size < 1)
        return 0;
    text = stk_span_make((const char *)data + 1, size - 1);
    switch (*data % 4) {
    case 0:
        fuzz_escapes(text);
        fuzz_host(text);
        break;
    case 1:
        fuzz_list(text, stk_forwarded_pop_xff, STK_SPAN_LIT(", 192.0.2.1"));
        break;
    case 2:
        fuzz_list(text, stk_forwarded_pop, STK_SPAN_LIT(", for=192.0.2.1"));
        break;
    default:
        fuzz_date(text);
        break;
    }
    return 0;
}
