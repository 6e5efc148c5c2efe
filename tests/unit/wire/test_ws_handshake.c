/*
 * The opening handshake: who asks for a WebSocket and who does it rightly, RFC 6455's key, lists
 * of subprotocols, and every kind of offer of permessage-deflate with its answer.
 */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
/* cmocka needs the ones above */
#include <cmocka.h>
#include <stdio.h>
#include <string.h>

#include "base/macros.h"
#include "wire/http1.h"
#include "wire/ws_handshake.h"

#define KEY     "Sec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\n"
#define VERSION "Sec-WebSocket-Version: 13\r\n"
#define UPGRADE "Upgrade: websocket\r\nConnection: Upgrade\r\n"
#define RIGHT   UPGRADE KEY VERSION

static struct stk_head head;
static char bytes[4096];

static void parse(const char *line, const char *fields)
{
    static const struct stk_http1_limits limits = {
        .line_max = 4096, .head_max = 4096, .fields_max = 100};
    int n = snprintf(bytes, sizeof(bytes), "%s\r\nHost: h\r\n%s\r\n", line, fields);

    assert_true(n > 0 && (size_t)n < sizeof(bytes));
    assert_int_equal(stk_http1_parse(&head, bytes, (size_t)n, &limits), STK_HTTP1_OK);
}

static enum stk_ws_handshake_result ask(const char *line, const char *fields)
{
    struct stk_ws_handshake handshake;

    parse(line, fields);
    return stk_ws_handshake_read(&head, &handshake);
}

