/*
 * Keys of session tickets: how long a ticket is taken while keys are rotated, and by a server that
 * has got the keys of another one. Client and server are sessions of OpenSSL that write into one
 * another's memory.
 */
#include "net/tls_store.h"

#include <errno.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include <cmocka.h>

#include <openssl/evp.h>
#include <openssl/pem.h>
#include <openssl/ssl.h>
#include <openssl/x509.h>

#include "base/fd.h"
#include "base/mem.h"
#include "config/config.h"
#include "net/tls_priv.h"

enum { ROUNDS = 20 };

static char cert_path[] = "/tmp/stoker-tickets-XXXXXX";

/* A certificate that signs itself, and its key, in one file. */
static int make_cert(void **state)
{
    EVP_PKEY *key = EVP_EC_gen("P-256");
    X509 *cert = X509_new();
    X509_NAME *name;
    FILE *file;
    int fd = mkstemp(cert_path);

    (void)state;
    if (fd < 0 || key == NULL || cert == NULL)
        return -1;
    file = fdopen(fd, "w");
    name = X509_get_subject_name(cert);
    if (file == NULL ||
        !X509_NAME_add_entry_by_txt(name, "CN", MBSTRING_ASC, (const unsigned char *)"a.example",
                                    -1, -1, 0) ||
        !X509_set_issuer_name(cert, name) || !X509_set_pubkey(cert, key) ||
        X509_gmtime_adj(X509_getm_notBefore(cert), -3600) == NULL ||
        X509_gmtime_adj(X509_getm_notAfter(cert), 90L * 24 * 3600) == NULL ||
        X509_sign(cert, key, EVP_sha256()) == 0 || !PEM_write_X509(file, cert) ||
        !PEM_write_PrivateKey(file, key, NULL, NULL, 0, NULL, NULL) || fclose(file) != 0)
        return -1;
    X509_free(cert);
    EVP_PKEY_free(key);
    return 0;
}

static int remove_cert(void **state)
{
    (void)state;
    return unlink(cert_path);
}

/* A server's part, with keys of its own. */
struct side {
    struct stk_tls_tickets *tickets;
    struct stk_tls_store *store;
};

static void side_init(struct side *side)
{
    char *pairs[] = {cert_path};
    struct stk_config config = {.tls_cert = {.items = pairs, .n = 1}};
    struct stk_tls_files files = {0};
    char *error = NULL;

    assert_int_equal(stk_tls_files_read(&config, &files, &error), 0);
    assert_int_equal(stk_tls_tickets_new(&side->tickets), 0);
    assert_int_equal(stk_tls_store_new(&side->store, &files, &config, side->tickets, &error), 0);
    stk_tls_files_deinit(&files);
}

static void side_deinit(struct side *side)
{
    side->store = stk_tls_store_free(side->store);
    side->tickets = stk_tls_tickets_free(side->tickets);
}

/* ---- handshakes ---------------------------------------------------------------------------- */

static int version;          /* of the client */
static SSL_SESSION *fresh;   /* of the last handshake, with the ticket that it gave */
static bool resumed, renews; /* of the last handshake */

/* Whether a session has a ticket, and another one than the one that was offered. */
static bool has_new_ticket(const SSL_SESSION *session, const SSL_SESSION *offered)
{
    const unsigned char *a, *b = NULL;
    size_t a_len, b_len = 0;

    SSL_SESSION_get0_ticket(session, &a, &a_len);
    if (offered != NULL)
        SSL_SESSION_get0_ticket(offered, &b, &b_len);
    return a_len > 0 && (a_len != b_len || memcmp(a, b, a_len) != 0);
}

static void carry(SSL *from, SSL *to)
{
    char data[16384];
    int n;

    while ((n = BIO_read(SSL_get_wbio(from), data, sizeof data)) > 0)
        assert_int_equal(BIO_write(SSL_get_rbio(to), data, n), n);
}

