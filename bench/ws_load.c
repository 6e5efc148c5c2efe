/*
 * A load client for WebSockets.  One thread, one epoll set, loopback only; prints one line of JSON.
 *
 *   ws_load echo --port P --connections C --size B --seconds S
 *       Closed loop: each of C connections sends a masked text message of B bytes, and the next one
 *       when that has come back.
 *   ws_load hold --port P --connections C --seconds S
 *       Opens C connections, sends one message on each and awaits its echo, prints, and holds them
 *       until standard input ends or S seconds have passed.
 *
 * Ends by itself: both are bounded by --seconds.
 */
#include <errno.h>
#include <getopt.h>
#include <netinet/in.h>
#include <netinet/tcp.h>
#include <poll.h>
#include <signal.h>
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

#define MAX_EVENTS  256
#define MAX_SAMPLES (1U << 22)
#define MAX_SIZE    (1U << 16)
#define SECOND      1000000000ULL

struct options {
    bool hold;
    uint16_t port;
    uint32_t connections;
    uint32_t size;
    uint32_t seconds;
};

struct client {
    int fd;
    bool echoed; /* its first message has come back */
    uint64_t sent_at;
    uint32_t have; /* bytes of the answer so far */
};

struct load {
    struct options options;
    struct client *clients;
    int epoll_fd;
    uint64_t end;
    uint64_t *samples;
    size_t n_samples;
    uint64_t n_messages;
    uint64_t n_errors;
    uint32_t n_echoed;
    char frame[MAX_SIZE + 16]; /* a masked message */
    uint32_t frame_len;
    char answer[MAX_SIZE + 16]; /* as it comes back */
    uint32_t answer_len;
    char scratch[65536];
};

static const char handshake[] = "GET / HTTP/1.1\r\nHost: 127.0.0.1\r\nUpgrade: websocket\r\n"
                                "Connection: Upgrade\r\nSec-WebSocket-Version: 13\r\n"
                                "Sec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\n\r\n";
static const char accepted[] = "s3pPLMBiTxaQ9kYGzzhZRbK+xOo=";

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

/* The header of a frame with FIN (RFC 6455 section 5.2): its length. */
static uint32_t frame_head(char *out, uint32_t size, bool masked)
{
    uint32_t len = 2;
    out[0] = (char)0x81;
    if (size < 126) {
        out[1] = (char)size;
    } else {
        out[1] = 126;
        out[2] = (char)(size >> 8);
        out[3] = (char)size;
        len = 4;
    }
    if (masked) {
        out[1] = (char)(out[1] | (char)0x80);
        memcpy(out + len, "\x37\xfa\x21\x3d", 4);
        len += 4;
    }
    return len;
}

static void make_frames(struct load *load)
{
    uint32_t size = load->options.size;
    uint32_t head = frame_head(load->frame, size, true);
    const char *mask = load->frame + head - 4;
    load->frame_len = head + size;
    load->answer_len = frame_head(load->answer, size, false);
    for (uint32_t i = 0; i < size; i++) {
        char byte = (char)('a' + i % 26);
        load->answer[load->answer_len + i] = byte;
        load->frame[head + i] = (char)(byte ^ mask[i % 4]);
    }
    load->answer_len += size;
}

/* Connects and shakes hands; false when the server does not. */
static bool client_open(struct load *load, struct client *client)
{
    int on = 1;
    struct sockaddr_in address = {.sin_family = AF_INET,
                                  .sin_port = htons(load->options.port),
                                  .sin_addr.s_addr = htonl(INADDR_LOOPBACK)};
    struct epoll_event event = {.events = EPOLLIN | EPOLLRDHUP, .data.ptr = client};
    struct timeval limit = {.tv_sec = 10};
    size_t have = 0;
    client->fd = socket(AF_INET, SOCK_STREAM | SOCK_CLOEXEC, 0);
    if (client->fd < 0) {
        die("socket");
    }
    if (setsockopt(client->fd, IPPROTO_TCP, TCP_NODELAY, &on, sizeof(on)) != 0 ||
        setsockopt(client->fd, SOL_SOCKET, SO_RCVTIMEO, &limit, sizeof(limit)) != 0) {
        die("setsockopt");
    }
    if (connect(client->fd, (const struct sockaddr *)&address, sizeof(address)) != 0 ||
        send(client->fd, handshake, sizeof(handshake) - 1, MSG_NOSIGNAL) < 0) {
        return false;
    }
    for (;;) {
        ssize_t n = recv(client->fd, load->scratch + have, 4096 - have, 0);
        if (n <= 0) {
            return false;
        }
        have += (size_t)n;
        load->scratch[have] = '\0';
        if (strstr(load->scratch, "\r\n\r\n") != NULL) {
            break;
        }
        if (have == 4096) {
            return false;
        }
    }
    if (strncmp(load->scratch, "HTTP/1.1 101 ", 13) != 0 ||
        strstr(load->scratch, accepted) == NULL) {
        return false;
    }
    if (epoll_ctl(load->epoll_fd, EPOLL_CTL_ADD, client->fd, &event) != 0) {
        die("epoll_ctl");
    }
    return true;
}

static void client_lost(struct load *load, struct client *client)
{
    load->n_errors++;
    if (client->fd >= 0) {
        close(client->fd);
    }
    client->fd = -1;
}

static void client_send(struct load *load, struct client *client)
{
    client->sent_at = now();
    client->have = 0;
    if (send(client->fd, load->frame, load->frame_len, MSG_NOSIGNAL) != (ssize_t)load->frame_len) {
        client_lost(load, client);
    }
}

