/*
 * The reader of flat objects, and the writer: what was read is written, and read as the same. The
 * input is also written as one string, which must be read without a loss where it is UTF-8.
 */
#include "fuzz.h"

#include <stdlib.h>
#include <string.h>

#include "base/json.h"

enum { FUZZ_FIELDS = 8 };

static void fuzz_write_field(struct stk_json *j, const struct stk_json_field *f)
{
    FUZZ_CHECK(f->name.ptr[f->name.len] == '\0' && strlen(f->name.ptr) == f->name.len);
    stk_json_name(j, f->name.ptr);
    switch (f->kind) {
    case STK_JSON_NULL:
        stk_json_null(j);
        break;
    case STK_JSON_BOOL:
        stk_json_bool(j, f->boolean);
        break;
    case STK_JSON_INTEGER:
        stk_json_int(j, f->integer);
        break;
    case STK_JSON_NUMBER:
        stk_json_raw(j, f->text.ptr, f->text.len);
        break;
    case STK_JSON_STRING:
        FUZZ_CHECK(f->text.ptr[f->text.len] == '\0' && strlen(f->text.ptr) == f->text.len);
        stk_json_string(j, f->text.ptr);
        break;
    }
}

static void fuzz_compare(const struct stk_json_field *a, const struct stk_json_field *b)
{
    FUZZ_CHECK(stk_span_eq(a->name, b->name) && a->kind == b->kind);
    FUZZ_CHECK(a->kind != STK_JSON_BOOL || a->boolean == b->boolean);
    FUZZ_CHECK(a->kind != STK_JSON_INTEGER || a->integer == b->integer);
    FUZZ_CHECK((a->kind != STK_JSON_STRING && a->kind != STK_JSON_NUMBER) ||
               stk_span_eq(a->text, b->text));
}

static void fuzz_object(const uint8_t *data, size_t size)
{
    struct stk_json_field fields[FUZZ_FIELDS], again[FUZZ_FIELDS];
    struct stk_json j = {0};
    char *text = malloc(size > 0 ? size : 1), *written = NULL;
    size_t n = 0, nagain = 0, len = 0;

    FUZZ_CHECK(text);
    memcpy(text, data, size);
    if (stk_json_read_object(text, size, fields, FUZZ_FIELDS, &n) != 0) {
        FUZZ_CHECK(n == 0);
        free(text);
        return;
    }
    stk_json_object_begin(&j);
    for (size_t i = 0; i < n; i++)
        fuzz_write_field(&j, &fields[i]);
    stk_json_object_end(&j);
    FUZZ_CHECK(stk_json_end(&j, &written, &len) == 0 && strlen(written) == len);
    FUZZ_CHECK(stk_json_read_object(written, len, again, FUZZ_FIELDS, &nagain) == 0);
    FUZZ_CHECK(n == nagain);
    for (size_t i = 0; i < n; i++)
        fuzz_compare(&fields[i], &again[i]);
    free(written);
    free(text);
}

static void fuzz_string(const uint8_t *data, size_t size)
{
    struct stk_json_field fields[FUZZ_FIELDS];
    struct stk_json j = {0};
    char *written = NULL;
    size_t n = 0, len = 0;

    stk_json_object_begin(&j);
    stk_json_name(&j, "a");
    stk_json_bytes(&j, (const char *)data, size);
    stk_json_object_end(&j);
    FUZZ_CHECK(stk_json_end(&j, &written, &len) == 0);
    for (size_t i = 0; i < len; i++)
        FUZZ_CHECK((unsigned char)written[i] >= ' ' && written[i] != 0x7f);
    if (memchr(data, '\0', size) == NULL) {
        FUZZ_CHECK(stk_json_read_object(written, len, fields, FUZZ_FIELDS, &n) == 0 && n == 1);
        FUZZ_CHECK(strstr(fields[0].text.ptr, "\xef\xbf\xbd") != NULL ||
                   (fields[0].text.len == size && memcmp(fields[0].text.ptr, data, size) == 0));
    }
    free(written);
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    fuzz_object(data, size);
    if (size > 0)
        fuzz_string(data, size);
    return 0;
}
