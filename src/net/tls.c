/*
 * TLS sessions.
 *
 * OpenSSL reads from the socket by a BIO of ours, and writes into memory: a write of it always
 * succeeds. So SSL_write is never half done (its rules for repeating a call with the same buffer do
 * not matter), several records leave by one send(), and what the socket does not take is ciphertext
 * that has to leave before anything else, whatever the connection queues behind it.
 *
 * Reads are read-ahead: one recv() gets the records that are there, up to OpenSSL's buffer. What is
 * decrypted is handed on as long as the caller has room. Only when its room ends first is there
 * something left that epoll does not know of (`hidden`).
 *
 * The queue of errors of OpenSSL belongs to the thread, and is shared with Python's ssl module: it
 * is empty before each call, which needs that, and behind each failure.
 */
#include "net/tls.h"

#include <errno.h>
#include <openssl/err.h>
#include <openssl/pem.h>
#include <openssl/x509.h>
#include <pthread.h>
#include <stdatomic.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "base/assert.h"
#include "base/mem.h"
#include "base/sys.h"
#include "net/tls_priv.h"
#include "net/tls_store.h"

enum {
    TLS_RECORD = SSL3_RT_MAX_PLAIN_LENGTH,
    TLS_BATCH = 4 * TLS_RECORD, /* encrypted at a time, before it is sent */
    TLS_OUT_MIN = 1024,
    TLS_ERROR_MAX = 160,
    TLS_FIRST_BYTE = 0x16, /* of a handshake record */
    TLS_HEX_MAX = 2 * 64 + 1,
};

struct stk_tls {
    pthread_mutex_t mutex;
    SSL *ssl;
    struct stk_tls_store *store;
    int fd;
    int error;        /* of the socket, a positive errno */
    bool heard;       /* the client's first byte has been seen */
    bool plain;       /* and is none of TLS */
    bool eof;         /* the socket's input has ended */
    bool established; /* the handshake is complete */
    bool ended;       /* close_notify has been sent */
    bool dead;        /* OpenSSL has given the session up */
    _Atomic bool hidden;
    _Atomic bool queued; /* out is not empty */
    char *early;         /* bytes that were read before */
    size_t early_len, early_off;
    char *out; /* ciphertext that has not left */
    size_t out_off, out_len, out_cap;
    struct stk_tls_info info;
    char *texts; /* of info, those of the client's certificate */
    char *failure;
};

/* ---- the BIO ------------------------------------------------------------------------------- */

static int tls_bio_write(BIO *bio, const char *data, size_t len, size_t *ret_written)
{
    struct stk_tls *tls = BIO_get_data(bio);

    BIO_clear_retry_flags(bio);
    if (len > tls->out_cap - tls->out_len) {
        size_t cap = tls->out_cap > 0 ? tls->out_cap : TLS_OUT_MIN;
        char *more;

        while (cap - tls->out_len < len)
            cap *= 2;
        more = stk_try_realloc(tls->out, cap);
        if (more == NULL)
            return 0;
        tls->out = more;
        tls->out_cap = cap;
    }
    memcpy(tls->out + tls->out_len, data, len);
    tls->out_len += len;
    *ret_written = len;
    return 1;
}

/* Bytes of the client: those that were given first. > 0, 0: the end, -1 and errno. */
static ssize_t tls_take(struct stk_tls *tls, char *buf, size_t len)
{
    size_t left = tls->early_len - tls->early_off;
    ssize_t n;

    if (stk_unlikely(left > 0)) {
        len = len < left ? len : left;
        memcpy(buf, tls->early + tls->early_off, len);
        tls->early_off += len;
        if (len == left) {
            free(stk_steal(&tls->early));
            tls->early_len = tls->early_off = 0;
        }
        return (ssize_t)len;
    }
    do
        n = stk_sys_recv(tls->fd, buf, len, MSG_DONTWAIT);
    while (n < 0 && errno == EINTR);
    return n;
}

