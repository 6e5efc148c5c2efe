/*
 * Certificates: from the bytes of the files to contexts of OpenSSL, found by name.
 *
 * Each set of names has a context of its own, which holds one certificate for each type of key
 * (ECDSA and RSA beside one another), so that OpenSSL chooses what the client can verify. A name is
 * looked for in a sorted list, then with its first label replaced by a star.
 */
#include "net/tls_store.h"

#include <ctype.h>
#include <errno.h>
#include <openssl/crypto.h>
#include <openssl/err.h>
#include <openssl/pem.h>
#include <openssl/sha.h>
#include <openssl/x509v3.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>

#include "base/assert.h"
#include "base/mem.h"
#include "config/config.h"
#include "net/tls_files.h"
#include "net/tls_priv.h"

enum { STORE_SOON_DAYS = 30, STORE_NAME_MAX = 255 };

/* A certificate that is being taken in. */
struct store_entry {
    const struct stk_tls_file *file;
    const struct stk_tls_file *key_file;
    X509 *cert;
    EVP_PKEY *key;
    STACK_OF(X509) * chain;
    char **names;
    size_t nnames;
};

static int store_fail(char **ret_error, char *text)
{
    ERR_clear_error();
    *ret_error = text;
    return -1;
}

static void store_warn(struct stk_tls_store *store, char *text)
{
    char **more = realloc(store->warnings, (store->nwarnings + 2) * sizeof *more);

    STK_ASSERT(more != NULL);
    more[store->nwarnings++] = text;
    more[store->nwarnings] = NULL;
    store->warnings = more;
}

/* ---- reading ------------------------------------------------------------------------------- */

/* There is nobody to ask for the password of a key. */
static int store_on_password(char *buf, int size, int writes, void *arg)
{
    bool *asked = arg;

    *asked = true;
    return -1;
}

static BIO *store_bio(const struct stk_tls_file *file)
{
    BIO *bio = BIO_new_mem_buf(file->data, (int)file->len);

    STK_ASSERT(bio != NULL);
    return bio;
}

static int store_read_key(struct store_entry *e, char **ret_error)
{
    const struct stk_tls_file *file = e->key_file != NULL ? e->key_file : e->file;
    BIO *bio = store_bio(file);
    bool asked = false;

    e->key = PEM_read_bio_PrivateKey(bio, NULL, store_on_password, &asked);
    BIO_free(bio);
    if (e->key != NULL)
        return 0;
    if (asked)
        return store_fail(ret_error,
                          stk_mem_printf("tls-key: the key in %s is encrypted, and a server has "
                                         "nobody to ask for its password: write it without one by "
                                         "`openssl pkey -in %s -out FILE`, readable by its owner "
                                         "only",
                                         file->path, file->path));
    if (e->key_file == NULL)
        return store_fail(ret_error,
                          stk_mem_printf("tls-cert: %s holds no private key, and no tls-key is "
                                         "given for it",
                                         file->path));
    return store_fail(ret_error,
                      stk_mem_printf("tls-key: %s holds no private key in PEM form%s", file->path,
                                     strstr(file->data, "-----BEGIN CERTIFICATE") != NULL
                                         ? ", but a certificate: are tls-cert and "
                                           "tls-key interchanged?"
                                         : ""));
}

static int store_read_cert(struct store_entry *e, char **ret_error)
{
    BIO *bio = store_bio(e->file);
    X509 *next;

    e->cert = PEM_read_bio_X509(bio, NULL, NULL, NULL);
    e->chain = sk_X509_new_null();
    STK_ASSERT(e->chain != NULL);
    while (e->cert != NULL && (next = PEM_read_bio_X509(bio, NULL, NULL, NULL)) != NULL)
        STK_ASSERT(sk_X509_push(e->chain, next) > 0);
    BIO_free(bio);
    if (e->cert == NULL)
        return store_fail(ret_error, stk_mem_printf("tls-cert: %s holds no certificate in PEM form",
                                                    e->file->path));
    ERR_clear_error();
    return 0;
}

