/*
 * TLS on a connection, by OpenSSL: what recv() and send() are on a plain socket. Nothing of OpenSSL
 * shows in this header; without the library there is tls_none.c, and nobody gets a store.
 *
 * A session may be used by two threads at a time (one receives a body while the other drains the
 * output): a mutex of its own guards it.
 */
#pragma once

#include <stdbool.h>
#include <stddef.h>
#include <sys/types.h>
#include <sys/uio.h>

#include "base/macros.h"

struct stk_tls;
struct stk_tls_store;

/* How far a handshake is. */
enum stk_tls_step {
    STK_TLS_DONE,
    STK_TLS_WANT_INPUT,
    STK_TLS_WANT_OUTPUT,
    STK_TLS_PLAIN,  /* the client does not speak TLS; its first bytes are lost */
    STK_TLS_CLOSED, /* it has left */
    STK_TLS_FAILED, /* stk_tls_error says why; the client has been told */
};

/* What a handshake has agreed on; texts of the session, "" where there is none. */
struct stk_tls_info {
    const char *protocol; /* "TLSv1.3" */
    const char *cipher;   /* OpenSSL's name: "TLS_AES_128_GCM_SHA256" */
    const char *sni;      /* the name that the client asked for, lower case */
    bool resumed;
    bool verifies;           /* client certificates are asked for */
    const char *subject;     /* of the verified client certificate, RFC 2253; "": there is none */
    const char *common_name; /* in it, UTF-8; "": there is none */
    const char *issuer;      /* as subject */
    const char *serial;      /* hexadecimal, upper case */
    const char *fingerprint; /* SHA-1, hexadecimal, lower case */
    const char *pem;         /* the certificate */
    const char *chain;       /* likewise, and those behind it that the client has sent */
    const char *server_cert; /* ours, PEM */
    unsigned version;        /* 0x0304: TLS 1.3 */
    unsigned suite;          /* the cipher's number in the registry */
};

/* A session for an accepted socket, which stays the caller's; keeps the store alive. NULL without
 * memory. */
struct stk_tls *stk_tls_new(struct stk_tls_store *store, int fd) STK_MUST_CHECK;
/* Sends nothing. Accepts NULL; returns NULL. */
struct stk_tls *stk_tls_free(struct stk_tls *tls);
/* Before the handshake: bytes that have been taken from the socket already. 0 or -ENOMEM. */
int stk_tls_give(struct stk_tls *tls, const void *data, size_t len) STK_MUST_CHECK;
/* Goes on with the handshake. */
enum stk_tls_step stk_tls_handshake(struct stk_tls *tls) STK_MUST_CHECK;
/* Why it has failed, as a part of a sentence. */
const char *stk_tls_error(const struct stk_tls *tls);
/* After the handshake. */
const struct stk_tls_info *stk_tls_info(const struct stk_tls *tls);

/*
 * As recv() of a non-blocking socket. Takes as much as fits, so that what OpenSSL has decrypted
 * does not stay behind where epoll sees nothing of it; stk_tls_has_input says when some does. An
 * end without the peer's close_notify is an end too: HTTP says by itself whether all was there.
 */
ssize_t stk_tls_recv(struct stk_tls *tls, void *buf, size_t len);
/* Whether stk_tls_recv has something to say although the socket may have nothing. */
bool stk_tls_has_input(const struct stk_tls *tls);
/*
 * As sendmsg() of a non-blocking socket: how many bytes were taken. What is taken has been
 * encrypted and is kept where the socket does not take it: stk_tls_has_output. -1 and EAGAIN while
 * that has not left.
 */
ssize_t stk_tls_sendmsg(struct stk_tls *tls, const struct iovec *iov, int n);
/* Sends what is kept. 0: nothing is left; 1: the socket takes no more; or a negative errno.
 * *ret_sent: some has left. */
int stk_tls_flush(struct stk_tls *tls, bool *ret_sent) STK_MUST_CHECK;
bool stk_tls_has_output(const struct stk_tls *tls);
/* Says that no more is sent (close_notify), as far as the socket takes that. Harmless twice. */
void stk_tls_end(struct stk_tls *tls);