static int tls_bio_read(BIO *bio, char *buf, size_t len, size_t *ret_read)
{
    struct stk_tls *tls = BIO_get_data(bio);
    ssize_t n = tls_take(tls, buf, len);

    BIO_clear_retry_flags(bio);
    if (n > 0) {
        if (stk_unlikely(!tls->heard)) {
            tls->heard = true;
            tls->plain = (unsigned char)buf[0] != TLS_FIRST_BYTE;
            if (tls->plain)
                return 0;
        }
        *ret_read = (size_t)n;
        return 1;
    }
    if (n < 0 && errno == EAGAIN)
        BIO_set_retry_read(bio);
    else if (n < 0)
        tls->error = errno;
    else
        tls->eof = true;
    return 0;
}

static long tls_bio_ctrl(BIO *bio, int cmd, long number, void *ptr)
{
    const struct stk_tls *tls = BIO_get_data(bio);

    switch (cmd) {
    case BIO_CTRL_FLUSH: /* what is written leaves behind the call */
        return 1;
    case BIO_CTRL_EOF:
        return tls->eof;
    default:
        return 0;
    }
}

BIO_METHOD *stk_tls_bio_method(void)
{
    BIO_METHOD *method = BIO_meth_new(BIO_TYPE_SOURCE_SINK, "stoker connection");

    if (method != NULL && BIO_meth_set_write_ex(method, tls_bio_write) == 1 &&
        BIO_meth_set_read_ex(method, tls_bio_read) == 1 &&
        BIO_meth_set_ctrl(method, tls_bio_ctrl) == 1)
        return method;
    BIO_meth_free(method);
    return NULL;
}

/* ---- life ---------------------------------------------------------------------------------- */

struct stk_tls *stk_tls_new(struct stk_tls_store *store, int fd)
{
    struct stk_tls *tls = stk_try_alloc(sizeof *tls);
    BIO *bio;
    int r;

    if (tls == NULL)
        return NULL;
    *tls = (struct stk_tls){.fd = fd,
                            .info = {
                                .protocol = "",
                                .cipher = "",
                                .sni = "",
                                .verifies = store->verifies,
                                .subject = "",
                                .common_name = "",
                                .issuer = "",
                                .serial = "",
                                .fingerprint = "",
                                .pem = "",
                                .chain = "",
                                .server_cert = "",
                            }};
    tls->ssl = SSL_new(store->ctx);
    bio = BIO_new(store->bio);
    if (tls->ssl == NULL || bio == NULL) {
        BIO_free(bio);
        SSL_free(tls->ssl);
        ERR_clear_error();
        free(tls);
        return NULL;
    }
    r = pthread_mutex_init(&tls->mutex, NULL);
    STK_ASSERT(r == 0);
    tls->store = stk_tls_store_ref(store);
    BIO_set_data(bio, tls);
    BIO_set_init(bio, 1);
    SSL_set_bio(tls->ssl, bio, bio);
    SSL_set_accept_state(tls->ssl);
    return tls;
}

struct stk_tls *stk_tls_free(struct stk_tls *tls)
{
    if (tls == NULL)
        return NULL;
    SSL_free(tls->ssl);
    stk_tls_store_free(tls->store);
    pthread_mutex_destroy(&tls->mutex);
    free(tls->early);
    free(tls->out);
    free(tls->texts);
    free(tls->failure);
    free(tls);
    return NULL;
}

int stk_tls_give(struct stk_tls *tls, const void *data, size_t len)
{
    if (len == 0)
        return 0;
    tls->early = stk_try_alloc(len);
    if (tls->early == NULL)
        return -ENOMEM;
    memcpy(tls->early, data, len);
    tls->early_len = len;
    return 0;
}

/* ---- output -------------------------------------------------------------------------------- */

