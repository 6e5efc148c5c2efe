/*
 * Parsers of the values of options, one per kind, and the way back.
 *
 * Numbers are read by hand and not by strtoll, which takes what nobody meant: signs, hexadecimal,
 * blanks, octal, and an overflow only through errno. A number with a unit is digits, perhaps a
 * fraction, and the unit; it is computed in integers and refused when it overflows or is not a
 * whole number of the smallest unit. What is printed is always accepted again and gives the same
 * value.
 */
#include "config/value.h"

#include <arpa/inet.h>
#include <errno.h>
#include <stdlib.h>
#include <string.h>
#include <strings.h>

#include "base/assert.h"
#include "base/mem.h"

struct value_unit {
    const char *name;
    int64_t factor;
};

static const struct value_unit value_no_units[] = {{"", 1}, {NULL, 0}};
static const struct value_unit value_size_units[] = {
    {"", 1},          {"b", 1},        {"k", 1 << 10},   {"kb", 1 << 10},
    {"kib", 1 << 10}, {"m", 1 << 20},  {"mb", 1 << 20},  {"mib", 1 << 20},
    {"g", 1 << 30},   {"gb", 1 << 30}, {"gib", 1 << 30}, {NULL, 0},
};
static const struct value_unit value_time_units[] = {
    {"", 1000}, {"ms", 1}, {"s", 1000}, {"m", 60000}, {"h", 3600000}, {"d", 86400000}, {NULL, 0},
};

/* Takes blanks off both ends of a span of text. */
static void value_trim(const char **text, size_t *len)
{
    while (*len > 0 && strchr(" \t", (*text)[0])) {
        (*text)++;
        (*len)--;
    }
    while (*len > 0 && strchr(" \t", (*text)[*len - 1]))
        (*len)--;
}

static bool value_is_digit(char c)
{
    return c >= '0' && c <= '9';
}

/* Finds the factor of a unit, in any case; 0 for an unknown one. */
static int64_t value_unit_factor(const struct value_unit *units, const char *name, size_t len)
{
    for (; units->name; units++)
        if (strlen(units->name) == len && strncasecmp(units->name, name, len) == 0)
            return units->factor;
    return 0;
}

/* Digits, an optional fraction where the unit can be divided, an optional unit. */
static int value_number(const char *text, size_t len, const struct value_unit *units,
                        int64_t *ret_number)
{
    int64_t whole = 0, fraction = 0, scale = 1, factor, part;
    size_t i = 0;

    for (; i < len && value_is_digit(text[i]); i++)
        if (__builtin_mul_overflow(whole, 10, &whole) ||
            __builtin_add_overflow(whole, text[i] - '0', &whole))
            return STK_VALUE_E_INVALID;
    if (i == 0)
        return STK_VALUE_E_INVALID;
    if (i < len && text[i] == '.') {
        size_t first = ++i;

        for (; i < len && value_is_digit(text[i]) && scale < 1000000000; i++) {
            fraction = fraction * 10 + (text[i] - '0');
            scale *= 10;
        }
        if (i == first)
            return STK_VALUE_E_INVALID;
    }
    while (i < len && (text[i] == ' ' || text[i] == '\t'))
        i++;
    factor = value_unit_factor(units, text + i, len - i);
    if (factor == 0 || __builtin_mul_overflow(whole, factor, &whole))
        return STK_VALUE_E_INVALID;
    if (__builtin_mul_overflow(fraction, factor, &part) || part % scale != 0)
        return STK_VALUE_E_INVALID;
    if (__builtin_add_overflow(whole, part / scale, &whole))
        return STK_VALUE_E_INVALID;
    *ret_number = whole;
    return 0;
}

static int value_octal(const char *text, size_t len, int64_t *ret_number)
{
    int64_t number = 0;

    if (len > 2 && text[0] == '0' && (text[1] == 'o' || text[1] == 'O')) {
        text += 2;
        len -= 2;
    }
    if (len == 0 || len > 5)
        return STK_VALUE_E_INVALID;
    for (size_t i = 0; i < len; i++) {
        if (text[i] < '0' || text[i] > '7')
            return STK_VALUE_E_INVALID;
        number = number * 8 + (text[i] - '0');
    }
    if (number > 0777)
        return STK_VALUE_E_INVALID;
    *ret_number = number;
    return 0;
}

static bool value_is_word(const char *text, size_t len, const char *word)
{
    return strlen(word) == len && strncasecmp(text, word, len) == 0;
}

