/*
 * A small load client for what wrk cannot do.  One thread, one epoll set, loopback only; prints one
 * line of JSON.
 *
 *   load rate --port P --rate R --connections C --seconds S
 *       Open loop: requests leave at R a second whatever the answers do, each on a free keep-alive
 *       connection.  Latency counts from the moment a request was due, so waiting for a connection
 *       is part of it (no coordinated omission).
 *   load closed --port P --connections C --path PATH --seconds S
 *       Closed loop: each of C keep-alive connections sends its next request when it has its
 * answer. What is not answered at the end counts with the time it has waited. An announced close is
 *       obeyed, and counted as a reconnect like any other.
 *   load hold --port P --connections C --seconds S
 *       Opens C keep-alive connections, gets one answer on each, prints, and holds them until
 *       standard input ends or S seconds have passed.
 *   load slow --port P --connections C --interval MS --seconds S
 *       C clients each send a request head byte by byte, one byte every MS milliseconds, and begin
 *       anew when the server closes or answers.
 *
 * Ends by itself: every mode is bounded by --seconds.
 */
#include <errno.h>
#include <getopt.h>
#include <netinet/in.h>
#include <netinet/tcp.h>
#include <poll.h>
#include <stdbool.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/epoll.h>
#include <sys/prctl.h>
#include <sys/resource.h>
#include <sys/socket.h>
#include <time.h>
#include <unistd.h>

#define MAX_EVENTS    256
#define MAX_SAMPLES   (1U << 22)
#define HEAD_SIZE     1024
#define SECOND        1000000000ULL
#define REFUSED_PAUSE (SECOND / 100)

enum mode { MODE_RATE, MODE_HOLD, MODE_SLOW, MODE_CLOSED, N_MODES };

struct options {
    enum mode mode;
    uint16_t port;
    uint32_t rate;
    uint32_t connections;
    uint32_t interval_ms;
    uint32_t seconds;
    const char *path;
};

struct client {
    int fd; /* -1: not connected */
    bool busy;
    bool answered;    /* its first answer has come (hold) */
    bool closing;     /* the server has said that it closes behind this answer */
    uint32_t sent;    /* bytes of the slow head that have left */
    uint32_t head_at; /* bytes of the answer's head collected */
    uint64_t body_left;
    uint64_t due;  /* when the request was due (rate), when the next byte is (slow) */
    uint32_t next; /* free list */
    char head[HEAD_SIZE];
};

struct load {
    struct options options;
    struct client *clients;
    uint32_t free_head; /* index + 1 of the first free connection, 0: none */
    int epoll_fd;
    uint64_t begin;
    uint64_t end;
    uint64_t *samples;
    size_t n_samples;
    uint64_t n_sent;
    uint64_t n_errors;
    uint64_t n_reconnects;
    uint64_t n_answered;
    char request[256];
    char scratch[65536];
};

static const char slow_text[] = "GET / HTTP/1.1\r\nHost: 127.0.0.1\r\nUser-Agent: slow\r\n"
                                "Accept: text/html,application/xhtml+xml\r\n"
                                "Accept-Language: en-US,en;q=0.7\r\nX-Filler: "
                                "aaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaa\r\n";

static void die(const char *what)
{
    perror(what);
    exit(1);
}

static uint64_t now(void)
{
    struct timespec at;
    if (clock_gettime(CLOCK_MONOTONIC, &at) != 0) {
        die("clock_gettime");
    }
    return (uint64_t)at.tv_sec * SECOND + (uint64_t)at.tv_nsec;
}

/* Connects and adds to the epoll set; false when the server refuses. */
static bool client_open(struct load *load, struct client *client)
{
    int fd = socket(AF_INET, SOCK_STREAM | SOCK_CLOEXEC, 0);
    if (fd < 0) {
        die("socket");
    }
    int on = 1;
    struct sockaddr_in address = {.sin_family = AF_INET,
                                  .sin_port = htons(load->options.port),
                                  .sin_addr.s_addr = htonl(INADDR_LOOPBACK)};
    struct epoll_event event = {.events = EPOLLIN | EPOLLRDHUP, .data.ptr = client};
    if (setsockopt(fd, IPPROTO_TCP, TCP_NODELAY, &on, sizeof(on)) != 0) {
        die("setsockopt");
    }
    if (connect(fd, (const struct sockaddr *)&address, sizeof(address)) != 0) {
        close(fd);
        load->n_errors++;
        return false;
    }
    if (epoll_ctl(load->epoll_fd, EPOLL_CTL_ADD, fd, &event) != 0) {
        die("epoll_ctl");
    }
    client->fd = fd;
    client->sent = 0;
    client->head_at = 0;
    client->closing = false;
    client->body_left = 0;
    return true;
}

