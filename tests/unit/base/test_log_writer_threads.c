/* Many producers at once, with reopening in between: for the thread sanitizer. */
#include "base/log_writer.h"

#include <pthread.h>
#include <sys/stat.h>

#include "log_files.h"

enum { THREADS = 4, LINES = 5000 };

struct producer {
    struct stk_log_writer *writer;
    unsigned id;
    unsigned refused;
    unsigned lines;
    pthread_t thread;
};

static void *produce(void *arg)
{
    struct producer *p = arg;

    for (unsigned i = 0; i < p->lines; i++) {
        char line[64];
        int n = snprintf(line, sizeof line, "producer %u line %u\n", p->id, i);

        p->refused += !stk_log_writer_append(p->writer, line, (size_t)n);
        if (p->id == 0 && i % 500 == 0)
            stk_log_writer_reopen(p->writer);
    }
    return NULL;
}

static unsigned run(struct log_dir *d, size_t size)
{
    struct producer producers[THREADS];
    struct stk_log_writer *w = NULL;
    struct stk_log_sink sink;
    unsigned refused = 0;

    assert_int_equal(stk_log_open(log_dir_file(d, "error")), 0);
    assert_int_equal(stk_log_sink_open(&sink, log_dir_file(d, "log"), STDOUT_FILENO), 0);
    assert_int_equal(stk_log_writer_new(&w, "access log", &sink, size), 0);
    for (unsigned i = 0; i < THREADS; i++) {
        producers[i] = (struct producer){.writer = w, .id = i, .lines = LINES};
        assert_int_equal(pthread_create(&producers[i].thread, NULL, produce, &producers[i]), 0);
    }
    for (unsigned i = 0; i < THREADS; i++) {
        pthread_join(producers[i].thread, NULL);
        refused += producers[i].refused;
    }
    assert_int_equal(stk_log_writer_lost(w), refused);
    stk_log_writer_free(w);
    assert_int_equal(stk_log_open("-"), 0);
    return refused;
}

/* Lines of one producer are in its order and whole. */
static void check(struct log_dir *d, unsigned refused)
{
    unsigned next[THREADS] = {0}, lines = 0;
    char *text = log_dir_read(d, "log");

    for (char *line = strtok(text, "\n"); line != NULL; line = strtok(NULL, "\n"), lines++) {
        unsigned id, i;

        assert_int_equal(sscanf(line, "producer %u line %u", &id, &i), 2);
        assert_true(id < THREADS && i >= next[id]);
        next[id] = i + 1;
    }
    assert_int_equal(lines + refused, THREADS * LINES);
    free(text);
}

static void test_producers(void **state)
{
    unsigned refused = run(*state, 1 << 20);

    assert_int_equal(refused, 0);
    check(*state, refused);
}

static void test_overflow(void **state)
{
    check(*state, run(*state, 1));
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test_setup_teardown(test_producers, log_dir_setup, log_dir_teardown),
        cmocka_unit_test_setup_teardown(test_overflow, log_dir_setup, log_dir_teardown),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}