/* Whether certificate and key are a pair; else what is wrong. */
static int store_check_fit(const struct store_entry *e, char **ret_error)
{
    const char *key = e->key_file != NULL ? e->key_file->path : e->file->path;

    if (X509_check_private_key(e->cert, e->key) == 1)
        return 0;
    for (int i = 0; i < sk_X509_num(e->chain); i++)
        if (X509_check_private_key(sk_X509_value(e->chain, i), e->key) == 1)
            return store_fail(ret_error,
                              stk_mem_printf("tls-cert: in %s the certificate of the key %s comes "
                                             "after others: it has to be the first, and those "
                                             "that have signed it follow",
                                             e->file->path, key));
    return store_fail(ret_error, stk_mem_printf("tls-cert: the certificate in %s does not fit the "
                                                "key in %s: they were not made together",
                                                e->file->path, key));
}

/* ---- names --------------------------------------------------------------------------------- */

static int store_compare_text(const void *a, const void *b)
{
    return strcmp(*(char *const *)a, *(char *const *)b);
}

static void store_add_name(struct store_entry *e, const unsigned char *text, int len)
{
    char *name;

    if (len <= 0 || len > STORE_NAME_MAX)
        return;
    name = stk_mem_strndup((const char *)text, (size_t)len);
    for (char *p = name; *p != '\0'; p++)
        *p = (char)tolower((unsigned char)*p);
    e->names = realloc(e->names, (e->nnames + 1) * sizeof *e->names);
    STK_ASSERT(e->names != NULL);
    e->names[e->nnames++] = name;
}

/* The names of a certificate: its DNS names; where it has none, the common name of old. */
static void store_read_names(struct store_entry *e)
{
    GENERAL_NAMES *list = X509_get_ext_d2i(e->cert, NID_subject_alt_name, NULL, NULL);
    const X509_NAME *subject = X509_get_subject_name(e->cert);
    int at;

    for (int i = 0; i < sk_GENERAL_NAME_num(list); i++) {
        const GENERAL_NAME *name = sk_GENERAL_NAME_value(list, i);

        if (name->type == GEN_DNS)
            store_add_name(e, ASN1_STRING_get0_data(name->d.dNSName),
                           ASN1_STRING_length(name->d.dNSName));
    }
    at = list == NULL ? X509_NAME_get_index_by_NID(subject, NID_commonName, -1) : -1;
    if (at >= 0) {
        const ASN1_STRING *text = X509_NAME_ENTRY_get_data(X509_NAME_get_entry(subject, at));

        store_add_name(e, ASN1_STRING_get0_data(text), ASN1_STRING_length(text));
    }
    GENERAL_NAMES_free(list);
    if (e->nnames > 0)
        qsort(e->names, e->nnames, sizeof *e->names, store_compare_text);
}

static bool store_has_ip(const X509 *cert)
{
    GENERAL_NAMES *list = X509_get_ext_d2i(cert, NID_subject_alt_name, NULL, NULL);
    bool found = false;

    for (int i = 0; i < sk_GENERAL_NAME_num(list); i++)
        found = found || sk_GENERAL_NAME_value(list, i)->type == GEN_IPADD;
    GENERAL_NAMES_free(list);
    return found;
}

/* Says what will be found out by clients otherwise. */
static void store_warn_entry(struct stk_tls_store *store, const struct store_entry *e)
{
    const ASN1_TIME *end = X509_get0_notAfter(e->cert);
    const char *path = e->file->path;
    int days = 0, seconds = 0;
    BIO *text = BIO_new(BIO_s_mem());
    char *data = NULL;
    long len;

    STK_ASSERT(text != NULL);
    (void)ASN1_TIME_print(text, end);
    len = BIO_get_mem_data(text, &data);
    if (ASN1_TIME_diff(&days, &seconds, NULL, end) == 1 && (days < 0 || seconds < 0))
        store_warn(store, stk_mem_printf("tls-cert: the certificate in %s has run out on %.*s: "
                                         "clients refuse it",
                                         path, (int)len, data));
    else if (days < STORE_SOON_DAYS)
        store_warn(store,
                   stk_mem_printf("tls-cert: the certificate in %s runs out in %d day%s, on %.*s",
                                  path, days, days == 1 ? "" : "s", (int)len, data));
    BIO_free(text);
    if (X509_cmp_current_time(X509_get0_notBefore(e->cert)) > 0)
        store_warn(store, stk_mem_printf("tls-cert: the certificate in %s is not valid yet", path));
    if (e->nnames == 0 && !store_has_ip(e->cert))
        store_warn(store, stk_mem_printf("tls-cert: the certificate in %s names no host and no "
                                         "address: clients refuse it",
                                         path));
}

