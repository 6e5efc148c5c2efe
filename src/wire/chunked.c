/*
 * Decoder of the chunked transfer coding: a machine over bytes for the lines, spans for the data.
 *
 * The state lives in the caller's connection and survives any split of the input. Data is handed
 * out where it lies; only the few bytes of the size lines are looked at one by one. Whatever
 * another server might read differently is refused: signs, white space, bare CR or LF, anything
 * but CR LF behind the data. Extensions and trailers are checked, counted and dropped.
 */
#include "wire/chunked.h"

#include <stdbool.h>
#include <string.h>

#include "wire/http1.h"

#define CHUNKED_SIZE_MAX (UINT64_C(1) << 60)

enum {
    CHUNKED_DIGITS_MAX = 64, /* of a size, leading zeros included */
    CHUNKED_EXTENSION_MAX = 256,
    CHUNKED_EXTENSIONS_MAX = 16 * 1024,
    CHUNKED_TRAILER_MAX = 8 * 1024,
    CHUNKED_TRAILERS_MAX = 32,
};

enum chunked_state {
    CHUNKED_SIZE_FIRST, /* before the first digit of a size */
    CHUNKED_SIZE,
    CHUNKED_EXT_NAME_FIRST, /* behind ";", white space allowed */
    CHUNKED_EXT_NAME,
    CHUNKED_EXT_NAME_END, /* white space behind a name: "=" or ";" follows */
    CHUNKED_EXT_VALUE_FIRST,
    CHUNKED_EXT_VALUE,
    CHUNKED_EXT_QUOTED,
    CHUNKED_EXT_ESCAPED,   /* behind a backslash in a quoted string */
    CHUNKED_EXT_VALUE_END, /* behind a quoted string */
    CHUNKED_EXT_NEXT,      /* white space: ";" must follow */
    CHUNKED_SIZE_LF,
    CHUNKED_IN_DATA,
    CHUNKED_DATA_CR,
    CHUNKED_DATA_LF,
    CHUNKED_TRAILER_FIRST, /* at the start of a trailer line, or of the empty one */
    CHUNKED_TRAILER_NAME,
    CHUNKED_TRAILER_VALUE,
    CHUNKED_TRAILER_LF,
    CHUNKED_END_LF,
    CHUNKED_ENDED,
    CHUNKED_FAILED, /* `line` holds the error */
};

#define CHUNKED_OK STK_CHUNKED_PARTIAL

void stk_chunked_init(struct stk_chunked *c)
{
    memset(c, 0, sizeof(*c));
    c->state = CHUNKED_SIZE_FIRST;
}

static inline bool chunked_is_space(char byte)
{
    return byte == ' ' || byte == '\t';
}

static inline bool chunked_is_token(char byte)
{
    return stk_http1_is_token(stk_span_make(&byte, 1));
}

static inline bool chunked_is_value(char byte)
{
    return stk_http1_is_field_value(stk_span_make(&byte, 1));
}

/* The value of a hexadecimal digit, or 16. */
static inline unsigned chunked_hex(char byte)
{
    if (byte >= '0' && byte <= '9')
        return (unsigned)(byte - '0');
    byte = (char)(byte | 0x20);
    return byte >= 'a' && byte <= 'f' ? (unsigned)(byte - 'a') + 10 : 16;
}

/* A byte behind the size or within an extension that ends it: CR, ";" or white space. */
static enum stk_chunked_result chunked_delimiter(struct stk_chunked *c, char byte,
                                                 enum stk_chunked_result otherwise)
{
    if (byte == '\r')
        c->state = CHUNKED_SIZE_LF;
    else if (byte == ';')
        c->state = CHUNKED_EXT_NAME_FIRST;
    else if (chunked_is_space(byte))
        c->state = CHUNKED_EXT_NEXT;
    else
        return byte == '\n' ? STK_CHUNKED_E_LINE_END : otherwise;
    return CHUNKED_OK;
}

static inline enum stk_chunked_result chunked_size(struct stk_chunked *c, char byte)
{
    unsigned digit = chunked_hex(byte);

    if (digit < 16) {
        if (c->left > CHUNKED_SIZE_MAX / 16 || ++c->line > CHUNKED_DIGITS_MAX)
            return STK_CHUNKED_E_SIZE;
        c->left = c->left * 16 + digit;
        c->state = CHUNKED_SIZE;
        return c->left > CHUNKED_SIZE_MAX ? STK_CHUNKED_E_SIZE : CHUNKED_OK;
    }
    if (c->state == CHUNKED_SIZE_FIRST)
        return STK_CHUNKED_E_SIZE;
    c->line = 0;
    return chunked_delimiter(c, byte, STK_CHUNKED_E_SIZE);
}

