/*
 * Basic authentication (RFC 7617) for a rule: against a user and a password in the rule, or against
 * a file of lines "user:hash", read anew for each request so that a change counts at once.
 *
 * Hashes are {SHA}, and whatever crypt(3) has, of which uWSGI takes the traditional one only.
 * Apache's $apr1$ is none of these; a file of nothing else is refused at the start, for nobody
 * would get in.
 *
 * Comparisons take the same time wherever the first difference is.
 */
#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#ifdef STK_HAVE_CRYPT
#    include <crypt.h>
#endif

#include "base/mem.h"
#include "base/sha1.h"
#include "serve/uroute_priv.h"

enum { AUTH_LINE = 1024, AUTH_SHA_LEN = 28, AUTH_DES_LEN = 13 };

/* Whether two texts are the same; the time tells their lengths at most. */
static bool auth_same(stk_span a, stk_span b)
{
    unsigned char differ = a.len != b.len;

    for (size_t i = 0; i < a.len && b.len > 0; i++)
        differ |= (unsigned char)(a.ptr[i] ^ b.ptr[i % b.len]);
    return differ == 0;
}

static int auth_digit(char c)
{
    static const char digits[] = "ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789+/";
    const char *at = c != '\0' ? strchr(digits, c) : NULL;

    return at != NULL ? (int)(at - digits) : -1;
}

/* base64, with or without padding; false: it is none, or too long. */
static bool auth_decode(stk_span text, char *out, size_t cap, size_t *ret_len)
{
    unsigned bits = 0;
    size_t n = 0, have = 0;

    while (text.len > 0 && text.ptr[text.len - 1] == '=')
        text.len--;
    for (size_t i = 0; i < text.len; i++) {
        int digit = auth_digit(text.ptr[i]);

        if (digit < 0)
            return false;
        bits = bits << 6 | (unsigned)digit;
        have += 6;
        if (have >= 8) {
            have -= 8;
            if (n + 1 >= cap)
                return false;
            out[n++] = (char)(bits >> have & 0xff);
        }
    }
    out[n] = '\0';
    *ret_len = n;
    return true;
}

/* ---- files ---------------------------------------------------------------------------------- */

static bool auth_sha(const char *password, stk_span hash)
{
    static const char digits[] = "ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789+/";
    uint8_t digest[STK_SHA1_SIZE + 1] = {0};
    char text[AUTH_SHA_LEN];

    stk_sha1(password, strlen(password), digest);
    for (size_t i = 0, k = 0; i < STK_SHA1_SIZE; i += 3, k += 4) {
        unsigned bits = (unsigned)digest[i] << 16 | (unsigned)digest[i + 1] << 8 |
                        (i + 2 < STK_SHA1_SIZE ? digest[i + 2] : 0u);

        for (size_t d = 0; d < 4; d++)
            text[k + d] = digits[bits >> (18 - 6 * d) & 63];
    }
    text[AUTH_SHA_LEN - 1] = '=';
    return auth_same(stk_span_make(text, sizeof text), hash);
}

#ifdef STK_HAVE_CRYPT
static bool auth_crypt(const char *password, stk_span hash)
{
    struct crypt_data *data = stk_try_alloc(sizeof *data);
    STK_CLEANUP(stk_mem_freep) char *setting = stk_mem_strndup(hash.ptr, hash.len);
    const char *made;
    bool same;

    if (data == NULL)
        return false;
    memset(data, 0, sizeof *data);
#    ifdef XCRYPT_VERSION_MAJOR /* not crypt_r: sanitizers have one that comes too early */
    made = crypt_rn(password, setting, data, (int)sizeof *data);
#    else
    made = crypt_r(password, setting, data);
#    endif
    same = made != NULL && made[0] != '*' && auth_same(stk_span_str(made), hash);
    explicit_bzero(data, sizeof *data);
    free(data);
    return same;
}
#else
static bool auth_crypt(const char *password, stk_span hash)
{
    (void)password;
    (void)hash;
    return false;
}
#endif

