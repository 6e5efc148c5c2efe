/*
 * The kernel's limit: a server that does nothing but what every server on a TCP socket must do.
 *
 * One thread, one level-triggered epoll set, one recv() and one send() for what has arrived, and a
 * constant answer rendered before the first connection.  Requests are counted by their empty lines
 * (over the borders of reads too), so pipelined ones are each answered, in one send.  There is no
 * parser and no application: what it costs is the price of the system calls, and the distance of a
 * real server from it is that server's own work.
 *
 *   epoll_limit --port 22001 [--body N] [--answer N] [--close]
 *
 * --body N    a body of N bytes (default: "Hello, World!\n")
 * --answer N  pads the head until head and body together are N bytes: the size of another's answer
 * --close     "Connection: close", and closes after the first answer
 *
 * Ends on SIGTERM or SIGINT.
 */
#include <errno.h>
#include <fcntl.h>
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
#include <sys/types.h>
#include <unistd.h>

#define MAX_FDS    65536
#define MAX_EVENTS 512
#define MAX_BATCH  64 /* answers kept ready in one buffer */
#define READ_SIZE  65536
#define HELLO      "Hello, World!\n"

struct conn {
    uint8_t matched;  /* bytes of the empty line seen at the end of the last read */
    bool writing;     /* EPOLLOUT is armed */
    bool last;        /* close when `pending` has gone out */
    uint64_t pending; /* bytes of answers owed */
};

struct limit {
    char *answers; /* MAX_BATCH copies of the answer, so that a batch is one send() */
    size_t answer_size;
    bool close_each;
    int epoll_fd;
    int listen_fd;
    struct conn conns[MAX_FDS]; /* by descriptor */
    char input[READ_SIZE];
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

/* Renders the answer `MAX_BATCH` times; `total` 0 leaves the head as short as it gets. */
static void render(struct limit *limit, size_t body_size, size_t total)
{
    const char *connection = limit->close_each ? "Connection: close\r\n" : "";
    char head[512];
    int head_size = snprintf(head, sizeof(head),
                             "HTTP/1.1 200 OK\r\nContent-Type: text/plain\r\n"
                             "Content-Length: %zu\r\n%s",
                             body_size, connection);
    if (head_size < 0 || (size_t)head_size >= sizeof(head)) {
        die("snprintf");
    }
    size_t plain = (size_t)head_size + 2 + body_size;
    size_t overhead = strlen("X-Pad: \r\n");
    size_t pad = total >= plain + overhead ? total - plain - overhead : 0;
    size_t size = plain + (pad > 0 ? overhead + pad : 0);

    char *out = malloc(size * MAX_BATCH);
    if (out == NULL) {
        die("malloc");
    }
    char *at = out;
    memcpy(at, head, (size_t)head_size);
    at += head_size;
    if (pad > 0) {
        memcpy(at, "X-Pad: ", 7);
        memset(at + 7, 'x', pad);
        memcpy(at + 7 + pad, "\r\n", 2);
        at += overhead + pad;
    }
    memcpy(at, "\r\n", 2);
    at += 2;
    if (body_size == strlen(HELLO)) {
        memcpy(at, HELLO, body_size);
    } else {
        memset(at, 'x', body_size);
    }
    for (size_t i = 1; i < MAX_BATCH; i++) {
        memcpy(out + i * size, out, size);
    }
    limit->answers = out;
    limit->answer_size = size;
}

static void watch(struct limit *limit, int fd, uint32_t events, int operation)
{
    struct epoll_event event = {.events = events, .data.fd = fd};
    if (epoll_ctl(limit->epoll_fd, operation, fd, &event) != 0) {
        die("epoll_ctl");
    }
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
        limit->conns[fd] = (struct conn){0};
        watch(limit, fd, EPOLLIN, EPOLL_CTL_ADD);
    }
}

/* How many requests end in this read: occurrences of CRLF CRLF, over the borders of reads. */
static uint64_t count_requests(struct conn *conn, const char *data, size_t size)
{
    static const char empty_line[4] = {'\r', '\n', '\r', '\n'};
    uint64_t count = 0;
    size_t matched = conn->matched;
    size_t i = 0;
    while (i < size) {
        if (matched == 0) {
            const char *found = memchr(data + i, '\r', size - i);
            if (found == NULL) {
                break;
            }
            i = (size_t)(found - data) + 1;
            matched = 1;
        } else if (data[i] == empty_line[matched]) {
            i++;
            matched++;
            if (matched == sizeof(empty_line)) {
                count++;
                matched = 0;
            }
        } else if (data[i] == '\r') {
            i++;
            matched = 1;
        } else {
            i++;
            matched = 0;
        }
    }
    conn->matched = (uint8_t)matched;
    return count;
}