/* Mutex held. As stk_tls_flush. */
static int tls_flush(struct stk_tls *tls, bool *ret_sent)
{
    while (tls->out_off < tls->out_len) {
        ssize_t n = stk_sys_send(tls->fd, tls->out + tls->out_off, tls->out_len - tls->out_off,
                                 MSG_NOSIGNAL | MSG_DONTWAIT);

        if (n < 0 && errno == EINTR)
            continue;
        if (n < 0 && errno != EAGAIN) {
            tls->dead = true;
            tls->out_off = tls->out_len = 0;
            atomic_store_explicit(&tls->queued, false, memory_order_relaxed);
            return -errno;
        }
        if (n > 0) {
            *ret_sent = true;
            tls->out_off += (size_t)n;
        }
        if (tls->out_off < tls->out_len) {
            atomic_store_explicit(&tls->queued, true, memory_order_relaxed);
            return 1;
        }
    }
    free(stk_steal(&tls->out));
    tls->out_off = tls->out_len = tls->out_cap = 0;
    atomic_store_explicit(&tls->queued, false, memory_order_relaxed);
    return 0;
}

int stk_tls_flush(struct stk_tls *tls, bool *ret_sent)
{
    int r;

    *ret_sent = false;
    pthread_mutex_lock(&tls->mutex);
    r = tls_flush(tls, ret_sent);
    pthread_mutex_unlock(&tls->mutex);
    return r;
}

bool stk_tls_has_output(const struct stk_tls *tls)
{
    return atomic_load_explicit(&tls->queued, memory_order_relaxed);
}

/* Encrypts some bytes into `out`. */
static bool tls_seal(struct stk_tls *tls, const char *data, size_t len)
{
    size_t n;

    ERR_clear_error();
    if (SSL_write_ex(tls->ssl, data, len, &n) == 1)
        return true;
    ERR_clear_error();
    tls->dead = true;
    return false;
}

/* A place in the bytes that are sent. */
struct tls_cursor {
    const struct iovec *iov;
    int n;      /* that are left */
    size_t off; /* in the first of them */
};

/*
 * Encrypts up to TLS_BATCH bytes: long pieces from where they are, several short ones in one
 * record. Returns how many; 0: the end, or a failure (dead).
 */
static size_t tls_seal_batch(struct stk_tls *tls, struct tls_cursor *at)
{
    char record[TLS_RECORD];
    size_t done = 0;

    while (at->n > 0 && done < TLS_BATCH && !tls->dead) {
        const char *data = (const char *)at->iov->iov_base + at->off;
        size_t len = at->iov->iov_len - at->off;
        size_t room = TLS_BATCH - done;

        if (len >= TLS_RECORD || at->n == 1) {
            len = len < room ? len : room;
            if (len >= TLS_RECORD)
                len -= len % TLS_RECORD;
            at->off += len;
            if (len > 0 && !tls_seal(tls, data, len))
                return 0;
            done += len;
        } else {
            size_t used = 0;

            room = room < TLS_RECORD ? room : TLS_RECORD;
            while (at->n > 0 && used < room) {
                len = at->iov->iov_len - at->off;
                len = len < room - used ? len : room - used;
                memcpy(record + used, (const char *)at->iov->iov_base + at->off, len);
                used += len;
                at->off += len;
                if (at->off < at->iov->iov_len)
                    break;
                at->iov++;
                at->n--;
                at->off = 0;
            }
            if (used > 0 && !tls_seal(tls, record, used))
                return 0;
            done += used;
            continue;
        }
        if (at->off == at->iov->iov_len) {
            at->iov++;
            at->n--;
            at->off = 0;
        }
    }
    return done;
}

