/*
 * The files of TLS, read in one go and kept one behind the other in one buffer: a record is a head
 * of three numbers, the path and the contents, each with a NUL behind it. So they can be compared,
 * handed to another process and overwritten as one.
 *
 * A directory has pairs under the names that their makers use: fullchain.pem with privkey.pem (ACME
 * clients), tls.crt with tls.key (Kubernetes), else NAME.crt, .cer or .pem with NAME.key beside it
 * or the key inside; and the same in each folder in it.
 */
#include "net/tls_files.h"

#include <dirent.h>
#include <errno.h>
#include <fcntl.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/stat.h>
#include <unistd.h>

#include "base/assert.h"
#include "base/fd.h"
#include "base/mem.h"
#include "config/config.h"

enum {
    FILES_ONE_MAX = 4 << 20,
    FILES_ALL_MAX = 64 << 20,
    FILES_DIR_MAX = 20000, /* entries of a directory */
    FILES_DEPTH = 2,
};

struct files_head {
    uint32_t kind, path_len, len;
};

static void files_wipe(char *data, size_t len)
{
    if (data != NULL)
        explicit_bzero(data, len);
}

void stk_tls_files_deinit(struct stk_tls_files *files)
{
    files_wipe(files->data, files->len);
    free(stk_steal(&files->data));
    files->len = 0;
}

bool stk_tls_files_eq(const struct stk_tls_files *a, const struct stk_tls_files *b)
{
    return a->len == b->len && (a->len == 0 || memcmp(a->data, b->data, a->len) == 0);
}

bool stk_tls_files_next(const struct stk_tls_files *files, size_t *pos, struct stk_tls_file *ret)
{
    struct files_head head;
    size_t left = files->len - *pos;

    if (left < sizeof head)
        return false;
    memcpy(&head, files->data + *pos, sizeof head);
    left -= sizeof head;
    if (head.path_len >= left || head.len >= left - head.path_len - 1)
        return false;
    ret->kind = (enum stk_tls_file_kind)head.kind;
    ret->path = files->data + *pos + sizeof head;
    ret->data = ret->path + head.path_len + 1;
    ret->len = head.len;
    if (ret->path[head.path_len] != '\0' || ret->data[head.len] != '\0')
        return false;
    *pos += sizeof head + head.path_len + 1 + head.len + 1;
    return true;
}

void stk_tls_files_each(const struct stk_tls_files *files, void (*fn)(void *arg, const char *path),
                        void *arg)
{
    struct stk_tls_file file;
    size_t pos = 0;

    while (stk_tls_files_next(files, &pos, &file))
        fn(arg, file.path);
}

/* Makes room for so many bytes more; the old buffer is overwritten. */
static char *files_reserve(struct stk_tls_files *files, size_t more)
{
    char *data = stk_mem_zalloc(files->len + more);

    if (files->len > 0)
        memcpy(data, files->data, files->len);
    files_wipe(files->data, files->len);
    free(files->data);
    files->data = data;
    return data + files->len;
}

static int files_fail(char **ret_error, char *text)
{
    *ret_error = text;
    return -1;
}

static int files_fail_errno(const char *option, const char *path, int error, char **ret_error)
{
    errno = error;
    if (error == EACCES && geteuid() != 0)
        return files_fail(ret_error,
                          stk_mem_printf("%s: %s cannot be read by user %u: %m; let that user or "
                                         "its group read it, or have the server started by root, "
                                         "which reads it before `user` is applied",
                                         option, path, (unsigned)geteuid()));
    return files_fail(ret_error, stk_mem_printf("%s: %s cannot be read: %m", option, path));
}

/* Appends the contents of a file. */
static int files_append(struct stk_tls_files *files, enum stk_tls_file_kind kind,
                        const char *option, const char *path, char **ret_error)
{
    STK_CLEANUP(stk_fd_closep) int fd = open(path, O_RDONLY | O_CLOEXEC | O_NONBLOCK);
    struct files_head head = {.kind = kind, .path_len = (uint32_t)strlen(path)};
    struct stat st;
    size_t done = 0, size;
    char *p;

    if (fd < 0 || fstat(fd, &st) < 0)
        return files_fail_errno(option, path, errno, ret_error);
    if (!S_ISREG(st.st_mode))
        return files_fail(ret_error, stk_mem_printf("%s: %s is no file", option, path));
    if (st.st_size > FILES_ONE_MAX || files->len > FILES_ALL_MAX)
        return files_fail(ret_error, stk_mem_printf("%s: %s is too large for certificates and keys",
                                                    option, path));
    size = (size_t)st.st_size;
    p = files_reserve(files, sizeof head + head.path_len + 1 + size + 1);
    memcpy(p + sizeof head, path, head.path_len);
    while (done < size) {
        ssize_t n = read(fd, p + sizeof head + head.path_len + 1 + done, size - done);

        if (n < 0 && errno == EINTR)
            continue;
        if (n < 0)
            return files_fail_errno(option, path, errno, ret_error);
        if (n == 0)
            break;
        done += (size_t)n;
    }
    head.len = (uint32_t)done;
    memcpy(p, &head, sizeof head);
    files->len += sizeof head + head.path_len + 1 + done + 1;
    return 0;
}