/* ---- pairs --------------------------------------------------------------------------------- */

static bool store_same_names(const struct stk_tls_pair *pair, const struct store_entry *e)
{
    if (pair->nnames != e->nnames)
        return false;
    for (size_t i = 0; i < e->nnames; i++)
        if (strcmp(pair->names[i], e->names[i]) != 0)
            return false;
    return true;
}

/* A pair that the certificate stands beside, its key being of another type; or NULL. */
static struct stk_tls_pair *store_partner(struct stk_tls_store *store, const struct store_entry *e)
{
    int type = EVP_PKEY_get_base_id(e->key);

    for (size_t i = 0; i < store->npairs; i++) {
        struct stk_tls_pair *pair = &store->pairs[i];
        bool has = pair->ntypes == STK_TLS_TYPES_MAX;

        for (unsigned t = 0; t < pair->ntypes; t++)
            has = has || pair->types[t] == type;
        if (!has && e->nnames > 0 && store_same_names(pair, e))
            return pair;
    }
    return NULL;
}

static char *store_pem(const X509 *cert)
{
    BIO *bio = BIO_new(BIO_s_mem());
    char *data = NULL;
    char *text;
    long len;

    STK_ASSERT(bio != NULL);
    len = PEM_write_bio_X509(bio, cert) == 1 ? BIO_get_mem_data(bio, &data) : 0;
    text = stk_mem_strndup(data != NULL ? data : "", len > 0 ? (size_t)len : 0);
    BIO_free(bio);
    return text;
}

const char *stk_tls_store_pem(const struct stk_tls_store *store, SSL *ssl)
{
    const SSL_CTX *ctx = SSL_get_SSL_CTX(ssl);
    const X509 *cert = SSL_get_certificate(ssl);

    for (size_t i = 0; i < store->npairs; i++) {
        const struct stk_tls_pair *pair = &store->pairs[i];

        for (unsigned t = 0; pair->ctx == ctx && t < pair->ntypes; t++)
            if (pair->certs[t] == cert)
                return pair->pems[t];
    }
    return "";
}

static int store_put(struct stk_tls_store *store, struct store_entry *e,
                     const struct stk_config *config, char **ret_error)
{
    struct stk_tls_pair *pair = store_partner(store, e);
    const char *reason;

    if (pair == NULL) {
        struct stk_tls_pair *pairs =
            realloc(store->pairs, (store->npairs + 1) * sizeof *store->pairs);
        struct stk_tls_pair fresh = {0};

        STK_ASSERT(pairs != NULL);
        store->pairs = pairs;
        if (stk_tls_context_new(store, config, &fresh.ctx, ret_error) != 0)
            return -1;
        fresh.names = stk_steal(&e->names);
        fresh.nnames = e->nnames;
        pair = &store->pairs[store->npairs++];
        *pair = fresh;
    }
    if (SSL_CTX_use_cert_and_key(pair->ctx, e->cert, e->key, e->chain, 0) != 1) {
        reason = ERR_reason_error_string(ERR_peek_error());
        return store_fail(
            ret_error,
            stk_mem_printf("tls-cert: the certificate in %s is not taken by OpenSSL: %s",
                           e->file->path, reason != NULL ? reason : "no reason is known"));
    }
    pair->certs[pair->ntypes] = e->cert;
    pair->pems[pair->ntypes] = store_pem(e->cert);
    pair->types[pair->ntypes++] = EVP_PKEY_get_base_id(e->key);
    store->ncerts++;
    return 0;
}

static void store_entry_deinit(struct store_entry *e)
{
    X509_free(e->cert);
    EVP_PKEY_free(e->key);
    sk_X509_pop_free(e->chain, X509_free);
    for (size_t i = 0; e->names != NULL && i < e->nnames; i++)
        free(e->names[i]);
    free(e->names);
}