static void client_close(struct client *client)
{
    if (client->fd >= 0) {
        close(client->fd);
        client->fd = -1;
    }
}

static void client_release(struct load *load, struct client *client)
{
    client->busy = false;
    client->next = load->free_head;
    load->free_head = (uint32_t)(client - load->clients) + 1;
}

static struct client *client_take(struct load *load)
{
    if (load->free_head == 0) {
        return NULL;
    }
    struct client *client = &load->clients[load->free_head - 1];
    load->free_head = client->next;
    client->busy = true;
    return client;
}

/* The body's length by a complete head; -1 when it says none. */
static int64_t content_length(const char *head)
{
    const char *field = strcasestr(head, "\r\ncontent-length:");
    return field == NULL ? -1 : strtoll(field + strlen("\r\ncontent-length:"), NULL, 10);
}

/* Feeds received bytes; 1: the answer is complete, 0: more to come, -1: not understood. */
static int client_feed(struct client *client, const char *data, size_t size)
{
    if (client->body_left > 0) {
        if (size > client->body_left) {
            return -1;
        }
        client->body_left -= size;
        return client->body_left == 0;
    }
    uint32_t before = client->head_at;
    size_t room = HEAD_SIZE - 1 - before;
    size_t copied = size < room ? size : room;
    memcpy(client->head + before, data, copied);
    client->head_at += (uint32_t)copied;
    client->head[client->head_at] = '\0';
    char *end = strstr(client->head, "\r\n\r\n");
    if (end == NULL) {
        return client->head_at == HEAD_SIZE - 1 ? -1 : 0;
    }
    size_t rest = size - ((size_t)(end + 4 - client->head) - before);
    int64_t length = content_length(client->head);
    if (length < 0 || (uint64_t)length < rest || strncmp(client->head, "HTTP/1.1 200", 12) != 0) {
        return -1;
    }
    client->head_at = 0;
    client->closing = strcasestr(client->head, "\r\nconnection: close") != NULL;
    client->body_left = (uint64_t)length - rest;
    return client->body_left == 0;
}

static bool client_send(struct load *load, struct client *client)
{
    size_t size = strlen(load->request);
    if (client->fd < 0 && !client_open(load, client)) {
        return false;
    }
    ssize_t sent = send(client->fd, load->request, size, MSG_NOSIGNAL);
    if (sent != (ssize_t)size) {
        load->n_errors++;
        client_close(client);
        return false;
    }
    load->n_sent++;
    return true;
}

static void sample(struct load *load, const struct client *client)
{
    if (load->n_samples < MAX_SAMPLES) {
        load->samples[load->n_samples++] = now() - client->due;
    }
}

/* The next request of a closed loop. A server that refuses is asked again in the next turn. */
static void closed_next(struct load *load, struct client *client)
{
    client->due = now();
    client->busy = client_send(load, client);
}

/* What the server sent: an answer, or the end of the connection. */
static void client_event(struct load *load, struct client *client)
{
    if (client->fd < 0) {
        return; /* closed earlier in this batch */
    }
    ssize_t size = recv(client->fd, load->scratch, sizeof(load->scratch), MSG_DONTWAIT);
    if (size < 0 && (errno == EAGAIN || errno == EINTR)) {
        return;
    }
    if (load->options.mode == MODE_SLOW) {
        if (size > 0) {
            load->n_answered++; /* 408, or 400: the server gives the slow client up */
            return;
        }
        load->n_reconnects++;
        client_close(client);
        return;
    }
    int fed = size > 0 ? client_feed(client, load->scratch, (size_t)size) : -1;
    if (fed == 0) {
        return;
    }
    if (fed < 0) {
        if (client->busy) {
            load->n_errors++;
        }
        load->n_reconnects++;
        client_close(client);
    } else {
        load->n_answered++;
        client->answered = true;
        if (load->options.mode != MODE_HOLD) {
            sample(load, client);
        }
    }
    if (load->options.mode == MODE_CLOSED) {
        if (client->closing && client->fd >= 0) {
            load->n_reconnects++;
            client_close(client);
        }
        closed_next(load, client);
    }
    if (client->busy && load->options.mode == MODE_RATE) {
        client_release(load, client);
    }
}

