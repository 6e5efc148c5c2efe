/* How the head of a response changes, whatever order its fields have; and what options may say. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
/* cmocka needs the ones above */
#include <cmocka.h>
#include <stdio.h>
#include <string.h>

#include "base/macros.h"
#include "config/config.h"
#include "ipc/scoreboard.h"
#include "loop/loop.h"
#include "serve/compress.h"
#include "serve/head_edit.h"
#include "serve/server.h"
#include "wire/http1.h"

enum { ROOM = 4096 };

static struct stk_strv list(const char **items)
{
    struct stk_strv strv = {0};

    while (items[strv.n])
        strv.n++;
    strv.items = (char **)(uintptr_t)items;
    return strv;
}

#define LIST(...) list((const char *[]){__VA_ARGS__, NULL})

/* A request with this Accept-Encoding, and a response that is to be looked at. */
struct scene {
    struct stk_loop *loop;
    struct stk_server server;
    struct stk_serve_thread t;
    struct stk_head head;
    struct stk_serve_request rq;
    char request[512], out[ROOM];
};

static void scene_init(struct scene *s)
{
    /* Of a larger alignment than AddressSanitizer gives to what lies on the stack. */
    static struct stk_scoreboard_row row;
    struct stk_config config = {.compress = LIST("gzip"),
                                .compress_types = LIST("text/*", "application/json"),
                                .compress_min_size = 100};
    char error[STK_COMPRESS_ERROR_MAX] = "";

    memset(s, 0, sizeof *s);
    assert_int_equal(stk_loop_new(&s->loop), 0);
    assert_int_equal(stk_compress_new(&s->server.compress, &config, s->loop, error), 0);
    assert_non_null(s->server.compress);
    s->server.row = &row;
    pthread_mutex_init(&s->t.gather_mutex, NULL);
    s->t.server = &s->server;
    s->t.out = (struct stk_out){.buf = s->out, .cap = ROOM};
}

static void scene_free(struct scene *s)
{
    stk_compress_free(s->server.compress);
    pthread_mutex_destroy(&s->t.gather_mutex);
    stk_loop_free(s->loop);
}

/* Looks at a response; its length becomes -1 where that is not known any more. */
static int64_t look(struct scene *s, const char *request, unsigned status, const char *fields,
                    int64_t length)
{
    const struct stk_http1_limits limits = {.line_max = 512, .head_max = 4096, .fields_max = 16};
    int n = snprintf(s->request, sizeof s->request, "%s\r\nHost: x\r\n\r\n", request);

    assert_int_equal(stk_http1_parse(&s->head, s->request, (size_t)n, &limits), STK_HTTP1_OK);
    s->rq = (struct stk_serve_request){.t = &s->t, .status = (uint16_t)status};
    s->rq.base.head = &s->head;
    s->t.out.len = (size_t)snprintf(s->out, ROOM, "HTTP/1.1 %u X\r\n%s", status, fields);
    stk_compress_head(s->server.compress, &s->rq, &length);
    s->out[s->t.out.len] = '\0';
    return length;
}

static void expect(const struct scene *s, const char *fields)
{
    assert_string_equal(strchr(s->out, '\n') + 1, fields);
}

#define GET(accept) "GET / HTTP/1.1\r\nAccept-Encoding: " accept

/* Every order of the fields that are changed, with another one at every place between them. */
static void test_every_order(void **state)
{
    static const char *const fields[] = {"Content-Type: text/plain\r\n", "ETag: \"a, b\"\r\n",
                                         "Vary: Cookie\r\n", "Accept-Ranges: bytes\r\n"};
    static const char *const changed[] = {"Content-Type: text/plain\r\n", "ETag: W/\"a, b\"\r\n",
                                          "Vary: Cookie, Accept-Encoding\r\n", ""};
    struct scene s;

    (void)state;
    if (!stk_encoder_has(STK_CODING_GZIP))
        return;
    scene_init(&s);
    for (unsigned order = 0; order < 256 * 5; order++) {
        unsigned at[4] = {order & 3, order >> 2 & 3, order >> 4 & 3, order >> 6 & 3};
        char before[512] = "", after[512] = "";

        if ((1u << at[0] | 1u << at[1] | 1u << at[2] | 1u << at[3]) != 15)
            continue;
        for (unsigned i = 0; i <= 4; i++) {
            if (i == order / 256) {
                strcat(before, "X-Between: etag: \"x\"\r\n");
                strcat(after, "X-Between: etag: \"x\"\r\n");
            }
            if (i < 4) {
                strcat(before, fields[at[i]]);
                strcat(after, changed[at[i]]);
            }
        }
        strcat(after, "Content-Encoding: gzip\r\n");
        (void)look(&s, GET("gzip"), 200, before, 1000);
        expect(&s, after);
        assert_non_null(s.rq.coder);
        stk_compress_release(&s.rq);
    }
    scene_free(&s);
}

