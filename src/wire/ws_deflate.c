/*
 * permessage-deflate. A message is a raw deflate stream that ends with an empty stored block whose
 * last four bytes (00 00 ff ff) are left out: the inflater puts them back, the deflater takes them
 * off. A client may also end a block with the final bit (section 7.2.3.4): zlib's stream ends
 * there and is begun again with the window that it had, and goes on with what follows.
 *
 * The output is the caller's to bound. What a message may cost without any output is bounded by the
 * length of its payload.
 */
#include "wire/ws_deflate.h"

#include <stdint.h>
#include <stdlib.h>
#include <string.h>

#include "base/assert.h"
#include "base/mem.h"

#ifdef STK_HAVE_ZLIB
#    define ZLIB_CONST
#    include <zlib.h>

enum { WS_TAIL_SIZE = 4, WS_DEFLATE_SLACK = 64 };

static const char ws_tail[WS_TAIL_SIZE + 1] = "\x00\x00\xff\xff";

struct stk_ws_inflater {
    z_stream z;
    bool takeover;
    bool at_border; /* behind the last step: at the end of a block */
    uint8_t tail;   /* bytes of the tail that have been put back */
};

struct stk_ws_deflater {
    z_stream z;
    bool takeover;
};

bool stk_ws_deflate_is_there(void)
{
    return true;
}

struct stk_ws_inflater *stk_ws_inflater_new(unsigned bits, bool takeover)
{
    struct stk_ws_inflater *z = stk_try_alloc(sizeof(*z));

    if (!z)
        return NULL;
    memset(z, 0, sizeof(*z));
    z->takeover = takeover;
    if (inflateInit2(&z->z, -(int)bits) != Z_OK) {
        free(z);
        return NULL;
    }
    return z;
}

struct stk_ws_inflater *stk_ws_inflater_free(struct stk_ws_inflater *z)
{
    if (z) {
        (void)inflateEnd(&z->z);
        free(z);
    }
    return NULL;
}

void stk_ws_inflater_reset(struct stk_ws_inflater *z)
{
    (void)inflateReset(&z->z);
    z->tail = 0;
}

/* Behind a final block: a new stream with the old one's window, which is not copied. */
static bool ws_inflate_renew(struct stk_ws_inflater *z)
{
    return inflateResetKeep(&z->z) == Z_OK;
}

/* One step over `input`, which it moves. As inflate(). */
static int ws_inflate_step(struct stk_ws_inflater *z, stk_span *input)
{
    uInt given = input->len > UINT32_MAX ? UINT32_MAX : (uInt)input->len;
    uInt room = z->z.avail_out;
    int r;

    z->z.next_in = (const Bytef *)input->ptr;
    z->z.avail_in = given;
    r = inflate(&z->z, Z_SYNC_FLUSH);
    input->ptr += given - z->z.avail_in;
    input->len -= given - z->z.avail_in;
    if (r == Z_STREAM_END || (z->z.data_type & 128))
        z->at_border = true;
    else if (room != z->z.avail_out || given != z->z.avail_in)
        z->at_border = false;
    return r;
}

/* The message has been taken, its tail too: whether it ends where a block does. */
static enum stk_ws_inflate_result ws_inflate_end(struct stk_ws_inflater *z)
{
    z->tail = 0;
    if (!z->at_border)
        return STK_WS_INFLATE_E_DATA;
    if (!z->takeover)
        (void)inflateReset(&z->z);
    return STK_WS_INFLATE_DONE;
}