ssize_t stk_tls_sendmsg(struct stk_tls *tls, const struct iovec *iov, int n)
{
    struct tls_cursor at = {iov, n, 0};
    bool sent = false;
    size_t total = 0;
    int r;

    pthread_mutex_lock(&tls->mutex);
    r = tls->dead || tls->ended ? -EPIPE : tls_flush(tls, &sent);
    if (r == 1)
        r = -EAGAIN;
    while (r == 0) {
        size_t sealed = tls_seal_batch(tls, &at);

        if (tls->dead)
            r = -EPIPE;
        if (sealed == 0)
            break;
        total += sealed;
        r = tls_flush(tls, &sent);
    }
    pthread_mutex_unlock(&tls->mutex);
    if (r < 0) {
        errno = -r;
        return -1;
    }
    return (ssize_t)total;
}

void stk_tls_end(struct stk_tls *tls)
{
    bool sent = false;

    pthread_mutex_lock(&tls->mutex);
    if (tls->established && !tls->dead && !tls->ended) {
        ERR_clear_error();
        (void)SSL_shutdown(tls->ssl);
        ERR_clear_error();
        tls->ended = true;
        if (tls_flush(tls, &sent) < 0) {
            /* The client has left first. */
        }
    }
    pthread_mutex_unlock(&tls->mutex);
}

/* ---- input --------------------------------------------------------------------------------- */

/* SSL_read has failed. 0: the end; -1 and errno. Mutex held. */
static ssize_t tls_read_failed(struct stk_tls *tls)
{
    int error = SSL_get_error(tls->ssl, 0);

    if (error == SSL_ERROR_WANT_READ) {
        errno = EAGAIN;
        return -1;
    }
    ERR_clear_error();
    if (error == SSL_ERROR_ZERO_RETURN)
        return 0;
    tls->dead = true;
    if (tls->eof)
        return 0;
    errno = ECONNRESET;
    return -1;
}

ssize_t stk_tls_recv(struct stk_tls *tls, void *buf, size_t len)
{
    size_t total = 0, n = 0;
    bool sent = false, more = true;
    ssize_t end = 0;

    pthread_mutex_lock(&tls->mutex);
    while (more && total < len) {
        if (stk_unlikely(tls->dead)) {
            end = tls->eof ? 0 : -1;
            errno = ECONNRESET;
            more = false;
        } else {
            ERR_clear_error();
            if (SSL_read_ex(tls->ssl, (char *)buf + total, len - total, &n) == 1) {
                total += n;
                more = SSL_has_pending(tls->ssl) == 1;
                continue;
            }
            end = tls_read_failed(tls);
            more = false;
        }
        if (end == -1 && errno == EAGAIN)
            continue;
        more = total > 0; /* the end is told by the next call */
        break;
    }
    atomic_store_explicit(&tls->hidden, more, memory_order_relaxed);
    if (stk_unlikely(tls->out_len > 0)) {
        int saved = errno;

        if (tls_flush(tls, &sent) < 0) {
            /* An answer to a change of keys, or an alert: the next call fails. */
        }
        errno = saved;
    }
    pthread_mutex_unlock(&tls->mutex);
    return total > 0 ? (ssize_t)total : end;
}

bool stk_tls_has_input(const struct stk_tls *tls)
{
    return atomic_load_explicit(&tls->hidden, memory_order_relaxed);
}

/* ---- the handshake ------------------------------------------------------------------------- */

/* A name that a client has asked for, lower case; false: it is none. */
static bool tls_copy_name(BIO *texts, const char *name)
{
    size_t len = name != NULL ? strlen(name) : 0;

    if (len == 0 || len > 255)
        return false;
    for (size_t i = 0; i < len; i++) {
        char c = name[i] >= 'A' && name[i] <= 'Z' ? (char)(name[i] | 0x20) : name[i];

        if (!((c >= 'a' && c <= 'z') || (c >= '0' && c <= '9') || c == '.' || c == '-' || c == '_'))
            return false;
        if (BIO_write(texts, &c, 1) != 1)
            return false;
    }
    return true;
}

