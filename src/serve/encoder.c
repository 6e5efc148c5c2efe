/*
 * Compressors behind one interface. zlib and libzstd reset a context and keep its memory. Brotli
 * has no such call: its state is made anew for each body, from memory that the encoder keeps (a few
 * blocks, found by size), because a megabyte that is mapped and given back for each response would
 * cost more than coding ten kilobytes.
 *
 * Windows are kept small: what a server answers is rarely longer than 256 KiB in one go, and the
 * window is what most of the memory of a context goes to, here and in the client.
 */
#include "serve/encoder.h"

#include <errno.h>
#include <limits.h>
#include <stdlib.h>
#include <string.h>

#include "base/assert.h"
#include "base/mem.h"

#ifdef STK_HAVE_ZLIB
#    include <zlib.h>
#endif
#ifdef STK_HAVE_BROTLI
#    include <brotli/encode.h>
#endif
#ifdef STK_HAVE_ZSTD
#    include <zstd.h>
#endif

enum {
    ENCODER_WINDOW_LOG = 18,  /* br and zstd: 256 KiB */
    ENCODER_GZIP_WINDOW = 31, /* 32 KiB, with the header and trailer of gzip */
    ENCODER_GZIP_MEMORY = 8,
    ENCODER_BLOCKS = 24, /* blocks of memory that are kept for brotli */
};

/* Memory that brotli has given back. */
struct encoder_memory {
    void *blocks[ENCODER_BLOCKS]; /* each with its size in front */
    unsigned n;
};

struct stk_encoder {
    enum stk_coding coding;
    int level;
    bool dirty;
    bool flushing; /* a flush has taken all of its input and was not completed */
#ifdef STK_HAVE_ZLIB
    z_stream z;
    bool z_made;
#endif
#ifdef STK_HAVE_BROTLI
    BrotliEncoderState *br;
    struct encoder_memory memory;
#endif
#ifdef STK_HAVE_ZSTD
    ZSTD_CCtx *zstd;
#endif
};

bool stk_encoder_has(enum stk_coding coding)
{
    switch (coding) {
#ifdef STK_HAVE_ZLIB
    case STK_CODING_GZIP:
        return true;
#endif
#ifdef STK_HAVE_BROTLI
    case STK_CODING_BR:
        return true;
#endif
#ifdef STK_HAVE_ZSTD
    case STK_CODING_ZSTD:
        return true;
#endif
    default:
        return false;
    }
}

void stk_encoder_levels(enum stk_coding coding, int *ret_min, int *ret_max, int *ret_def)
{
    static const int levels[STK_CODINGS][3] = {
        [STK_CODING_GZIP] = {1, 9, 5},
        [STK_CODING_BR] = {0, 11, 4},
        [STK_CODING_ZSTD] = {1, 19, 3},
    };

    *ret_min = levels[coding][0];
    *ret_max = levels[coding][1];
    *ret_def = levels[coding][2];
}

/* ---- gzip ---------------------------------------------------------------------------------- */

#ifdef STK_HAVE_ZLIB
static int gzip_begin(struct stk_encoder *e)
{
    if (e->z_made)
        return deflateReset(&e->z) == Z_OK ? 0 : -EIO;
    if (deflateInit2(&e->z, e->level, Z_DEFLATED, ENCODER_GZIP_WINDOW, ENCODER_GZIP_MEMORY,
                     Z_DEFAULT_STRATEGY) != Z_OK)
        return -ENOMEM;
    e->z_made = true;
    return 0;
}

static int gzip_run(struct stk_encoder *e, const char **data, size_t *len, enum stk_encoder_op op,
                    char *out, size_t cap, size_t *out_len)
{
    static const int flush[] = {Z_NO_FLUSH, Z_SYNC_FLUSH, Z_FINISH};
    z_stream *z = &e->z;

    for (;;) {
        size_t in = *len < UINT_MAX ? *len : UINT_MAX;
        size_t room = cap - *out_len < UINT_MAX ? cap - *out_len : UINT_MAX;
        union {
            const char *c;
            Bytef *b;
        } u = {.c = *data}; /* zlib only reads there */
        int r;

        z->next_in = u.b;
        z->avail_in = (uInt)in;
        z->next_out = (Bytef *)(out + *out_len);
        z->avail_out = (uInt)room;
        r = deflate(z, *len > in ? Z_NO_FLUSH : flush[op]);
        *data += in - z->avail_in;
        *len -= in - z->avail_in;
        *out_len += room - z->avail_out;
        if (r != Z_OK && r != Z_STREAM_END && r != Z_BUF_ERROR)
            return -EIO;
        if (r == Z_STREAM_END)
            return 0;
        if (z->avail_out == 0)
            return 1;
        if (*len == 0 && op != STK_ENCODER_END)
            return 0;
        if (r == Z_BUF_ERROR)
            return -EIO; /* room and work are there: it cannot be */
    }
}
#endif

