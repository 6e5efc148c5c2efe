/*
 * The rules of TLS, the same for every certificate: versions, ciphers, groups, resumption, ALPN,
 * client certificates. Nothing below 1.2, nothing without forward secrecy and authentication, no
 * compression, no renegotiation.
 */
#include <errno.h>
#include <openssl/err.h>
#include <stdlib.h>
#include <string.h>

#include "base/mem.h"
#include "config/config.h"
#include "net/tls_priv.h"
#include "net/tls_store.h"

#define CONTEXT_SUITES "TLS_AES_128_GCM_SHA256:TLS_AES_256_GCM_SHA384:TLS_CHACHA20_POLY1305_SHA256"
#define CONTEXT_CIPHERS                                          \
    "ECDHE-ECDSA-AES128-GCM-SHA256:ECDHE-RSA-AES128-GCM-SHA256:" \
    "ECDHE-ECDSA-AES256-GCM-SHA384:ECDHE-RSA-AES256-GCM-SHA384:" \
    "ECDHE-ECDSA-CHACHA20-POLY1305:ECDHE-RSA-CHACHA20-POLY1305"
/* Newer libraries know an exchange that holds against quantum computers as well. */
#define CONTEXT_GROUPS_NEW "X25519MLKEM768:X25519:P-256:P-384"
#define CONTEXT_GROUPS     "X25519:P-256:P-384"

enum {
    CONTEXT_SESSION_S = 12 * 3600,
    CONTEXT_STRENGTH_MIN = 112, /* bits */
    CONTEXT_SECURITY_LEVEL = 2,
};

/* The protocols that are spoken, best first; each with its length in front (RFC 7301). */
static const unsigned char context_protocols[] = "\x08http/1.1";

static int context_on_alpn(SSL *ssl, const unsigned char **out, unsigned char *out_len,
                           const unsigned char *in, unsigned in_len, void *arg)
{
    unsigned char *chosen;

    if (SSL_select_next_proto(&chosen, out_len, context_protocols, sizeof context_protocols - 1, in,
                              in_len) != OPENSSL_NPN_NEGOTIATED)
        return SSL_TLSEXT_ERR_ALERT_FATAL;
    *out = chosen;
    return SSL_TLSEXT_ERR_OK;
}

/* The certificate by the name that the client asks for. */
static int context_on_name(SSL *ssl, int *alert, void *arg)
{
    const struct stk_tls_store *store = arg;
    const char *name = SSL_get_servername(ssl, TLSEXT_NAMETYPE_host_name);
    const struct stk_tls_pair *pair;

    if (name == NULL)
        return SSL_TLSEXT_ERR_NOACK;
    pair = stk_tls_store_find(store, name);
    if (pair != NULL && pair->ctx != SSL_get_SSL_CTX(ssl))
        (void)SSL_set_SSL_CTX(ssl, pair->ctx);
    return SSL_TLSEXT_ERR_OK;
}

/* Adds a name to a list that has room for it. */
static char *context_add_name(const char *list, char *end, const char *name, size_t len)
{
    if (end != list)
        *end++ = ':';
    memcpy(end, name, len);
    end[len] = '\0';
    return end + len;
}

/* Parts the names of 1.3 (TLS_...) from those of 1.2; both are free()d by the caller. */
static void context_split_ciphers(const char *text, char **ret_suites, char **ret_ciphers)
{
    char *suites = stk_mem_zalloc(strlen(text) + 2), *suites_end = suites;
    char *ciphers = stk_mem_zalloc(strlen(text) + 2), *ciphers_end = ciphers;

    while (*text != '\0') {
        size_t len = strcspn(text, ":, ");

        if (len > 0 && strncmp(text, "TLS_", 4) == 0)
            suites_end = context_add_name(suites, suites_end, text, len);
        else if (len > 0)
            ciphers_end = context_add_name(ciphers, ciphers_end, text, len);
        text += len;
        text += strspn(text, ":, ");
    }
    *ret_suites = suites;
    *ret_ciphers = ciphers;
}

/* Refuses what would not protect anything. */
static int context_check_ciphers(SSL_CTX *ctx, char **ret_error)
{
    STACK_OF(SSL_CIPHER) *list = SSL_CTX_get_ciphers(ctx);

    for (int i = 0; i < sk_SSL_CIPHER_num(list); i++) {
        const SSL_CIPHER *cipher = sk_SSL_CIPHER_value(list, i);

        if (SSL_CIPHER_get_bits(cipher, NULL) >= CONTEXT_STRENGTH_MIN &&
            SSL_CIPHER_get_auth_nid(cipher) != NID_auth_null)
            continue;
        *ret_error = stk_mem_printf("tls-ciphers: %s does not protect a connection: leave it out",
                                    SSL_CIPHER_get_name(cipher));
        return -1;
    }
    return 0;
}

