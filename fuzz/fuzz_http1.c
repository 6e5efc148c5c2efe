/*
 * The request head parser. The first byte chooses the limits, the rest is what a client sends.
 *
 * What is checked needs no second parser: everything found lies within the head, is made of the
 * characters it may be made of, has one framing, and does not depend on how much has come.
 */
#include "fuzz.h"

#include <string.h>

#include "wire/http1.h"
#include "wire/uri.h"

enum { PREFIXES_MAX = 256 };

static struct stk_http1_limits choose_limits(uint8_t byte)
{
    return (struct stk_http1_limits){
        .line_max = byte & 2 ? 40 : 8192,
        .head_max = byte & 4 ? 100 : 32768,
        .fields_max = byte & 8 ? 3 : 256,
        .underscores = byte & 1,
    };
}

static void check_inside(const struct stk_head *h, uint32_t off, uint32_t len)
{
    FUZZ_CHECK(len <= h->len && off <= h->len - len);
}

static void check_line_ends(const struct stk_head *h)
{
    for (uint32_t i = 0; i < h->len; i++) {
        FUZZ_CHECK(h->base[i] != 0);
        if (h->base[i] == '\r')
            FUZZ_CHECK(i + 1 < h->len && h->base[i + 1] == '\n');
        if (h->base[i] == '\n')
            FUZZ_CHECK(i > 0 && h->base[i - 1] == '\r');
    }
    FUZZ_CHECK(h->len >= 4 && memcmp(h->base + h->len - 4, "\r\n\r\n", 4) == 0);
}

static void check_target(const struct stk_head *h)
{
    check_inside(h, h->method_off, h->method_len);
    check_inside(h, h->target_off, h->target_len);
    FUZZ_CHECK(stk_http1_is_token(stk_head_method(h)));
    FUZZ_CHECK(h->target_len > 0);
    for (uint32_t i = 0; i < h->target_len; i++) {
        unsigned char c = (unsigned char)stk_head_target(h).ptr[i];

        FUZZ_CHECK(c > 0x20 && c != 0x7f && c != '#');
    }
    if (h->path_len > 0) {
        check_inside(h, h->path_off, h->path_len);
        FUZZ_CHECK(*stk_head_path(h).ptr == '/' || h->target_form == STK_TARGET_ASTERISK);
        FUZZ_CHECK(!memchr(stk_head_path(h).ptr, '?', h->path_len));
        FUZZ_CHECK(h->path_escaped == !!memchr(stk_head_path(h).ptr, '%', h->path_len));
    } else {
        FUZZ_CHECK(h->target_form == STK_TARGET_ABSOLUTE || h->target_form == STK_TARGET_AUTHORITY);
        FUZZ_CHECK(!h->path_escaped);
    }
    if (h->query_len > 0) {
        check_inside(h, h->query_off, h->query_len);
        FUZZ_CHECK(h->base[h->query_off - 1] == '?');
    }
    if (h->authority_len > 0)
        check_inside(h, h->authority_off, h->authority_len);
}

static void check_fields(const struct stk_head *h, const struct stk_http1_limits *limits)
{
    unsigned hosts = 0, lengths = 0, encodings = 0;

    FUZZ_CHECK(h->nfields <= limits->fields_max);
    for (unsigned i = 0; i < h->nfields; i++) {
        const struct stk_head_field *f = &h->fields[i];
        stk_span name = stk_head_field_name(h, f), value = stk_head_field_value(h, f);

        check_inside(h, f->name_off, f->name_len);
        check_inside(h, f->value_off, f->value_len);
        FUZZ_CHECK(stk_http1_is_token(name) && stk_http1_is_field_value(value));
        FUZZ_CHECK(limits->underscores || !memchr(name.ptr, '_', name.len));
        FUZZ_CHECK(f->hash == stk_http1_field_hash(name));
        FUZZ_CHECK(f->known == stk_http1_known_field(name));
        FUZZ_CHECK(value.len == 0 ||
                   (!strchr(" \t", *value.ptr) && !strchr(" \t", value.ptr[value.len - 1])));
        if (f->known)
            FUZZ_CHECK(h->known[f->known] > i);
        hosts += stk_span_ieq(name, STK_SPAN_LIT("host"));
        lengths += stk_span_ieq(name, STK_SPAN_LIT("content-length"));
        encodings += stk_span_ieq(name, STK_SPAN_LIT("transfer-encoding"));
    }
    FUZZ_CHECK(hosts == 1 || (hosts == 0 && h->version_minor == 0));
    FUZZ_CHECK(lengths <= 1 && lengths == h->has_content_length);
    FUZZ_CHECK((encodings > 0) == h->chunked && !(h->chunked && h->has_content_length));
    FUZZ_CHECK(!h->chunked || h->version_minor == 1);
    FUZZ_CHECK(!h->has_content_length || h->content_length <= UINT64_C(1) << 60);
    for (unsigned id = 1; id < STK_HEAD_KNOWN_COUNT; id++)
        FUZZ_CHECK(h->known[id] <= h->nfields &&
                   (!h->known[id] || h->fields[h->known[id] - 1].known == id));
    if (h->host_len > 0)
        FUZZ_CHECK(stk_uri_split_host(stk_head_host(h), NULL, NULL));
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    static struct stk_head whole, part;
    struct stk_http1_limits limits;
    enum stk_http1_result r, prefix;
    const char *bytes;
    size_t step;

    if (size < 1)
        return 0;
    limits = choose_limits(*data);
    bytes = (const char *)data + 1;
    size--;
    memset(&whole, 0x5a, sizeof(whole));
    r = stk_http1_parse(&whole, bytes, size, &limits);
    FUZZ_CHECK((unsigned)r < STK_HTTP1_RESULT_COUNT && stk_http1_error_text(r));
    if (r == STK_HTTP1_PARTIAL)
        FUZZ_CHECK(size < limits.head_max);
    if (r == STK_HTTP1_OK) {
        FUZZ_CHECK(whole.base == bytes && whole.len <= size && whole.len <= limits.head_max);
        check_line_ends(&whole);
        check_target(&whole);
        check_fields(&whole, &limits);
        /* The head alone gives the same. */
        memset(&part, 0x5a, sizeof(part));
        FUZZ_CHECK(stk_http1_parse(&part, bytes, whole.len, &limits) == STK_HTTP1_OK);
        FUZZ_CHECK(memcmp(&part, &whole, sizeof(part)) == 0);
        size = whole.len;
    }
    step = size / PREFIXES_MAX + 1;
    prefix = STK_HTTP1_PARTIAL;
    for (size_t n = size % step; n < size; n += step) {
        enum stk_http1_result before = prefix;

        prefix = stk_http1_parse(&part, bytes, n, &limits);
        FUZZ_CHECK(prefix == STK_HTTP1_PARTIAL || (prefix == r && r != STK_HTTP1_OK));
        FUZZ_CHECK(before == STK_HTTP1_PARTIAL || before == prefix);
    }
    return 0;
}