static int files_append_pair(struct stk_tls_files *files, const char *cert, const char *key,
                             char **ret_error)
{
    int r = files_append(files, STK_TLS_FILE_CERT, "tls-cert", cert, ret_error);

    if (r == 0 && key != NULL && strcmp(key, cert) != 0)
        r = files_append(files, STK_TLS_FILE_KEY, "tls-key", key, ret_error);
    return r;
}

static bool files_is(const char *path, mode_t type)
{
    struct stat st;

    return stat(path, &st) == 0 && (st.st_mode & S_IFMT) == type;
}

/* A pair with these two names in the directory. 0: there is none; 1: appended; -1. */
static int files_try_pair(struct stk_tls_files *files, const char *dir, const char *cert,
                          const char *key, char **ret_error)
{
    STK_CLEANUP(stk_mem_freep) char *cert_path = stk_mem_printf("%s/%s", dir, cert);
    STK_CLEANUP(stk_mem_freep) char *key_path = stk_mem_printf("%s/%s", dir, key);

    if (!files_is(cert_path, S_IFREG) || !files_is(key_path, S_IFREG))
        return 0;
    return files_append_pair(files, cert_path, key_path, ret_error) == 0 ? 1 : -1;
}

/* The length of a name without an ending of certificates; 0: it has none. */
static size_t files_stem(const char *name)
{
    static const char *const endings[] = {".crt", ".cer", ".pem"};
    size_t len = strlen(name);

    for (size_t i = 0; i < STK_ARRAY_LEN(endings); i++)
        if (len > 4 && strcmp(name + len - 4, endings[i]) == 0)
            return len - 4;
    return 0;
}

/* A certificate of a directory by its own name; what holds none is passed over. */
static int files_try_named(struct stk_tls_files *files, const char *dir, const char *name,
                           char **ret_error)
{
    STK_CLEANUP(stk_mem_freep) char *cert = stk_mem_printf("%s/%s", dir, name);
    size_t stem = files_stem(name);
    STK_CLEANUP(stk_mem_freep) char *key = stk_mem_printf("%s/%.*s.key", dir, (int)stem, name);
    bool has_key = files_is(key, S_IFREG);
    size_t before = files->len, pos = before;
    struct stk_tls_file file;

    if (stem == 0 || !files_is(cert, S_IFREG))
        return 0;
    if (files_append(files, STK_TLS_FILE_CERT, "tls-cert", cert, ret_error) != 0)
        return -1;
    if (stk_tls_files_next(files, &pos, &file) &&
        (strstr(file.data, "-----BEGIN CERTIFICATE-----") == NULL ||
         (!has_key && strstr(file.data, "PRIVATE KEY-----") == NULL))) {
        files_wipe(files->data + before, files->len - before);
        files->len = before;
        return 0;
    }
    return has_key ? files_append(files, STK_TLS_FILE_KEY, "tls-key", key, ret_error) : 0;
}

static int files_compare(const void *a, const void *b)
{
    return strcmp(*(char *const *)a, *(char *const *)b);
}

/* The names in a directory, sorted, without hidden ones; NULL-terminated. NULL and errno. */
static char **files_list(const char *dir)
{
    DIR *d = opendir(dir);
    char **names;
    size_t n = 0;
    struct dirent *entry;

    if (d == NULL)
        return NULL;
    names = stk_new0_array(char *, FILES_DIR_MAX + 1);
    while (n < FILES_DIR_MAX && (entry = readdir(d)) != NULL)
        if (entry->d_name[0] != '.')
            names[n++] = stk_mem_strdup(entry->d_name);
    closedir(d);
    qsort(names, n, sizeof names[0], files_compare);
    return names;
}

static int files_append_dir(struct stk_tls_files *files, const char *dir, unsigned depth,
                            char **ret_error);

