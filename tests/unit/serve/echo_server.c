/*
 * The server with the C application, as a program: echo_server PORT [THREADS] [no-takeover]. For
 * the benchmark of the engine without Python, and to try things by hand. Ends on SIGTERM.
 */
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <unistd.h>

#include "base/log.h"
#include "base/mem.h"
#include "config/config.h"
#include "echo_host.h"
#include "ipc/channel.h"
#include "ipc/scoreboard.h"
#include "net/listen.h"
#include "worker/worker.h"

int main(int argc, char **argv)
{
    struct stk_config config;
    struct stk_listen_set set = {0};
    struct stk_listen_options options = {.backlog = 4096, .socket_mode = -1};
    struct stk_heritage heritage = {.config = &config, .nworkers = 1};
    struct stk_worker_params params = {.host_ops = &echo_host_ops};
    struct stk_scoreboard *board;
    char spec[64];
    char *error = NULL;
    int fds[2], row, code;

    echo_host_config(&config, argc > 2 ? atoi(argv[2]) : 1, argc <= 3);
    free(stk_steal(&config.server_header)); /* what is measured is the engine */
    config.graceful_timeout = 5000;
    config.exit_timeout = 2000;
    snprintf(spec, sizeof spec, "127.0.0.1:%s", argc > 1 ? argv[1] : "0");
    if (stk_listen_set_open(&set, spec, 1, &options, &error) != 0) {
        fprintf(stderr, "%s\n", error);
        return 1;
    }
    if (stk_channel_pair(fds) < 0 || stk_scoreboard_new(2, &board) < 0)
        return 1;
    row = stk_scoreboard_claim(board, 0, 0);
    if (row < 0)
        return 1;
    heritage.listeners = set.items;
    heritage.nlisteners = set.n;
    heritage.scoreboard = board;
    heritage.row = &board->rows[row];
    heritage.channel = fds[0];
    params.host = echo_host_new();
    code = stk_worker_main(&params, &heritage);
    echo_host_free(params.host);
    stk_listen_set_deinit(&set);
    stk_scoreboard_free(board);
    echo_host_config_deinit(&config);
    return code;
}
