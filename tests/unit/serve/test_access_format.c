/* The formats of the access log: byte for byte, hostile bytes, cutting, and messages of faults. */
#include "serve/access_format.h"

#include <ctype.h>
#include <errno.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <time.h>
#include <unistd.h>

#include <cmocka.h>

#include "access_entry.h"
#include "base/utf8.h"
#include "serve/access_escape.h"

#define BROWSER                                                                  \
    "GET /a/b%20c?x=1&y=%22 HTTP/1.1\r\nHost: example.org\r\n"                   \
    "User-Agent: Mozilla/5.0 (X11) \"quoted\"\r\n"                               \
    "Referer: http://example.org/\\back\r\n"                                     \
    "Authorization: Basic YWxpY2Ugc21pdGg6c2VjcmV0\r\n" /* alice smith:secret */ \
    "X-Request-Id: first\r\nX-Request-Id: r-1\r\nX-Empty:\r\n\r\n"

static void assert_line(const char *format, const char *request, const char *expected)
{
    static struct entry e; /* 5 kB */
    char error[STK_ACCESS_ERROR_MAX] = "";
    char line[STK_LOG_LINE_MAX + 1];
    struct stk_access_format *f;
    size_t n;

    if (stk_access_format_new(&f, format, 3, error) != 0)
        fail_msg("%s", error);
    entry_make(&e, request, strlen(request));
    n = stk_access_format_line(f, &e.entry, ENTRY_NOW, line);
    line[n] = '\0';
    assert_string_equal(line, expected);
    n = stk_access_format_line(f, &e.entry, ENTRY_NOW, line); /* the time from the cache */
    line[n] = '\0';
    assert_string_equal(line, expected);
    stk_access_format_free(f);
}

static void test_combined(void **state)
{
    (void)state;
    assert_line("combined", BROWSER,
                "192.0.2.7 - alice\\x20smith [23/Nov/2026:03:10:00 +0100] "
                "\"GET /a/b%20c?x=1&y=%22 HTTP/1.1\" 200 5120 \"http://example.org/\\\\back\" "
                "\"Mozilla/5.0 (X11) \\\"quoted\\\"\"\n");
    assert_line("combined", "HEAD / HTTP/1.0\r\n\r\n",
                "192.0.2.7 - - [23/Nov/2026:03:10:00 +0100] \"HEAD / HTTP/1.0\" 200 5120 \"-\" "
                "\"-\"\n");
    assert_line("common", BROWSER,
                "192.0.2.7 - alice\\x20smith [23/Nov/2026:03:10:00 +0100] "
                "\"GET /a/b%20c?x=1&y=%22 HTTP/1.1\" 200 5120\n");
    assert_line("combined", "what is this\r\n\r\n",
                "192.0.2.7 - - [23/Nov/2026:03:10:00 +0100] \"-\" 400 5120 \"-\" \"-\"\n");
}

static void test_json(void **state)
{
    char expected[1024];

    (void)state;
    snprintf(
        expected, sizeof expected,
        "{\"time_iso\":\"2026-11-23T03:10:00.123+01:00\",\"addr\":\"192.0.2.7\","
        "\"user\":\"alice smith\",\"method\":\"GET\",\"target\":\"/a/b%%20c?x=1&y=%%22\","
        "\"protocol\":\"HTTP/1.1\",\"scheme\":\"http\",\"host\":\"example.org\",\"status\":200,"
        "\"bytes\":5120,\"time_us\":1234,\"referer\":\"http://example.org/\\\\back\","
        "\"agent\":\"Mozilla/5.0 (X11) \\\"quoted\\\"\",\"worker\":3,\"pid\":%d,\"id\":42}\n",
        (int)getpid());
    assert_line("json", BROWSER, expected);
    assert_line("json:request,time,user,query,path,header:x-request-id,header:x-empty,header:x-no",
                BROWSER,
                "{\"request\":\"GET /a/b%20c?x=1&y=%22 HTTP/1.1\","
                "\"time\":\"23/Nov/2026:03:10:00 +0100\",\"user\":\"alice smith\","
                "\"query\":\"x=1&y=%22\",\"path\":\"/a/b%20c\",\"header:x-request-id\":\"r-1\","
                "\"header:x-empty\":\"\",\"header:x-no\":null}\n");
    assert_line("json:request,status,user", "?\r\n\r\n",
                "{\"request\":null,\"status\":400,\"user\":null}\n");
}