static int files_append_names(struct stk_tls_files *files, const char *dir, unsigned depth,
                              char *const *names, char **ret_error)
{
    int r = files_try_pair(files, dir, "fullchain.pem", "privkey.pem", ret_error);
    bool named;

    if (r == 0)
        r = files_try_pair(files, dir, "tls.crt", "tls.key", ret_error);
    named = r == 0;
    for (size_t i = 0; r >= 0 && names[i] != NULL; i++) {
        STK_CLEANUP(stk_mem_freep) char *path = stk_mem_printf("%s/%s", dir, names[i]);

        if (depth < FILES_DEPTH && files_is(path, S_IFDIR))
            r = files_append_dir(files, path, depth + 1, ret_error);
        else if (named)
            r = files_try_named(files, dir, names[i], ret_error);
    }
    return r < 0 ? -1 : 0;
}

static int files_append_dir(struct stk_tls_files *files, const char *dir, unsigned depth,
                            char **ret_error)
{
    char **names = files_list(dir);
    size_t before = files->len;
    int r;

    if (names == NULL)
        return files_fail_errno("tls-cert", dir, errno, ret_error);
    r = files_append_names(files, dir, depth, names, ret_error);
    for (size_t i = 0; names[i] != NULL; i++)
        free(names[i]);
    free(names);
    if (r == 0 && depth == 1 && files->len == before)
        return files_fail(
            ret_error,
            stk_mem_printf("tls-cert: the directory %s has no certificate with its key: there may "
                           "be NAME.crt with NAME.key, NAME.pem with both in it, or folders with "
                           "fullchain.pem and privkey.pem",
                           dir));
    return r;
}

static int files_read(const struct stk_config *config, struct stk_tls_files *files,
                      char **ret_error)
{
    size_t keys = 0;
    int r = 0;

    for (size_t i = 0; r == 0 && i < config->tls_cert.n; i++) {
        const char *cert = config->tls_cert.items[i];

        if (files_is(cert, S_IFDIR)) {
            r = files_append_dir(files, cert, 1, ret_error);
        } else {
            const char *key = keys < config->tls_key.n ? config->tls_key.items[keys++] : NULL;

            r = files_append_pair(files, cert, key, ret_error);
        }
    }
    if (r == 0 && keys < config->tls_key.n)
        return files_fail(ret_error,
                          stk_mem_printf("tls-key: %s belongs to no tls-cert: each key is for the "
                                         "certificate at the same place in the list (directories "
                                         "have their own keys)",
                                         config->tls_key.items[keys]));
    if (r == 0 && config->tls_client_ca != NULL)
        r = files_append(files, STK_TLS_FILE_CA, "tls-client-ca", config->tls_client_ca, ret_error);
    return r;
}

int stk_tls_files_read(const struct stk_config *config, struct stk_tls_files *ret_files,
                       char **ret_error)
{
    struct stk_tls_files files = {0};

    if (files_read(config, &files, ret_error) != 0) {
        stk_tls_files_deinit(&files);
        return -1;
    }
    *ret_files = files;
    return 0;
}

int stk_tls_files_save(const struct stk_tls_files *files, int *ret_fd)
{
    STK_CLEANUP(stk_fd_closep) int fd = memfd_create("tls", MFD_CLOEXEC | MFD_ALLOW_SEALING);
    int r = fd < 0 ? -errno : stk_fd_write_all(fd, files->data, files->len);

    if (r == 0 &&
        fcntl(fd, F_ADD_SEALS, F_SEAL_SEAL | F_SEAL_SHRINK | F_SEAL_GROW | F_SEAL_WRITE) < 0)
        r = -errno;
    if (r == 0)
        *ret_fd = stk_fd_steal(&fd);
    return r;
}

int stk_tls_files_load(int fd, struct stk_tls_files *ret_files)
{
    struct stk_tls_files files = {0};
    struct stat st;

    if (fstat(fd, &st) < 0)
        return -errno;
    if (!S_ISREG(st.st_mode) || st.st_size > FILES_ALL_MAX + FILES_ONE_MAX)
        return -EINVAL;
    files.data = stk_mem_zalloc((size_t)st.st_size + 1);
    while (files.len < (size_t)st.st_size) {
        ssize_t n =
            pread(fd, files.data + files.len, (size_t)st.st_size - files.len, (off_t)files.len);

        if (n < 0 && errno == EINTR)
            continue;
        if (n <= 0) {
            int r = n < 0 ? -errno : -EIO;

            stk_tls_files_deinit(&files);
            return r;
        }
        files.len += (size_t)n;
    }
    *ret_files = files;
    return 0;
}