static int store_add(struct stk_tls_store *store, const struct stk_tls_file *file,
                     const struct stk_tls_file *key, const struct stk_config *config,
                     char **ret_error)
{
    struct store_entry e = {.file = file, .key_file = key};
    int r = store_read_cert(&e, ret_error);

    if (r == 0)
        r = store_read_key(&e, ret_error);
    if (r == 0)
        r = store_check_fit(&e, ret_error);
    if (r == 0) {
        store_read_names(&e);
        store_warn_entry(store, &e);
        r = store_put(store, &e, config, ret_error);
    }
    store_entry_deinit(&e);
    return r;
}

/* ---- client certificates ------------------------------------------------------------------- */

static int store_read_authorities(struct stk_tls_store *store, const struct stk_tls_file *file,
                                  char **ret_error)
{
    BIO *bio = store_bio(file);
    X509 *cert;
    int n = 0;

    while ((cert = PEM_read_bio_X509(bio, NULL, NULL, NULL)) != NULL) {
        X509_NAME *name = X509_NAME_dup(X509_get_subject_name(cert));

        STK_ASSERT(name != NULL && sk_X509_NAME_push(store->authority_names, name) > 0 &&
                   X509_STORE_add_cert(store->authorities, cert) == 1);
        X509_free(cert);
        n++;
    }
    BIO_free(bio);
    ERR_clear_error();
    if (n > 0)
        return 0;
    return store_fail(ret_error, stk_mem_printf("tls-client-ca: %s holds no certificate in PEM "
                                                "form",
                                                file->path));
}

/* What a session that is resumed has to have in common: who may be a client. */
static void store_make_context(struct stk_tls_store *store, const struct stk_config *config,
                               const struct stk_tls_file *ca)
{
    unsigned char digest[SHA256_DIGEST_LENGTH] = {0};

    _Static_assert(sizeof digest == sizeof store->context, "one hash");
    if (ca != NULL)
        (void)SHA256((const unsigned char *)ca->data, ca->len, digest);
    digest[0] = (unsigned char)(digest[0] ^ (unsigned)config->tls_verify_client);
    memcpy(store->context, digest, sizeof digest);
}

static int store_set_verify(struct stk_tls_store *store, const struct stk_tls_files *files,
                            const struct stk_config *config, char **ret_error)
{
    struct stk_tls_file file;
    bool found = false;
    size_t pos = 0;

    store->verifies = config->tls_verify_client != STK_TLS_VERIFY_OFF;
    while (!found && stk_tls_files_next(files, &pos, &file))
        found = file.kind == STK_TLS_FILE_CA;
    store_make_context(store, config, found ? &file : NULL);
    if (!store->verifies || !found)
        return 0;
    store->authorities = X509_STORE_new();
    store->authority_names = sk_X509_NAME_new_null();
    STK_ASSERT(store->authorities != NULL && store->authority_names != NULL);
    return store_read_authorities(store, &file, ret_error);
}

/* ---- life ---------------------------------------------------------------------------------- */

static int store_compare_name(const void *a, const void *b)
{
    return strcmp(((const struct stk_tls_name *)a)->name, ((const struct stk_tls_name *)b)->name);
}

/* The list of all names; of a name that several have, the first pair has it. */
static void store_index(struct stk_tls_store *store)
{
    size_t n = 0;

    for (size_t i = 0; i < store->npairs; i++)
        n += store->pairs[i].nnames;
    store->names = stk_new0_array(struct stk_tls_name, n + 1);
    for (size_t i = 0; i < store->npairs; i++) {
        const struct stk_tls_pair *pair = &store->pairs[i];
        size_t known = store->nnames;

        for (size_t j = 0; j < pair->nnames; j++) {
            const struct stk_tls_name key = {pair->names[j], pair};

            if (known == 0 ||
                bsearch(&key, store->names, known, sizeof key, store_compare_name) == NULL)
                store->names[store->nnames++] = key;
        }
        qsort(store->names, store->nnames, sizeof store->names[0], store_compare_name);
    }
    store->ctx = store->pairs[0].ctx;
}