static void test_who_asks(void **state)
{
    static const struct {
        const char *line, *fields;
        enum stk_ws_handshake_result result;
    } cases[] = {
        {"GET / HTTP/1.1", RIGHT, STK_WS_HANDSHAKE_OK},
        {"GET / HTTP/1.1", "upgrade: WebSocket\r\nCONNECTION: keep-alive, upgrade\r\n" KEY VERSION,
         STK_WS_HANDSHAKE_OK},
        {"GET / HTTP/1.1", "Upgrade: h2c, websocket\r\nConnection: Upgrade\r\n" KEY VERSION,
         STK_WS_HANDSHAKE_OK},
        {"GET / HTTP/1.1",
         "Upgrade: h2c\r\nUpgrade: websocket\r\nConnection: Upgrade\r\n" KEY VERSION,
         STK_WS_HANDSHAKE_OK},
        {"GET / HTTP/1.1", RIGHT "Content-Length: 0\r\n", STK_WS_HANDSHAKE_OK},
        {"GET / HTTP/1.1", "", STK_WS_HANDSHAKE_NONE},
        {"GET / HTTP/1.1", "Upgrade: h2c\r\nConnection: Upgrade\r\n" KEY VERSION,
         STK_WS_HANDSHAKE_NONE},
        {"GET / HTTP/1.1", "Upgrade: websockets\r\nConnection: Upgrade\r\n" KEY VERSION,
         STK_WS_HANDSHAKE_NONE},
        {"GET / HTTP/1.1", "Upgrade: websocket/1\r\nConnection: Upgrade\r\n" KEY VERSION,
         STK_WS_HANDSHAKE_NONE},
        {"GET / HTTP/1.1", "Upgrade: websocket\r\nConnection: close\r\n" KEY VERSION,
         STK_WS_HANDSHAKE_NONE},
        {"GET / HTTP/1.1", "Upgrade: websocket\r\n" KEY VERSION, STK_WS_HANDSHAKE_NONE},
        {"GET / HTTP/1.0", RIGHT, STK_WS_HANDSHAKE_NONE},
        {"POST / HTTP/1.1", RIGHT "Content-Length: 0\r\n", STK_WS_HANDSHAKE_NONE},
        {"HEAD / HTTP/1.1", RIGHT, STK_WS_HANDSHAKE_NONE},
        {"GET / HTTP/1.1", UPGRADE KEY, STK_WS_HANDSHAKE_E_VERSION},
        {"GET / HTTP/1.1", UPGRADE KEY "Sec-WebSocket-Version: 8\r\n", STK_WS_HANDSHAKE_E_VERSION},
        {"GET / HTTP/1.1", UPGRADE KEY "Sec-WebSocket-Version: 13, 8\r\n",
         STK_WS_HANDSHAKE_E_VERSION},
        {"GET / HTTP/1.1", UPGRADE KEY VERSION VERSION, STK_WS_HANDSHAKE_E_VERSION},
        {"GET / HTTP/1.1", UPGRADE VERSION, STK_WS_HANDSHAKE_E_KEY},
        {"GET / HTTP/1.1", RIGHT KEY, STK_WS_HANDSHAKE_E_KEY},
        {"GET / HTTP/1.1", UPGRADE VERSION "Sec-WebSocket-Key:\r\n", STK_WS_HANDSHAKE_E_KEY},
        {"GET / HTTP/1.1", UPGRADE VERSION "Sec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ=\r\n",
         STK_WS_HANDSHAKE_E_KEY},
        {"GET / HTTP/1.1", UPGRADE VERSION "Sec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ===\r\n",
         STK_WS_HANDSHAKE_E_KEY},
        {"GET / HTTP/1.1", UPGRADE VERSION "Sec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZR==\r\n",
         STK_WS_HANDSHAKE_E_KEY},
        {"GET / HTTP/1.1", UPGRADE VERSION "Sec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQAA\r\n",
         STK_WS_HANDSHAKE_E_KEY},
        {"GET / HTTP/1.1", UPGRADE VERSION "Sec-WebSocket-Key: dGhlIHNhbXBsZ-Bub25jZQ==\r\n",
         STK_WS_HANDSHAKE_E_KEY},
        {"GET / HTTP/1.1", RIGHT "Content-Length: 1\r\n", STK_WS_HANDSHAKE_E_BODY},
        {"GET / HTTP/1.1", RIGHT "Transfer-Encoding: chunked\r\n", STK_WS_HANDSHAKE_E_BODY},
        {"GET / HTTP/1.1", RIGHT "Sec-WebSocket-Protocol: a b\r\n", STK_WS_HANDSHAKE_E_PROTOCOL},
        {"GET / HTTP/1.1", RIGHT "Sec-WebSocket-Protocol: \"a\"\r\n", STK_WS_HANDSHAKE_E_PROTOCOL},
        {"GET / HTTP/1.1", RIGHT "Sec-WebSocket-Protocol: a, b;c\r\n", STK_WS_HANDSHAKE_E_PROTOCOL},
        {"GET / HTTP/1.1", RIGHT "Sec-WebSocket-Extensions: ;\r\n", STK_WS_HANDSHAKE_E_EXTENSION},
        {"GET / HTTP/1.1", RIGHT "Sec-WebSocket-Extensions: x y\r\n", STK_WS_HANDSHAKE_E_EXTENSION},
        {"GET / HTTP/1.1", RIGHT "Sec-WebSocket-Extensions: x; y=\r\n",
         STK_WS_HANDSHAKE_E_EXTENSION},
        {"GET / HTTP/1.1", RIGHT "Sec-WebSocket-Extensions: x; y=\"a\r\n",
         STK_WS_HANDSHAKE_E_EXTENSION},
        {"GET / HTTP/1.1", RIGHT "Sec-WebSocket-Extensions: x; y=\"\"\r\n",
         STK_WS_HANDSHAKE_E_EXTENSION},
        {"GET / HTTP/1.1", RIGHT "Sec-WebSocket-Extensions: x; y=\"a b\"\r\n",
         STK_WS_HANDSHAKE_E_EXTENSION},
        {"GET / HTTP/1.1", RIGHT "Sec-WebSocket-Extensions: x; =1\r\n",
         STK_WS_HANDSHAKE_E_EXTENSION},
        {"GET / HTTP/1.1",
         RIGHT "Sec-WebSocket-Extensions: x ; y = \"a\" ; z=1; w,, permessage-deflate,\r\n",
         STK_WS_HANDSHAKE_OK},
    };

    (void)state;
    for (size_t i = 0; i < STK_ARRAY_LEN(cases); i++) {
        enum stk_ws_handshake_result r = ask(cases[i].line, cases[i].fields);

        if (r != cases[i].result)
            fail_msg("case %zu: %d (%s)", i, r, stk_ws_handshake_text(r));
    }
}