/* ---- br ------------------------------------------------------------------------------------ */

#ifdef STK_HAVE_BROTLI
enum { MEMORY_HEADER = 64 }; /* keeps the alignment that malloc gives, and more */

static void *memory_take(void *arg, size_t size)
{
    struct encoder_memory *m = arg;
    char *block;

    for (unsigned i = 0; i < m->n; i++) {
        size_t have;

        memcpy(&have, m->blocks[i], sizeof have);
        if (have < size || have / 2 > size) /* as large, and not twice as large */
            continue;
        block = m->blocks[i];
        m->blocks[i] = m->blocks[--m->n];
        return block + MEMORY_HEADER;
    }
    block = size < SIZE_MAX - MEMORY_HEADER ? stk_try_alloc(size + MEMORY_HEADER) : NULL;
    if (block == NULL)
        return NULL;
    memcpy(block, &size, sizeof size);
    return block + MEMORY_HEADER;
}

static void memory_give(void *arg, void *ptr)
{
    struct encoder_memory *m = arg;
    char *block = ptr;

    if (block == NULL)
        return;
    block -= MEMORY_HEADER;
    if (m->n < ENCODER_BLOCKS) {
        m->blocks[m->n++] = block;
        return;
    }
    free(m->blocks[0]); /* one of the oldest */
    memmove(m->blocks, m->blocks + 1, (ENCODER_BLOCKS - 1) * sizeof m->blocks[0]);
    m->blocks[ENCODER_BLOCKS - 1] = block;
}

static void br_end(struct stk_encoder *e)
{
    if (e->br != NULL)
        BrotliEncoderDestroyInstance(e->br);
    e->br = NULL;
}

static int br_begin(struct stk_encoder *e, int64_t size)
{
    uint32_t window = BROTLI_MIN_WINDOW_BITS;

    br_end(e);
    e->br = BrotliEncoderCreateInstance(memory_take, memory_give, &e->memory);
    if (e->br == NULL)
        return -ENOMEM;
    while (window < ENCODER_WINDOW_LOG && (size < 0 || (int64_t)1 << window < size))
        window++;
    if (!BrotliEncoderSetParameter(e->br, BROTLI_PARAM_QUALITY, (uint32_t)e->level) ||
        !BrotliEncoderSetParameter(e->br, BROTLI_PARAM_LGWIN, window))
        return -EIO;
    if (size >= 0 && !BrotliEncoderSetParameter(e->br, BROTLI_PARAM_SIZE_HINT,
                                                size < UINT32_MAX ? (uint32_t)size : UINT32_MAX))
        return -EIO;
    return 0;
}

static int br_run(struct stk_encoder *e, const char **data, size_t *len, enum stk_encoder_op op,
                  char *out, size_t cap, size_t *out_len)
{
    static const BrotliEncoderOperation ops[] = {BROTLI_OPERATION_PROCESS, BROTLI_OPERATION_FLUSH,
                                                 BROTLI_OPERATION_FINISH};

    for (;;) {
        const uint8_t *in = (const uint8_t *)*data;
        uint8_t *to = (uint8_t *)out + *out_len;
        size_t in_left = *len, room = cap - *out_len;

        if (!BrotliEncoderCompressStream(e->br, ops[op], &in_left, &in, &room, &to, NULL))
            return -EIO;
        *data += *len - in_left;
        *len = in_left;
        *out_len = cap - room;
        if (BrotliEncoderHasMoreOutput(e->br)) {
            if (room == 0)
                return 1;
        } else if (*len == 0 && (op != STK_ENCODER_END || BrotliEncoderIsFinished(e->br))) {
            return 0;
        } else if (room == 0) {
            return 1;
        }
    }
}
#endif

/* ---- zstd ---------------------------------------------------------------------------------- */

#ifdef STK_HAVE_ZSTD
static int zstd_begin(struct stk_encoder *e, int64_t size)
{
    size_t r;

    if (e->zstd == NULL) {
        e->zstd = ZSTD_createCCtx();
        if (e->zstd == NULL)
            return -ENOMEM;
        if (ZSTD_isError(ZSTD_CCtx_setParameter(e->zstd, ZSTD_c_compressionLevel, e->level)) ||
            ZSTD_isError(ZSTD_CCtx_setParameter(e->zstd, ZSTD_c_windowLog, ENCODER_WINDOW_LOG)))
            return -EIO;
    }
    r = ZSTD_CCtx_reset(e->zstd, ZSTD_reset_session_only);
    if (!ZSTD_isError(r) && size >= 0)
        r = ZSTD_CCtx_setPledgedSrcSize(e->zstd, (unsigned long long)size);
    return ZSTD_isError(r) ? -EIO : 0;
}

