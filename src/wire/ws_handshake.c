/*
 * The opening handshake of WebSocket. A request that does not ask for a WebSocket is an ordinary
 * one, whatever else it says; one that asks is held to the letter, because what follows is no HTTP
 * any more and whoever stands between may see it otherwise.
 *
 * Lists (subprotocols, extensions) may be spread over several fields. They are walked each time
 * they are needed, nothing is kept. An offer of permessage-deflate with a parameter that is not
 * understood, comes twice or has a wrong value is declined, and the next one looked at (RFC 7692
 * section 5.1); only what is no list of extensions at all fails the handshake.
 */
#include "wire/ws_handshake.h"

#include <stdio.h>
#include <string.h>

#include "base/sha1.h"

enum { WS_KEY_SIZE = 24 };

/* The GUID of RFC 6455 section 1.3. */
#define WS_GUID "258EAFA5-E914-47DA-95CA-C5AB0DC85B11"

static const char ws_base64[] = "ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789+/";

/* tchar of RFC 9110 5.6.2. */
static bool ws_is_token_char(char c)
{
    return (c >= '0' && c <= '9') || ((c | 0x20) >= 'a' && (c | 0x20) <= 'z') ||
           (c != '\0' && strchr("!#$%&'*+-.^_`|~", c) != NULL);
}

static size_t ws_skip_blanks(stk_span s, size_t at)
{
    while (at < s.len && (s.ptr[at] == ' ' || s.ptr[at] == '\t'))
        at++;
    return at;
}

/* A token at `at`; of length 0: there is none. */
static stk_span ws_token(stk_span s, size_t at)
{
    size_t end = at;

    while (end < s.len && ws_is_token_char(s.ptr[end]))
        end++;
    return stk_span_make(s.ptr + at, end - at);
}

/* The value of the next field of a name from *field on, which it moves behind; false: none. */
static bool ws_field(const struct stk_head *head, stk_span name, unsigned *field,
                     stk_span *ret_value)
{
    while (*field < head->nfields) {
        const struct stk_head_field *f = &head->fields[(*field)++];

        if (f->name_len == name.len && stk_span_ieq(stk_head_field_name(head, f), name)) {
            *ret_value = stk_head_field_value(head, f);
            return true;
        }
    }
    return false;
}

/* Whether a list of tokens (Upgrade: also with versions behind "/") has "websocket". */
static bool ws_upgrades(stk_span value)
{
    size_t at = 0;

    while (at < value.len) {
        stk_span token;

        at = ws_skip_blanks(value, at);
        token = ws_token(value, at);
        at = ws_skip_blanks(value, at + token.len);
        if (stk_span_ieq(token, STK_SPAN_LIT("websocket")) &&
            (at == value.len || value.ptr[at] == ','))
            return true;
        while (at < value.len && value.ptr[at] != ',')
            at++;
        at++;
    }
    return false;
}

static bool ws_asks(const struct stk_head *head)
{
    static const stk_span name = STK_SPAN_LIT("upgrade");
    unsigned field = 0;
    stk_span value;

    if (!head->has_upgrade || !head->is_get || head->version_minor < 1)
        return false;
    while (ws_field(head, name, &field, &value))
        if (ws_upgrades(value))
            return true;
    return false;
}

/* 16 bytes in base64: 22 characters and "==", the last character's low four bits zero. */
static bool ws_key_is_valid(stk_span key)
{
    if (key.len != WS_KEY_SIZE || key.ptr[22] != '=' || key.ptr[23] != '=')
        return false;
    for (unsigned i = 0; i < 22; i++)
        if (key.ptr[i] == '\0' || !strchr(ws_base64, key.ptr[i]))
            return false;
    return ((strchr(ws_base64, key.ptr[21]) - ws_base64) & 15) == 0;
}

/* The one value of a field; of length 0: it is not there, or there twice. */
static stk_span ws_only(const struct stk_head *head, stk_span name)
{
    stk_span value, second;
    unsigned field = 0;

    if (!ws_field(head, name, &field, &value) || ws_field(head, name, &field, &second))
        return stk_span_make("", 0);
    return value;
}

/*
 * The next member of a list of tokens spread over fields; empty members do not count. 1; 0 at the
 * end; -1: malformed.
 */
