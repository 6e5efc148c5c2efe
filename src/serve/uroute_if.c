/*
 * For which requests a rule is: patterns for the parts of a request, and conditions on texts.
 */
#include <arpa/inet.h>
#include <errno.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#include "serve/uroute_priv.h"

enum { IF_NUMBER_MAX = 32 };

/* As a string of C; false: it is too long or holds a NUL, and names nothing. */
static bool if_string(stk_span text, char *out, size_t cap)
{
    if (text.len >= cap || memchr(text.ptr, '\0', text.len) != NULL)
        return false;
    memcpy(out, text.ptr, text.len);
    out[text.len] = '\0';
    return true;
}

static bool if_file(enum uroute_condition condition, stk_span text)
{
    char path[4096];
    struct stat st;

    if (text.len == 0 || !if_string(text, path, sizeof path))
        return false;
    if (condition == UROUTE_ISEXEC)
        return access(path, X_OK) == 0;
    if ((condition == UROUTE_ISLINK ? lstat(path, &st) : stat(path, &st)) < 0)
        return false;
    switch (condition) {
    case UROUTE_ISFILE:
        return S_ISREG(st.st_mode);
    case UROUTE_ISDIR:
        return S_ISDIR(st.st_mode);
    case UROUTE_ISLINK:
        return S_ISLNK(st.st_mode);
    default:
        return true;
    }
}

/* The number at the beginning of a text; 0 where there is none. */
static long if_number(stk_span text)
{
    char number[IF_NUMBER_MAX];

    if (text.len >= sizeof number)
        text.len = sizeof number - 1;
    return if_string(text, number, sizeof number) ? strtol(number, NULL, 10) : 0;
}

/* Whether an address is in a network, as in 10.0.0.0/8 or fd00::/8. */
static bool if_network(int family, stk_span address, stk_span network)
{
    unsigned char ip[16], net[16];
    char text[INET6_ADDRSTRLEN + 5], *slash;
    long bits = family == AF_INET ? 32 : 128, most = bits;

    if (!if_string(address, text, sizeof text) || inet_pton(family, text, ip) != 1 ||
        !if_string(network, text, sizeof text))
        return false;
    slash = strchr(text, '/');
    if (slash != NULL) {
        *slash = '\0';
        bits = strtol(slash + 1, NULL, 10);
    }
    if (inet_pton(family, text, net) != 1 || bits < 0 || bits > most)
        return false;
    for (long i = 0; i < bits; i += 8) {
        unsigned mask = bits - i >= 8 ? 0xff : 0xff00u >> (bits - i) & 0xff;

        if (((ip[i / 8] ^ net[i / 8]) & mask) != 0)
            return false;
    }
    return true;
}

static bool if_two(enum uroute_condition condition, stk_span a, stk_span b)
{
    switch (condition) {
    case UROUTE_EQUAL:
        return stk_span_eq(a, b);
    case UROUTE_STARTS:
        return a.len >= b.len && memcmp(a.ptr, b.ptr, b.len) == 0;
    case UROUTE_ENDS:
        return a.len >= b.len && memcmp(a.ptr + a.len - b.len, b.ptr, b.len) == 0;
    case UROUTE_CONTAINS:
        return b.len == 0 || memmem(a.ptr, a.len, b.ptr, b.len) != NULL;
    case UROUTE_HIGHER:
        return if_number(a) > if_number(b);
    case UROUTE_HIGHER_EQUAL:
        return if_number(a) >= if_number(b);
    case UROUTE_LOWER:
        return if_number(a) < if_number(b);
    case UROUTE_LOWER_EQUAL:
        return if_number(a) <= if_number(b);
    case UROUTE_IPV4:
        return if_network(AF_INET, a, b);
    default:
        return if_network(AF_INET6, a, b);
    }
}

/* A text that is too long for its buffer decides nothing, as a pattern that takes too long. */
static enum stk_regex_result if_condition(struct uroute_run *run, const struct uroute_rule *rule)
{
    stk_span left, right;
    bool fits;

    if (rule->never)
        return STK_REGEX_NONE;
    if (!stk_uroute_fill(run, rule->left, 2, &left))
        return STK_REGEX_LIMIT;
    if (rule->condition == UROUTE_REGEXP)
        return stk_regex_match(rule->regex, run->t->regex, left, run->t->groups);
    if (rule->condition == UROUTE_EMPTY)
        return left.len == 0 ? STK_REGEX_MATCH : STK_REGEX_NONE;
    if (rule->condition < UROUTE_EQUAL)
        return if_file(rule->condition, left) ? STK_REGEX_MATCH : STK_REGEX_NONE;
    if (!stk_uroute_fill(run, rule->right, 1, &right))
        return STK_REGEX_LIMIT;
    fits = if_two(rule->condition, left, right);
    return fits ? STK_REGEX_MATCH : STK_REGEX_NONE;
}

enum stk_regex_result stk_uroute_fits(struct uroute_run *run, const struct uroute_rule *rule)
{
    enum stk_regex_result r;

    for (size_t i = 0; i < STK_REGEX_GROUPS; i++)
        run->t->groups[i] = stk_span_make("", 0);
    switch (rule->subject) {
    case UROUTE_NOTHING:
        return STK_REGEX_MATCH;
    case UROUTE_STATUS:
        return run->rq->status == rule->status ? STK_REGEX_MATCH : STK_REGEX_NONE;
    case UROUTE_IF:
        r = if_condition(run, rule);
        if (r == STK_REGEX_LIMIT || !rule->negate)
            return r;
        return r == STK_REGEX_MATCH ? STK_REGEX_NONE : STK_REGEX_MATCH;
    default:
        return stk_regex_match(rule->regex, run->t->regex, stk_uroute_subject(run, rule->subject),
                               run->t->groups);
    }
}
