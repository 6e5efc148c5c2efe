/*
 * Replays inputs through a fuzz target with an ordinary main(), in every build and with any
 * compiler: the corpora are tests. Arguments are files, or folders of files. Each input
 * lies in a block of exactly its size, so that a sanitizer sees the first byte read beyond it.
 */
#include "fuzz.h"

#include <dirent.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>

static unsigned replay_file(const char *path)
{
    FILE *file = fopen(path, "rb");
    uint8_t *bytes;
    struct stat st;
    size_t size;

    if (!file || fstat(fileno(file), &st) != 0) {
        perror(path);
        exit(1);
    }
    size = (size_t)st.st_size;
    bytes = malloc(size ? size : 1);
    if (!bytes || fread(bytes, 1, size, file) != size) {
        (void)fprintf(stderr, "%s: cannot be read\n", path);
        exit(1);
    }
    (void)fclose(file);
    (void)LLVMFuzzerTestOneInput(bytes, size);
    free(bytes);
    return 1;
}

static unsigned replay_folder(const char *path)
{
    unsigned count = 0;
    struct dirent *entry;
    DIR *dir = opendir(path);

    if (!dir)
        return replay_file(path);
    while ((entry = readdir(dir)) != NULL) {
        char name[4096];

        if (*entry->d_name == '.')
            continue;
        (void)snprintf(name, sizeof(name), "%s/%s", path, entry->d_name);
        count += replay_file(name);
    }
    (void)closedir(dir);
    return count;
}

int main(int argc, char **argv)
{
    unsigned count = 0;

    for (int i = 1; i < argc; i++)
        count += replay_folder(argv[i]);
    (void)printf("%u inputs\n", count);
    return count > 0 ? 0 : 1;
}