static int ws_protocol_step(const struct stk_head *head, struct stk_ws_protocols *walk,
                            stk_span *ret_name)
{
    static const stk_span name = STK_SPAN_LIT("sec-websocket-protocol");
    unsigned field = walk->field;
    stk_span value, token;

    while (ws_field(head, name, &field, &value)) {
        size_t at = walk->off;

        while (at < value.len &&
               (value.ptr[at] == ',' || value.ptr[at] == ' ' || value.ptr[at] == '\t'))
            at++;
        if (at < value.len) {
            token = ws_token(value, at);
            at = ws_skip_blanks(value, at + token.len);
            if (token.len == 0 || (at < value.len && value.ptr[at] != ','))
                return -1;
            walk->field = field - 1;
            walk->off = at;
            *ret_name = token;
            return 1;
        }
        walk->field = field;
        walk->off = 0;
    }
    return 0;
}

bool stk_ws_protocol_next(const struct stk_head *head, struct stk_ws_protocols *walk,
                          stk_span *ret_name)
{
    return ws_protocol_step(head, walk, ret_name) > 0;
}

bool stk_ws_protocol_is_offered(const struct stk_head *head, stk_span name)
{
    struct stk_ws_protocols walk = {0};
    stk_span offered;

    while (stk_ws_protocol_next(head, &walk, &offered))
        if (stk_span_eq(offered, name))
            return true;
    return false;
}

/* One parameter of an extension, ";" name [ "=" value ]. */
struct ws_param {
    stk_span name, value; /* value: without quotes */
    bool has_value;
};

/* A quoted string at `at` whose content is a token (RFC 6455 9.1), without escapes. */
static bool ws_quoted(stk_span s, size_t *at, stk_span *ret_value)
{
    stk_span token = ws_token(s, *at + 1);
    size_t end = *at + 1 + token.len;

    if (token.len == 0 || end >= s.len || s.ptr[end] != '"')
        return false;
    *ret_value = token;
    *at = end + 1;
    return true;
}

/* The parameter at *at, which it moves behind. 1; 0: none is there; -1: malformed. */
static int ws_param_next(stk_span s, size_t *at, struct ws_param *ret_param)
{
    struct ws_param param = {.has_value = false};
    size_t p = ws_skip_blanks(s, *at);

    if (p == s.len || s.ptr[p] != ';')
        return 0;
    p = ws_skip_blanks(s, p + 1);
    param.name = ws_token(s, p);
    if (param.name.len == 0)
        return -1;
    p = ws_skip_blanks(s, p + param.name.len);
    if (p < s.len && s.ptr[p] == '=') {
        param.has_value = true;
        p = ws_skip_blanks(s, p + 1);
        if (p < s.len && s.ptr[p] == '"') {
            if (!ws_quoted(s, &p, &param.value))
                return -1;
        } else {
            param.value = ws_token(s, p);
            if (param.value.len == 0)
                return -1;
            p += param.value.len;
        }
    }
    *at = p;
    *ret_param = param;
    return 1;
}

/* An offer of permessage-deflate (RFC 7692 section 7.1). */
struct ws_offer {
    bool declined;
    bool server_no_takeover, client_no_takeover;
    bool has_server_bits, has_client_bits;
    uint8_t server_bits, client_bits; /* client_bits 0: without a value */
};

/* 8 to 15, without a leading zero; 0: something else. */
static uint8_t ws_bits(stk_span value)
{
    if (value.len == 1 && (value.ptr[0] == '8' || value.ptr[0] == '9'))
        return (uint8_t)(value.ptr[0] - '0');
    if (value.len == 2 && value.ptr[0] == '1' && value.ptr[1] >= '0' && value.ptr[1] <= '5')
        return (uint8_t)(10 + value.ptr[1] - '0');
    return 0;
}