static int store_build(struct stk_tls_store *store, const struct stk_tls_files *files,
                       const struct stk_config *config, char **ret_error)
{
    struct stk_tls_file file, key;
    size_t pos = 0;
    int r = store_set_verify(store, files, config, ret_error);

    while (r == 0 && stk_tls_files_next(files, &pos, &file)) {
        size_t ahead = pos;
        bool has_key = stk_tls_files_next(files, &ahead, &key) && key.kind == STK_TLS_FILE_KEY;

        if (file.kind != STK_TLS_FILE_CERT)
            continue;
        if (has_key)
            pos = ahead;
        r = store_add(store, &file, has_key ? &key : NULL, config, ret_error);
    }
    if (r == 0 && store->npairs == 0)
        r = store_fail(ret_error, stk_mem_strdup("tls-cert: no certificate is given"));
    if (r == 0)
        store_index(store);
    return r;
}

int stk_tls_store_new(struct stk_tls_store **ret_store, const struct stk_tls_files *files,
                      const struct stk_config *config, struct stk_tls_tickets *tickets,
                      char **ret_error)
{
    struct stk_tls_store *store = stk_new0(struct stk_tls_store);

    /* The end of the process is not OpenSSL's business: a thread may still be in it. */
    if (OPENSSL_init_ssl(OPENSSL_INIT_NO_ATEXIT, NULL) != 1) {
        free(store);
        return store_fail(ret_error, stk_mem_strdup("TLS: OpenSSL cannot be set up"));
    }
    ERR_clear_error();
    atomic_init(&store->references, 1);
    store->tickets = tickets;
    store->bio = stk_tls_bio_method();
    store->ticket_cipher = EVP_CIPHER_fetch(NULL, "AES-256-CBC", NULL);
    STK_ASSERT(store->bio != NULL && store->ticket_cipher != NULL);
    store_warn(store, NULL);
    store->nwarnings = 0;
    if (store_build(store, files, config, ret_error) != 0) {
        stk_tls_store_free(store);
        return -1;
    }
    *ret_store = store;
    return 0;
}

struct stk_tls_store *stk_tls_store_ref(struct stk_tls_store *store)
{
    atomic_fetch_add_explicit(&store->references, 1, memory_order_relaxed);
    return store;
}

struct stk_tls_store *stk_tls_store_free(struct stk_tls_store *store)
{
    if (store == NULL || atomic_fetch_sub(&store->references, 1) > 1)
        return NULL;
    for (size_t i = 0; i < store->npairs; i++) {
        for (size_t j = 0; j < store->pairs[i].nnames; j++)
            free(store->pairs[i].names[j]);
        free(store->pairs[i].names);
        for (unsigned t = 0; t < store->pairs[i].ntypes; t++)
            free(store->pairs[i].pems[t]);
        SSL_CTX_free(store->pairs[i].ctx);
    }
    for (size_t i = 0; i < store->nwarnings; i++)
        free(store->warnings[i]);
    free(store->warnings);
    free(store->pairs);
    free(store->names);
    X509_STORE_free(store->authorities);
    sk_X509_NAME_pop_free(store->authority_names, X509_NAME_free);
    EVP_CIPHER_free(store->ticket_cipher);
    BIO_meth_free(store->bio);
    free(store);
    return NULL;
}

const char *const *stk_tls_store_warnings(const struct stk_tls_store *store)
{
    return (const char *const *)store->warnings;
}

size_t stk_tls_store_count(const struct stk_tls_store *store)
{
    return store->ncerts;
}

const struct stk_tls_pair *stk_tls_store_find(const struct stk_tls_store *store, const char *name)
{
    char text[STORE_NAME_MAX + 2];
    size_t len = strnlen(name, sizeof text);
    struct stk_tls_name key = {.name = text};
    const struct stk_tls_name *found;
    char *dot;

    if (len == 0 || len > STORE_NAME_MAX)
        return NULL;
    if (name[len - 1] == '.')
        len--;
    for (size_t i = 0; i < len; i++)
        text[i] = (char)tolower((unsigned char)name[i]);
    text[len] = '\0';
    found = bsearch(&key, store->names, store->nnames, sizeof key, store_compare_name);
    dot = strchr(text, '.');
    if (found == NULL && dot != NULL && dot > text) {
        dot[-1] = '*';
        key.name = dot - 1;
        found = bsearch(&key, store->names, store->nnames, sizeof key, store_compare_name);
    }
    return found != NULL ? found->pair : NULL;
}

bool stk_tls_store_covers(const struct stk_tls_store *store, const char *name)
{
    return stk_tls_store_find(store, name) != NULL;
}