static void client_event(struct load *load, struct client *client)
{
    ssize_t n = recv(client->fd, load->scratch, sizeof(load->scratch), MSG_DONTWAIT);
    if (n < 0 && (errno == EAGAIN || errno == EINTR)) {
        return;
    }
    if (n <= 0 || (uint32_t)n > load->answer_len - client->have ||
        memcmp(load->scratch, load->answer + client->have, (size_t)n) != 0) {
        client_lost(load, client);
        return;
    }
    client->have += (uint32_t)n;
    if (client->have < load->answer_len) {
        return;
    }
    load->n_messages++;
    if (load->n_samples < MAX_SAMPLES) {
        load->samples[load->n_samples++] = now() - client->sent_at;
    }
    load->n_echoed += !client->echoed;
    client->echoed = true;
    if (!load->options.hold) {
        client_send(load, client);
    }
}

/* Handles what comes until `until`, or until all have been echoed once. */
static void run(struct load *load, bool once)
{
    struct epoll_event events[MAX_EVENTS];
    uint64_t at;
    while ((at = now()) < load->end && load->n_errors < load->options.connections &&
           !(once && load->n_echoed == load->options.connections)) {
        int n =
            epoll_wait(load->epoll_fd, events, MAX_EVENTS, (int)((load->end - at) / 1000000 + 1));
        if (n < 0 && errno != EINTR) {
            die("epoll_wait");
        }
        for (int i = 0; i < n; i++) {
            struct client *client = events[i].data.ptr;
            if (client->fd >= 0) {
                client_event(load, client);
            }
        }
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
    return (double)load->samples[(size_t)(share * (double)(load->n_samples - 1))] / 1000.0;
}

static void report(struct load *load, uint64_t began)
{
    qsort(load->samples, load->n_samples, sizeof(load->samples[0]), compare);
    printf("{\"requests\":%llu,\"us\":%llu,\"p50\":%.1f,\"p99\":%.1f,\"errors\":%llu,"
           "\"open\":%u}\n",
           (unsigned long long)load->n_messages, (unsigned long long)((now() - began) / 1000),
           percentile(load, 0.5), percentile(load, 0.99), (unsigned long long)load->n_errors,
           load->n_echoed);
    fflush(stdout);
}

static uint32_t parse_number(const char *text, uint32_t max)
{
    char *end;
    unsigned long value = strtoul(text, &end, 10);
    if (*end != '\0' || end == text || value > max) {
        fprintf(stderr, "ws_load: not a number up to %u: %s\n", max, text);
        exit(2);
    }
    return (uint32_t)value;
}

static bool parse_options(int argc, char **argv, struct options *ret_options)
{
    static const struct option names[] = {{"port", required_argument, NULL, 'p'},
                                          {"connections", required_argument, NULL, 'c'},
                                          {"size", required_argument, NULL, 'b'},
                                          {"seconds", required_argument, NULL, 's'},
                                          {NULL, 0, NULL, 0}};
    int name;
    *ret_options = (struct options){.connections = 64, .size = 64, .seconds = 3};
    while ((name = getopt_long(argc, argv, "", names, NULL)) != -1) {
        switch (name) {
        case 'p':
            ret_options->port = (uint16_t)parse_number(optarg, 65535);
            break;
        case 'c':
            ret_options->connections = parse_number(optarg, 100000);
            break;
        case 'b':
            ret_options->size = parse_number(optarg, MAX_SIZE - 1);
            break;
        case 's':
            ret_options->seconds = parse_number(optarg, 600);
            break;
        default:
            return false;
        }
    }
    if (optind + 1 != argc || ret_options->port == 0 || ret_options->connections == 0) {
        return false;
    }
    ret_options->hold = strcmp(argv[optind], "hold") == 0;
    return ret_options->hold || strcmp(argv[optind], "echo") == 0;
}

int main(int argc, char **argv)
{
    static struct load load;
    struct rlimit limit;
    struct pollfd standard_input = {.fd = STDIN_FILENO};
    uint64_t began;
    if (!parse_options(argc, argv, &load.options)) {
        fprintf(stderr, "usage: ws_load echo|hold --port P [--connections C] [--size B] "
                        "[--seconds S]\n");
        return 2;
    }
    prctl(PR_SET_PDEATHSIG, SIGKILL);
    if (getrlimit(RLIMIT_NOFILE, &limit) == 0) {
        limit.rlim_cur = limit.rlim_max;
        (void)setrlimit(RLIMIT_NOFILE, &limit);
    }
    load.clients = calloc(load.options.connections, sizeof(load.clients[0]));
    load.samples = malloc(MAX_SAMPLES * sizeof(load.samples[0]));
    load.epoll_fd = epoll_create1(EPOLL_CLOEXEC);
    if (load.clients == NULL || load.samples == NULL || load.epoll_fd < 0) {
        die("memory");
    }
    make_frames(&load);
    for (uint32_t i = 0; i < load.options.connections; i++) {
        if (!client_open(&load, &load.clients[i])) {
            fprintf(stderr, "ws_load: connection %u: no WebSocket\n", i);
            report(&load, now());
            return 1;
        }
    }
    began = now();
    load.end = began + load.options.seconds * SECOND;
    for (uint32_t i = 0; i < load.options.connections; i++) {
        client_send(&load, &load.clients[i]);
    }
    run(&load, load.options.hold);
    report(&load, began);
    if (load.options.hold && load.n_echoed == load.options.connections) {
        (void)poll(&standard_input, 1, (int)load.options.seconds * 1000);
    }
    return 0;
}
