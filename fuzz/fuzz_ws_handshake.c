/*
 * The opening handshake of a WebSocket: the input is the fields of a request that asks for one. The
 * lists are walked twice, and whatever is agreed on stays within what the server is ready for.
 */
#include "fuzz.h"

#include <stdlib.h>
#include <string.h>

#include "wire/http1.h"
#include "wire/ws_handshake.h"

enum { INPUT_MAX = 4096 };

static const char before[] = "GET / HTTP/1.1\r\nHost: h\r\nUpgrade: websocket\r\nConnection: "
                             "Upgrade\r\nSec-WebSocket-Version: 13\r\n"
                             "Sec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\n";

static void walk_protocols(const struct stk_head *head, const struct stk_ws_handshake *handshake)
{
    struct stk_ws_protocols walk = {0};
    unsigned count = 0;
    stk_span name;

    while (stk_ws_protocol_next(head, &walk, &name)) {
        FUZZ_CHECK(name.len > 0 && stk_http1_is_token(name));
        FUZZ_CHECK(name.ptr > head->base && name.ptr + name.len < head->base + head->len);
        FUZZ_CHECK(count++ < INPUT_MAX);
    }
    FUZZ_CHECK(handshake->has_protocols == (count > 0));
}

static void agree(const struct stk_head *head, const struct stk_ws_deflate_policy *policy)
{
    struct stk_ws_deflate_params p;
    char answer[STK_WS_EXTENSION_SIZE];

    if (!stk_ws_deflate_agree(head, policy, &p, answer))
        return;
    FUZZ_CHECK(p.server_bits >= 9 && p.server_bits <= policy->server_bits);
    FUZZ_CHECK(p.client_bits >= 8 && p.client_bits <= 15);
    FUZZ_CHECK(policy->takeover || (!p.server_takeover && !p.client_takeover));
    FUZZ_CHECK(memchr(answer, '\0', sizeof(answer)) && strncmp(answer, "permessage-", 11) == 0);
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    static const struct stk_http1_limits limits = {
        .line_max = 4096, .head_max = 8192, .fields_max = 100};
    static const struct stk_ws_deflate_policy policies[] = {{true, 12, 12}, {false, 15, 15}};
    size_t len = sizeof(before) - 1 + size;
    static struct stk_head head;
    struct stk_ws_handshake handshake;
    char *bytes;

    if (size > INPUT_MAX)
        return 0;
    bytes = malloc(len);
    FUZZ_CHECK(bytes);
    memcpy(bytes, before, sizeof(before) - 1);
    memcpy(bytes + sizeof(before) - 1, data, size);
    if (stk_http1_parse(&head, bytes, len, &limits) == STK_HTTP1_OK &&
        stk_ws_handshake_read(&head, &handshake) == STK_WS_HANDSHAKE_OK) {
        walk_protocols(&head, &handshake);
        agree(&head, &policies[0]);
        agree(&head, &policies[1]);
    }
    free(bytes);
    return 0;
}