static int context_set_ciphers(SSL_CTX *ctx, const char *text, char **ret_error)
{
    STK_CLEANUP(stk_mem_freep) char *suites = NULL;
    STK_CLEANUP(stk_mem_freep) char *ciphers = NULL;
    const char *bad = NULL;

    context_split_ciphers(text != NULL ? text : "", &suites, &ciphers);
    if (SSL_CTX_set_ciphersuites(ctx, *suites != '\0' ? suites : CONTEXT_SUITES) != 1)
        bad = suites;
    else if (SSL_CTX_set_cipher_list(ctx, *ciphers != '\0' ? ciphers : CONTEXT_CIPHERS) != 1)
        bad = ciphers;
    if (bad != NULL) {
        *ret_error = stk_mem_printf("tls-ciphers: OpenSSL knows none of \"%s\": `openssl ciphers` "
                                    "lists the names",
                                    bad);
        return -1;
    }
    return context_check_ciphers(ctx, ret_error);
}

/* Asks for client certificates. */
static void context_set_verify(struct stk_tls_store *store, const struct stk_config *config,
                               SSL_CTX *ctx)
{
    int mode = SSL_VERIFY_PEER;

    if (!store->verifies)
        return;
    if (config->tls_verify_client == STK_TLS_VERIFY_REQUIRED)
        mode |= SSL_VERIFY_FAIL_IF_NO_PEER_CERT;
    SSL_CTX_set_verify(ctx, mode, NULL);
    SSL_CTX_set1_cert_store(ctx, store->authorities);
    SSL_CTX_set_client_CA_list(ctx, SSL_dup_CA_list(store->authority_names));
}

static void context_set_sessions(struct stk_tls_store *store, SSL_CTX *ctx)
{
    (void)SSL_CTX_set_session_cache_mode(ctx, SSL_SESS_CACHE_OFF);
    SSL_CTX_set_timeout(ctx, CONTEXT_SESSION_S);
    (void)SSL_CTX_set_session_id_context(ctx, store->context, sizeof store->context);
    if (store->tickets == NULL || stk_tls_tickets_install(ctx) < 0)
        SSL_CTX_set_options(ctx, SSL_OP_NO_TICKET);
}

int stk_tls_context_new(struct stk_tls_store *store, const struct stk_config *config,
                        SSL_CTX **ret_ctx, char **ret_error)
{
    char groups_new[] = CONTEXT_GROUPS_NEW,
         groups[] = CONTEXT_GROUPS; /* the macro casts const off */
    SSL_CTX *ctx = SSL_CTX_new(TLS_server_method());

    if (ctx == NULL) {
        *ret_error = stk_mem_strdup("TLS: OpenSSL cannot be set up");
        return -1;
    }
    SSL_CTX_set_app_data(ctx, store);
    SSL_CTX_set_security_level(ctx, CONTEXT_SECURITY_LEVEL);
    SSL_CTX_set_options(ctx, SSL_OP_NO_COMPRESSION | SSL_OP_NO_RENEGOTIATION |
                                 SSL_OP_CIPHER_SERVER_PREFERENCE | SSL_OP_PRIORITIZE_CHACHA |
                                 SSL_OP_NO_SESSION_RESUMPTION_ON_RENEGOTIATION);
    SSL_CTX_set_mode(ctx, SSL_MODE_RELEASE_BUFFERS);
    SSL_CTX_set_read_ahead(ctx, 1);
    SSL_CTX_set_alpn_select_cb(ctx, context_on_alpn, NULL);
    SSL_CTX_set_tlsext_servername_callback(ctx, context_on_name);
    SSL_CTX_set_tlsext_servername_arg(ctx, store);
    context_set_sessions(store, ctx);
    context_set_verify(store, config, ctx);
    if (SSL_CTX_set1_groups_list(ctx, groups_new) != 1)
        (void)SSL_CTX_set1_groups_list(ctx, groups);
    (void)SSL_CTX_set_min_proto_version(
        ctx, config->tls_min_version == STK_TLS_MIN_1_3 ? TLS1_3_VERSION : TLS1_2_VERSION);
    (void)SSL_CTX_set_max_proto_version(ctx, 0);
    ERR_clear_error();
    if (context_set_ciphers(ctx, config->tls_ciphers, ret_error) != 0) {
        ERR_clear_error();
        SSL_CTX_free(ctx);
        return -1;
    }
    ERR_clear_error();
    *ret_ctx = ctx;
    return 0;
}