static void test_template(void **state)
{
    (void)state;
    assert_line("{addr}:{port} {method} {path} {query} {protocol} {scheme}://{host}", BROWSER,
                "192.0.2.7:40123 GET /a/b%20c x=1&y=%22 HTTP/1.1 http://example.org\n");
    assert_line("{time_us} {time_ms} {time_s} {unix_ms} {unix} {id} {worker}", BROWSER,
                "1234 1 0.001234 1795399800123 1795399800 42 3\n");
    assert_line("{{{status}}}\t{bytes}{bytes}", BROWSER, "{200}\t51205120\n");
    assert_line("{header:X-Request-ID} {header:user-agent} {header:x-empty} {header:nope}", BROWSER,
                "r-1 Mozilla/5.0 (X11) \\\"quoted\\\" - -\n");
    assert_line("{target} {time_iso}", "OPTIONS * HTTP/1.1\r\nHost: a\r\n\r\n",
                "* 2026-11-23T03:10:00.123+01:00\n");
}

static void test_edges(void **state)
{
    static struct entry e;
    char error[STK_ACCESS_ERROR_MAX], line[STK_LOG_LINE_MAX + 1];
    struct stk_access_format *f;

    (void)state;
    entry_make(&e, BROWSER, strlen(BROWSER));
    e.req.peer.addr_len = 0;
    e.req.peer.port = 0;
    e.req.status = 0;
    e.entry.body_bytes = UINT64_MAX;
    e.entry.duration = INT64_MAX;
    assert_int_equal(stk_access_format_new(&f, "{addr} {port} {status} {bytes} {time_s}", 1, error),
                     0);
    line[stk_access_format_line(f, &e.entry, 0, line)] = '\0';
    assert_string_equal(line, "- - - 18446744073709551615 9223372036.854775\n");
    assert_false(stk_access_format_is_fine(f));
    stk_access_format_free(f);
    e.entry.duration = -5;
    assert_int_equal(
        stk_access_format_new(&f, "json:addr,port,status,time_s,time_us,time_iso", 1, error), 0);
    line[stk_access_format_line(f, &e.entry, 0, line)] = '\0';
    assert_string_equal(line, "{\"addr\":null,\"port\":null,\"status\":null,\"time_s\":0.000000,"
                              "\"time_us\":0,\"time_iso\":\"1970-01-01T01:00:00.000+01:00\"}\n");
    assert_true(stk_access_format_is_fine(f));
    stk_access_format_free(f);
    stk_access_format_free(NULL);
}

/* Fields with a parameter, and of the request's start; there is no server here. */
static void test_more_fields(void **state)
{
    static const char request[] =
        "POST /a%20b%22?q=1 HTTP/1.1\r\nHost: h:81\r\nX-Two-Words: \"x\"\r\n"
        "Content-Type: t/p\r\nContent-Length: 12\r\nX-Two-Words: y\"\xff\r\n\r\n";

    (void)state;
    setenv("TZ", "UTC", 1);
    tzset();
    assert_line("{start} {start_unix} {start_ms} {start_us} {strftime:%Y-%j %T}", request,
                "23/Nov/2026:02:10:00 +0000 1795399800 1795399800122 1795399800122222 "
                "2026-327 02:10:00\n");
    assert_line("{length} {vars} {head_bytes} {total_bytes} {headers} {thread} {io_errors}",
                request, "12 17 0 5120 0 0 0\n");
    assert_line("{var:PATH_INFO}|{var:REQUEST_URI}|{var:QUERY_STRING}|{var:HTTP_X_TWO_WORDS}|"
                "{var:HTTP_X_TWO-WORDS}|{var:CONTENT_TYPE}|{var:CONTENT_LENGTH}|{var:REMOTE_ADDR}|"
                "{var:REMOTE_PORT}|{var:HTTPS}|{logvar:x}",
                request, "/a b\\\"|/a%20b%22?q=1|q=1|y\\\"\\xff|-|t/p|12|192.0.2.7|40123|-|-\n");
    assert_line("json:var:PATH_INFO,var:HTTPS,length,logvar:x", request,
                "{\"var:PATH_INFO\":\"/a b\\\"\",\"var:HTTPS\":null,\"length\":12,"
                "\"logvar:x\":null}\n");
    assert_line("{{\"p\": \"{var:PATH_INFO}\", \"x\": \"{header:x-two-words}\", \"n\": {length}}}",
                request, "{\"p\": \"/a b\\\"\", \"x\": \"y\\\"\\u00ff\", \"n\": 12}\n");
    assert_line("text:constant", request, "constant\n");
    assert_line("text:", request, "\n");
    assert_line("{length} {var:PATH_INFO} {vars}", "what is this\r\n\r\n", "0 - 0\n");
}