/* Sends what is owed; false when the connection is to be closed. */
static bool flush(struct limit *limit, int fd, struct conn *conn)
{
    while (conn->pending > 0) {
        /* whole copies lie behind one another, so any offset modulo the size is a valid start */
        size_t offset = limit->answer_size - (size_t)(conn->pending % limit->answer_size);
        offset %= limit->answer_size;
        size_t room = limit->answer_size * MAX_BATCH - offset;
        size_t size = conn->pending < room ? (size_t)conn->pending : room;
        ssize_t sent = send(fd, limit->answers + offset, size, MSG_NOSIGNAL | MSG_DONTWAIT);
        if (sent < 0) {
            if (errno == EINTR) {
                continue;
            }
            if (errno != EAGAIN) {
                return false;
            }
            if (!conn->writing) {
                conn->writing = true;
                watch(limit, fd, EPOLLOUT, EPOLL_CTL_MOD);
            }
            return true;
        }
        conn->pending -= (uint64_t)sent;
    }
    if (conn->last) {
        return false;
    }
    if (conn->writing) {
        conn->writing = false;
        watch(limit, fd, EPOLLIN, EPOLL_CTL_MOD);
    }
    return true;
}

/* One recv, one send; false when the connection is to be closed. */
static bool serve(struct limit *limit, int fd, struct conn *conn)
{
    ssize_t size = recv(fd, limit->input, sizeof(limit->input), 0);
    if (size <= 0) {
        return size < 0 && (errno == EAGAIN || errno == EINTR);
    }
    uint64_t count = count_requests(conn, limit->input, (size_t)size);
    if (count == 0) {
        return true;
    }
    if (limit->close_each) {
        count = 1;
        conn->last = true;
    }
    conn->pending += count * limit->answer_size;
    return flush(limit, fd, conn);
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
                continue;
            }
            struct conn *conn = &limit->conns[fd];
            bool alive = conn->writing ? flush(limit, fd, conn) : serve(limit, fd, conn);
            if (!alive) {
                close(fd);
            }
        }
    }
}

static int listen_on(uint16_t port)
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
    if (listen(fd, 4096) != 0) {
        die("listen");
    }
    return fd;
}

static size_t parse_number(const char *text, size_t max)
{
    char *end = NULL;
    errno = 0;
    unsigned long value = strtoul(text, &end, 10);
    if (errno != 0 || end == text || *end != '\0' || value > max) {
        fprintf(stderr, "epoll_limit: %s is not a number up to %zu\n", text, max);
        exit(2);
    }
    return value;
}

int main(int argc, char **argv)
{
    static const struct option options[] = {
        {"port", required_argument, NULL, 'p'},
        {"body", required_argument, NULL, 'b'},
        {"answer", required_argument, NULL, 'a'},
        {"close", no_argument, NULL, 'c'},
        {NULL, 0, NULL, 0},
    };
    size_t port = 0;
    size_t body_size = strlen(HELLO);
    size_t total = 0;
    struct limit *limit = calloc(1, sizeof(*limit));
    if (limit == NULL) {
        die("calloc");
    }
    int option = 0;
    while ((option = getopt_long(argc, argv, "p:b:a:c", options, NULL)) != -1) {
        switch (option) {
        case 'p':
            port = parse_number(optarg, UINT16_MAX);
            break;
        case 'b':
            body_size = parse_number(optarg, 16U << 20);
            break;
        case 'a':
            total = parse_number(optarg, 16U << 20);
            break;
        case 'c':
            limit->close_each = true;
            break;
        default:
            return 2;
        }
    }
    if (port == 0) {
        fprintf(stderr, "usage: epoll_limit --port N [--body N] [--answer N] [--close]\n");
        return 2;
    }

    struct sigaction action = {.sa_handler = on_signal};
    if (sigaction(SIGTERM, &action, NULL) != 0 || sigaction(SIGINT, &action, NULL) != 0) {
        die("sigaction");
    }
    render(limit, body_size, total);
    limit->listen_fd = listen_on((uint16_t)port);
    limit->epoll_fd = epoll_create1(EPOLL_CLOEXEC);
    if (limit->epoll_fd < 0) {
        die("epoll_create1");
    }
    watch(limit, limit->listen_fd, EPOLLIN, EPOLL_CTL_ADD);
    run(limit);

    close(limit->epoll_fd);
    close(limit->listen_fd);
    free(limit->answers);
    free(limit);
    return 0;
}