static int value_bool(const char *text, size_t len, int64_t *ret_number)
{
    static const char *const words[2][4] = {{"false", "no", "off", "0"},
                                            {"true", "yes", "on", "1"}};

    for (size_t b = 0; b < 2; b++)
        for (size_t i = 0; i < STK_ARRAY_LEN(words[b]); i++)
            if (value_is_word(text, len, words[b][i])) {
                *ret_number = (int64_t)b;
                return 0;
            }
    return STK_VALUE_E_INVALID;
}

static int value_choice(const struct stk_option *opt, const char *text, size_t len,
                        int64_t *ret_number)
{
    const char *pos = opt->choices, *word;
    size_t wlen = 0;

    for (int64_t i = 0; (word = stk_options_next_word(&pos, &wlen)); i++)
        if (wlen == len && strncasecmp(text, word, len) == 0) {
            *ret_number = i;
            return 0;
        }
    return STK_VALUE_E_INVALID;
}

/* An address, a network in CIDR notation, "unix" or "*". */
static bool value_is_net(const char *text)
{
    unsigned char addr[16];
    char host[64];
    const char *slash = strchr(text, '/');
    size_t len = slash ? (size_t)(slash - text) : strlen(text);
    int64_t bits = 0, most;

    if (strcmp(text, "unix") == 0 || strcmp(text, "*") == 0)
        return true;
    if (len >= sizeof(host))
        return false;
    memcpy(host, text, len);
    host[len] = '\0';
    if (inet_pton(AF_INET, host, addr) == 1)
        most = 32;
    else if (inet_pton(AF_INET6, host, addr) == 1)
        most = 128;
    else
        return false;
    if (!slash)
        return true;
    return value_number(slash + 1, strlen(slash + 1), value_no_units, &bits) == 0 && bits <= most;
}

static bool value_is_var(const char *text)
{
    const char *eq = strchr(text, '=');

    return eq && eq > text && !memchr(text, ' ', (size_t)(eq - text));
}

static int value_parse_text(const struct stk_option *opt, const char *text, char **ret_text)
{
    int64_t octal = 0;

    switch ((int)opt->kind) {
    case STK_OPTION_UMASK:
        if (value_octal(text, strlen(text), &octal) != 0)
            return STK_VALUE_E_INVALID;
        break;
    case STK_OPTION_VARS:
        if (!value_is_var(text))
            return STK_VALUE_E_INVALID;
        break;
    case STK_OPTION_NETS:
        if (!value_is_net(text))
            return STK_VALUE_E_INVALID;
        break;
    default:
        if (!*text && !(opt->empty && opt->kind == STK_OPTION_STRING))
            return STK_VALUE_E_INVALID;
    }
    *ret_text = stk_mem_strdup(text);
    return 0;
}

/* Whether 0 says the same as the row's word for it: "none" and "off" are nothing, "auto" is not. */
static bool value_has_zero(const struct stk_option *opt)
{
    return opt->zero != NULL && strcmp(opt->zero, "auto") != 0;
}

static int value_parse_number(const struct stk_option *opt, const char *text, int64_t *ret_number)
{
    size_t len = strlen(text);
    int64_t number = 0;
    int r;

    value_trim(&text, &len);
    if (opt->zero && value_is_word(text, len, opt->zero)) {
        *ret_number = 0;
        return 0;
    }
    switch ((int)opt->kind) {
    case STK_OPTION_BOOL:
        return value_bool(text, len, ret_number);
    case STK_OPTION_SWITCH:
    case STK_OPTION_ENUM:
        return value_choice(opt, text, len, ret_number);
    case STK_OPTION_MODE:
        return value_octal(text, len, ret_number);
    case STK_OPTION_SIZE:
        r = value_number(text, len, value_size_units, &number);
        break;
    case STK_OPTION_MSEC:
        r = value_number(text, len, value_time_units, &number);
        break;
    default:
        r = value_number(text, len, value_no_units, &number);
    }
    if (r != 0 ||
        ((number < opt->min || number > opt->max) && !(number == 0 && value_has_zero(opt))))
        return STK_VALUE_E_INVALID;
    *ret_number = number;
    return 0;
}

int stk_value_parse(const struct stk_option *opt, const char *text, struct stk_value *ret_value)
{
    struct stk_value value = {0};
    int r;

    switch ((int)opt->kind) {
    case STK_OPTION_STRING:
    case STK_OPTION_STRINGS:
    case STK_OPTION_VARS:
    case STK_OPTION_NETS:
    case STK_OPTION_UMASK:
    case STK_OPTION_COMMAND:
        r = value_parse_text(opt, text, &value.text);
        break;
    default:
        r = value_parse_number(opt, text, &value.number);
    }
    if (r == 0)
        *ret_value = value;
    return r;
}