static void test_statuses(void **state)
{
    (void)state;
    assert_int_equal(stk_ws_handshake_status(STK_WS_HANDSHAKE_E_VERSION), 426);
    assert_int_equal(stk_ws_handshake_status(STK_WS_HANDSHAKE_E_KEY), 400);
    for (int r = 0; r <= STK_WS_HANDSHAKE_E_EXTENSION; r++)
        assert_true(strlen(stk_ws_handshake_text((enum stk_ws_handshake_result)r)) > 0);
}

/* RFC 6455 section 1.3. */
static void test_accept(void **state)
{
    struct stk_ws_handshake handshake;
    char accept[STK_WS_ACCEPT_SIZE];

    (void)state;
    parse("GET /chat HTTP/1.1", RIGHT);
    assert_int_equal(stk_ws_handshake_read(&head, &handshake), STK_WS_HANDSHAKE_OK);
    assert_false(handshake.has_protocols || handshake.has_deflate);
    stk_ws_accept(handshake.key, accept);
    assert_memory_equal(accept, "s3pPLMBiTxaQ9kYGzzhZRbK+xOo=", STK_WS_ACCEPT_SIZE);
}

static void test_protocols(void **state)
{
    static const char *const names[] = {"chat", "superchat", "v1.json", "graphql-ws"};
    struct stk_ws_protocols walk = {0};
    struct stk_ws_handshake handshake;
    stk_span name;

    (void)state;
    parse("GET / HTTP/1.1",
          "Sec-WebSocket-Protocol: chat ,superchat\r\n" RIGHT "Sec-WebSocket-Protocol: ,\r\n"
          "sec-websocket-protocol:v1.json,\tgraphql-ws ,\r\n");
    assert_int_equal(stk_ws_handshake_read(&head, &handshake), STK_WS_HANDSHAKE_OK);
    assert_true(handshake.has_protocols);
    for (size_t i = 0; i < STK_ARRAY_LEN(names); i++) {
        assert_true(stk_ws_protocol_next(&head, &walk, &name));
        assert_true(stk_span_eq(name, stk_span_str(names[i])));
        assert_true(stk_ws_protocol_is_offered(&head, name));
    }
    assert_false(stk_ws_protocol_next(&head, &walk, &name));
    assert_false(stk_ws_protocol_is_offered(&head, STK_SPAN_LIT("Chat")));
    assert_false(stk_ws_protocol_is_offered(&head, STK_SPAN_LIT("")));
}

struct offer {
    const char *fields, *answer; /* NULL: none is met */
    struct stk_ws_deflate_params params;
};

#define X "Sec-WebSocket-Extensions: "
#define D "permessage-deflate"
#define S "; server_no_context_takeover"
#define K "; client_no_context_takeover"

static void check_offers(const struct stk_ws_deflate_policy *policy, const struct offer *offers,
                         size_t n)
{
    for (size_t i = 0; i < n; i++) {
        char fields[512], answer[STK_WS_EXTENSION_SIZE] = "";
        struct stk_ws_deflate_params p = {false, false, 0, 0};
        bool agreed;

        (void)snprintf(fields, sizeof(fields), "%s\r\n" RIGHT, offers[i].fields);
        assert_int_equal(ask("GET / HTTP/1.1", fields), STK_WS_HANDSHAKE_OK);
        agreed = stk_ws_deflate_agree(&head, policy, &p, answer);
        assert_int_equal(agreed, offers[i].answer != NULL);
        if (!agreed)
            continue;
        assert_string_equal(answer, offers[i].answer);
        assert_int_equal(p.server_takeover, offers[i].params.server_takeover);
        assert_int_equal(p.client_takeover, offers[i].params.client_takeover);
        assert_int_equal(p.server_bits, offers[i].params.server_bits);
        assert_int_equal(p.client_bits, offers[i].params.client_bits);
    }
}