static void tls_write_fingerprint(BIO *texts, const X509 *cert)
{
    unsigned char digest[EVP_MAX_MD_SIZE];
    unsigned n = 0;

    if (X509_digest(cert, EVP_sha1(), digest, &n) != 1)
        return;
    for (unsigned i = 0; i < n; i++)
        (void)BIO_printf(texts, "%02x", digest[i]);
}

/* The first common name of a subject in UTF-8; nothing for one with control characters. */
static void tls_write_common_name(BIO *texts, const X509_NAME *subject)
{
    int at = X509_NAME_get_index_by_NID(subject, NID_commonName, -1);
    unsigned char *name = NULL;
    bool good = true;
    int len;

    if (at < 0)
        return;
    len = ASN1_STRING_to_UTF8(&name, X509_NAME_ENTRY_get_data(X509_NAME_get_entry(subject, at)));
    for (int i = 0; i < len; i++)
        good = good && name[i] >= ' ' && name[i] != 0x7f;
    if (len > 0 && good)
        (void)BIO_write(texts, name, len);
    OPENSSL_free(name);
}

/* Texts about a certificate, each with a NUL behind it. */
static void tls_write_cert(BIO *texts, X509 *cert, const STACK_OF(X509) * chain)
{
    static const char nul[1] = "";

    (void)X509_NAME_print_ex(texts, X509_get_subject_name(cert), 0, XN_FLAG_RFC2253);
    (void)BIO_write(texts, nul, 1);
    tls_write_common_name(texts, X509_get_subject_name(cert));
    (void)BIO_write(texts, nul, 1);
    (void)X509_NAME_print_ex(texts, X509_get_issuer_name(cert), 0, XN_FLAG_RFC2253);
    (void)BIO_write(texts, nul, 1);
    (void)i2a_ASN1_INTEGER(texts, X509_get0_serialNumber(cert));
    (void)BIO_write(texts, nul, 1);
    tls_write_fingerprint(texts, cert);
    (void)BIO_write(texts, nul, 1);
    (void)PEM_write_bio_X509(texts, cert);
    (void)BIO_write(texts, nul, 1);
    (void)PEM_write_bio_X509(texts, cert);
    for (int i = 0; i < sk_X509_num(chain); i++)
        (void)PEM_write_bio_X509(texts, sk_X509_value(chain, i));
    (void)BIO_write(texts, nul, 1);
}

/* Takes the next text; the last one stays where it is. */
static const char *tls_next_text(const char **at, const char *end)
{
    const char *text = *at;
    const char *nul = memchr(text, '\0', (size_t)(end - text));

    if (nul == NULL)
        return "";
    if (nul + 1 < end)
        *at = nul + 1;
    return text;
}

/* Keeps what was agreed on. False: no memory. */
static bool tls_note(struct stk_tls *tls)
{
    X509 *cert = SSL_get0_peer_certificate(tls->ssl);
    BIO *texts = BIO_new(BIO_s_mem());
    const char *at, *end;
    char *data = NULL;
    bool named;
    long len;

    tls->info.protocol = SSL_get_version(tls->ssl);
    tls->info.cipher = SSL_CIPHER_get_name(SSL_get_current_cipher(tls->ssl));
    tls->info.resumed = SSL_session_reused(tls->ssl) == 1;
    tls->info.version = (unsigned)SSL_version(tls->ssl);
    tls->info.suite = SSL_CIPHER_get_protocol_id(SSL_get_current_cipher(tls->ssl));
    tls->info.server_cert = stk_tls_store_pem(tls->store, tls->ssl);
    if (texts == NULL)
        return false;
    named = tls_copy_name(texts, SSL_get_servername(tls->ssl, TLSEXT_NAMETYPE_host_name));
    if (!named)
        (void)BIO_reset(texts);
    (void)BIO_write(texts, "", 1);
    if (cert != NULL && SSL_get_verify_result(tls->ssl) == X509_V_OK)
        tls_write_cert(texts, cert, SSL_get_peer_cert_chain(tls->ssl));
    else
        cert = NULL;
    len = BIO_get_mem_data(texts, &data);
    tls->texts = len > 0 ? stk_try_alloc((size_t)len) : NULL;
    if (tls->texts != NULL)
        memcpy(tls->texts, data, (size_t)len);
    BIO_free(texts);
    ERR_clear_error();
    if (tls->texts == NULL)
        return false;
    at = tls->texts;
    end = tls->texts + len;
    tls->info.sni = tls_next_text(&at, end);
    if (cert != NULL) {
        tls->info.subject = tls_next_text(&at, end);
        tls->info.common_name = tls_next_text(&at, end);
        tls->info.issuer = tls_next_text(&at, end);
        tls->info.serial = tls_next_text(&at, end);
        tls->info.fingerprint = tls_next_text(&at, end);
        tls->info.pem = tls_next_text(&at, end);
        tls->info.chain = tls_next_text(&at, end);
    }
    return true;
}

