/* What the files of uWSGI's routing share. */
#pragma once

#include <stdatomic.h>

#include "serve/request.h"
#include "serve/uroute.h"
#include "serve/uroute_rule.h"

enum {
    UROUTE_FIELDS = 64,       /* fields that the rules add to a response or take away */
    UROUTE_ADDED = 64,        /* variables that they add to a request */
    UROUTE_VARS = 512,        /* all variables of a request */
    UROUTE_ROOM = 96 * 1024,  /* bytes that they make for a request, beyond its head */
    UROUTE_SPARE = 16 * 1024, /* likewise, behind the application, of one that is detached */
    UROUTE_CLOSED = 444,      /* what logs show where a rule closes without an answer */
};

struct uroute_field {
    bool add;
    stk_span text; /* "Name: value", or a name */
};

/* What the rules have made of a request; copied as it is where the request is detached. */
struct stk_uroute_state {
    struct stk_uroute *all;
    bool quiet;      /* not to be logged */
    bool again;      /* the rules were gone through before, while it waited for a thread */
    bool has_head;   /* rq->base.head is ours */
    bool has_app;    /* `app` is set */
    bool has_user;   /* a rule has said who it is */
    bool has_answer; /* `status` or `body` is set */
    bool in_head;    /* error-route and response-route have had their turn */
    bool is_erring;  /* error-route is at work */
    unsigned status; /* of an answer that rules put together; 0: 200 */
    stk_span path;   /* PATH_INFO, the same for all chains */
    stk_span reason;
    stk_span body;
    stk_span app;
    size_t nfields, nadded;
    struct uroute_field fields[UROUTE_FIELDS];
    struct stk_var added[UROUTE_ADDED];
    char *memory; /* all that the spans point to */
    size_t len, cap;
};

/* The memory of a thread. */
struct uroute_thread {
    struct stk_uroute_state state;
    struct stk_head head;
    struct stk_var vars[UROUTE_VARS];
    struct stk_regex_scratch *regex;
    stk_span groups[STK_REGEX_GROUPS];
    char texts[3][STK_UTEXT_MAX]; /* two of actions, and what the groups are of */
};

struct uroute_list {
    struct uroute_rule *rules;
    size_t n;
};

struct stk_uroute {
    struct uroute_list chains[UROUTE_CHAINS];
    bool changes_fields;
    stk_msec least_timeout;
    struct stk_server *server;
    struct uroute_thread *threads; /* [nthreads + 1] */
    size_t nthreads;
    _Atomic bool no_openat2;
};

enum uroute_next {
    UROUTE_NEXT,     /* the next rule */
    UROUTE_CONTINUE, /* no further rule */
    UROUTE_ANSWERED, /* no further rule: there is a response */
    UROUTE_CLOSE,    /* no further rule, and no response */
};

/* One walk through a chain. */
struct uroute_run {
    struct stk_uroute *all;
    struct stk_serve_request *rq;
    struct stk_uroute_state *state;
    struct uroute_thread *t;
    enum uroute_chain chain;
    size_t at;     /* the rule */
    size_t target; /* where to go to; 0: on */
};

/* uroute.c: a copy that lives as long as the request; false: there is no room. */
bool stk_uroute_keep(struct uroute_run *run, stk_span text, stk_span *ret_kept);
/* Fills a text, with the groups of the run, into one of the thread's buffers; false: it is too
 * long. */
bool stk_uroute_fill(struct uroute_run *run, const struct stk_utext *text, unsigned buffer,
                     stk_span *ret_text);
/* Sets a variable that the application sees; false: there is no room. */
bool stk_uroute_add(struct uroute_run *run, stk_span name, stk_span value);

/* uroute_value.c: adds the value of ${name}. `arg` is the run. */
void stk_uroute_value(void *arg, stk_span name, struct stk_utext_out *out);
/* What a subject is about; of length 0 where there is none. */
stk_span stk_uroute_subject(const struct uroute_run *run, enum uroute_subject subject);
/* A variable of the gateway's or a rule's; false: there is none. */
bool stk_uroute_find(const struct uroute_run *run, stk_span name, stk_span *ret_value);
/* Puts PATH_INFO of the request into its memory; false: there is no room. */
bool stk_uroute_path(struct uroute_run *run);

/* uroute_if.c: whether a rule is for the request. */
enum stk_regex_result stk_uroute_fits(struct uroute_run *run, const struct uroute_rule *rule);

/* uroute_do.c: what rules do to a request and its response. */
enum uroute_next stk_uroute_do(struct uroute_run *run, const struct uroute_rule *rule);
/* uroute_set.c: makes the head the request's own, which others do not share; NULL: there is no
 * room. And what rules change of it. */
struct stk_head *stk_uroute_own(struct uroute_run *run);
enum uroute_next stk_uroute_set(struct uroute_run *run, const struct uroute_rule *rule);
/* uroute_answer.c: what they answer. */
enum uroute_next stk_uroute_answer(struct uroute_run *run, const struct uroute_rule *rule);
/* The answer that send and clearheaders have put together. */
enum uroute_next stk_uroute_gathered(struct uroute_run *run);
/* The decimal number that a text begins with; 0: it is none, or too long for one. */
long long stk_uroute_number(stk_span text);
/* A plain answer of a status. */
enum uroute_next stk_uroute_refuse(struct uroute_run *run, unsigned status, const char *text);

/*
 * uroute_auth.c: whether the Authorization of a request is that of a rule; the user in *ret_user,
 * which is part of `buf`.
 */
enum { UROUTE_AUTH_MAX = 1024 };
enum uroute_login {
    UROUTE_LOGIN_NONE, /* none is said, or not in this way */
    UROUTE_LOGIN_WRONG,
    UROUTE_LOGIN_GOOD,
};
enum uroute_login stk_uroute_auth(const struct uroute_rule *rule, stk_span authorization,
                                  char buf[UROUTE_AUTH_MAX], stk_span *ret_user);
/* NULL, or why a file of passwords is of no use. */
const char *stk_uroute_auth_check(const char *name);