static void test_offers_with_takeover(void **state)
{
    static const struct stk_ws_deflate_policy policy = {true, 12, 13};
    static const struct offer offers[] = {
        {X D, D "; server_max_window_bits=12", {true, true, 12, 15}},
        {X D "; client_max_window_bits",
         D "; server_max_window_bits=12; client_max_window_bits=13",
         {true, true, 12, 13}},
        {X D "; client_max_window_bits=10; server_max_window_bits=9",
         D "; server_max_window_bits=9; client_max_window_bits=10",
         {true, true, 9, 10}},
        {X D "; client_max_window_bits=\"8\"",
         D "; server_max_window_bits=12; client_max_window_bits=8",
         {true, true, 12, 8}},
        {X D "; server_max_window_bits=15", D "; server_max_window_bits=12", {true, true, 12, 15}},
        {X D S, D S "; server_max_window_bits=12", {false, true, 12, 15}},
        {X D K, D K "; server_max_window_bits=12", {true, false, 12, 15}},
        {X D "; server_max_window_bits=8, " D S,
         D S "; server_max_window_bits=12",
         {false, true, 12, 15}},
        {X "x-webkit-deflate-frame, " D "\r\n" X D S,
         D "; server_max_window_bits=12",
         {true, true, 12, 15}},
        {X D "; server_max_window_bits=8", NULL, {false}},
        {X D "; server_max_window_bits", NULL, {false}},
        {X D "; server_max_window_bits=7", NULL, {false}},
        {X D "; server_max_window_bits=16", NULL, {false}},
        {X D "; server_max_window_bits=09", NULL, {false}},
        {X D "; server_max_window_bits=010", NULL, {false}},
        {X D "; client_max_window_bits=x", NULL, {false}},
        {X D "; client_max_window_bits=7", NULL, {false}},
        {X D "; client_max_window_bits; client_max_window_bits", NULL, {false}},
        {X D S S, NULL, {false}},
        {X D S "=1", NULL, {false}},
        {X D K "=true", NULL, {false}},
        {X D "; other", NULL, {false}},
        {X D "; Server_no_context_takeover", NULL, {false}},
        {X "Permessage-Deflate", NULL, {false}},
        {X "permessage-bzip2", NULL, {false}},
        {"A: b", NULL, {false}},
    };

    (void)state;
    check_offers(&policy, offers, STK_ARRAY_LEN(offers));
}

static void test_offers_without_takeover(void **state)
{
    static const struct stk_ws_deflate_policy policy = {false, 15, 15};
    static const struct offer offers[] = {
        {X D, D S K, {false, false, 15, 15}},
        {X D "; client_max_window_bits", D S K, {false, false, 15, 15}},
        {X D "; client_max_window_bits=15; server_max_window_bits=15",
         D S K "; server_max_window_bits=15",
         {false, false, 15, 15}},
        {X D "; client_max_window_bits=9; server_max_window_bits=10",
         D S K "; server_max_window_bits=10; client_max_window_bits=9",
         {false, false, 10, 9}},
    };

    (void)state;
    check_offers(&policy, offers, STK_ARRAY_LEN(offers));
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_who_asks),
        cmocka_unit_test(test_statuses),
        cmocka_unit_test(test_accept),
        cmocka_unit_test(test_protocols),
        cmocka_unit_test(test_offers_with_takeover),
        cmocka_unit_test(test_offers_without_takeover),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}