/* Credentials without a colon may be a secret: nothing of them is shown. */
static void test_users(void **state)
{
    static const struct {
        const char *value, *user;
    } rows[] = {
        {"Basic Ym9iOng=", "bob"},
        {"basic   Ym9iOng=", "bob"},
        {"Basic Ym9iOg==", "bob"},
        {"Basic Ym9i", "-"},
        {"Basic OnB3", "-"},
        {"Basic !!!!", "-"},
        {"Basic Ym9!iOng=", "-"},
        {"Basic", "-"},
        {"Basic ", "-"},
        {"Bearer Ym9iOng=", "-"},
        {"Basic CiI6eA==", "\\x0a\\\""},
        {"Basic w6k6eA==", "\\xc3\\xa9"},
    };
    char request[256], expected[64];

    (void)state;
    for (size_t i = 0; i < STK_ARRAY_LEN(rows); i++) {
        snprintf(request, sizeof request, "GET / HTTP/1.1\r\nHost: a\r\nAuthorization: %s\r\n\r\n",
                 rows[i].value);
        snprintf(expected, sizeof expected, "%s\n", rows[i].user);
        assert_line("{user}", request, expected);
    }
}

static void assert_fault(const char *format, const char *expected)
{
    struct stk_access_format *untouched = (void *)(uintptr_t)1, *f = untouched;
    char error[STK_ACCESS_ERROR_MAX] = "";

    assert_int_equal(stk_access_format_new(&f, format, 1, error), -EINVAL);
    assert_ptr_equal(f, untouched);
    assert_string_equal(error, expected);
}

static void test_faults(void **state)
{
    char format[5001];

    (void)state;
    assert_fault("{adr}", "access-log-format: no field \"adr\"; did you mean \"addr\"?");
    assert_fault("{user_agent}", "access-log-format: no field \"user_agent\"");
    assert_fault("{statsu} {addr}",
                 "access-log-format: no field \"statsu\"; did you mean \"status\"?");
    assert_fault("{heaer:x}",
                 "access-log-format: no field \"heaer:x\"; did you mean \"header:NAME\"?");
    assert_fault("{}", "access-log-format: no field \"\"");
    assert_fault("{header:}",
                 "access-log-format: no field \"header:\"; did you mean \"header:NAME\"?");
    assert_fault("{header:a b}", "access-log-format: \"a b\" cannot be the name of a header");
    assert_fault("json:status,method,tim_us",
                 "access-log-format: no field \"tim_us\"; did you mean \"time_us\"?");
    assert_fault("json:", "access-log-format: no field \"\"");
    assert_fault("json:header:\"", "access-log-format: \"\"\" cannot be the name of a header");
    assert_fault("{addr", "access-log-format: a lone \"{\"; write \"{{\" for the character itself");
    assert_fault("addr} {status}",
                 "access-log-format: a lone \"}\"; write \"}}\" for the character itself");
    assert_fault("combind",
                 "access-log-format: \"combind\" is not combined, common or json, nor has "
                 "it a {field}");
    assert_fault("{addr}\n", "access-log-format: control characters cannot stand in a format");
    memset(format, 'x', sizeof format);
    memcpy(format, "{addr}", 6);
    format[5000] = '\0';
    assert_fault(format, "access-log-format: too long, a line has at most 4080 bytes");
}

static char *escape(const char *bytes, size_t len, size_t room, enum stk_access_style style)
{
    static char out[8192];
    char *end = stk_access_escape(out, out + room, stk_span_make(bytes, len), style);

    assert_true(end <= out + room);
    *end = '\0';
    return out;
}

