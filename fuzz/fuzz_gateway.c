/* Requests of uwsgi and SCGI: the first byte chooses. What comes out lies where it should. */
#include <stdint.h>
#include <stdlib.h>
#include <string.h>

#include "wire/scgi.h"
#include "wire/uwsgi.h"

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

static void check(stk_span s, const char *buf, size_t len)
{
    if (s.len > 0 && (s.ptr < buf || s.ptr + s.len > buf + len))
        abort();
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    static const struct stk_http1_limits limits = {
        .line_max = 512, .head_max = 2048, .fields_max = 16};
    static struct stk_gateway gw;
    static struct stk_head head;
    size_t room = stk_gateway_room(&limits);
    char *scratch = malloc(room), *copy = malloc(size + 1);
    enum stk_http1_result r;

    if (scratch == NULL || copy == NULL || size == 0) {
        free(scratch);
        free(copy);
        return 0;
    }
    memcpy(copy, data + 1, size - 1);
    r = (data[0] & 1 ? stk_scgi_parse : stk_uwsgi_parse)(&gw, scratch, &head, copy, size - 1,
                                                         &limits);
    if (r == STK_HTTP1_OK) {
        if (head.len > size - 1 || head.keep_alive || head.chunked)
            abort();
        check(stk_head_path(&head), scratch, room);
        check(stk_head_query(&head), scratch, room);
        check(stk_head_target(&head), scratch, room);
        check(gw.mount, scratch, room);
        for (size_t i = 0; i < head.nfields; i++)
            check(stk_head_field_value(&head, &head.fields[i]), scratch, room);
        for (size_t i = 0; i < gw.nvars; i++)
            check(gw.vars[i].value, scratch, room);
    }
    free(scratch);
    free(copy);
    return 0;
}
