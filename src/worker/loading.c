/*
 * An import that hangs holds the only thread that could read the channel. A thread for the rare
 * case that somebody asks where it hangs would be there in every start, so it is a signal, whose
 * default is to be ignored: it does no harm before the handler is there, nor after. The handler
 * reads the one message that is meant for it and has the host write the stacks, which takes neither
 * lock nor memory (see app/host.h: they come from a snapshot of the process).
 */
#include "worker/loading.h"

#include <errno.h>
#include <signal.h>
#include <stddef.h>

#include "base/fd.h"
#include "base/log.h"
#include "ipc/channel.h"

/* What the handler knows: it gets no argument. */
static struct {
    int channel;
    const struct stk_host_ops *ops;
    void *host;
} loading_state;

static void loading_on_signal(int number)
{
    struct stk_message msg = {.fd = -1};
    int saved = errno;

    while (stk_channel_peek(loading_state.channel) == STK_MESSAGE_STACK &&
           stk_channel_recv(loading_state.channel, STK_CHANNEL_WORKER, &msg) == 0) {
        if (loading_state.ops->stacks != NULL)
            loading_state.ops->stacks(loading_state.host, NULL, msg.fd);
        stk_fd_close(&msg.fd);
    }
    errno = saved;
}

void stk_loading_begin(int channel, const struct stk_host_ops *ops, void *host)
{
    struct sigaction sa = {.sa_handler = loading_on_signal, .sa_flags = SA_RESTART};

    sigemptyset(&sa.sa_mask);
    loading_state.channel = channel;
    loading_state.ops = ops;
    loading_state.host = host;
    if (sigaction(STK_CHANNEL_LOOK, &sa, NULL) < 0)
        stk_log_debug("stacks cannot be shown while the application is loaded: %m");
}

void stk_loading_end(void)
{
    struct sigaction sa;

    /* Unless the application has put its own there. */
    if (sigaction(STK_CHANNEL_LOOK, NULL, &sa) == 0 && sa.sa_handler == loading_on_signal) {
        sa.sa_handler = SIG_DFL;
        (void)sigaction(STK_CHANNEL_LOOK, &sa, NULL);
    }
}