/* Each byte at each place of a value, so next to and inside of the eight that go at once. */
static void test_escape_bytes(void **state)
{
    (void)state;
    for (unsigned c = 0; c < 256; c++) {
        char shown[8];

        if (c == '"' || c == '\\')
            snprintf(shown, sizeof shown, "\\%c", (int)c);
        else if (c >= 0x20 && c < 0x7f)
            snprintf(shown, sizeof shown, "%c", (int)c);
        else
            snprintf(shown, sizeof shown, "\\x%02x", c);
        for (size_t len = 1; len < 20; len++) {
            for (size_t at = 0; at < len; at++) {
                char in[20], expected[64];

                memset(in, 'k', len);
                in[at] = (char)c;
                snprintf(expected, sizeof expected, "%.*s%s%.*s", (int)at, "kkkkkkkkkkkkkkkkkkkk",
                         shown, (int)(len - at - 1), "kkkkkkkkkkkkkkkkkkkk");
                assert_string_equal(escape(in, len, 1000, STK_ACCESS_TEXT), expected);
            }
        }
    }
    assert_string_equal(escape("a b", 3, 100, STK_ACCESS_WORD), "a\\x20b");
    assert_string_equal(escape("eight by eight b", 16, 100, STK_ACCESS_WORD),
                        "eight\\x20by\\x20eight\\x20b");
    assert_string_equal(escape("\xe2\x82\xac\xff\n\x7f\"\\/", 9, 100, STK_ACCESS_JSON),
                        "\xe2\x82\xac\\u00ff\\u000a\\u007f\\\"\\\\/");
}

/* Whatever the room, the result is the whole, or whole characters and "...". */
static void test_escape_cut(void **state)
{
    static const char *const values[] = {
        "plain text that is quite a bit longer than eight bytes",
        "a\x01z\x02\xff\"\\\xe2\x82\xac end of it, plain, plain",
        "\xe2\x82\xac\xe2\x82\xac\xe2\x82\xac\xe2\x82\xac\xe2\x82\xac\xe2\x82\xac",
    };

    (void)state;
    for (unsigned style = STK_ACCESS_TEXT; style <= STK_ACCESS_JSON; style++) {
        for (size_t i = 0; i < STK_ARRAY_LEN(values); i++) {
            size_t len = strlen(values[i]), whole;
            char all[256];

            strcpy(all, escape(values[i], len, 1000, (enum stk_access_style)style));
            whole = strlen(all);
            assert_string_equal(escape(values[i], len, whole, (enum stk_access_style)style), all);
            for (size_t room = 3; room < whole; room++) {
                char *cut = escape(values[i], len, room, (enum stk_access_style)style);
                size_t n = strlen(cut);
                bool boundary = false;

                assert_true(n >= 3 && room - n < 6);
                assert_memory_equal(cut + n - 3, "...", 3);
                assert_memory_equal(cut, all, n - 3);
                for (size_t part = 0; part <= len && !boundary; part++)
                    boundary = strlen(escape(values[i], part, 1000,
                                             (enum stk_access_style)style)) == n - 3;
                assert_true(boundary);
            }
        }
    }
}

/* A strict reader of the flat objects that the json format makes. */
static const char *json_string(const char *p)
{
    assert_int_equal(*p++, '"');
    while (*p != '"') {
        if (*p == '\\') {
            p++;
            if (*p == 'u') {
                for (unsigned i = 1; i <= 4; i++)
                    assert_true(isxdigit((unsigned char)p[i]));
                p += 5;
            } else {
                assert_true(*p == '"' || *p == '\\');
                p++;
            }
        } else if ((unsigned char)*p >= 0x80) {
            size_t n = stk_utf8_wide_len(p, strlen(p));

            assert_true(n > 0);
            p += n;
        } else {
            assert_true((unsigned char)*p >= 0x20);
            p++;
        }
    }
    return p + 1;
}

static void assert_json(const char *line, size_t len)
{
    const char *p = line;

    assert_true(len <= STK_LOG_LINE_MAX && strlen(line) == len);
    assert_int_equal(*p, '{');
    do {
        p = json_string(p + 1);
        assert_int_equal(*p++, ':');
        if (*p == '"')
            p = json_string(p);
        else if (strncmp(p, "null", 4) == 0)
            p += 4;
        else
            p += strspn(p, "0123456789.");
    } while (*p == ',');
    assert_string_equal(p, "}\n");
}

