/*
 * Static files: directories that are served by the server itself, by whichever thread has the
 * request, also while every thread of the application is busy. docs/static.md is for users.
 *
 * No path leads out of a directory (serve/static_open.c), and what was looked up is kept for a
 * second without looking again (serve/static_cache.c).
 */
#pragma once

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>
#include <sys/stat.h>

#include "base/macros.h"
#include "base/span.h"
#include "config/options.h"

struct stk_config;
struct stk_serve_request;
struct stk_static;  /* the directories of one prefix */
struct stk_statics; /* all of a server, with their cache */

enum stk_static_result {
    STK_STATIC_PASS,   /* nothing was written: somebody else has to answer */
    STK_STATIC_SERVED, /* a complete response was written */
};

/*
 * Those of the configuration. 0 and *ret_statics (NULL: none are configured), or a negative errno;
 * what cannot be read is logged.
 */
int stk_statics_new(struct stk_statics **ret_statics, const struct stk_config *config)
    STK_MUST_CHECK;
/* Accepts NULL; returns NULL. */
struct stk_statics *stk_statics_free(struct stk_statics *statics);
/*
 * A directory, or a file, that no option of its own names; the texts outlive it. What is not there
 * is answered with the file `attempt` of the directory (NULL: with 404), or with `pass` by nobody.
 */
struct stk_static *stk_static_new(struct stk_statics *statics, stk_span prefix, const char *dir,
                                  const char *attempt, bool pass);
/* Before its statics. Accepts NULL; returns NULL. */
struct stk_static *stk_static_free(struct stk_static *root);
/* Whether there are prefixes of which requests are answered. Accepts NULL. */
bool stk_statics_have_prefixes(const struct stk_statics *statics);
/* Descriptors that the cache may hold. */
unsigned stk_statics_descriptors(const struct stk_statics *statics);
/*
 * Answers a request by the first directory that has its path, the longest prefix first. The
 * connection is kept if rq->keep_alive says so afterwards.
 */
enum stk_static_result stk_statics_serve(struct stk_statics *statics, struct stk_serve_request *rq)
    STK_MUST_CHECK;
/* The same by one prefix; `below` is the decoded path behind it: empty, or with a slash first. */
enum stk_static_result stk_static_serve(struct stk_serve_request *rq, const struct stk_static *root,
                                        stk_span below) STK_MUST_CHECK;

/* A representation to be sent. Spans that are empty stand for fields that are left out. */
struct stk_static_file {
    int fd;           /* open for reading; stays the caller's */
    const char *data; /* its bytes, where they are in memory: fd is not looked at */
    uint64_t size;
    int64_t modified; /* seconds since 1970; -1: not said */
    stk_span etag;    /* with its quotes */
    stk_span type;
    stk_span encoding;
    stk_span cache;  /* Cache-Control */
    int64_t max_age; /* seconds, for Expires; -1: none */
    bool vary;       /* it was chosen by Accept-Encoding */
    stk_span fields; /* further lines, each with its CR LF */
    unsigned status; /* the body of a response of this status; 0: 200, in parts if asked for */
};

/*
 * Sends a file with all that a client may ask for: preconditions, ranges, HEAD. A response that was
 * started is replaced. 0, or -EPIPE and the like: the client is gone, or the file became shorter.
 */
int stk_static_send(struct stk_serve_request *rq, const struct stk_static_file *file);
/*
 * The strong entity-tag of an open file, with `suffix` in it, of at most STK_STATIC_ETAG_MAX bytes.
 */
enum { STK_STATIC_ETAG_MAX = 48 };
size_t stk_static_etag(char out[STK_STATIC_ETAG_MAX], const struct stat *st, const char *suffix);

/*
 * Checks the options before anything starts. `fail` gets the option, the index of its item and what
 * is wrong with it. Relative paths are looked for below `dir` (NULL: where we are).
 */
void stk_statics_verify(const struct stk_config *config, const char *dir,
                        void (*fail)(void *arg, enum stk_option_id id, size_t item,
                                     const char *text),
                        void *arg);
/* Makes the paths of the options absolute, so that no later chdir() moves them. */
void stk_statics_settle(struct stk_config *config);
