/*
 * Keys of session tickets. A resumed session needs no other state than its ticket, so any worker
 * resumes what another one has begun, and a reload changes nothing.
 *
 * One writer (the master) and many readers, by a sequence number: a reader copies the three keys,
 * and copies again when the number has changed meanwhile, or is odd.
 */
#include <errno.h>
#include <fcntl.h>
#include <openssl/core_names.h>
#include <openssl/crypto.h>
#include <openssl/evp.h>
#include <openssl/params.h>
#include <openssl/rand.h>
#include <sched.h>
#include <string.h>
#include <sys/mman.h>
#include <unistd.h>

#include "base/fd.h"
#include "net/tls_priv.h"
#include "net/tls_store.h"

enum {
    TICKETS_KEPT = 3,
    TICKETS_NAME = 16,
    TICKETS_KEY = 32,
    TICKETS_IV = 16,
};

struct tickets_key {
    unsigned char name[TICKETS_NAME];
    unsigned char cipher[TICKETS_KEY];
    unsigned char mac[TICKETS_KEY];
};

/* What crosses to another server. */
struct tickets_file {
    char magic[8];
    uint32_t n, size; /* keys that are there, and bytes of one */
    struct tickets_key keys[TICKETS_KEPT];
};

static const char tickets_magic[8] = {'s', 't', 'k', 't', 'i', 'c', 'k', '1'};

struct stk_tls_tickets {
    _Atomic uint32_t sequence;
    uint32_t n;
    struct tickets_key keys[TICKETS_KEPT]; /* the first one is for new tickets */
};

int stk_tls_tickets_new(struct stk_tls_tickets **ret_tickets)
{
    struct stk_tls_tickets *tickets =
        mmap(NULL, sizeof *tickets, PROT_READ | PROT_WRITE, MAP_SHARED | MAP_ANONYMOUS, -1, 0);
    int r;

    if (tickets == MAP_FAILED)
        return -errno;
    r = stk_tls_tickets_rotate(tickets);
    if (r < 0) {
        stk_tls_tickets_free(tickets);
        return r;
    }
    *ret_tickets = tickets;
    return 0;
}

int stk_tls_tickets_rotate(struct stk_tls_tickets *tickets)
{
    struct tickets_key fresh;
    uint32_t sequence = atomic_load(&tickets->sequence);

    if (RAND_priv_bytes((unsigned char *)&fresh, sizeof fresh) != 1)
        return -EIO;
    atomic_store(&tickets->sequence, sequence + 1);
    memmove(tickets->keys + 1, tickets->keys, sizeof tickets->keys - sizeof fresh);
    tickets->keys[0] = fresh;
    tickets->n += tickets->n < TICKETS_KEPT;
    atomic_store(&tickets->sequence, sequence + 2);
    OPENSSL_cleanse(&fresh, sizeof fresh);
    return 0;
}

/* By the one who writes the keys, so they do not change meanwhile. */
int stk_tls_tickets_save(const struct stk_tls_tickets *tickets, int *ret_fd)
{
    STK_CLEANUP(stk_fd_closep) int fd = memfd_create("tickets", MFD_CLOEXEC | MFD_ALLOW_SEALING);
    struct tickets_file file = {.n = tickets->n, .size = sizeof file.keys[0]};
    int r;

    if (fd < 0)
        return -errno;
    memcpy(file.magic, tickets_magic, sizeof file.magic);
    memcpy(file.keys, tickets->keys, sizeof file.keys);
    r = stk_fd_write_all(fd, (const char *)&file, sizeof file);
    OPENSSL_cleanse(&file, sizeof file);
    if (r == 0 &&
        fcntl(fd, F_ADD_SEALS, F_SEAL_SEAL | F_SEAL_SHRINK | F_SEAL_GROW | F_SEAL_WRITE) < 0)
        r = -errno;
    if (r == 0)
        *ret_fd = stk_fd_steal(&fd);
    return r;
}