/* Any bytes of any length: valid JSON, one line, within the bound. */
static void test_hostile(void **state)
{
    static const char *const formats[] = {
        "json",
        "combined",
        "common",
        "json:request,agent,referer,header:x,header:y,user,target,path,query,host,addr,time,time_s",
        "{agent}{referer}{header:x}{header:y}{request}{target}{path}{query}{host}{user}{time_iso}",
    };
    static char bytes[9000];
    static struct entry e;
    char error[STK_ACCESS_ERROR_MAX], line[STK_LOG_LINE_MAX + 64];
    struct stk_access_format *f;
    unsigned seed = 7;

    (void)state;
    for (size_t i = 0; i < STK_ARRAY_LEN(formats); i++) {
        assert_int_equal(stk_access_format_new(&f, formats[i], 1, error), 0);
        for (unsigned round = 0; round < 600; round++) {
            unsigned size = (unsigned)rand_r(&seed) % (round % 3 == 0 ? 40 : 9000);
            unsigned kind = round % 4;
            size_t n;

            for (size_t k = 0; k < sizeof bytes; k++)
                bytes[k] = kind == 0   ? (char)rand_r(&seed)
                           : kind == 1 ? 'a'
                           : kind == 2 ? "\xf0\x9f\x98\x80"[k % 4]
                                       : "\x01\"\\\xff"[rand_r(&seed) % 4];
            /* No parser would let this through; other protocols' might. */
            entry_make(&e, BROWSER, strlen(BROWSER));
            e.head.base = bytes;
            e.head.method_off = (uint32_t)rand_r(&seed) % 50;
            e.head.method_len = size % 40;
            e.head.target_off = e.head.path_off = e.head.query_off = 0;
            e.head.target_len = e.head.path_len = e.head.query_len = size;
            for (unsigned k = 0; k < e.head.nfields; k++) {
                e.head.fields[k].value_off = 0;
                e.head.fields[k].value_len = size;
            }
            e.req.host = stk_span_make(bytes, size);
            memset(line, '#', sizeof line);
            n = stk_access_format_line(f, &e.entry, ENTRY_NOW, line);
            assert_true(n <= STK_LOG_LINE_MAX);
            for (size_t k = STK_LOG_LINE_MAX; k < sizeof line; k++)
                assert_int_equal(line[k], '#');
            line[n] = '\0';
            for (size_t k = 0; k + 1 < n; k++)
                assert_true((unsigned char)line[k] >= 0x20);
            assert_int_equal(line[n - 1], '\n');
            if (strncmp(formats[i], "json", 4) == 0)
                assert_json(line, n);
        }
        stk_access_format_free(f);
    }
}

/* What does not fit is marked, and the rest of the line is all there. */
static void test_cut(void **state)
{
    static char request[12000];
    static struct entry e;
    char error[STK_ACCESS_ERROR_MAX], line[STK_LOG_LINE_MAX + 1], tail[16];
    struct stk_access_format *f;
    size_t n;

    (void)state;
    n = (size_t)snprintf(request, sizeof request,
                         "GET /%03000d HTTP/1.1\r\nHost: a\r\nReferer: %03000d\r\nUser-Agent: "
                         "%03000d\r\n\r\n",
                         0, 1, 2);
    assert_true(entry_make(&e, request, n));
    assert_int_equal(stk_access_format_new(&f, "combined", 1, error), 0);
    n = stk_access_format_line(f, &e.entry, ENTRY_NOW, line);
    line[n] = '\0';
    assert_true(n > 4000 && n <= STK_LOG_LINE_MAX);
    assert_non_null(strstr(line, "000... HTTP/1.1\" 200 5120 \"000"));
    snprintf(tail, sizeof tail, "...\"\n");
    assert_string_equal(line + n - strlen(tail), tail);
    assert_non_null(strstr(line, "...\" \"00...\"\n"));
    stk_access_format_free(f);
}