/* One turn of the loop that ends at `until` at the latest. */
static void turn(struct load *load, uint64_t until)
{
    struct epoll_event events[MAX_EVENTS];
    uint64_t at = now();
    uint64_t left = until > at ? until - at : 0;
    struct timespec timeout = {.tv_sec = (time_t)(left / SECOND), .tv_nsec = (long)(left % SECOND)};
    int n = epoll_pwait2(load->epoll_fd, events, MAX_EVENTS, &timeout, NULL);
    if (n < 0 && errno != EINTR) {
        die("epoll_pwait2");
    }
    for (int i = 0; i < n; i++) {
        client_event(load, events[i].data.ptr);
    }
}

static void run_rate(struct load *load)
{
    uint64_t period = SECOND / load->options.rate;
    uint64_t due = load->begin;
    while (now() < load->end) {
        while (due <= now() && due < load->end) {
            struct client *client = client_take(load);
            if (client == NULL) {
                break; /* all are waiting: this one stays due */
            }
            client->due = due;
            due += period;
            if (!client_send(load, client)) {
                client_release(load, client);
            }
        }
        /* with every connection busy only an answer helps */
        turn(load, load->free_head != 0 && due < load->end ? due : load->end);
    }
}

static void run_closed(struct load *load)
{
    while (now() < load->end) {
        uint64_t next = load->end;
        for (uint32_t i = 0; i < load->options.connections; i++) {
            struct client *client = &load->clients[i];
            if (!client->busy) {
                closed_next(load, client);
            }
            if (!client->busy) {
                next = now() + REFUSED_PAUSE;
            }
        }
        turn(load, next < load->end ? next : load->end);
    }
    for (uint32_t i = 0; i < load->options.connections; i++) {
        if (load->clients[i].busy) {
            sample(load, &load->clients[i]);
        }
    }
}

static void run_hold(struct load *load)
{
    for (uint32_t i = 0; i < load->options.connections && now() < load->end; i++) {
        struct client *client = client_take(load);
        if (client == NULL || !client_send(load, client)) {
            break;
        }
        while (!client->answered && client->fd >= 0 && now() < load->end) {
            turn(load, load->end);
        }
    }
}

static void run_slow(struct load *load)
{
    uint64_t interval = load->options.interval_ms * 1000000ULL;
    uint32_t n = load->options.connections;
    for (uint32_t i = 0; i < n; i++) {
        load->clients[i].due = load->begin + interval * i / n; /* spread over the interval */
    }
    while (now() < load->end) {
        uint64_t at = now();
        uint64_t next = load->end;
        for (uint32_t i = 0; i < n; i++) {
            struct client *client = &load->clients[i];
            if (client->due <= at) {
                client->due += interval;
                if (client->fd < 0 && !client_open(load, client)) {
                    continue;
                }
                if (client->sent < sizeof(slow_text) - 1 &&
                    send(client->fd, slow_text + client->sent, 1, MSG_NOSIGNAL) == 1) {
                    client->sent++;
                    load->n_sent++;
                }
            }
            next = client->due < next ? client->due : next;
        }
        turn(load, next);
    }
}

static int compare(const void *left, const void *right)
{
    uint64_t a = *(const uint64_t *)left;
    uint64_t b = *(const uint64_t *)right;
    return a < b ? -1 : a > b;
}

static double percentile(const struct load *load, double share)
{
    if (load->n_samples == 0) {
        return 0;
    }
    size_t index = (size_t)(share * (double)(load->n_samples - 1) + 0.5);
    return (double)load->samples[index] / 1000.0;
}

static void report(struct load *load)
{
    qsort(load->samples, load->n_samples, sizeof(*load->samples), compare);
    uint32_t open = 0;
    for (uint32_t i = 0; i < load->options.connections; i++) {
        open += load->clients[i].fd >= 0;
    }
    printf("{\"requests\":%llu,\"us\":%llu,\"p50\":%.1f,\"p90\":%.1f,\"p99\":%.1f,\"max\":%.1f,"
           "\"sent\":%llu,\"errors\":%llu,\"reconnects\":%llu,\"open\":%u}\n",
           (unsigned long long)load->n_answered, (unsigned long long)((now() - load->begin) / 1000),
           percentile(load, 0.5), percentile(load, 0.9), percentile(load, 0.99),
           percentile(load, 1.0), (unsigned long long)load->n_sent,
           (unsigned long long)load->n_errors, (unsigned long long)load->n_reconnects, open);
    fflush(stdout);
}

/* Holds the connections until standard input ends or the time is over. */
static void hold(struct load *load)
{
    struct pollfd input = {.fd = STDIN_FILENO, .events = POLLIN};
    uint64_t at = now();
    if (at < load->end) {
        int left_ms = (int)((load->end - at) / 1000000U);
        while (poll(&input, 1, left_ms) < 0 && errno == EINTR) {
        }
    }
}

