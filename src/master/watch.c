/*
 * Watching files.
 *
 * Editors do not write into a file: they write another and rename it over the first, which ends a
 * watch on the file itself. So the folders are watched, and an event counts when it names a known
 * file whose size, time or inode differs from before. A file that is gone does not count: it is
 * halfway through being saved. One that did not exist counts when it appears. Where inotify is
 * missing or has no watches left, files are looked at once a second; a folder that is removed and
 * made again (a checkout) is found by a slow timer too.
 *
 * Files that are touched to give an order are looked at once a second besides: their folder may be
 * behind a symbolic link that a deployment turns, or on a file system of another machine, and no
 * event tells of either.
 *
 * While the application does not load, any Python file that appears in a watched folder counts
 * ("eager"): the one that is missing is on no list.
 */
#include "master/watch.h"

#include <errno.h>
#include <limits.h>
#include <stdint.h>
#include <stdlib.h>
#include <string.h>
#include <sys/epoll.h>
#include <sys/inotify.h>
#include <sys/stat.h>
#include <unistd.h>

#include "base/assert.h"
#include "base/fd.h"
#include "base/mem.h"

#define WATCH_MAGIC       0x57415443u
#define WATCH_DEBOUNCE_MS 50
#define WATCH_POLL_MS     1000
#define WATCH_MASK \
    (IN_CLOSE_WRITE | IN_ATTRIB | IN_MOVED_TO | IN_MOVE_SELF | IN_DELETE_SELF | IN_ONLYDIR)

/* What tells one content of a file from the next. */
struct watch_stamp {
    int64_t mtime_ns;
    int64_t size;
    uint64_t inode; /* 0: there is no file */
};

struct watch_file {
    char *path;
    struct watch_stamp stamp;
    bool swept;   /* looked at once a second besides */
    bool changed; /* and nobody was told, where each is told of */
};

struct watch_folder {
    char *path;
    int wd; /* -1: to be watched (again) */
};

struct stk_watch {
    uint32_t magic;
    struct stk_loop *loop;
    stk_watch_fn fn;
    void *arg;
    struct stk_source source; /* inotify; fd -1: polling */
    struct stk_timer debounce, look;
    struct watch_file *files; /* sorted by path */
    size_t nfiles, files_size;
    struct watch_folder *folders;
    size_t nfolders, folders_size;
    char *changed; /* the last one */
    bool eager;
    bool sweeps; /* a file is swept */
    bool each;   /* is told of, and not only the last one */
};

static struct watch_stamp watch_look(const char *path)
{
    struct stat st;

    if (stat(path, &st) < 0)
        return (struct watch_stamp){0};
    return (struct watch_stamp){.mtime_ns = (int64_t)st.st_mtim.tv_sec * STK_NSEC_PER_SEC +
                                            st.st_mtim.tv_nsec,
                                .size = st.st_size,
                                .inode = st.st_ino};
}

static void watch_changed(struct stk_watch *w, const char *path)
{
    free(w->changed);
    w->changed = stk_mem_strdup(path);
    stk_timer_set(w->loop, &w->debounce, WATCH_DEBOUNCE_MS);
}

/* Looks whether a known file has changed. */
static void watch_check_file(struct stk_watch *w, struct watch_file *file)
{
    struct watch_stamp now = watch_look(file->path);

    if (now.inode == 0 || (now.mtime_ns == file->stamp.mtime_ns && now.size == file->stamp.size &&
                           now.inode == file->stamp.inode))
        return;
    file->stamp = now;
    file->changed = true;
    watch_changed(w, file->path);
}

static void watch_check_all(struct stk_watch *w)
{
    for (size_t i = 0; i < w->nfiles; i++)
        watch_check_file(w, &w->files[i]);
}

static void watch_start_polling(struct stk_watch *w)
{
    if (w->source.fd >= 0) {
        stk_loop_del(w->loop, &w->source);
        stk_fd_close(&w->source.fd);
    }
    stk_timer_set(w->loop, &w->look, WATCH_POLL_MS);
}

static void watch_folder(struct stk_watch *w, struct watch_folder *folder)
{
    if (w->source.fd < 0)
        return;
    folder->wd = inotify_add_watch(w->source.fd, folder->path, WATCH_MASK);
    if (folder->wd >= 0)
        return;
    if (errno == ENOSPC || errno == ENOMEM)
        watch_start_polling(w);
    else
        stk_timer_set(w->loop, &w->look, WATCH_POLL_MS);
}

static int watch_compare(const void *a, const void *b)
{
    return strcmp(((const struct watch_file *)a)->path, ((const struct watch_file *)b)->path);
}