/* Something of the next request is another; its head too, which then has another serial. */
static void vary(struct entry *e, stk_nsec *now, unsigned *seed)
{
    static const char *const requests[] = {
        BROWSER,
        "GET / HTTP/1.1\r\nHost: a\r\n\r\n",
        "what is this\r\n\r\n",
    };
    static uint64_t serials[STK_ARRAY_LEN(requests)];
    static uint64_t last;
    static char host[3000];
    unsigned what = (unsigned)rand_r(seed) % 16, which;

    e->entry.duration = rand_r(seed);
    e->req.id++;
    e->req.peer.port = (uint16_t)rand_r(seed);
    *now += 1 + rand_r(seed) % (STK_NSEC_PER_SEC / 50);
    switch (what) {
    case 0:
        which = (unsigned)rand_r(seed) % STK_ARRAY_LEN(requests);
        entry_make(e, requests[which], strlen(requests[which]));
        if (serials[which] == 0 || rand_r(seed) % 2 == 0)
            serials[which] = ++last;
        e->head.serial = which == 2 ? 0 : serials[which];
        break;
    case 1:
        e->req.status = 200 + (unsigned)rand_r(seed) % 2;
        break;
    case 2:
        e->entry.body_bytes = (uint64_t)rand_r(seed) % 3 * 1000;
        break;
    case 3:
        e->req.peer.addr[8] = (char)('1' + rand_r(seed) % 3);
        break;
    case 4:
        memset(host, 'h', sizeof host);
        e->req.host = stk_span_make(host, (size_t)rand_r(seed) % sizeof host);
        break;
    case 5:
        *now += STK_NSEC_PER_SEC;
        break;
    default:
        break;
    }
}

/* A line that is made by what is kept of the last one is what it would be without. */
static void test_memo(void **state)
{
    static const char *const formats[] = {
        "combined",
        "common",
        "json",
        "{port}",
        "{request}",
        "{host} {host} {request} {host} {header:x-request-id} {time_s} {agent} {scheme}",
        "{time}{id}{time}{id}{time}{id}{time}{id}{time}{id}{time}{id}{time}{id}{time}{id}{time}{"
        "id}",
        "{agent} {agent} {agent} {agent} {agent} {agent} {agent} {agent} {agent} {agent} {agent} "
        "{agent} {agent} {agent} {agent} {agent} {agent} {agent} {agent} {agent} {agent} {agent} "
        "{agent} {agent} {agent} {agent} {agent} {agent} {agent} {agent} {agent} {agent} {agent} ",
    };
    static struct stk_access_memo memo;
    static struct entry e;
    char error[STK_ACCESS_ERROR_MAX], kept[STK_LOG_LINE_MAX + 64], line[STK_LOG_LINE_MAX];
    struct stk_access_format *f;
    unsigned seed = 3;

    (void)state;
    for (size_t i = 0; i < STK_ARRAY_LEN(formats); i++) {
        stk_nsec now = ENTRY_NOW;

        assert_int_equal(stk_access_format_new(&f, formats[i], 1, error), 0);
        memset(&memo, 0, sizeof memo);
        entry_make(&e, BROWSER, strlen(BROWSER));
        for (unsigned round = 0; round < 5000; round++) {
            size_t n, expected;

            vary(&e, &now, &seed);
            e.entry.memo = NULL;
            expected = stk_access_format_line(f, &e.entry, now, line);
            e.entry.memo = &memo;
            memset(kept, '#', sizeof kept);
            n = stk_access_format_line(f, &e.entry, now, kept);
            assert_int_equal(n, expected);
            assert_memory_equal(kept, line, n);
            assert_int_equal(kept[STK_LOG_LINE_MAX], '#');
        }
        stk_access_format_free(f);
    }
}

static int zone(void **state)
{
    (void)state;
    setenv("TZ", "XXX-1", 1);
    tzset();
    return 0;
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_combined),   cmocka_unit_test(test_json),
        cmocka_unit_test(test_template),   cmocka_unit_test(test_edges),
        cmocka_unit_test(test_users),      cmocka_unit_test(test_more_fields),
        cmocka_unit_test(test_faults),     cmocka_unit_test(test_escape_bytes),
        cmocka_unit_test(test_escape_cut), cmocka_unit_test(test_hostile),
        cmocka_unit_test(test_cut),        cmocka_unit_test(test_memo),
    };

    return cmocka_run_group_tests(tests, zone, NULL);
}
