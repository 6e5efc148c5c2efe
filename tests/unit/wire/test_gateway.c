/* uwsgi and SCGI requests: at every split point, what they become, and what is refused. */
#include "edge.h"

#include <stdio.h>
#include <stdlib.h>

#include "base/macros.h"
#include "wire/scgi.h"
#include "wire/uwsgi.h"

enum { VARS = 40, PACKET = 8192 };

static const struct stk_http1_limits limits = {
    .line_max = 8192, .head_max = 32768, .fields_max = 128};

struct request {
    const char *vars[VARS]; /* name, value ... NULL */
};

typedef enum stk_http1_result (*parse_fn)(struct stk_gateway *gw, char *scratch,
                                          struct stk_head *head, const char *buf, size_t len,
                                          const struct stk_http1_limits *limits);

static size_t put_u16(char *p, size_t n)
{
    p[0] = (char)(n & 255);
    p[1] = (char)(n >> 8);
    return 2;
}

static size_t uwsgi_packet(char *out, const struct request *r, unsigned modifier)
{
    size_t n = STK_UWSGI_HEADER;

    for (size_t i = 0; r->vars[i]; i++) {
        n += put_u16(out + n, strlen(r->vars[i]));
        memcpy(out + n, r->vars[i], strlen(r->vars[i]));
        n += strlen(r->vars[i]);
    }
    out[0] = (char)modifier;
    (void)put_u16(out + 1, n - STK_UWSGI_HEADER);
    out[3] = 0;
    return n;
}

static size_t scgi_packet(char *out, const struct request *r)
{
    char body[PACKET];
    size_t n = 0, front;

    memcpy(body, "CONTENT_LENGTH\0", 15);
    n = 15;
    for (size_t i = 0; r->vars[i]; i += 2)
        if (strcmp(r->vars[i], "CONTENT_LENGTH") == 0) {
            memcpy(body + n, r->vars[i + 1], strlen(r->vars[i + 1]));
            n += strlen(r->vars[i + 1]);
        }
    if (n == 15)
        body[n++] = '0';
    body[n++] = 0;
    memcpy(body + n, "SCGI\0001", 7);
    n += 7;
    for (size_t i = 0; r->vars[i]; i++) {
        if (i % 2 == 0 && strcmp(r->vars[i], "CONTENT_LENGTH") == 0) {
            i++;
            continue;
        }
        memcpy(body + n, r->vars[i], strlen(r->vars[i]) + 1);
        n += strlen(r->vars[i]) + 1;
    }
    front = (size_t)snprintf(out, 16, "%zu:", n);
    memcpy(out + front, body, n);
    out[front + n] = ',';
    return front + n + 1;
}

static struct stk_gateway gw;
static struct stk_head head;
static char *scratch;

static enum stk_http1_result parse(parse_fn fn, const char *packet, size_t len)
{
    return fn(&gw, scratch, &head, edge_before(packet, len), len, &limits);
}

static void assert_span(stk_span s, const char *text)
{
    if (!stk_span_eq(s, stk_span_str(text)))
        fail_msg("\"%.*s\" is not \"%s\"", (int)s.len, s.ptr, text);
}

static const struct request full = {{
    "QUERY_STRING",
    "a=1&b",
    "REQUEST_METHOD",
    "POST",
    "CONTENT_TYPE",
    "text/plain",
    "CONTENT_LENGTH",
    "5",
    "REQUEST_URI",
    "/x%20y?a=1&b",
    "PATH_INFO",
    "/x y",
    "SERVER_PROTOCOL",
    "HTTP/1.1",
    "REQUEST_SCHEME",
    "https",
    "HTTPS",
    "on",
    "REMOTE_ADDR",
    "192.0.2.7",
    "REMOTE_PORT",
    "4711",
    "SERVER_PORT",
    "443",
    "SERVER_NAME",
    "example.com",
    "HTTP_HOST",
    "example.com",
    "HTTP_X_THING",
    "one two",
    "HTTP_CONNECTION",
    "upgrade",
    "HTTP_PROXY",
    "http://evil",
    "REMOTE_USER",
    "ann",
    NULL,
}};