static int zstd_run(struct stk_encoder *e, const char **data, size_t *len, enum stk_encoder_op op,
                    char *out, size_t cap, size_t *out_len)
{
    static const ZSTD_EndDirective ops[] = {ZSTD_e_continue, ZSTD_e_flush, ZSTD_e_end};

    for (;;) {
        ZSTD_inBuffer in = {*data, *len, 0};
        ZSTD_outBuffer to = {out, cap, *out_len};
        size_t left = ZSTD_compressStream2(e->zstd, &to, &in, ops[op]);

        if (ZSTD_isError(left))
            return -EIO;
        *data += in.pos;
        *len -= in.pos;
        *out_len = to.pos;
        if (*len == 0 && (op == STK_ENCODER_RUN || left == 0))
            return 0;
        if (to.pos == cap)
            return 1;
    }
}
#endif

/* ---- all ----------------------------------------------------------------------------------- */

struct stk_encoder *stk_encoder_new(enum stk_coding coding, int level)
{
    struct stk_encoder *e = stk_try_alloc(sizeof *e);

    STK_ASSERT(stk_encoder_has(coding));
    if (e == NULL)
        return NULL;
    memset(e, 0, sizeof *e);
    e->coding = coding;
    e->level = level;
    return e;
}

struct stk_encoder *stk_encoder_free(struct stk_encoder *e)
{
    if (e == NULL)
        return NULL;
#ifdef STK_HAVE_ZLIB
    if (e->z_made)
        (void)deflateEnd(&e->z); /* Z_DATA_ERROR: a body was not ended */
#endif
#ifdef STK_HAVE_BROTLI
    br_end(e);
    while (e->memory.n > 0)
        free(e->memory.blocks[--e->memory.n]);
#endif
#ifdef STK_HAVE_ZSTD
    ZSTD_freeCCtx(e->zstd);
#endif
    free(e);
    return NULL;
}

int stk_encoder_begin(struct stk_encoder *e, int64_t size)
{
    e->dirty = e->flushing = false;
    switch (e->coding) {
#ifdef STK_HAVE_ZLIB
    case STK_CODING_GZIP:
        return gzip_begin(e);
#endif
#ifdef STK_HAVE_BROTLI
    case STK_CODING_BR:
        return br_begin(e, size);
#endif
#ifdef STK_HAVE_ZSTD
    case STK_CODING_ZSTD:
        return zstd_begin(e, size);
#endif
    default:
        return -EIO;
    }
}

static int encoder_step(struct stk_encoder *e, const char **data, size_t *len,
                        enum stk_encoder_op op, char *out, size_t cap, size_t *out_len)
{
    switch (e->coding) {
#ifdef STK_HAVE_ZLIB
    case STK_CODING_GZIP:
        return gzip_run(e, data, len, op, out, cap, out_len);
#endif
#ifdef STK_HAVE_BROTLI
    case STK_CODING_BR:
        return br_run(e, data, len, op, out, cap, out_len);
#endif
#ifdef STK_HAVE_ZSTD
    case STK_CODING_ZSTD:
        return zstd_run(e, data, len, op, out, cap, out_len);
#endif
    default:
        return -EIO;
    }
}

int stk_encoder_run(struct stk_encoder *e, const char **data, size_t *len, enum stk_encoder_op op,
                    char *out, size_t cap, size_t *out_len)
{
    int r;

    if (cap - *out_len < STK_ENCODER_ROOM)
        return 1; /* zlib would write the mark of a flush again and again */
    /* Libraries want a flush to be completed before they are given anything else. */
    if (e->flushing) {
        const char *none = "";
        size_t zero = 0;

        r = encoder_step(e, &none, &zero, STK_ENCODER_FLUSH, out, cap, out_len);
        if (r != 0)
            return r;
        e->flushing = false;
    }
    if (*len > 0)
        e->dirty = true;
    else if (op == STK_ENCODER_RUN || (op == STK_ENCODER_FLUSH && !e->dirty))
        return 0;
    r = encoder_step(e, data, len, op, out, cap, out_len);
    if (r < 0)
        return r;
    e->flushing = op == STK_ENCODER_FLUSH && r == 1 && *len == 0;
    if (r == 0 && op != STK_ENCODER_RUN)
        e->dirty = false;
    return r;
}

bool stk_encoder_is_dirty(const struct stk_encoder *e)
{
    return e->dirty;
}
