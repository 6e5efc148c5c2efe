/*
 * preload-refresh: workers share the memory of what their template has loaded, and applications
 * import a good part of what they use with the first requests, each worker for itself. When a
 * worker has served for a while it names the modules that it has imported since. The template forks
 * another template from itself, which imports them and freezes; then the workers are replaced one
 * by one from that.
 *
 * Why not fork a worker that is warm: it has threads (the stand-by, the application's), whose locks
 * a child would inherit as they happen to be, and connections to databases and clients, which two
 * processes would use as one. The template has a single thread and no connection of a request, so
 * forking it is as safe the second time as the first. And why not a template that loads everything
 * anew: the files may have changed since, and a worker that is worn out is no reason to deploy.
 */
#include <errno.h>

#include "base/log.h"
#include "master/master_priv.h"

void stk_refresh_on_modules(struct stk_proc *p, int file)
{
    struct stk_master *m = p->master;
    int r;

    if (p->kind != STK_PROC_WORKER || p->state != STK_PROC_READY || file < 0 ||
        p->generation != m->generation || m->config->preload_refresh == 0)
        return;
    if (m->stopping != 0 || m->reloading || m->waits_for_save || m->template == NULL ||
        m->template->state != STK_PROC_READY || m->template_next != NULL)
        return;
    r = stk_spawn_refork(m, file, &m->template_next);
    if (r < 0) {
        errno = -r;
        stk_log_error("preload-refresh: the template could not be asked to fork: %m");
        return;
    }
    stk_log_info("worker %u (%d) has imported modules that the template has not: it learns them, "
                 "and the workers are replaced one by one",
                 p->slot + 1, (int)p->pid);
    stk_reload_refresh(m);
}
