/* The records of struct stk_tls_files, for those who build a store of them. */
#pragma once

#include <stdint.h>

#include "net/tls_store.h"

enum stk_tls_file_kind {
    STK_TLS_FILE_CERT = 1, /* PEM: a certificate and its chain; the key, if no KEY follows */
    STK_TLS_FILE_KEY,      /* of the CERT before it */
    STK_TLS_FILE_CA,       /* authorities of client certificates */
};

struct stk_tls_file {
    enum stk_tls_file_kind kind;
    const char *path;
    const char *data; /* with a NUL behind it */
    size_t len;
};

/* The record at *pos, which moves behind it; false: there is none. Begin with 0. */
bool stk_tls_files_next(const struct stk_tls_files *files, size_t *pos, struct stk_tls_file *ret);
