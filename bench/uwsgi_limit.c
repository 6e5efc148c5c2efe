/*
 * The limit for a back end that speaks uwsgi: a server that does nothing but what every one must do
 * for a front end that opens a connection for each request.
 *
 * One thread, one epoll set for the listening socket and for connections whose packet has not come
 * as a whole yet.  An accepted connection is read at once, because a front end sends as it
 * connects; the packet's header says how long it is; a constant answer is sent, and the connection
 * closed.  There is no parser and no application: accept(), recv(), send(), close().  The distance
 * of a real server from it is that server's own work.
 *
 *   uwsgi_limit --port 22001        on 127.0.0.1
 *   uwsgi_limit --unix /tmp/x.sock  on a unix socket
 *
 * Ends on SIGTERM or SIGINT.
 */
#include <errno.h>
#include <getopt.h>
#include <netinet/in.h>
#include <netinet/tcp.h>
#include <signal.h>
#include <stdbool.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/epoll.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <sys/types.h>
#include <sys/un.h>
#include <unistd.h>

#define MAX_FDS    65536
#define MAX_EVENTS 512
#define READ_SIZE  65536
#define HEADER     4 /* modifier1, size of the variables (little endian), modifier2 */

static const char answer[] = "HTTP/1.1 200 OK\r\n"
                             "Content-Type: text/plain\r\n"
                             "Content-Length: 14\r\n"
                             "\r\n"
                             "Hello, World!\n";

struct limit {
    int epoll_fd;
    int listen_fd;
    uint32_t missing[MAX_FDS]; /* bytes of the packet still to come, by descriptor; 0: none read */
    uint8_t input[READ_SIZE + HEADER];
};

static volatile sig_atomic_t stopped;

static void on_signal(int number)
{
    (void)number;
    stopped = 1;
}

static void die(const char *what)
{
    perror(what);
    exit(1);
}

/* One recv; when the packet is there, the answer. False: the connection is to be closed. */
static bool serve(struct limit *limit, int fd)
{
    ssize_t size = recv(fd, limit->input, sizeof(limit->input), MSG_DONTWAIT);
    if (size <= 0) {
        return size < 0 && (errno == EAGAIN || errno == EINTR);
    }
    uint32_t missing = limit->missing[fd];
    if (missing == 0) {
        if (size < HEADER) {
            return false; /* no front end sends less in its first segment */
        }
        missing = HEADER + limit->input[1] + ((uint32_t)limit->input[2] << 8);
    }
    if ((uint32_t)size < missing) {
        limit->missing[fd] = missing - (uint32_t)size;
        return true;
    }
    ssize_t sent = send(fd, answer, sizeof(answer) - 1, MSG_NOSIGNAL | MSG_DONTWAIT);
    if (sent != (ssize_t)sizeof(answer) - 1) {
        fprintf(stderr, "uwsgi_limit: an answer did not go out as a whole\n");
    }
    return false;
}

static void accept_all(struct limit *limit)
{
    for (;;) {
        int fd = accept4(limit->listen_fd, NULL, NULL, SOCK_NONBLOCK | SOCK_CLOEXEC);
        if (fd < 0) {
            if (errno == EINTR || errno == ECONNABORTED) {
                continue;
            }
            return; /* EAGAIN; out of descriptors: the next turn tries again */
        }
        if (fd >= MAX_FDS) {
            close(fd);
            continue;
        }
        limit->missing[fd] = 0;
        if (!serve(limit, fd)) {
            close(fd);
            continue;
        }
        struct epoll_event event = {.events = EPOLLIN, .data.fd = fd};
        if (epoll_ctl(limit->epoll_fd, EPOLL_CTL_ADD, fd, &event) != 0) {
            die("epoll_ctl");
        }
    }
}