/* Keeps why the handshake has failed. */
static void tls_explain(struct stk_tls *tls)
{
    unsigned long error = ERR_peek_error();
    const char *reason = ERR_reason_error_string(error);
    long verdict = SSL_get_verify_result(tls->ssl);
    char text[TLS_ERROR_MAX];

    if (ERR_GET_REASON(error) == SSL_R_CERTIFICATE_VERIFY_FAILED && verdict != X509_V_OK)
        (void)snprintf(text, sizeof text, "the client's certificate: %s",
                       X509_verify_cert_error_string(verdict));
    else
        (void)snprintf(text, sizeof text, "%s", reason != NULL ? reason : "no reason is known");
    tls->failure = stk_try_alloc(strlen(text) + 1);
    if (tls->failure != NULL)
        memcpy(tls->failure, text, strlen(text) + 1);
    ERR_clear_error();
}

/* One step of it, without sending. Mutex held. */
static enum stk_tls_step tls_step(struct stk_tls *tls)
{
    int r;

    if (tls->established)
        return STK_TLS_DONE;
    if (tls->dead)
        return STK_TLS_FAILED;
    ERR_clear_error();
    r = SSL_do_handshake(tls->ssl);
    if (r == 1) {
        tls->established = tls_note(tls);
        tls->dead = !tls->established;
        return tls->established ? STK_TLS_DONE : STK_TLS_FAILED;
    }
    if (SSL_get_error(tls->ssl, r) == SSL_ERROR_WANT_READ)
        return STK_TLS_WANT_INPUT;
    tls->dead = true;
    if (tls->plain || tls->eof || tls->error != 0) {
        ERR_clear_error();
        return tls->plain ? STK_TLS_PLAIN : STK_TLS_CLOSED;
    }
    tls_explain(tls);
    return STK_TLS_FAILED;
}

enum stk_tls_step stk_tls_handshake(struct stk_tls *tls)
{
    enum stk_tls_step step = STK_TLS_WANT_OUTPUT;
    bool sent = false;
    int r;

    pthread_mutex_lock(&tls->mutex);
    r = tls_flush(tls, &sent);
    if (r == 0) {
        step = tls_step(tls);
        if (step != STK_TLS_PLAIN && step != STK_TLS_CLOSED)
            r = tls_flush(tls, &sent);
    }
    pthread_mutex_unlock(&tls->mutex);
    if (step == STK_TLS_PLAIN || step == STK_TLS_FAILED)
        return step;
    if (r < 0)
        return STK_TLS_CLOSED;
    return r == 1 && step == STK_TLS_WANT_INPUT ? STK_TLS_WANT_OUTPUT : step;
}

const char *stk_tls_error(const struct stk_tls *tls)
{
    return tls->failure != NULL ? tls->failure : "no memory";
}

const struct stk_tls_info *stk_tls_info(const struct stk_tls *tls)
{
    return &tls->info;
}