static void check_full(size_t len)
{
    assert_int_equal(head.len, len);
    assert_span(stk_head_method(&head), "POST");
    assert_span(stk_head_target(&head), "/x%20y?a=1&b");
    assert_span(stk_head_path(&head), "/x y");
    assert_false(head.path_escaped);
    assert_true(head.path_apart);
    assert_span(stk_head_query(&head), "a=1&b");
    assert_span(stk_head_host(&head), "example.com");
    assert_span(stk_head_known_value(&head, STK_HEAD_CONTENT_TYPE), "text/plain");
    assert_true(head.has_content_length);
    assert_int_equal(head.content_length, 5);
    assert_false(head.keep_alive);
    assert_false(head.chunked);
    assert_int_equal(head.nfields, 4);
    assert_span(stk_head_field_name(&head, &head.fields[1]), "x-thing");
    assert_span(stk_head_field_value(&head, &head.fields[1]), "one two");
    assert_span(gw.remote_addr, "192.0.2.7");
    assert_span(gw.remote_port, "4711");
    assert_span(gw.mount, "");
    assert_true(gw.secure);
    for (size_t i = 0; i < gw.nvars; i++)
        assert_false(stk_span_eq(gw.vars[i].name, STK_SPAN_LIT("HTTP_PROXY")));
}

/* The same of a copy that is made when the buffers are no more. */
static void check_copy(void)
{
    size_t size = stk_head_text_size(&head);
    char *text = malloc(size + 1);
    struct stk_head was = head;

    stk_head_copy(&head, &was, text);
    assert_ptr_equal(head.base, text);
    for (size_t i = 0; i < was.nfields; i++) {
        stk_span name = stk_head_field_name(&was, &was.fields[i]);
        stk_span value = stk_head_field_value(&was, &was.fields[i]);

        assert_true(stk_span_eq(stk_head_field_name(&head, &head.fields[i]), name));
        assert_true(stk_span_eq(stk_head_field_value(&head, &head.fields[i]), value));
    }
    assert_true(stk_span_eq(stk_head_method(&head), stk_head_method(&was)));
    assert_true(stk_span_eq(stk_head_target(&head), stk_head_target(&was)));
    assert_true(stk_span_eq(stk_head_path(&head), stk_head_path(&was)));
    assert_true(stk_span_eq(stk_head_query(&head), stk_head_query(&was)));
    assert_true(stk_span_eq(stk_head_host(&head), stk_head_host(&was)));
    free(text);
    head = was;
}

static void test_copies(void **state)
{
    static const char http[] = "GET http://h:1/p?q HTTP/1.1\r\nHost: h:1\r\nA: b\r\n\r\n";
    struct request absolute = {{"REQUEST_METHOD", "GET", "REQUEST_URI", "http://h:1/p?q",
                                "HTTP_HOST", "h:1", "HTTP_A", ""}};
    struct request asterisk = {{"REQUEST_METHOD", "OPTIONS", "REQUEST_URI", "*"}};
    char packet[PACKET];

    assert_int_equal(parse(stk_uwsgi_parse, packet, uwsgi_packet(packet, &full, 0)), STK_HTTP1_OK);
    check_copy();
    assert_int_equal(parse(stk_uwsgi_parse, packet, uwsgi_packet(packet, &absolute, 0)),
                     STK_HTTP1_OK);
    check_copy();
    assert_int_equal(parse(stk_uwsgi_parse, packet, uwsgi_packet(packet, &asterisk, 0)),
                     STK_HTTP1_OK);
    assert_true(head.path_apart);
    check_copy();
    assert_int_equal(stk_http1_parse(&head, http, sizeof http - 1, &limits), STK_HTTP1_OK);
    check_copy();
}

static void test_every_split(void **state)
{
    char packet[PACKET];
    size_t len = uwsgi_packet(packet, &full, 0);

    for (size_t n = 0; n < len; n++)
        assert_int_equal(parse(stk_uwsgi_parse, packet, n), STK_HTTP1_PARTIAL);
    assert_int_equal(parse(stk_uwsgi_parse, packet, len), STK_HTTP1_OK);
    check_full(len);
    len = scgi_packet(packet, &full);
    for (size_t n = 0; n < len; n++)
        assert_int_equal(parse(stk_scgi_parse, packet, n), STK_HTTP1_PARTIAL);
    assert_int_equal(parse(stk_scgi_parse, packet, len), STK_HTTP1_OK);
    check_full(len);
}

