/*
 * Whom to believe. Each proxy appends the address that it saw, so the list is read from its end:
 * what a trusted proxy appended is true, and the first address that is not a trusted proxy's is the
 * client. Everything further left may be the client's invention.
 */
#include "serve/trust.h"

#include <string.h>

#include "app/request.h"
#include "net/cidr.h"
#include "serve/server.h"
#include "wire/forwarded.h"
#include "wire/uri.h"

static void trust_set_addr(struct stk_request *req, const struct stk_forwarded *f)
{
    unsigned port = 0;

    if (f->addr.len == 0 || f->addr.len >= sizeof req->peer.addr)
        return;
    memcpy(req->peer.addr, f->addr.ptr, f->addr.len);
    req->peer.addr[f->addr.len] = '\0';
    req->peer.addr_len = (uint8_t)f->addr.len;
    for (size_t i = 0; i < f->port.len && i < 5; i++) {
        if (f->port.ptr[i] < '0' || f->port.ptr[i] > '9') {
            port = 0;
            break;
        }
        port = port * 10 + (unsigned)(f->port.ptr[i] - '0');
    }
    req->peer.port = (uint16_t)(port <= 65535 ? port : 0);
}

static void trust_set_scheme(struct stk_request *req, stk_span proto)
{
    if (stk_span_ieq(proto, STK_SPAN_LIT("https")))
        req->scheme = STK_SPAN_LIT("https");
    else if (stk_span_ieq(proto, STK_SPAN_LIT("http")))
        req->scheme = STK_SPAN_LIT("http");
}

static void trust_set_host(struct stk_request *req, stk_span host)
{
    stk_span name, port;

    if (host.len > 0 && stk_uri_split_host(host, &name, &port))
        req->host = host;
}

/* The last element of a comma-separated list, trimmed. */
static stk_span trust_last(stk_span list)
{
    size_t end = list.len, begin;

    while (end > 0 && (list.ptr[end - 1] == ' ' || list.ptr[end - 1] == '\t'))
        end--;
    begin = end;
    while (begin > 0 && list.ptr[begin - 1] != ',')
        begin--;
    while (begin < end && (list.ptr[begin] == ' ' || list.ptr[begin] == '\t'))
        begin++;
    return stk_span_make(list.ptr + begin, end - begin);
}

/* Walks a list from its end; the last element whose proxy is trusted tells the client. */
static bool trust_walk(stk_span list, bool (*pop)(stk_span *, struct stk_forwarded *),
                       const struct stk_cidr_set *trusted, struct stk_forwarded *ret)
{
    struct stk_forwarded f;
    bool found = false;

    while (pop(&list, &f)) {
        if (f.addr.len == 0)
            break;
        *ret = f;
        found = true;
        if (!stk_cidr_set_match_text(trusted, f.addr))
            break;
    }
    return found;
}

void stk_trust_apply(struct stk_request *req, struct stk_server *server)
{
    const struct stk_head *head = req->head;
    struct stk_forwarded f;

    /*
     * Of both kinds the common one counts: proxies that are set up for X-Forwarded-* pass a
     * Forwarded of their client on as it is.
     */
    if (head->known[STK_HEAD_FORWARDED] && !head->known[STK_HEAD_X_FORWARDED_FOR] &&
        !head->known[STK_HEAD_X_FORWARDED_PROTO] && !head->known[STK_HEAD_X_FORWARDED_HOST]) {
        stk_span list = stk_head_known_value(head, STK_HEAD_FORWARDED);
        stk_span copy = list;

        if (stk_forwarded_pop(&copy, &f)) {
            trust_set_scheme(req, f.proto);
            trust_set_host(req, f.host);
        }
        if (trust_walk(list, stk_forwarded_pop, &server->trusted, &f))
            trust_set_addr(req, &f);
        return;
    }
    if (head->known[STK_HEAD_X_FORWARDED_PROTO])
        trust_set_scheme(req, trust_last(stk_head_known_value(head, STK_HEAD_X_FORWARDED_PROTO)));
    if (head->known[STK_HEAD_X_FORWARDED_HOST])
        trust_set_host(req, trust_last(stk_head_known_value(head, STK_HEAD_X_FORWARDED_HOST)));
    if (head->known[STK_HEAD_X_FORWARDED_FOR] &&
        trust_walk(stk_head_known_value(head, STK_HEAD_X_FORWARDED_FOR), stk_forwarded_pop_xff,
                   &server->trusted, &f))
        trust_set_addr(req, &f);
}