static void ws_offer_param(struct ws_offer *offer, const struct ws_param *param)
{
    bool *seen = NULL, bits = false;

    if (stk_span_eq(param->name, STK_SPAN_LIT("server_no_context_takeover"))) {
        seen = &offer->server_no_takeover;
    } else if (stk_span_eq(param->name, STK_SPAN_LIT("client_no_context_takeover"))) {
        seen = &offer->client_no_takeover;
    } else if (stk_span_eq(param->name, STK_SPAN_LIT("server_max_window_bits"))) {
        seen = &offer->has_server_bits;
        offer->server_bits = param->has_value ? ws_bits(param->value) : 0;
        bits = offer->server_bits != 0;
    } else if (stk_span_eq(param->name, STK_SPAN_LIT("client_max_window_bits"))) {
        seen = &offer->has_client_bits;
        offer->client_bits = param->has_value ? ws_bits(param->value) : 0;
        bits = offer->client_bits != 0 || !param->has_value;
    }
    if (!seen || *seen)
        offer->declined = true;
    else if (seen == &offer->has_server_bits || seen == &offer->has_client_bits)
        offer->declined |= !bits;
    else
        offer->declined |= param->has_value;
    if (seen)
        *seen = true;
}

/* A walk through all extensions that are offered. */
struct ws_extensions {
    unsigned field;
    size_t off;
};

/* 1: the next one, its name and, of permessage-deflate, its offer; 0: the end; -1: malformed. */
static int ws_extension_next(const struct stk_head *head, struct ws_extensions *walk,
                             stk_span *ret_name, struct ws_offer *ret_offer)
{
    static const stk_span name = STK_SPAN_LIT("sec-websocket-extensions");
    unsigned field = walk->field;
    stk_span value;

    while (ws_field(head, name, &field, &value)) {
        size_t at = walk->off;
        struct ws_param param;
        int r;

        while (at < value.len &&
               (value.ptr[at] == ',' || value.ptr[at] == ' ' || value.ptr[at] == '\t'))
            at++;
        if (at == value.len) {
            walk->field = field;
            walk->off = 0;
            continue;
        }
        *ret_name = ws_token(value, at);
        if (ret_name->len == 0)
            return -1;
        at += ret_name->len;
        memset(ret_offer, 0, sizeof(*ret_offer));
        while ((r = ws_param_next(value, &at, &param)) > 0)
            ws_offer_param(ret_offer, &param);
        at = ws_skip_blanks(value, at);
        if (r < 0 || (at < value.len && value.ptr[at] != ','))
            return -1;
        walk->field = field - 1;
        walk->off = at;
        return 1;
    }
    return 0;
}

enum stk_ws_handshake_result stk_ws_handshake_read(const struct stk_head *head,
                                                   struct stk_ws_handshake *ret_handshake)
{
    struct stk_ws_handshake handshake = {.has_protocols = false};
    struct stk_ws_protocols protocols = {0};
    struct ws_extensions extensions = {0};
    struct ws_offer offer;
    stk_span name;
    int r;

    if (!ws_asks(head))
        return STK_WS_HANDSHAKE_NONE;
    if (!stk_span_eq(ws_only(head, STK_SPAN_LIT("sec-websocket-version")), STK_SPAN_LIT("13")))
        return STK_WS_HANDSHAKE_E_VERSION;
    handshake.key = ws_only(head, STK_SPAN_LIT("sec-websocket-key"));
    if (!ws_key_is_valid(handshake.key))
        return STK_WS_HANDSHAKE_E_KEY;
    if (head->chunked || (head->has_content_length && head->content_length > 0))
        return STK_WS_HANDSHAKE_E_BODY;
    while ((r = ws_protocol_step(head, &protocols, &name)) > 0)
        handshake.has_protocols = true;
    if (r < 0)
        return STK_WS_HANDSHAKE_E_PROTOCOL;
    while ((r = ws_extension_next(head, &extensions, &name, &offer)) > 0)
        handshake.has_deflate |= stk_span_eq(name, STK_SPAN_LIT("permessage-deflate"));
    if (r < 0)
        return STK_WS_HANDSHAKE_E_EXTENSION;
    *ret_handshake = handshake;
    return STK_WS_HANDSHAKE_OK;
}

unsigned stk_ws_handshake_status(enum stk_ws_handshake_result result)
{
    return result == STK_WS_HANDSHAKE_E_VERSION ? 426 : 400;
}