/* A packet that differs from the one before in the digits of REMOTE_PORT only, at each byte. */
static void test_again(void **state)
{
    static const char port[] = "REMOTE_PORT\004\0004711";
    char packet[PACKET];
    size_t len = uwsgi_packet(packet, &full, 0);
    char *digits = (char *)memmem(packet, len, port, sizeof port - 1) + sizeof port - 5;

    assert_int_equal(parse(stk_uwsgi_parse, packet, len), STK_HTTP1_OK);
    head.serial = 7;
    assert_false(stk_gateway_again(&gw, &head, packet, len));
    gw.serial = 7;
    for (size_t n = 0; n < len; n++)
        assert_false(stk_gateway_again(&gw, &head, edge_before(packet, n), n));
    for (size_t i = 0; i < len; i++) {
        char was = packet[i];

        packet[i] ^= 1;
        if (packet + i < digits || packet + i >= digits + 4)
            assert_false(stk_gateway_again(&gw, &head, edge_before(packet, len), len));
        packet[i] = was;
    }
    memcpy(digits, "1234", 4);
    assert_true(stk_gateway_again(&gw, &head, edge_before(packet, len), len));
    assert_span(gw.remote_port, "1234");
    assert_int_equal(gw.port, 1234);
    memcpy(digits, "12\n4", 4);
    assert_false(stk_gateway_again(&gw, &head, packet, len));
    memcpy(digits, "4711", 4);
    packet[len] = 'x'; /* a body */
    assert_true(stk_gateway_again(&gw, &head, packet, len + 1));
    check_full(len);
    head.serial = 8; /* of another protocol, meanwhile */
    assert_false(stk_gateway_again(&gw, &head, packet, len));
    head.serial = 7;
    assert_int_equal(parse(stk_uwsgi_parse, "\0\x03\0\0\x09\0A", 7), STK_HTTP1_E_BAD_PACKET);
    head.serial = 7;
    assert_false(stk_gateway_again(&gw, &head, packet, len));
}

/* More names than are kept, and longer ones: which they are does not depend on what came before. */
static void test_names(void **state)
{
    char names[100][80], values[100][8], packet[PACKET];

    for (unsigned turn = 0; turn < 20; turn++) {
        struct request r = {{"REQUEST_METHOD", "GET", "REQUEST_URI", "/"}};
        unsigned n = 4;

        for (unsigned i = 0; i < 15; i++) {
            unsigned which = turn * 7 + i * (turn + 1);

            (void)snprintf(names[i], sizeof names[i], "%sX_%.*s%u", i % 3 == 2 ? "" : "HTTP_",
                           i % 5 == 0 ? 50 : 0,
                           "LONG_LONG_LONG_LONG_LONG_LONG_LONG_LONG_LONG_LONG_LONG", which);
            (void)snprintf(values[i], sizeof values[i], "%u", i);
            r.vars[n++] = names[i];
            r.vars[n++] = values[i];
        }
        assert_int_equal(parse(stk_uwsgi_parse, packet, uwsgi_packet(packet, &r, 0)), STK_HTTP1_OK);
        assert_int_equal(head.nfields, 10);
        assert_int_equal(gw.nvars, 5);
        for (unsigned i = 0, f = 0, v = 0; i < 15; i++) {
            stk_span name;

            if (i % 3 == 2) {
                assert_span(gw.vars[v].name, names[i]);
                assert_span(gw.vars[v++].value, values[i]);
                continue;
            }
            name = stk_head_field_name(&head, &head.fields[f]);
            assert_int_equal(name.len, strlen(names[i]) - 5);
            for (size_t k = 0; k < name.len; k++)
                assert_int_equal(name.ptr[k],
                                 names[i][k + 5] == '_' ? '-' : names[i][k + 5] | 0x20);
            assert_int_equal(head.fields[f].hash, stk_http1_field_hash(name));
            assert_span(stk_head_field_value(&head, &head.fields[f++]), values[i]);
        }
    }
}

