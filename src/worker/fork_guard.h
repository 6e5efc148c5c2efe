/*
 * What happens when the application forks: the child must not keep the server's sockets open, or a
 * client would not see its connection end, nor a port become free; and signals must end it as they
 * end any program, or multiprocessing could not terminate its processes.
 */
#pragma once

struct stk_heritage;
struct stk_server;

/*
 * From here on, children close the descriptors of this server, and signals whose handler is one of
 * the two get their default action. One server a process.
 */
void stk_fork_guard_set(struct stk_server *server, const struct stk_heritage *heritage, int loop_fd,
                        int term_fd, void (*const handlers[2])(int));
void stk_fork_guard_clear(void);