static void test_which(void **state)
{
    static const struct {
        const char *request;
        unsigned status;
        const char *fields, *changed;
        int64_t length;
    } rows[] = {
        /* Nobody wants it, or it is not worth it. */
        {GET("br"), 200, "Content-Type: text/plain\r\n",
         "Content-Type: text/plain\r\nVary: Accept-Encoding\r\n", 1000},
        {GET("gzip;q=0"), 200, "Content-Type: text/plain\r\nVary: *\r\n", NULL, 1000},
        {GET("gzip"), 200, "Content-Type: text/plain\r\n", NULL, 99},
        {GET("gzip"), 200, "Content-Type: image/png\r\n", NULL, 1000},
        {GET("gzip"), 200, "", NULL, 1000},
        /* It is as it has to be. */
        {GET("gzip"), 206, "Content-Type: text/plain\r\n", NULL, 1000},
        {GET("gzip"), 204, "Content-Type: text/plain\r\n", NULL, 0},
        {GET("gzip"), 200, "Content-Type: text/plain\r\nContent-Encoding: br\r\n", NULL, 1000},
        {GET("gzip"), 200, "Content-Type: text/plain\r\nContent-Range: bytes 0-9/10\r\n", NULL,
         1000},
        {GET("gzip"), 200, "Content-Type: text/plain\r\nDigest: x\r\n", NULL, 1000},
        {GET("gzip"), 200, "Content-Type: text/plain\r\nCache-Control: public, No-Transform\r\n",
         NULL, 1000},
        /* Stars are not for events. */
        {GET("gzip"), 200, "Content-Type: text/event-stream\r\n", NULL, 1000},
        /* It is compressed. */
        {GET("gzip"), 404, "Content-Type: application/json; x=y\r\nVary: accept-encoding\r\n",
         "Content-Type: application/json; x=y\r\nVary: accept-encoding\r\nContent-Encoding: "
         "gzip\r\n",
         1000},
        {GET("*"), 200, "content-type:\ttext/html\r\nETag: W/\"x\"\r\nvary: \r\n",
         "content-type:\ttext/html\r\nETag: W/\"x\"\r\nvary: \r\nVary: Accept-Encoding\r\n"
         "Content-Encoding: gzip\r\n",
         -1},
        /* HEAD: what GET would have said. */
        {"HEAD / HTTP/1.1\r\nAccept-Encoding: gzip", 200,
         "Content-Type: text/plain\r\nETag: \"x\"\r\n",
         "Content-Type: text/plain\r\nETag: W/\"x\"\r\nVary: Accept-Encoding\r\n"
         "Content-Encoding: gzip\r\n",
         0},
        /* 304: the entity-tag that the client has. */
        {"GET / HTTP/1.1\r\nIf-None-Match: \"y\", W/\"x\"", 304, "ETag: \"x\"\r\n",
         "ETag: W/\"x\"\r\nVary: Accept-Encoding\r\n", 0},
        {"GET / HTTP/1.1\r\nIf-None-Match: \"x\"", 304, "ETag: \"x\"\r\n", NULL, 0},
        {"GET / HTTP/1.1\r\nIf-None-Match: W/\"xx\"", 304, "ETag: \"x\"\r\n", NULL, 0},
    };
    struct scene s;

    (void)state;
    if (!stk_encoder_has(STK_CODING_GZIP))
        return;
    scene_init(&s);
    for (size_t i = 0; i < STK_ARRAY_LEN(rows); i++) {
        const char *changed = rows[i].changed ? rows[i].changed : rows[i].fields;
        bool coded = strstr(changed, "Content-Encoding: gzip") && !s.head.is_head;

        (void)look(&s, rows[i].request, rows[i].status, rows[i].fields, rows[i].length);
        expect(&s, changed);
        coded = strstr(changed, "Content-Encoding: gzip") != NULL && !s.head.is_head;
        assert_int_equal(s.rq.coder != NULL, coded);
        stk_compress_release(&s.rq);
    }
    scene_free(&s);
}

static void test_options(void **state)
{
    static const struct {
        const char *compress, *level, *type, *said;
    } rows[] = {
        {"lzma", "6", "text/*", "compress = 'lzma': expected"},
        {"gzip,lzma", "6", "text/*", "compress = 'lzma': expected"},
        {"off", "10", "text/*", "expected 1 to 9"},
        {"off", "x", "text/*", "expected a number"},
        {"off", "-1", "text/*", "expected a number"},
        {"off", "lzma=1", "text/*", "there are gzip, br and zstd"},
        {"off", "6", "text", "expected a media type"},
        {"off", "6", "*/x", "expected a media type"},
        {"off", "6", "text/*x*", "expected a media type"},
        {"off", "6", "text/", "expected a media type"},
        {"off", "6", "text/a;b", "expected a media type"},
        {"off", "6,gzip=9", "text/*, application/*+json,x/y", NULL},
        {"none", "1", "text/*", NULL},
    };

    (void)state;
    for (size_t i = 0; i < STK_ARRAY_LEN(rows); i++) {
        const char *compress[] = {rows[i].compress, NULL}, *level[] = {rows[i].level, NULL},
                   *type[] = {rows[i].type, NULL};
        struct stk_config config = {0};
        struct stk_compress *c = NULL;
        char error[STK_COMPRESS_ERROR_MAX] = "";

        config.compress = list(compress);
        config.compress_level = list(level);
        config.compress_types = list(type);
        assert_int_equal(stk_compress_new(&c, &config, NULL, error), rows[i].said != NULL);
        assert_null(c);
        if (rows[i].said && !strstr(error, rows[i].said))
            fail_msg("'%s' is not in '%s'", rows[i].said, error);
    }
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_every_order),
        cmocka_unit_test(test_which),
        cmocka_unit_test(test_options),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}