static uint32_t parse_number(const char *text, uint32_t max)
{
    char *end = NULL;
    errno = 0;
    unsigned long value = strtoul(text, &end, 10);
    if (errno != 0 || end == text || *end != '\0' || value == 0 || value > max) {
        fprintf(stderr, "load: %s is not a number from 1 to %u\n", text, max);
        exit(2);
    }
    return (uint32_t)value;
}

static bool parse_options(int argc, char **argv, struct options *ret_options)
{
    static const struct option rows[] = {
        {"port", required_argument, NULL, 'p'},
        {"rate", required_argument, NULL, 'r'},
        {"connections", required_argument, NULL, 'c'},
        {"interval", required_argument, NULL, 'i'},
        {"seconds", required_argument, NULL, 's'},
        {"path", required_argument, NULL, 'u'},
        {NULL, 0, NULL, 0},
    };
    static const char *const modes[] = {"rate", "hold", "slow", "closed"};
    struct options options = {
        .rate = 100, .connections = 1, .interval_ms = 1000, .seconds = 1, .path = "/"};
    size_t mode = 0;
    while (argc > 1 && mode < N_MODES && strcmp(argv[1], modes[mode]) != 0) {
        mode++;
    }
    if (argc < 2 || mode == N_MODES) {
        return false;
    }
    options.mode = (enum mode)mode;
    int option = 0;
    while ((option = getopt_long(argc - 1, argv + 1, "", rows, NULL)) != -1) {
        switch (option) {
        case 'p':
            options.port = (uint16_t)parse_number(optarg, UINT16_MAX);
            break;
        case 'r':
            options.rate = parse_number(optarg, 1000000);
            break;
        case 'c':
            options.connections = parse_number(optarg, 60000);
            break;
        case 'i':
            options.interval_ms = parse_number(optarg, 600000);
            break;
        case 's':
            options.seconds = parse_number(optarg, 600);
            break;
        case 'u':
            options.path = optarg;
            break;
        default:
            return false;
        }
    }
    *ret_options = options;
    return options.port != 0;
}

static void raise_fd_limit(uint32_t connections)
{
    rlim_t need = (rlim_t)connections + 64;
    struct rlimit limit;
    if (getrlimit(RLIMIT_NOFILE, &limit) != 0) {
        die("getrlimit");
    }
    if (limit.rlim_cur < need) {
        limit.rlim_cur = need;
        limit.rlim_max = limit.rlim_max < need ? need : limit.rlim_max;
        if (setrlimit(RLIMIT_NOFILE, &limit) != 0) {
            die("setrlimit RLIMIT_NOFILE");
        }
    }
}

int main(int argc, char **argv)
{
    struct load load = {.epoll_fd = -1};
    if (!parse_options(argc, argv, &load.options)) {
        fprintf(stderr, "usage: load rate|closed|hold|slow --port N [--rate N] [--connections N]"
                        " [--interval MS] [--seconds N] [--path PATH]\n");
        return 2;
    }
    raise_fd_limit(load.options.connections);
    int length = snprintf(load.request, sizeof(load.request),
                          "GET %s HTTP/1.1\r\nHost: 127.0.0.1\r\n\r\n", load.options.path);
    if (length < 0 || (size_t)length >= sizeof(load.request)) {
        fprintf(stderr, "load: --path is too long\n");
        return 2;
    }
    if (prctl(PR_SET_TIMERSLACK, 1UL) != 0) {
        die("prctl");
    }
    load.clients = calloc(load.options.connections, sizeof(*load.clients));
    load.samples = malloc(MAX_SAMPLES * sizeof(*load.samples));
    load.epoll_fd = epoll_create1(EPOLL_CLOEXEC);
    if (load.clients == NULL || load.samples == NULL || load.epoll_fd < 0) {
        die("load");
    }
    for (uint32_t i = load.options.connections; i-- > 0;) {
        load.clients[i].fd = -1;
        client_release(&load, &load.clients[i]);
    }
    load.begin = now();
    load.end = load.begin + load.options.seconds * SECOND;

    switch (load.options.mode) {
    case MODE_RATE:
        run_rate(&load);
        break;
    case MODE_HOLD:
        run_hold(&load);
        break;
    case MODE_SLOW:
        run_slow(&load);
        break;
    case MODE_CLOSED:
        run_closed(&load);
        break;
    case N_MODES:
        break;
    }
    report(&load);
    if (load.options.mode == MODE_HOLD) {
        hold(&load);
    }
    for (uint32_t i = 0; i < load.options.connections; i++) {
        client_close(&load.clients[i]);
    }
    close(load.epoll_fd);
    free(load.samples);
    free(load.clients);
    return 0;
}