const char *stk_ws_handshake_text(enum stk_ws_handshake_result result)
{
    switch (result) {
    case STK_WS_HANDSHAKE_OK:
    case STK_WS_HANDSHAKE_NONE:
        break;
    case STK_WS_HANDSHAKE_E_VERSION:
        return "Only version 13 of WebSocket is spoken here.";
    case STK_WS_HANDSHAKE_E_KEY:
        return "Sec-WebSocket-Key is not one of 16 bytes.";
    case STK_WS_HANDSHAKE_E_BODY:
        return "A WebSocket handshake has no body.";
    case STK_WS_HANDSHAKE_E_PROTOCOL:
        return "Sec-WebSocket-Protocol is malformed.";
    case STK_WS_HANDSHAKE_E_EXTENSION:
        return "Sec-WebSocket-Extensions is malformed.";
    }
    return "no error";
}

void stk_ws_accept(stk_span key, char ret_accept[STK_WS_ACCEPT_SIZE])
{
    uint8_t digest[STK_SHA1_SIZE + 1] = {0};
    char text[WS_KEY_SIZE + sizeof(WS_GUID) - 1];
    char *p = ret_accept;

    memcpy(text, key.ptr, WS_KEY_SIZE);
    memcpy(text + WS_KEY_SIZE, WS_GUID, sizeof(WS_GUID) - 1);
    stk_sha1(text, sizeof(text), digest);
    for (unsigned i = 0; i < STK_SHA1_SIZE; i += 3, p += 4) {
        uint32_t group = (uint32_t)digest[i] << 16 | (uint32_t)digest[i + 1] << 8 | digest[i + 2];

        for (unsigned k = 0; k < 4; k++)
            p[k] = ws_base64[group >> (18 - 6 * k) & 63];
    }
    ret_accept[STK_WS_ACCEPT_SIZE - 1] = '='; /* 20 bytes: the last group has two */
}

/* Meets an offer, or does not. */
static bool ws_offer_meet(const struct ws_offer *offer, const struct stk_ws_deflate_policy *policy,
                          struct stk_ws_deflate_params *ret_params)
{
    /* zlib compresses with windows of 2^9 bytes and up. */
    if (offer->declined || (offer->has_server_bits && offer->server_bits < 9))
        return false;
    ret_params->server_takeover = policy->takeover && !offer->server_no_takeover;
    ret_params->client_takeover = policy->takeover && !offer->client_no_takeover;
    ret_params->server_bits = policy->server_bits;
    if (offer->has_server_bits && offer->server_bits < policy->server_bits)
        ret_params->server_bits = offer->server_bits;
    ret_params->client_bits = 15;
    if (offer->has_client_bits) {
        ret_params->client_bits = policy->client_bits;
        if (offer->client_bits != 0 && offer->client_bits < policy->client_bits)
            ret_params->client_bits = offer->client_bits;
    }
    return true;
}

static void ws_answer(const struct ws_offer *offer, const struct stk_ws_deflate_params *params,
                      char ret_answer[STK_WS_EXTENSION_SIZE])
{
    char server[32] = "", client[32] = "";

    if (offer->has_server_bits || params->server_bits < 15)
        (void)snprintf(server, sizeof(server), "; server_max_window_bits=%u", params->server_bits);
    if (offer->has_client_bits && params->client_bits < 15)
        (void)snprintf(client, sizeof(client), "; client_max_window_bits=%u", params->client_bits);
    (void)snprintf(ret_answer, STK_WS_EXTENSION_SIZE, "permessage-deflate%s%s%s%s",
                   params->server_takeover ? "" : "; server_no_context_takeover",
                   params->client_takeover ? "" : "; client_no_context_takeover", server, client);
}

bool stk_ws_deflate_agree(const struct stk_head *head, const struct stk_ws_deflate_policy *policy,
                          struct stk_ws_deflate_params *ret_params,
                          char ret_answer[STK_WS_EXTENSION_SIZE])
{
    struct ws_extensions walk = {0};
    struct ws_offer offer;
    stk_span name;

    while (ws_extension_next(head, &walk, &name, &offer) > 0) {
        if (!stk_span_eq(name, STK_SPAN_LIT("permessage-deflate")) ||
            !ws_offer_meet(&offer, policy, ret_params))
            continue;
        ws_answer(&offer, ret_params, ret_answer);
        return true;
    }
    return false;
}