static void run(struct limit *limit)
{
    struct epoll_event events[MAX_EVENTS];
    while (!stopped) {
        int ready = epoll_wait(limit->epoll_fd, events, MAX_EVENTS, -1);
        if (ready < 0 && errno != EINTR) {
            die("epoll_wait");
        }
        for (int i = 0; i < ready; i++) {
            int fd = events[i].data.fd;
            if (fd == limit->listen_fd) {
                accept_all(limit);
            } else if (!serve(limit, fd)) {
                close(fd);
            }
        }
    }
}

static int listen_tcp(uint16_t port)
{
    int fd = socket(AF_INET, SOCK_STREAM | SOCK_NONBLOCK | SOCK_CLOEXEC, 0);
    if (fd < 0) {
        die("socket");
    }
    int on = 1;
    struct sockaddr_in address = {
        .sin_family = AF_INET, .sin_port = htons(port), .sin_addr.s_addr = htonl(INADDR_LOOPBACK)};
    if (setsockopt(fd, SOL_SOCKET, SO_REUSEADDR, &on, sizeof(on)) != 0 ||
        setsockopt(fd, IPPROTO_TCP, TCP_NODELAY, &on, sizeof(on)) != 0) { /* inherited */
        die("setsockopt");
    }
    if (bind(fd, (const struct sockaddr *)&address, sizeof(address)) != 0) {
        die("bind");
    }
    return fd;
}

static int listen_unix(const char *path)
{
    int fd = socket(AF_UNIX, SOCK_STREAM | SOCK_NONBLOCK | SOCK_CLOEXEC, 0);
    if (fd < 0) {
        die("socket");
    }
    struct sockaddr_un address = {.sun_family = AF_UNIX};
    size_t size = strlen(path) + 1;
    if (size > sizeof(address.sun_path)) {
        fprintf(stderr, "uwsgi_limit: the path is too long\n");
        exit(2);
    }
    memcpy(address.sun_path, path, size);
    if (bind(fd, (const struct sockaddr *)&address, sizeof(address)) != 0) {
        die("bind");
    }
    if (chmod(path, 0666) != 0) {
        die("chmod");
    }
    return fd;
}

int main(int argc, char **argv)
{
    static const struct option options[] = {
        {"port", required_argument, NULL, 'p'},
        {"unix", required_argument, NULL, 'u'},
        {NULL, 0, NULL, 0},
    };
    unsigned long port = 0;
    const char *path = NULL;
    int option = 0;
    while ((option = getopt_long(argc, argv, "p:u:", options, NULL)) != -1) {
        if (option == 'p') {
            char *end = NULL;
            port = strtoul(optarg, &end, 10);
            if (end == optarg || *end != '\0' || port > UINT16_MAX) {
                port = 0;
            }
        } else if (option == 'u') {
            path = optarg;
        } else {
            return 2;
        }
    }
    if ((port == 0) == (path == NULL)) {
        fprintf(stderr, "usage: uwsgi_limit --port N | --unix PATH\n");
        return 2;
    }

    struct limit *limit = calloc(1, sizeof(*limit));
    if (limit == NULL) {
        die("calloc");
    }
    struct sigaction action = {.sa_handler = on_signal};
    if (sigaction(SIGTERM, &action, NULL) != 0 || sigaction(SIGINT, &action, NULL) != 0) {
        die("sigaction");
    }
    limit->listen_fd = path != NULL ? listen_unix(path) : listen_tcp((uint16_t)port);
    if (listen(limit->listen_fd, 4096) != 0) {
        die("listen");
    }
    limit->epoll_fd = epoll_create1(EPOLL_CLOEXEC);
    if (limit->epoll_fd < 0) {
        die("epoll_create1");
    }
    struct epoll_event event = {.events = EPOLLIN, .data.fd = limit->listen_fd};
    if (epoll_ctl(limit->epoll_fd, EPOLL_CTL_ADD, limit->listen_fd, &event) != 0) {
        die("epoll_ctl");
    }
    run(limit);

    close(limit->epoll_fd);
    close(limit->listen_fd);
    if (path != NULL) {
        unlink(path);
    }
    free(limit);
    return 0;
}
