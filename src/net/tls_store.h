/*
 * What TLS needs before there is a connection: the certificates with their keys, and the rules that
 * the configuration sets. The files are read by the master (stk_tls_files), which may be the only
 * process that is allowed to; what is read crosses to the workers as one piece of memory, and is
 * made a store there.
 */
#pragma once

#include <stdbool.h>
#include <stddef.h>

#include "base/macros.h"

struct stk_config;
struct stk_tls_store;
struct stk_tls_tickets;

/* The contents of the files, with their names. */
struct stk_tls_files {
    char *data;
    size_t len;
};

/*
 * Reads the certificates, keys and authorities that the configuration names. 0, or -1 with
 * *ret_error (free it): one sentence that names the file.
 */
int stk_tls_files_read(const struct stk_config *config, struct stk_tls_files *ret_files,
                       char **ret_error) STK_MUST_CHECK;
/* Overwrites and frees; harmless for a zeroed one, and twice. */
void stk_tls_files_deinit(struct stk_tls_files *files);
bool stk_tls_files_eq(const struct stk_tls_files *a, const struct stk_tls_files *b);
/* Calls fn with the path of each file that was read. */
void stk_tls_files_each(const struct stk_tls_files *files, void (*fn)(void *arg, const char *path),
                        void *arg);
/* An anonymous, sealed file of them, for another process; and back. The descriptors are the
 * caller's. 0 or a negative errno. */
int stk_tls_files_save(const struct stk_tls_files *files, int *ret_fd) STK_MUST_CHECK;
int stk_tls_files_load(int fd, struct stk_tls_files *ret_files) STK_MUST_CHECK;

/*
 * Builds a store; `tickets` may be NULL (nothing is resumed by it), and has to outlive it. 0, or -1
 * with *ret_error: what does not fit, in which file, and what was probably meant.
 */
int stk_tls_store_new(struct stk_tls_store **ret_store, const struct stk_tls_files *files,
                      const struct stk_config *config, struct stk_tls_tickets *tickets,
                      char **ret_error) STK_MUST_CHECK;
/* Drops one reference. Accepts NULL; returns NULL. */
struct stk_tls_store *stk_tls_store_free(struct stk_tls_store *store);
/* Sentences about certificates that have run out, will soon, or name nothing; NULL-terminated, of
 * the store. */
const char *const *stk_tls_store_warnings(const struct stk_tls_store *store);
/* Whether a certificate is for this name. */
bool stk_tls_store_covers(const struct stk_tls_store *store, const char *name);
/* How many certificates there are. */
size_t stk_tls_store_count(const struct stk_tls_store *store);

enum { STK_TLS_TICKETS_ROTATE_MS = 6 * 3600 * 1000 }; /* two rotations outlive a session */

/*
 * Keys of session tickets, in memory that all workers share: made before they are forked, changed
 * by the master only. 0 or a negative errno.
 */
int stk_tls_tickets_new(struct stk_tls_tickets **ret_tickets) STK_MUST_CHECK;
/* A new key for new tickets; those of the last two keys are still taken. 0 or a negative errno. */
int stk_tls_tickets_rotate(struct stk_tls_tickets *tickets) STK_MUST_CHECK;
/*
 * The keys as an anonymous, sealed file, for a server that takes this one's place; and back, in the
 * place of those that are there. The descriptors are the caller's. 0 or a negative errno.
 */
int stk_tls_tickets_save(const struct stk_tls_tickets *tickets, int *ret_fd) STK_MUST_CHECK;
int stk_tls_tickets_load(struct stk_tls_tickets *tickets, int fd) STK_MUST_CHECK;
/* Accepts NULL; returns NULL. */
struct stk_tls_tickets *stk_tls_tickets_free(struct stk_tls_tickets *tickets);