static void test_paths(void **state)
{
    static const struct {
        unsigned modifier;
        const char *uri, *script, *path, *document; /* NULL: not there */
        const char *ret_script, *ret_path;
    } rows[] = {
        {0, "/a/b", NULL, "/a/b", NULL, "", "/a/b"},
        {0, "/a/b", "", "/a/b", NULL, "", "/a/b"},
        {0, "/a/b", "/", "/a/b", NULL, "", "/a/b"},
        {0, "/m/b", "/m", "/m/b", NULL, "/m", "/b"},
        {0, "/m/b", "/m", "/b", NULL, "/m", "/b"},
        {0, "/m//b", "/m", "/m/b", NULL, "/m", "/b"},
        {0, "/m/m/b", "/m", "/m/b", NULL, "/m", "/m/b"},
        {0, "/m", "/m", "", NULL, "", "/m"},
        {30, "/m/b", "/m", "/m/b", NULL, "/m", "/b"},
        {30, "/m", "/m", "/m", NULL, "/m", ""},
        {30, "/mm/b", "/m", "/mm/b", NULL, "/m", "/mm/b"},
        {0, "/a/b", NULL, NULL, "/a/b", "", "/a/b"},
        {0, "/a/b", "/a/b", NULL, "/a/b", "", "/a/b"},
        {0, "/a/b", "/a/b", NULL, NULL, "", "/a/b"},
        {0, "/m/b%20c", "/m", NULL, NULL, "/m", "/b c"},
        {0, "/a%2fb?q", NULL, NULL, NULL, "", "/a/b"},
        {0, NULL, "/m", "/x y", NULL, "/m", "/x y"},
        {0, NULL, NULL, NULL, NULL, "", "/"},
    };

    for (size_t i = 0; i < STK_ARRAY_LEN(rows); i++) {
        struct request r = {{"REQUEST_METHOD", "GET", "SERVER_PROTOCOL", "HTTP/1.0"}};
        size_t n = 4, len;
        char packet[PACKET];
        const char *names[] = {"REQUEST_URI", "SCRIPT_NAME", "PATH_INFO", "DOCUMENT_URI"};
        const char *values[] = {rows[i].uri, rows[i].script, rows[i].path, rows[i].document};
        stk_span path;

        for (size_t k = 0; k < STK_ARRAY_LEN(names); k++)
            if (values[k]) {
                r.vars[n++] = names[k];
                r.vars[n++] = values[k];
            }
        len = uwsgi_packet(packet, &r, rows[i].modifier);
        if (parse(stk_uwsgi_parse, packet, len) != STK_HTTP1_OK)
            fail_msg("row %zu is refused", i);
        path = stk_head_path(&head);
        if (!stk_span_eq(gw.mount, stk_span_str(rows[i].ret_script)))
            fail_msg("row %zu: SCRIPT_NAME is %.*s", i, (int)gw.mount.len, gw.mount.ptr);
        if (path.len == 0)
            path = STK_SPAN_LIT("/");
        path = stk_span_make(path.ptr + gw.mount.len, path.len - gw.mount.len);
        if (!stk_span_eq(path, stk_span_str(rows[i].ret_path)))
            fail_msg("row %zu: PATH_INFO is %.*s", i, (int)path.len, path.ptr);
    }
}