/* A line without its end; false: it is the last. Lines that are too long are none of ours. */
static bool auth_line(FILE *file, char line[AUTH_LINE], stk_span *ret_user, stk_span *ret_hash)
{
    bool cut = false;

    while (fgets(line, AUTH_LINE, file) != NULL) {
        size_t len = strcspn(line, "\r\n");
        char *colon = memchr(line, ':', len), *end;
        bool rest = cut; /* of a line that is too long */

        cut = len == AUTH_LINE - 1;
        if (rest || cut || line[0] == '#' || colon == NULL)
            continue;
        *ret_user = stk_span_make(line, (size_t)(colon - line));
        *ret_hash = stk_span_make(colon + 1, len - (size_t)(colon + 1 - line));
        end = memchr(ret_hash->ptr, ':', ret_hash->len);
        if (end != NULL)
            ret_hash->len = (size_t)(end - ret_hash->ptr);
        return true;
    }
    return false;
}

static bool auth_hash(const char *password, stk_span hash)
{
    if (hash.len == 5 + AUTH_SHA_LEN && memcmp(hash.ptr, "{SHA}", 5) == 0)
        return auth_sha(password, stk_span_make(hash.ptr + 5, AUTH_SHA_LEN));
    /* uWSGI reads as much of a line as a traditional hash has. */
    if (hash.len > AUTH_DES_LEN && hash.ptr[0] != '$' && hash.ptr[0] != '_')
        hash.len = AUTH_DES_LEN;
    return hash.len >= AUTH_DES_LEN && auth_crypt(password, hash);
}

static bool auth_in_file(const char *name, stk_span user, const char *password)
{
    FILE *file = fopen(name, "re");
    char line[AUTH_LINE];
    stk_span known, hash;
    bool good = false;

    if (file == NULL)
        return false;
    while (!good && auth_line(file, line, &known, &hash))
        good = stk_span_eq(known, user) && auth_hash(password, hash);
    (void)fclose(file);
    return good;
}

const char *stk_uroute_auth_check(const char *name)
{
    FILE *file = fopen(name, "re");
    const char *wrong = "has no line \"user:hash\"";
    char line[AUTH_LINE];
    stk_span user, hash;

    if (file == NULL)
        return strerror(errno);
    while (wrong != NULL && auth_line(file, line, &user, &hash)) {
        if (hash.len > 5 && memcmp(hash.ptr, "{SHA}", 5) == 0)
            wrong = NULL;
#ifdef STK_HAVE_CRYPT
        else if (hash.len < 6 || memcmp(hash.ptr, "$apr1$", 6) != 0)
            wrong = NULL;
        else
            wrong = "has hashes of Apache's own kind ($apr1$) only: make them by htpasswd -s or -B";
#else
        else
            wrong = "has hashes that this stoker was built without: install libcrypt-dev and build "
                    "it again, or make them by htpasswd -s";
#endif
    }
    (void)fclose(file);
    return wrong;
}

enum uroute_login stk_uroute_auth(const struct uroute_rule *rule, stk_span authorization,
                                  char buf[UROUTE_AUTH_MAX], stk_span *ret_user)
{
    const char *colon;
    size_t len;
    bool good;

    if (authorization.len < 7 ||
        !stk_span_ieq(stk_span_make(authorization.ptr, 6), STK_SPAN_LIT("Basic ")) ||
        !auth_decode(stk_span_make(authorization.ptr + 6, authorization.len - 6), buf,
                     UROUTE_AUTH_MAX, &len))
        return UROUTE_LOGIN_NONE;
    colon = memchr(buf, ':', len);
    if (colon == NULL || colon == buf || memchr(buf, '\0', len) != NULL)
        return UROUTE_LOGIN_WRONG;
    *ret_user = stk_span_make(buf, (size_t)(colon - buf));
    if (rule->file)
        good = auth_in_file(rule->secret, *ret_user, colon + 1);
    else
        good = auth_same(stk_span_make(buf, len), stk_span_str(rule->secret));
    return good ? UROUTE_LOGIN_GOOD : UROUTE_LOGIN_WRONG;
}