static struct watch_file *watch_find(struct stk_watch *w, char *path)
{
    struct watch_file key = {.path = path};

    if (w->nfiles == 0)
        return NULL;
    return bsearch(&key, w->files, w->nfiles, sizeof key, watch_compare);
}

static bool watch_is_python(const char *name)
{
    size_t len = strlen(name);

    return len > 3 && strcmp(name + len - 3, ".py") == 0 && name[0] != '.';
}

static void watch_on_event(struct stk_watch *w, const struct inotify_event *event)
{
    struct watch_folder *folder = NULL;
    struct watch_file *file;
    char path[PATH_MAX];

    if (event->mask & IN_Q_OVERFLOW) {
        watch_check_all(w);
        return;
    }
    for (size_t i = 0; folder == NULL && i < w->nfolders; i++)
        if (w->folders[i].wd == event->wd)
            folder = &w->folders[i];
    if (folder == NULL)
        return;
    if (event->mask & (IN_IGNORED | IN_DELETE_SELF | IN_MOVE_SELF)) {
        folder->wd = -1;
        stk_timer_set(w->loop, &w->look, WATCH_POLL_MS);
        return;
    }
    if (event->len == 0 || strlen(folder->path) + strlen(event->name) + 2 > sizeof path)
        return;
    (void)stpcpy(stpcpy(stpcpy(path, folder->path), "/"), event->name);
    file = watch_find(w, path);
    if (file != NULL)
        watch_check_file(w, file);
    else if (w->eager && watch_is_python(event->name))
        watch_changed(w, path);
}

static void watch_on_inotify(struct stk_source *src, uint32_t events, void *who)
{
    struct stk_watch *w = stk_container_of(src, struct stk_watch, source);
    _Alignas(struct inotify_event) char buf[16384];
    ssize_t n;

    STK_CHECK_MAGIC(w, WATCH_MAGIC);
    while (w->source.fd >= 0 && (n = read(w->source.fd, buf, sizeof buf)) > 0) {
        for (ssize_t at = 0; at < n;) {
            const struct inotify_event *event = (const void *)(buf + at);

            watch_on_event(w, event);
            at += (ssize_t)(sizeof *event + event->len);
        }
    }
}

static void watch_sweep(struct stk_watch *w)
{
    for (size_t i = 0; i < w->nfiles; i++)
        if (w->files[i].swept)
            watch_check_file(w, &w->files[i]);
    stk_timer_set(w->loop, &w->look, WATCH_POLL_MS);
}

/* Looks at the files (polling, sweeping), or for folders that were away. */
static void watch_on_look(struct stk_timer *timer, void *who)
{
    struct stk_watch *w = stk_container_of(timer, struct stk_watch, look);
    bool back = false;

    if (w->source.fd < 0) {
        watch_check_all(w);
        stk_timer_set(w->loop, timer, WATCH_POLL_MS);
        return;
    }
    for (size_t i = 0; i < w->nfolders; i++) {
        if (w->folders[i].wd < 0) {
            watch_folder(w, &w->folders[i]);
            back = back || w->folders[i].wd >= 0;
        }
    }
    if (back)
        watch_check_all(w);
    if (w->sweeps)
        watch_sweep(w);
}

static void watch_on_debounce(struct stk_timer *timer, void *who)
{
    struct stk_watch *w = stk_container_of(timer, struct stk_watch, debounce);
    STK_CLEANUP(stk_mem_freep) char *path = stk_steal(&w->changed);

    if (path != NULL && !w->each)
        w->fn(w->arg, path);
    /* What is called may add files. */
    for (size_t i = 0; w->each && i < w->nfiles; i++) {
        STK_CLEANUP(stk_mem_freep) char *one = NULL;

        if (!w->files[i].changed)
            continue;
        w->files[i].changed = false;
        one = stk_mem_strdup(w->files[i].path);
        w->fn(w->arg, one);
        i = (size_t)-1;
    }
}

int stk_watch_new(struct stk_loop *loop, stk_watch_fn fn, void *arg, struct stk_watch **ret_watch)
{
    struct stk_watch *w = stk_new0(struct stk_watch);
    int r;

    w->magic = WATCH_MAGIC;
    w->loop = loop;
    w->fn = fn;
    w->arg = arg;
    stk_timer_init(&w->debounce, watch_on_debounce);
    stk_timer_init(&w->look, watch_on_look);
    w->source =
        (struct stk_source){.fn = watch_on_inotify, .fd = inotify_init1(IN_NONBLOCK | IN_CLOEXEC)};
    if (w->source.fd >= 0) {
        r = stk_loop_add(loop, &w->source, EPOLLIN);
        if (r < 0) {
            stk_watch_free(w);
            return r;
        }
    } else {
        watch_start_polling(w);
    }
    *ret_watch = w;
    return 0;
}