enum stk_ws_inflate_result stk_ws_inflate(struct stk_ws_inflater *z, stk_span *in, char *out,
                                          size_t cap, size_t *ret_len)
{
    uInt room = cap > UINT32_MAX ? UINT32_MAX : (uInt)cap;

    z->z.next_out = (Bytef *)out;
    z->z.avail_out = room;
    for (;;) {
        stk_span tail = stk_span_make(ws_tail + z->tail, WS_TAIL_SIZE - z->tail);
        bool on_tail = in->len == 0;
        int r = ws_inflate_step(z, on_tail ? &tail : in);

        if (on_tail)
            z->tail = (uint8_t)(WS_TAIL_SIZE - tail.len);
        if (r == Z_MEM_ERROR)
            return STK_WS_INFLATE_E_MEMORY;
        if (r != Z_OK && r != Z_STREAM_END && r != Z_BUF_ERROR)
            return STK_WS_INFLATE_E_DATA;
        if (r == Z_STREAM_END && !ws_inflate_renew(z))
            return STK_WS_INFLATE_E_DATA;
        /* Some leave out the byte that has to follow a final block: nothing is missing then. */
        if (r == Z_STREAM_END && in->len == 0 && z->tail == 0)
            z->tail = WS_TAIL_SIZE;
        if (z->z.avail_out == 0) {
            *ret_len = room;
            return STK_WS_INFLATE_ROOM;
        }
        if (in->len == 0 && z->tail == WS_TAIL_SIZE) {
            *ret_len = room - z->z.avail_out;
            return ws_inflate_end(z);
        }
        if (r == Z_BUF_ERROR)
            return STK_WS_INFLATE_E_DATA;
    }
}

struct stk_ws_deflater *stk_ws_deflater_new(unsigned bits, bool takeover, int level, int memory)
{
    struct stk_ws_deflater *z = stk_try_alloc(sizeof(*z));

    if (!z)
        return NULL;
    memset(z, 0, sizeof(*z));
    z->takeover = takeover;
    if (deflateInit2(&z->z, level, Z_DEFLATED, -(int)bits, memory, Z_DEFAULT_STRATEGY) != Z_OK) {
        free(z);
        return NULL;
    }
    return z;
}

struct stk_ws_deflater *stk_ws_deflater_free(struct stk_ws_deflater *z)
{
    if (z) {
        (void)deflateEnd(&z->z);
        free(z);
    }
    return NULL;
}

size_t stk_ws_deflate_bound(struct stk_ws_deflater *z, size_t len)
{
    return deflateBound(&z->z, (uLong)len) + WS_DEFLATE_SLACK;
}

size_t stk_ws_deflate(struct stk_ws_deflater *z, const char *data, size_t len, char *out,
                      size_t cap)
{
    size_t done = 0, used = 0;

    if (len == 0) {
        *out = 0; /* an empty stored block, without its tail */
        return 1;
    }
    do {
        uInt give = len - used > INT32_MAX ? INT32_MAX : (uInt)(len - used);
        uInt room = cap - done > INT32_MAX ? INT32_MAX : (uInt)(cap - done);
        int r;

        z->z.next_in = (const Bytef *)data + used;
        z->z.avail_in = give;
        z->z.next_out = (Bytef *)out + done;
        z->z.avail_out = room;
        r = deflate(&z->z, used + give == len ? Z_SYNC_FLUSH : Z_NO_FLUSH);
        STK_ASSERT(r == Z_OK);
        used += give - z->z.avail_in;
        done += room - z->z.avail_out;
        STK_ASSERT(done < cap);
    } while (used < len || z->z.avail_out == 0);
    if (!z->takeover)
        (void)deflateReset(&z->z);
    STK_ASSERT(done >= WS_TAIL_SIZE && memcmp(out + done - WS_TAIL_SIZE, ws_tail, 4) == 0);
    return done - WS_TAIL_SIZE;
}

#else

bool stk_ws_deflate_is_there(void)
{
    return false;
}

struct stk_ws_inflater *stk_ws_inflater_new(unsigned bits, bool takeover)
{
    return NULL;
}

struct stk_ws_inflater *stk_ws_inflater_free(struct stk_ws_inflater *z)
{
    return NULL;
}

enum stk_ws_inflate_result stk_ws_inflate(struct stk_ws_inflater *z, stk_span *in, char *out,
                                          size_t cap, size_t *ret_len)
{
    return STK_WS_INFLATE_E_MEMORY;
}

void stk_ws_inflater_reset(struct stk_ws_inflater *z)
{
}

struct stk_ws_deflater *stk_ws_deflater_new(unsigned bits, bool takeover, int level, int memory)
{
    return NULL;
}

struct stk_ws_deflater *stk_ws_deflater_free(struct stk_ws_deflater *z)
{
    return NULL;
}

size_t stk_ws_deflate_bound(struct stk_ws_deflater *z, size_t len)
{
    return 0;
}

size_t stk_ws_deflate(struct stk_ws_deflater *z, const char *data, size_t len, char *out,
                      size_t cap)
{
    return 0;
}

#endif