/* "a, b or c" from "a,b,c" */
static char *value_join_choices(const char *choices)
{
    char *text = stk_mem_strdup("");
    const char *pos = choices, *word;
    size_t len = 0;

    while ((word = stk_options_next_word(&pos, &len))) {
        const char *link = !*text ? "" : *pos ? ", " : " or ";
        char *longer = stk_mem_printf("%s%s%.*s", text, link, (int)len, word);

        free(text);
        text = longer;
    }
    return text;
}

/* The range of a number, in the words of its unit. */
static char *value_expected_range(const struct stk_option *opt, const char *what,
                                  const char *examples)
{
    STK_CLEANUP(stk_mem_freep) char *min = stk_value_format(opt, opt->min);
    STK_CLEANUP(stk_mem_freep) char *max = stk_value_format(opt, opt->max);

    if (opt->max == INT64_MAX)
        return stk_mem_printf("%s of at least %s%s%s%s%s", what, min, examples,
                              opt->zero ? ", or '" : "", opt->zero ? opt->zero : "",
                              opt->zero ? "'" : "");
    return stk_mem_printf("%s from %s to %s%s%s%s%s", what, min, max, examples,
                          opt->zero ? ", or '" : "", opt->zero ? opt->zero : "",
                          opt->zero ? "'" : "");
}

char *stk_value_expected(const struct stk_option *opt)
{
    switch (opt->kind) {
    case STK_OPTION_VARS:
        return stk_mem_strdup("NAME=value");
    case STK_OPTION_NETS:
        return stk_mem_strdup("an address, a network as 10.0.0.0/8, 'unix' or '*'");
    case STK_OPTION_BOOL:
        return stk_mem_strdup("true or false");
    case STK_OPTION_SWITCH:
    case STK_OPTION_ENUM:
        return value_join_choices(opt->choices);
    case STK_OPTION_INT:
        return value_expected_range(opt, "a whole number", "");
    case STK_OPTION_SIZE:
        return value_expected_range(opt, "a size", " (as 4096, 64k, 10m, 1g)");
    case STK_OPTION_MSEC:
        return value_expected_range(opt, "a duration", " (as 10, 10s, 500ms, 2m)");
    case STK_OPTION_MODE:
    case STK_OPTION_UMASK:
        return stk_mem_strdup("octal permissions from 0 to 777");
    case STK_OPTION_STRING:
    case STK_OPTION_STRINGS:
    case STK_OPTION_COMMAND:
        break;
    }
    return stk_mem_strdup("a text that is not empty");
}

/* The greatest unit that divides the number, of those that printing uses. */
static char *value_format_unit(int64_t number, const struct value_unit *units)
{
    for (; units->name; units++)
        if (number % units->factor == 0 && number >= units->factor)
            return stk_mem_printf("%lld%s", (long long)(number / units->factor), units->name);
    return stk_mem_printf("%lld", (long long)number);
}

char *stk_value_format(const struct stk_option *opt, int64_t number)
{
    static const struct value_unit sizes[] = {{"g", 1 << 30}, {"m", 1 << 20}, {"k", 1 << 10}, {0}};
    static const struct value_unit times[] = {
        {"h", 3600000}, {"m", 60000}, {"s", 1000}, {"ms", 1}, {0}};
    const char *pos = opt->choices, *word = NULL;
    size_t len = 0;

    if (number == 0 && opt->zero)
        return stk_mem_strdup(opt->zero);
    switch ((int)opt->kind) {
    case STK_OPTION_BOOL:
        return stk_mem_strdup(number ? "true" : "false");
    case STK_OPTION_SWITCH:
    case STK_OPTION_ENUM:
        for (int64_t i = 0; i <= number; i++)
            word = stk_options_next_word(&pos, &len);
        STK_ASSERT(word != NULL);
        return stk_mem_strndup(word, len);
    case STK_OPTION_MODE:
        return number < 0 ? stk_mem_strdup("")
                          : stk_mem_printf("%03llo", (unsigned long long)number);
    case STK_OPTION_SIZE:
        return value_format_unit(number, sizes);
    case STK_OPTION_MSEC:
        return value_format_unit(number, times);
    default:
        return stk_mem_printf("%lld", (long long)number);
    }
}
