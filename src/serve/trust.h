/* A trusted proxy's word on its client: Forwarded (RFC 7239) and X-Forwarded-*. */
#pragma once

struct stk_request;
struct stk_server;

/*
 * Applies the fields of a request whose peer is trusted: peer becomes the nearest address that is
 * not itself a trusted proxy, scheme and host what the proxy received. Forwarded wins over
 * X-Forwarded-*; what is malformed or obfuscated is left out.
 */
void stk_trust_apply(struct stk_request *req, struct stk_server *server);
