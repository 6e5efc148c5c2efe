/* What the parts of net/tls share. */
#pragma once

#include <openssl/bio.h>
#include <openssl/ssl.h>
#include <stdatomic.h>
#include <stdbool.h>

#include "net/tls.h"

enum { STK_TLS_TYPES_MAX = 4 };

/* The certificates for one set of names: one for each type of key. */
struct stk_tls_pair {
    SSL_CTX *ctx;
    char **names; /* lower case and sorted; "*.example.org" among them */
    size_t nnames;
    int types[STK_TLS_TYPES_MAX];
    X509 *certs[STK_TLS_TYPES_MAX]; /* the context's own */
    char *pems[STK_TLS_TYPES_MAX];
    unsigned ntypes;
};

struct stk_tls_name {
    const char *name; /* of the pair */
    const struct stk_tls_pair *pair;
};

struct stk_tls_store {
    _Atomic unsigned references;
    BIO_METHOD *bio;
    SSL_CTX *ctx; /* of the first pair: for those who ask for no name, or one that nobody has */
    struct stk_tls_pair *pairs;
    size_t npairs;
    size_t ncerts;
    struct stk_tls_name *names; /* of all pairs, sorted */
    size_t nnames;
    bool verifies; /* client certificates are asked for */
    X509_STORE *authorities;
    STACK_OF(X509_NAME) * authority_names;
    unsigned char context[32]; /* sessions of other rules are not resumed */
    struct stk_tls_tickets *tickets;
    EVP_CIPHER *ticket_cipher;
    char **warnings; /* NULL-terminated */
    size_t nwarnings;
};

/* The pair whose certificate fits a name best; NULL: none does. */
const struct stk_tls_pair *stk_tls_store_find(const struct stk_tls_store *store, const char *name);
/* The certificate of a session's server as text; "": not known. */
const char *stk_tls_store_pem(const struct stk_tls_store *store, SSL *ssl);
struct stk_tls_store *stk_tls_store_ref(struct stk_tls_store *store);
/* The method by which sessions read and write (tls.c); NULL without memory. */
BIO_METHOD *stk_tls_bio_method(void);
/* Has a context make and take tickets by the keys of its store, which is its app_data. */
int stk_tls_tickets_install(SSL_CTX *ctx) STK_MUST_CHECK;
/*
 * A context with the rules of the configuration and no certificate (tls_context.c). 0, or -1 with
 * *ret_error.
 */
struct stk_config;
int stk_tls_context_new(struct stk_tls_store *store, const struct stk_config *config,
                        SSL_CTX **ret_ctx, char **ret_error) STK_MUST_CHECK;