int stk_tls_tickets_load(struct stk_tls_tickets *tickets, int fd)
{
    struct tickets_file file;
    ssize_t n = pread(fd, &file, sizeof file, 0);
    uint32_t sequence = atomic_load(&tickets->sequence);

    if (n < 0)
        return -errno;
    if (n != (ssize_t)sizeof file || memcmp(file.magic, tickets_magic, sizeof file.magic) != 0 ||
        file.size != sizeof file.keys[0] || file.n == 0 || file.n > TICKETS_KEPT)
        return -EINVAL;
    atomic_store(&tickets->sequence, sequence + 1);
    memcpy(tickets->keys, file.keys, sizeof tickets->keys);
    tickets->n = file.n;
    atomic_store(&tickets->sequence, sequence + 2);
    OPENSSL_cleanse(&file, sizeof file);
    return 0;
}

struct stk_tls_tickets *stk_tls_tickets_free(struct stk_tls_tickets *tickets)
{
    if (tickets != NULL && munmap(tickets, sizeof *tickets) < 0) {
        /* It stays mapped until the process ends. */
    }
    return NULL;
}

/* The key of a name (NULL: the one for new tickets). Its place, or -1. */
static int tickets_find(struct stk_tls_tickets *tickets, const unsigned char *name,
                        struct tickets_key *ret_key)
{
    struct tickets_key copy[TICKETS_KEPT];
    uint32_t before, n;
    int found = -1;

    for (;;) {
        before = atomic_load(&tickets->sequence);
        n = tickets->n < TICKETS_KEPT ? tickets->n : TICKETS_KEPT;
        memcpy(copy, tickets->keys, sizeof copy);
        /* Reading by an addition keeps the copy before it, which a load alone would not. */
        if (!(before & 1) && atomic_fetch_add(&tickets->sequence, 0) == before)
            break;
        sched_yield();
    }
    for (uint32_t i = 0; found < 0 && i < n; i++)
        if (name == NULL || memcmp(copy[i].name, name, TICKETS_NAME) == 0)
            found = (int)i;
    if (found >= 0)
        *ret_key = copy[found];
    OPENSSL_cleanse(copy, sizeof copy);
    return found;
}

static int tickets_set_mac(EVP_MAC_CTX *mac, struct tickets_key *key)
{
    char digest[] = "SHA256";
    OSSL_PARAM params[] = {
        OSSL_PARAM_construct_octet_string(OSSL_MAC_PARAM_KEY, key->mac, sizeof key->mac),
        OSSL_PARAM_construct_utf8_string(OSSL_MAC_PARAM_DIGEST, digest, sizeof digest - 1),
        OSSL_PARAM_construct_end(),
    };

    return EVP_MAC_CTX_set_params(mac, params);
}

/* As SSL_CTX_set_tlsext_ticket_key_evp_cb wants it: 1, 2 (renew), 0 (not ours), -1. */
static int tickets_on_key(SSL *ssl, unsigned char *name, unsigned char *iv, EVP_CIPHER_CTX *cipher,
                          EVP_MAC_CTX *mac, int encrypt)
{
    const struct stk_tls_store *store = SSL_CTX_get_app_data(SSL_get_SSL_CTX(ssl));
    struct tickets_key key;
    int place = tickets_find(store->tickets, encrypt ? NULL : name, &key);
    int r = -1;

    if (place < 0)
        return encrypt ? -1 : 0;
    if (encrypt) {
        memcpy(name, key.name, TICKETS_NAME);
        if (RAND_bytes(iv, TICKETS_IV) == 1 &&
            EVP_EncryptInit_ex2(cipher, store->ticket_cipher, key.cipher, iv, NULL) == 1 &&
            tickets_set_mac(mac, &key) == 1)
            r = 1;
    } else if (EVP_DecryptInit_ex2(cipher, store->ticket_cipher, key.cipher, iv, NULL) == 1 &&
               tickets_set_mac(mac, &key) == 1) {
        /* Tickets of 1.3 are for one use each (RFC 8446 C.4): the client gets another. */
        r = place > 0 || SSL_version(ssl) >= TLS1_3_VERSION ? 2 : 1;
    }
    OPENSSL_cleanse(&key, sizeof key);
    return r;
}

int stk_tls_tickets_install(SSL_CTX *ctx)
{
    return SSL_CTX_set_tlsext_ticket_key_evp_cb(ctx, tickets_on_key) == 1 ? 0 : -ENOMEM;
}