/* One byte of *( BWS ";" BWS name [ BWS "=" BWS ( token / quoted-string ) ] ). */
static STK_COLD enum stk_chunked_result chunked_extension(struct stk_chunked *c, char byte)
{
    bool space = chunked_is_space(byte);

    if (byte == '\n')
        return STK_CHUNKED_E_LINE_END;
    switch ((enum chunked_state)c->state) {
    case CHUNKED_EXT_NAME_FIRST:
        if (chunked_is_token(byte))
            c->state = CHUNKED_EXT_NAME;
        else if (!space)
            return STK_CHUNKED_E_EXTENSION;
        break;
    case CHUNKED_EXT_NAME:
        if (byte == '=')
            c->state = CHUNKED_EXT_VALUE_FIRST;
        else if (space)
            c->state = CHUNKED_EXT_NAME_END;
        else if (!chunked_is_token(byte))
            return chunked_delimiter(c, byte, STK_CHUNKED_E_EXTENSION);
        break;
    case CHUNKED_EXT_NAME_END:
        if (byte == '=')
            c->state = CHUNKED_EXT_VALUE_FIRST;
        else if (byte == ';')
            c->state = CHUNKED_EXT_NAME_FIRST;
        else if (!space)
            return STK_CHUNKED_E_EXTENSION;
        break;
    case CHUNKED_EXT_VALUE_FIRST:
        if (byte == '"')
            c->state = CHUNKED_EXT_QUOTED;
        else if (chunked_is_token(byte))
            c->state = CHUNKED_EXT_VALUE;
        else if (!space)
            return STK_CHUNKED_E_EXTENSION;
        break;
    case CHUNKED_EXT_VALUE:
        if (!chunked_is_token(byte))
            return chunked_delimiter(c, byte, STK_CHUNKED_E_EXTENSION);
        break;
    default:
        return STK_CHUNKED_E_EXTENSION;
    }
    return CHUNKED_OK;
}

/* The rest of the extension states: quoted strings, and white space that must precede ";". */
static STK_COLD enum stk_chunked_result chunked_quoted(struct stk_chunked *c, char byte)
{
    switch ((enum chunked_state)c->state) {
    case CHUNKED_EXT_VALUE_END:
        return chunked_delimiter(c, byte, STK_CHUNKED_E_EXTENSION);
    case CHUNKED_EXT_NEXT:
        if (byte == ';')
            c->state = CHUNKED_EXT_NAME_FIRST;
        else if (!chunked_is_space(byte))
            return byte == '\n' ? STK_CHUNKED_E_LINE_END : STK_CHUNKED_E_EXTENSION;
        return CHUNKED_OK;
    default:
        break;
    }
    if (!chunked_is_value(byte))
        return byte == '\n' || byte == '\r' ? STK_CHUNKED_E_LINE_END : STK_CHUNKED_E_EXTENSION;
    if (c->state == CHUNKED_EXT_ESCAPED)
        c->state = CHUNKED_EXT_QUOTED;
    else if (byte == '\\')
        c->state = CHUNKED_EXT_ESCAPED;
    else if (byte == '"')
        c->state = CHUNKED_EXT_VALUE_END;
    return CHUNKED_OK;
}

/* One byte of the trailer section, which is of field lines and an empty line. */
static enum stk_chunked_result chunked_trailer(struct stk_chunked *c, char byte)
{
    if (byte == '\n')
        return STK_CHUNKED_E_LINE_END;
    switch ((enum chunked_state)c->state) {
    case CHUNKED_TRAILER_FIRST:
        if (byte == '\r') {
            c->state = CHUNKED_END_LF;
            return CHUNKED_OK;
        }
        if (!chunked_is_token(byte) || ++c->trailers > CHUNKED_TRAILERS_MAX)
            return STK_CHUNKED_E_TRAILER;
        c->state = CHUNKED_TRAILER_NAME;
        break;
    case CHUNKED_TRAILER_NAME:
        if (byte == ':')
            c->state = CHUNKED_TRAILER_VALUE;
        else if (!chunked_is_token(byte))
            return STK_CHUNKED_E_TRAILER;
        break;
    default:
        if (byte == '\r')
            c->state = CHUNKED_TRAILER_LF;
        else if (!chunked_is_value(byte))
            return STK_CHUNKED_E_TRAILER;
        break;
    }
    return ++c->trailer > CHUNKED_TRAILER_MAX ? STK_CHUNKED_E_TRAILER : CHUNKED_OK;
}

