/*
 * In place of the other tls*.c where stoker was built without OpenSSL: no store can be made, so no
 * session ever is.
 */
#include <errno.h>
#include <stdlib.h>

#include "base/assert.h"
#include "base/mem.h"
#include "net/tls.h"
#include "net/tls_store.h"

int stk_tls_store_new(struct stk_tls_store **ret_store, const struct stk_tls_files *files,
                      const struct stk_config *config, struct stk_tls_tickets *tickets,
                      char **ret_error)
{
    *ret_error =
        stk_mem_strdup("TLS: this stoker was built without OpenSSL: install OpenSSL 3 with "
                       "its headers (libssl-dev, openssl-devel) and build it again");
    return -1;
}

struct stk_tls_store *stk_tls_store_free(struct stk_tls_store *store)
{
    return NULL;
}

const char *const *stk_tls_store_warnings(const struct stk_tls_store *store)
{
    static const char *const none[] = {NULL};

    return none;
}

bool stk_tls_store_covers(const struct stk_tls_store *store, const char *name)
{
    return false;
}

size_t stk_tls_store_count(const struct stk_tls_store *store)
{
    return 0;
}

int stk_tls_tickets_new(struct stk_tls_tickets **ret_tickets)
{
    *ret_tickets = NULL;
    return 0;
}

int stk_tls_tickets_rotate(struct stk_tls_tickets *tickets)
{
    return 0;
}

int stk_tls_tickets_save(const struct stk_tls_tickets *tickets, int *ret_fd)
{
    return -ENOTSUP;
}

int stk_tls_tickets_load(struct stk_tls_tickets *tickets, int fd)
{
    return -ENOTSUP;
}

struct stk_tls_tickets *stk_tls_tickets_free(struct stk_tls_tickets *tickets)
{
    return NULL;
}

struct stk_tls *stk_tls_new(struct stk_tls_store *store, int fd)
{
    return NULL;
}

struct stk_tls *stk_tls_free(struct stk_tls *tls)
{
    return NULL;
}

int stk_tls_give(struct stk_tls *tls, const void *data, size_t len)
{
    return -ENOSYS;
}

enum stk_tls_step stk_tls_handshake(struct stk_tls *tls)
{
    return STK_TLS_FAILED;
}

const char *stk_tls_error(const struct stk_tls *tls)
{
    return "there is no TLS";
}

const struct stk_tls_info *stk_tls_info(const struct stk_tls *tls)
{
    static const struct stk_tls_info none = {.protocol = "",
                                             .cipher = "",
                                             .sni = "",
                                             .subject = "",
                                             .common_name = "",
                                             .issuer = "",
                                             .serial = "",
                                             .fingerprint = "",
                                             .pem = "",
                                             .chain = "",
                                             .server_cert = ""};

    return &none;
}

ssize_t stk_tls_recv(struct stk_tls *tls, void *buf, size_t len)
{
    errno = ENOSYS;
    return -1;
}

bool stk_tls_has_input(const struct stk_tls *tls)
{
    return false;
}

ssize_t stk_tls_sendmsg(struct stk_tls *tls, const struct iovec *iov, int n)
{
    errno = ENOSYS;
    return -1;
}

int stk_tls_flush(struct stk_tls *tls, bool *ret_sent)
{
    *ret_sent = false;
    return 0;
}

bool stk_tls_has_output(const struct stk_tls *tls)
{
    return false;
}

void stk_tls_end(struct stk_tls *tls)
{
}