static void test_refused(void **state)
{
    static const struct {
        const char *name, *value;
        enum stk_http1_result result;
    } rows[] = {
        {"HTTP_X", "a\r\nHost: b", STK_HTTP1_E_BAD_FIELD_VALUE},
        {"HTTP_X", "a\nb", STK_HTTP1_E_BAD_FIELD_VALUE},
        {"HTTP_X Y", "a", STK_HTTP1_E_BAD_FIELD_NAME},
        {"HTTP_X:Y", "a", STK_HTTP1_E_BAD_FIELD_NAME},
        {"HTTP_Transfer-Encoding", "chunked", STK_HTTP1_E_BAD_FIELD_NAME},
        {"HTTP_content_length", "5", STK_HTTP1_E_BAD_FIELD_NAME},
        {"HTTP_HOST", "a b", STK_HTTP1_E_BAD_HOST},
        {"CONTENT_LENGTH", "5, 5", STK_HTTP1_E_BAD_CONTENT_LENGTH},
        {"CONTENT_LENGTH", "-1", STK_HTTP1_E_BAD_CONTENT_LENGTH},
        {"REQUEST_URI", "/a b", STK_HTTP1_E_BAD_VERSION},
        {"REQUEST_METHOD", "GE T", STK_HTTP1_OK + 1000},
        {"QUERY_STRING", "a\nb", STK_HTTP1_E_BAD_FIELD_VALUE},
    };

    for (size_t i = 0; i < STK_ARRAY_LEN(rows); i++) {
        struct request r = {{"REQUEST_METHOD", "GET", "REQUEST_URI", "/", "HTTP_HOST", "a",
                             "SERVER_PROTOCOL", "HTTP/1.1"}};
        char packet[PACKET];
        enum stk_http1_result result;

        r.vars[8] = rows[i].name;
        r.vars[9] = rows[i].value;
        if (strcmp(rows[i].name, "HTTP_HOST") == 0)
            r.vars[5] = rows[i].value;
        result = parse(stk_uwsgi_parse, packet, uwsgi_packet(packet, &r, 0));
        if (rows[i].result == STK_HTTP1_OK + 1000
                ? result == STK_HTTP1_OK
                : result != rows[i].result && strcmp(rows[i].name, "HTTP_HOST") != 0)
            fail_msg("%s = %s: %s", rows[i].name, rows[i].value, stk_http1_error_text(result));
        assert_int_not_equal(result, STK_HTTP1_OK);
    }
}

static void test_lengths_that_differ(void **state)
{
    struct request r = {{"REQUEST_METHOD", "GET", "REQUEST_URI", "/", "CONTENT_LENGTH", "3",
                         "CONTENT_LENGTH", "4"}};
    char packet[PACKET];

    assert_int_equal(parse(stk_uwsgi_parse, packet, uwsgi_packet(packet, &r, 0)),
                     STK_HTTP1_E_DUPLICATE_CONTENT_LENGTH);
}

static void test_body_taken_away(void **state)
{
    struct request r = {{"REQUEST_METHOD", "GET", "REQUEST_URI", "/", "CONTENT_LENGTH", "3",
                         "HTTP_CONTENT_LENGTH", "3", "CONTENT_LENGTH", ""}};
    char packet[PACKET];

    assert_int_equal(parse(stk_uwsgi_parse, packet, uwsgi_packet(packet, &r, 0)), STK_HTTP1_OK);
    assert_false(head.has_content_length);
    r.vars[9] = "3";
    r.vars[7] = "4";
    assert_int_equal(parse(stk_uwsgi_parse, packet, uwsgi_packet(packet, &r, 0)),
                     STK_HTTP1_E_DUPLICATE_CONTENT_LENGTH);
}

static void test_names_of_the_server(void **state)
{
    struct request r = {{"REQUEST_METHOD", "GET", "REQUEST_URI", "/", "wsgi.input", "x",
                         "stoker.version", "x", "SERVER_SOFTWARE", "nginx"}};
    char packet[PACKET];

    assert_int_equal(parse(stk_uwsgi_parse, packet, uwsgi_packet(packet, &r, 0)), STK_HTTP1_OK);
    assert_int_equal(gw.nvars, 0);
}

static void test_magic_is_left_out(void **state)
{
    struct request r = {{"REQUEST_METHOD", "GET", "REQUEST_URI", "/", "UWSGI_FILE", "/etc/x.py",
                         "UWSGI_SCHEME", "https", "UWSGI_ROUTER", "http"}};
    char packet[PACKET];

    assert_int_equal(parse(stk_uwsgi_parse, packet, uwsgi_packet(packet, &r, 0)), STK_HTTP1_OK);
    assert_true(gw.magic);
    assert_true(gw.secure);
    assert_int_equal(gw.nvars, 1);
    assert_span(gw.vars[0].name, "UWSGI_ROUTER");
}