/* The LF of each kind of line: what comes behind it. */
static enum stk_chunked_result chunked_line_feed(struct stk_chunked *c, char byte)
{
    if (byte != '\n')
        return STK_CHUNKED_E_LINE_END;
    switch ((enum chunked_state)c->state) {
    case CHUNKED_SIZE_LF:
        c->state = c->left > 0 ? CHUNKED_IN_DATA : CHUNKED_TRAILER_FIRST;
        break;
    case CHUNKED_DATA_LF:
        c->state = CHUNKED_SIZE_FIRST;
        c->line = 0;
        break;
    case CHUNKED_TRAILER_LF:
        c->state = CHUNKED_TRAILER_FIRST;
        break;
    default:
        c->state = CHUNKED_ENDED;
        return STK_CHUNKED_END;
    }
    return CHUNKED_OK;
}

static inline enum stk_chunked_result chunked_step(struct stk_chunked *c, char byte)
{
    switch ((enum chunked_state)c->state) {
    case CHUNKED_SIZE_FIRST:
    case CHUNKED_SIZE:
        return chunked_size(c, byte);
    case CHUNKED_SIZE_LF:
    case CHUNKED_DATA_LF:
    case CHUNKED_TRAILER_LF:
    case CHUNKED_END_LF:
        return chunked_line_feed(c, byte);
    case CHUNKED_DATA_CR:
        c->state = CHUNKED_DATA_LF;
        return byte == '\r' ? CHUNKED_OK : STK_CHUNKED_E_LINE_END;
    case CHUNKED_TRAILER_FIRST:
    case CHUNKED_TRAILER_NAME:
    case CHUNKED_TRAILER_VALUE:
        return chunked_trailer(c, byte);
    default:
        break;
    }
    /* The ";" or space before the extensions went by as a part of the size's line; their CR counts
       in its place. */
    if (++c->line > CHUNKED_EXTENSION_MAX || ++c->overhead > CHUNKED_EXTENSIONS_MAX)
        return STK_CHUNKED_E_EXTENSION;
    return c->state >= CHUNKED_EXT_QUOTED ? chunked_quoted(c, byte) : chunked_extension(c, byte);
}

STK_HOT enum stk_chunked_result stk_chunked_decode(struct stk_chunked *c, const char *buf,
                                                   size_t len, size_t *ret_consumed,
                                                   stk_span *ret_data)
{
    enum stk_chunked_result r = c->state == CHUNKED_ENDED ? STK_CHUNKED_END : CHUNKED_OK;
    size_t i = 0;

    if (stk_unlikely(c->state == CHUNKED_FAILED))
        return (enum stk_chunked_result)c->line;
    while (r == CHUNKED_OK && i < len) {
        if (c->state == CHUNKED_IN_DATA) {
            size_t n = c->left < len - i ? (size_t)c->left : len - i;

            *ret_data = stk_span_make(buf + i, n);
            *ret_consumed = i + n;
            c->left -= n;
            if (c->left == 0)
                c->state = CHUNKED_DATA_CR;
            return STK_CHUNKED_DATA;
        }
        r = chunked_step(c, buf[i++]);
    }
    if (r != CHUNKED_OK && r != STK_CHUNKED_END) {
        c->state = CHUNKED_FAILED;
        c->line = (uint32_t)r;
        return r;
    }
    *ret_consumed = i;
    return r;
}

const char *stk_chunked_error_text(enum stk_chunked_result error)
{
    switch (error) {
    case STK_CHUNKED_E_SIZE:
        return "malformed or excessive chunk size";
    case STK_CHUNKED_E_LINE_END:
        return "chunk line or chunk data not ended by CR LF";
    case STK_CHUNKED_E_EXTENSION:
        return "malformed or excessive chunk extension";
    case STK_CHUNKED_E_TRAILER:
        return "malformed or excessive trailer";
    case STK_CHUNKED_PARTIAL:
        return "incomplete chunked body";
    case STK_CHUNKED_DATA:
    case STK_CHUNKED_END:
        break;
    }
    return "fine";
}