static SSL *open_ssl(SSL_CTX *ctx)
{
    SSL *ssl = SSL_new(ctx);

    assert_non_null(ssl);
    SSL_set_bio(ssl, BIO_new(BIO_s_mem()), BIO_new(BIO_s_mem()));
    return ssl;
}

/* A connection that offers a session (NULL: none). What comes of it is in `fresh`. */
static void shake(const struct side *side, SSL_SESSION *session)
{
    SSL_CTX *ctx = SSL_CTX_new(TLS_client_method());
    SSL *client, *server = open_ssl(side->store->ctx);
    char byte;

    assert_non_null(ctx);
    assert_int_equal(SSL_CTX_set_min_proto_version(ctx, version), 1);
    assert_int_equal(SSL_CTX_set_max_proto_version(ctx, version), 1);
    client = open_ssl(ctx);
    SSL_set_connect_state(client);
    SSL_set_accept_state(server);
    if (session != NULL) {
        /* A copy: OpenSSL marks a session of 1.3 as used. */
        SSL_SESSION *copy = SSL_SESSION_dup(session);

        assert_non_null(copy);
        assert_int_equal(SSL_set_session(client, copy), 1);
        SSL_SESSION_free(copy);
    }
    SSL_SESSION_free(stk_steal(&fresh));
    for (int i = 0; i < ROUNDS; i++) {
        (void)SSL_do_handshake(client);
        carry(client, server);
        (void)SSL_do_handshake(server);
        carry(server, client);
    }
    assert_true(SSL_is_init_finished(client) && SSL_is_init_finished(server));
    (void)SSL_read(client, &byte, 1); /* tickets of 1.3 come behind the handshake */
    resumed = SSL_session_reused(server);
    assert_int_equal(SSL_session_reused(client), resumed);
    fresh = SSL_get1_session(client);
    assert_non_null(fresh);
    renews = has_new_ticket(fresh, session);
    (void)SSL_shutdown(client); /* else the session may not be resumed */
    SSL_free(client);
    SSL_free(server);
    SSL_CTX_free(ctx);
}

/* The ticket of a connection that resumes nothing. */
static SSL_SESSION *get_ticket(const struct side *side)
{
    shake(side, NULL);
    assert_false(resumed);
    assert_true(renews);
    return stk_steal(&fresh);
}

static const int versions[] = {TLS1_2_VERSION, TLS1_3_VERSION};

/* ---- tests --------------------------------------------------------------------------------- */

static void test_two_rotations_are_survived(void **state)
{
    (void)state;
    for (size_t i = 0; i < STK_ARRAY_LEN(versions); i++) {
        struct side side;
        SSL_SESSION *ticket;

        version = versions[i];
        side_init(&side);
        ticket = get_ticket(&side);
        for (int rotations = 0; rotations < 3; rotations++) {
            shake(&side, ticket);
            assert_true(resumed);
            /* One of 1.2 is good until its key is an old one. */
            assert_int_equal(renews, rotations > 0 || version == TLS1_3_VERSION);
            assert_int_equal(stk_tls_tickets_rotate(side.tickets), 0);
        }
        shake(&side, ticket);
        assert_false(resumed);
        assert_true(renews);
        SSL_SESSION_free(ticket);
        side_deinit(&side);
    }
}

/* Who comes often enough never begins anew, however many rotations there are. */
static void test_a_renewed_ticket_is_of_the_new_key(void **state)
{
    (void)state;
    for (size_t i = 0; i < STK_ARRAY_LEN(versions); i++) {
        struct side side;
        SSL_SESSION *ticket;

        version = versions[i];
        side_init(&side);
        ticket = get_ticket(&side);
        for (int rotations = 0; rotations < 6; rotations++) {
            assert_int_equal(stk_tls_tickets_rotate(side.tickets), 0);
            shake(&side, ticket);
            assert_true(resumed && renews);
            SSL_SESSION_free(ticket);
            ticket = stk_steal(&fresh);
        }
        SSL_SESSION_free(ticket);
        side_deinit(&side);
    }
}