struct stk_watch *stk_watch_free(struct stk_watch *w)
{
    if (w == NULL)
        return NULL;
    STK_CHECK_MAGIC(w, WATCH_MAGIC);
    if (w->source.fd >= 0)
        stk_loop_del(w->loop, &w->source);
    stk_fd_close(&w->source.fd);
    stk_timer_stop(w->loop, &w->debounce);
    stk_timer_stop(w->loop, &w->look);
    for (size_t i = 0; i < w->nfiles; i++)
        free(w->files[i].path);
    for (size_t i = 0; i < w->nfolders; i++)
        free(w->folders[i].path);
    free(w->files);
    free(w->folders);
    free(w->changed);
    w->magic = 0;
    free(w);
    return NULL;
}

void stk_watch_close(struct stk_watch *w)
{
    stk_fd_close(&w->source.fd);
}

/* Makes room for one more in a growing array. */
static void watch_grow(void **array, size_t n, size_t *size, size_t each)
{
    if (n < *size)
        return;
    *size = *size ? *size * 2 : 64;
    *array = realloc(*array, *size * each);
    STK_ASSERT(*array != NULL);
}

static void watch_add_folder_span(struct stk_watch *w, const char *path, size_t len)
{
    struct watch_folder *folder;
    void *array = w->folders;

    for (size_t i = 0; i < w->nfolders; i++)
        if (strlen(w->folders[i].path) == len && memcmp(w->folders[i].path, path, len) == 0)
            return;
    watch_grow(&array, w->nfolders, &w->folders_size, sizeof *w->folders);
    w->folders = array;
    folder = &w->folders[w->nfolders++];
    *folder = (struct watch_folder){.path = stk_mem_strndup(path, len), .wd = -1};
    watch_folder(w, folder);
}

void stk_watch_add_folder(struct stk_watch *w, const char *path)
{
    watch_add_folder_span(w, path, strlen(path));
}

/* Appends a file that is not known yet; the array is sorted afterwards. */
static void watch_append(struct stk_watch *w, size_t sorted, const char *path, size_t len)
{
    STK_CLEANUP(stk_mem_freep) char *copy = stk_mem_strndup(path, len);
    struct watch_file key = {.path = copy};
    const char *slash = strrchr(copy, '/');
    void *array = w->files;

    if (slash == NULL || len >= PATH_MAX)
        return;
    if (sorted > 0 && bsearch(&key, w->files, sorted, sizeof key, watch_compare) != NULL)
        return;
    watch_grow(&array, w->nfiles, &w->files_size, sizeof *w->files);
    w->files = array;
    if (slash > copy)
        watch_add_folder_span(w, copy, (size_t)(slash - copy));
    w->files[w->nfiles].stamp = watch_look(copy);
    w->files[w->nfiles++].path = stk_steal(&copy);
}

void stk_watch_add_files(struct stk_watch *w, const char *text, size_t len)
{
    size_t sorted = w->nfiles;
    size_t kept = 0;

    for (const char *end = text + len; text < end;) {
        size_t n = strcspn(text, "\n");

        if (*text == '/')
            watch_append(w, sorted, text, n);
        text += n + 1;
    }
    if (w->nfiles == sorted)
        return;
    qsort(w->files, w->nfiles, sizeof *w->files, watch_compare);
    for (size_t i = 0; i < w->nfiles; i++) {
        if (kept > 0 && strcmp(w->files[kept - 1].path, w->files[i].path) == 0)
            free(w->files[i].path);
        else
            w->files[kept++] = w->files[i];
    }
    w->nfiles = kept;
}

void stk_watch_add_touch(struct stk_watch *w, char *path)
{
    struct watch_file *file;

    stk_watch_add_files(w, path, strlen(path));
    file = watch_find(w, path);
    if (file == NULL)
        return;
    file->swept = w->sweeps = true;
    stk_timer_set(w->loop, &w->look, WATCH_POLL_MS);
}

void stk_watch_tell_each(struct stk_watch *w)
{
    w->each = true;
}

void stk_watch_set_eager(struct stk_watch *w, bool eager)
{
    w->eager = eager;
}

size_t stk_watch_count(const struct stk_watch *w)
{
    return w->nfiles;
}

void stk_watch_use_polling(struct stk_watch *w)
{
    watch_start_polling(w);
}

bool stk_watch_is_polling(const struct stk_watch *w)
{
    return w->source.fd < 0;
}
