/*
 * Handing connections from one worker to another: an inbox for each row of the scoreboard, and
 * slots in shared memory that say whose a connection is, so that it is served once, whoever dies.
 *
 * The sender takes a free slot of its own row, which gets a new number and is OFFERED, and sends a
 * message with a copy of the descriptor to the receiver's inbox. The receiver makes OFFERED TAKEN
 * before it touches the connection, or REFUSED. The sender keeps its descriptor until it sees that,
 * or makes OFFERED WITHDRAWN and serves the connection itself. Each of the three is one
 * compare-and-swap from the same word, so only one of them happens.
 *
 * The master has slots, too, for connections that come from the old server of an upgrade, and no
 * inbox: it serves nobody, and what it withdraws it offers to another worker.
 */
#pragma once

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>
#include <sys/types.h>

#include "base/macros.h"
#include "base/time.h"

struct stk_transfer;

enum {
    STK_TRANSFER_SLOTS = 128,           /* connections that a row may have on their way */
    STK_TRANSFER_BYTES_MAX = 64 * 1024, /* of a request, head and body */
    STK_TRANSFER_ADDR_MAX = 48,
};

enum stk_transfer_state {
    STK_TRANSFER_FREE,
    STK_TRANSFER_OFFERED,   /* on its way: nobody serves it */
    STK_TRANSFER_TAKEN,     /* the receiver's */
    STK_TRANSFER_REFUSED,   /* the sender's again, by the receiver's word */
    STK_TRANSFER_WITHDRAWN, /* the sender's again, by its own */
    STK_TRANSFER_STATES,
};

enum stk_transfer_flag {
    STK_TRANSFER_REQUEST = 1,   /* the bytes are a complete request, or more than one */
    STK_TRANSFER_SERVED = 2,    /* the connection has had a response */
    STK_TRANSFER_CONTINUED = 4, /* 100 Continue has been sent for the request */
    STK_TRANSFER_TRUSTED = 8,   /* the peer is a trusted proxy */
    STK_TRANSFER_PROXIED = 16,  /* the bytes begin with the connection's PROXY header */
    STK_TRANSFER_CARRIED = 32,  /* from another server: only SERVED is known of it */
    STK_TRANSFER_FLAGS = 63,
};

/* Which slot of which row, in which use. */
struct stk_transfer_ticket {
    uint32_t row;
    uint32_t slot;
    uint64_t word; /* as OFFERED */
};

/* What is said of a connection. */
struct stk_transfer_conn {
    int fd;
    uint32_t flags;
    uint32_t hops; /* how often the request has moved, this time included */
    uint32_t endpoint;
    stk_nsec since; /* of a request: when it was complete, monotonic clock */
    char addr[STK_TRANSFER_ADDR_MAX];
    uint8_t addr_len;
    uint16_t port;
    size_t len; /* of the bytes that have been read already */
};

/* Positive results of stk_transfer_recv. */
enum stk_transfer_error {
    STK_TRANSFER_E_BAD = 1, /* no message for this process: it was thrown away, go on */
};

/* Makes inboxes and slots for so many rows; before the first fork. 0 or a negative errno. */
int stk_transfer_new(unsigned nrows, struct stk_transfer **ret_transfer) STK_MUST_CHECK;
/* Closes and unmaps for this process. Accepts NULL; returns NULL. */
struct stk_transfer *stk_transfer_free(struct stk_transfer *transfer);
/* Closes all descriptors: in a child of the application, which frees nothing. */
void stk_transfer_close(struct stk_transfer *transfer);

/*
 * In a worker: this process is the row's from now on. What a former owner has left is forgotten:
 * its inbox is emptied, and its slots are free. The other inboxes can only be written to then.
 */
void stk_transfer_own(struct stk_transfer *transfer, unsigned row);
/* In the master, before anything is offered: the slots that belong to no worker are its own. */
void stk_transfer_own_master(struct stk_transfer *transfer);
/* The inbox to be waited for. */
int stk_transfer_fd(const struct stk_transfer *transfer);
/* Empties the inbox of a row whose worker is gone; by the master. */
void stk_transfer_drain(struct stk_transfer *transfer, unsigned row);

/*
 * Offers a connection to the owner of row `to`, which has process id `pid`. The descriptor stays
 * the caller's. 0 and the ticket; -EAGAIN: no slot is free, or the inbox is full; -EMSGSIZE: more
 * than STK_TRANSFER_BYTES_MAX; or another negative errno. By one thread at a time.
 */
int stk_transfer_send(struct stk_transfer *transfer, unsigned to, pid_t pid,
                      const struct stk_transfer_conn *conn, const void *bytes,
                      struct stk_transfer_ticket *ret_ticket) STK_MUST_CHECK;
/* What has become of an offer. */
enum stk_transfer_state stk_transfer_look(const struct stk_transfer *transfer,
                                          const struct stk_transfer_ticket *ticket);
/* Takes an offer back; false: it has been taken, or refused. */
bool stk_transfer_withdraw(struct stk_transfer *transfer, const struct stk_transfer_ticket *ticket)
    STK_MUST_CHECK;
/* Frees the slot of an offer that has been taken, refused or withdrawn. */
void stk_transfer_settle(struct stk_transfer *transfer, const struct stk_transfer_ticket *ticket);

/*
 * Receives one offer: its bytes go to buf, which has room for STK_TRANSFER_BYTES_MAX; the
 * descriptor is the caller's. 0; -EAGAIN: none is there; STK_TRANSFER_E_BAD; a negative errno.
 */
int stk_transfer_recv(struct stk_transfer *transfer, void *buf, struct stk_transfer_conn *ret_conn,
                      struct stk_transfer_ticket *ret_ticket) STK_MUST_CHECK;
/* Makes the connection ours, or leaves it to the sender; false: it has been withdrawn already. */
bool stk_transfer_take(struct stk_transfer *transfer, const struct stk_transfer_ticket *ticket)
    STK_MUST_CHECK;
void stk_transfer_refuse(struct stk_transfer *transfer, const struct stk_transfer_ticket *ticket);
