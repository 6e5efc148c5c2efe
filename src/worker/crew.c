/*
 * What an application is (asynchronous or not) is known only once it has been loaded, and by then
 * the server has its threads' buffers. So where several applications may differ there is one thread
 * more than is configured until then.
 */
#include "worker/crew.h"

#include <stdio.h>
#include <stdlib.h>

#include "base/assert.h"
#include "base/log.h"

unsigned stk_crew_most(const struct stk_site *site, unsigned configured)
{
    return configured + (site != NULL && site->apps.n > 1);
}

static bool crew_is_async(const struct stk_host_ops *ops, void *host, unsigned app)
{
    return ops->is_async == NULL || ops->is_async(host, app);
}

void stk_crew_find(struct stk_crew *crew, const struct stk_site *site,
                   const struct stk_host_ops *ops, void *host, unsigned configured)
{
    unsigned n = site != NULL && site->apps.n > 0 ? (unsigned)site->apps.n : 1, sync = 0;

    *crew = (struct stk_crew){.threads = configured, .napps = n};
    crew->hosted = ops->has_loop != NULL && ops->has_loop(host);
    if (!crew->hosted)
        return;
    for (unsigned i = 0; i < n; i++)
        sync += !crew_is_async(ops, host, i);
    crew->threads = sync > 0 ? 1 + configured : 1;
}

/* "app:app at /api, other:app at /": the asynchronous ones, or the others. */
static void crew_list(FILE *f, const struct stk_site *site, const struct stk_host_ops *ops,
                      void *host, bool async)
{
    const char *before = "";

    for (unsigned i = 0; i < site->apps.n; i++) {
        const char *place = site->places.items[i];

        if (crew_is_async(ops, host, i) != async)
            continue;
        fprintf(f, "%s%s%s%s%s", before, site->apps.items[i], *place ? " (" : "", place,
                *place ? ")" : "");
        before = ", ";
    }
}

void stk_crew_log(const struct stk_crew *crew, const struct stk_site *site,
                  const struct stk_host_ops *ops, void *host)
{
    unsigned beside = crew->threads - 1;
    char *text = NULL;
    size_t len = 0;
    FILE *f;

    if (!crew->hosted || beside == 0)
        return;
    f = open_memstream(&text, &len);
    STK_ASSERT(f != NULL);
    fputs("in each worker, in the event loop: ", f);
    crew_list(f, site, ops, host, true);
    fprintf(f, "; on %u thread%s beside it: ", beside, beside == 1 ? "" : "s");
    crew_list(f, site, ops, host, false);
    STK_ASSERT(fclose(f) == 0 && text != NULL);
    stk_log_info("%s", text);
    free(text);
}