/* Another server takes the tickets of all keys that it was given, and forgets its own keys. */
static void test_keys_cross_to_another_server(void **state)
{
    (void)state;
    for (size_t i = 0; i < STK_ARRAY_LEN(versions); i++) {
        struct side old, new;
        SSL_SESSION *tickets[3], *own;
        int fd = -1;

        version = versions[i];
        side_init(&old);
        side_init(&new);
        for (size_t k = 0; k < STK_ARRAY_LEN(tickets); k++) {
            assert_int_equal(k > 0 ? stk_tls_tickets_rotate(old.tickets) : 0, 0);
            tickets[k] = get_ticket(&old);
            shake(&new, tickets[k]);
            assert_false(resumed);
        }
        own = get_ticket(&new);
        assert_int_equal(stk_tls_tickets_save(old.tickets, &fd), 0);
        assert_int_equal(stk_tls_tickets_load(new.tickets, fd), 0);
        for (size_t k = 0; k < STK_ARRAY_LEN(tickets); k++) {
            shake(&new, tickets[k]);
            assert_true(resumed);
        }
        shake(&new, own);
        assert_false(resumed);
        /* The oldest of them is the first that goes. */
        assert_int_equal(stk_tls_tickets_rotate(new.tickets), 0);
        for (size_t k = 0; k < STK_ARRAY_LEN(tickets); k++) {
            shake(&new, tickets[k]);
            assert_int_equal(resumed, k > 0);
            SSL_SESSION_free(tickets[k]);
        }
        SSL_SESSION_free(own);
        stk_fd_close(&fd);
        side_deinit(&old);
        side_deinit(&new);
    }
}

/* Keys that are none change nothing; the file of good ones cannot be written to. */
static void test_bad_keys_are_refused(void **state)
{
    FILE *file = tmpfile();
    struct side side;
    SSL_SESSION *ticket;
    char data[4096];
    ssize_t len;
    int fd = -1;

    (void)state;
    version = TLS1_3_VERSION;
    side_init(&side);
    ticket = get_ticket(&side);
    assert_int_equal(stk_tls_tickets_save(side.tickets, &fd), 0);
    assert_int_equal(pwrite(fd, "x", 1, 0), -1);
    assert_int_equal(ftruncate(fd, 1), -1);
    len = pread(fd, data, sizeof data, 0);
    assert_in_range(len, 17, sizeof data - 1);
    assert_non_null(file);
    for (size_t at = 0; at < 16; at++) { /* magic, number, size */
        char bad = (char)(data[at] ^ 0x40);

        assert_int_equal(pwrite(fileno(file), data, (size_t)len, 0), len);
        assert_int_equal(pwrite(fileno(file), &bad, 1, (off_t)at), 1);
        assert_int_equal(stk_tls_tickets_load(side.tickets, fileno(file)), -EINVAL);
    }
    assert_int_equal(pwrite(fileno(file), data, (size_t)len, 0), len);
    assert_int_equal(ftruncate(fileno(file), len - 1), 0);
    assert_int_equal(stk_tls_tickets_load(side.tickets, fileno(file)), -EINVAL);
    shake(&side, ticket);
    assert_true(resumed);
    SSL_SESSION_free(ticket);
    SSL_SESSION_free(stk_steal(&fresh));
    stk_fd_close(&fd);
    fclose(file);
    side_deinit(&side);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_two_rotations_are_survived),
        cmocka_unit_test(test_a_renewed_ticket_is_of_the_new_key),
        cmocka_unit_test(test_keys_cross_to_another_server),
        cmocka_unit_test(test_bad_keys_are_refused),
    };

    return cmocka_run_group_tests(tests, make_cert, remove_cert);
}