static void test_packets(void **state)
{
    static const struct {
        parse_fn parse;
        const char *bytes;
        size_t len;
        enum stk_http1_result result;
    } rows[] = {
#define ROW(fn, lit, r) {fn, lit, sizeof(lit) - 1, r}
        ROW(stk_uwsgi_parse, "GET / HTTP/1.1\r\n", STK_HTTP1_E_HTTP_BYTES),
        ROW(stk_uwsgi_parse, "\x64\0\0\0", STK_HTTP1_E_UWSGI_PING),
        ROW(stk_uwsgi_parse, "\x05\0\0\0", STK_HTTP1_E_UWSGI_MODIFIER),
        ROW(stk_uwsgi_parse, "\0\xff\xff\0", STK_HTTP1_E_HEAD_TOO_LARGE),
        ROW(stk_uwsgi_parse, "\0\x04\0\0\0\0\0\0", STK_HTTP1_E_BAD_PACKET),
        ROW(stk_uwsgi_parse, "\0\x03\0\0\x09\0A", STK_HTTP1_E_BAD_PACKET),
        ROW(stk_uwsgi_parse, "\0\x03\0\0\x01\0A", STK_HTTP1_E_BAD_PACKET),
        ROW(stk_uwsgi_parse, "\0\0\0\0", STK_HTTP1_E_BAD_METHOD),
        ROW(stk_scgi_parse, "GET / HTTP/1.1\r\n", STK_HTTP1_E_HTTP_BYTES),
        ROW(stk_scgi_parse, "12345678:", STK_HTTP1_E_BAD_PACKET),
        ROW(stk_scgi_parse, "05:", STK_HTTP1_E_BAD_PACKET),
        ROW(stk_scgi_parse, ":", STK_HTTP1_E_BAD_PACKET),
        ROW(stk_scgi_parse, "9999999:", STK_HTTP1_E_HEAD_TOO_LARGE),
        ROW(stk_scgi_parse, "5:abcdef", STK_HTTP1_E_BAD_PACKET),
        ROW(stk_scgi_parse, "4:A\0B\0,", STK_HTTP1_E_BAD_PACKET),
        ROW(stk_scgi_parse, "17:CONTENT_LENGTH\0000\0,", STK_HTTP1_E_BAD_PACKET),
        ROW(stk_scgi_parse, "24:CONTENT_LENGTH\0000\0SCGI\0002\0,", STK_HTTP1_E_BAD_PACKET),
#undef ROW
    };

    for (size_t i = 0; i < STK_ARRAY_LEN(rows); i++) {
        enum stk_http1_result r = parse(rows[i].parse, rows[i].bytes, rows[i].len);

        if (r != rows[i].result)
            fail_msg("row %zu: %s", i, stk_http1_error_text(r));
    }
}

static void test_too_many_variables(void **state)
{
    static char packet[65536];
    size_t n = STK_UWSGI_HEADER;

    for (unsigned i = 0; i < STK_GATEWAY_VARS_MAX + 1; i++) {
        char name[8];

        n += put_u16(packet + n, (size_t)snprintf(name, sizeof name, "V%u", i));
        memcpy(packet + n, name, strlen(name));
        n += strlen(name);
        n += put_u16(packet + n, 0);
    }
    packet[0] = 0;
    (void)put_u16(packet + 1, n - STK_UWSGI_HEADER);
    assert_int_equal(parse(stk_uwsgi_parse, packet, n), STK_HTTP1_E_TOO_MANY_FIELDS);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_every_split),
        cmocka_unit_test(test_copies),
        cmocka_unit_test(test_again),
        cmocka_unit_test(test_names),
        cmocka_unit_test(test_paths),
        cmocka_unit_test(test_refused),
        cmocka_unit_test(test_lengths_that_differ),
        cmocka_unit_test(test_body_taken_away),
        cmocka_unit_test(test_names_of_the_server),
        cmocka_unit_test(test_magic_is_left_out),
        cmocka_unit_test(test_packets),
        cmocka_unit_test(test_too_many_variables),
    };
    int r;

    scratch = calloc(1, stk_gateway_room(&limits));
    assert_non_null(scratch);
    r = cmocka_run_group_tests(tests, NULL, NULL);
    free(scratch);
    return r;
}
