#include "traces/import_input.h"

#include <ctype.h>
#include <dirent.h>
#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

static enum moe_status read_head(struct moe_import_file *file, struct moe_error *err)
{
    const int handle = open(file->path, O_RDONLY | O_CLOEXEC);
    if (handle < 0) {
        return moe_fail(err, MOE_IO, "%s: %s", file->path, strerror(errno));
    }
    const ssize_t got = read(handle, file->head, MOE_IMPORT_HEAD_BYTES);
    const int reason = errno;
    (void) close(handle);
    if (got < 0) {
        return moe_fail(err, MOE_IO, "%s: %s", file->path, strerror(reason));
    }
    file->head_bytes = (size_t) got;
    return MOE_OK;
}

/* name_at: where in path the name begins under which the file is remembered. */
static enum moe_status add_file(struct moe_import_input *input, const char *path, size_t name_at,
                                uint64_t size_bytes, struct moe_error *err)
{
    const size_t count = input->file_count;
    if (count == MOE_IMPORT_FILE_LIMIT) {
        return moe_fail(err, MOE_RANGE, "%s: more than the %d files that one import may have", path,
                        MOE_IMPORT_FILE_LIMIT);
    }
    if ((count & (count - 1)) == 0) {
        const size_t room = count == 0 ? 1 : 2 * count;
        struct moe_import_file *files = realloc(input->files, room * sizeof *files);
        if (files == NULL) {
            return moe_fail(err, MOE_LIMIT, "no memory for %zu files", room);
        }
        input->files = files;
    }
    struct moe_import_file *file = &input->files[count];
    memset(file, 0, sizeof *file);
    file->path = strdup(path);
    if (file->path == NULL) {
        return moe_fail(err, MOE_LIMIT, "no memory for the path of a file");
    }
    file->name = file->path + name_at;
    file->size_bytes = size_bytes;
    input->file_count++;
    return read_head(file, err);
}

static int is_visible(const struct dirent *entry)
{
    return entry->d_name[0] != '.';
}

static int by_bytes(const struct dirent **a, const struct dirent **b)
{
    return strcmp((*a)->d_name, (*b)->d_name);
}

static enum moe_status add_path(struct moe_import_input *input, const char *path, size_t name_at,
                                int depth, struct moe_error *err);

static enum moe_status add_folder(struct moe_import_input *input, const char *path, size_t name_at,
                                  int depth, struct moe_error *err)
{
    struct dirent **entries = NULL;
    enum moe_status status = MOE_OK;
    if (depth > MOE_IMPORT_DEPTH_LIMIT) {
        return moe_fail(err, MOE_RANGE, "%s: more than %d folders deep", path,
                        MOE_IMPORT_DEPTH_LIMIT);
    }
    const int count = scandir(path, &entries, is_visible, by_bytes);
    if (count < 0) {
        return moe_fail(err, MOE_IO, "%s: %s", path, strerror(errno));
    }
    for (int i = 0; i < count; i++) {
        char inner[4096];
        if (status != MOE_OK) {
            free(entries[i]);
            continue;
        }
        if (snprintf(inner, sizeof inner, "%s/%s", path, entries[i]->d_name) >=
            (int) sizeof inner) {
            status = moe_fail(err, MOE_RANGE, "%s: the path is longer than %zu bytes", path,
                              sizeof inner - 1);
        } else {
            status = add_path(input, inner, name_at, depth, err);
        }
        free(entries[i]);
    }
    free(entries);
    return status;
}

/* depth 0: as given by the user; then anything but a file or a folder is refused. */
static enum moe_status add_path(struct moe_import_input *input, const char *path, size_t name_at,
                                int depth, struct moe_error *err)
{
    struct stat info;
    if (stat(path, &info) != 0) {
        return depth == 0
                   ? moe_fail(err, MOE_IO, "%s: no such file or folder, or not readable", path)
                   : MOE_OK;
    }
    if (S_ISDIR(info.st_mode)) {
        return add_folder(input, path, depth == 0 ? strlen(path) + 1 : name_at, depth + 1, err);
    }
    if (!S_ISREG(info.st_mode)) {
        return depth == 0 ? moe_fail(err, MOE_RANGE, "%s: neither a file nor a folder", path)
                          : MOE_OK;
    }
    const char *slash = strrchr(path, '/');
    const size_t last = slash == NULL ? 0 : (size_t) (slash + 1 - path);
    return add_file(input, path, depth == 0 ? last : name_at, (uint64_t) info.st_size, err);
}

enum moe_status moe_import_input_open(struct moe_import_input *input, const char *const *paths,
                                      size_t path_count, struct moe_error *err)
{
    *input = (struct moe_import_input){ .paths = paths, .path_count = path_count };
    for (size_t i = 0; i < path_count; i++) {
        const enum moe_status status = add_path(input, paths[i], 0, 0, err);
        if (status != MOE_OK) {
            moe_import_input_finish(input);
            return status;
        }
    }
    return MOE_OK;
}

void moe_import_input_finish(struct moe_import_input *input)
{
    for (size_t i = 0; i < input->file_count; i++) {
        free(input->files[i].path);
    }
    free(input->files);
    input->files = NULL;
    input->file_count = 0;
}

bool moe_import_file_begins(const struct moe_import_file *file, const char *text)
{
    const size_t length = strlen(text);
    return file->head_bytes >= length && memcmp(file->head, text, length) == 0;
}

bool moe_import_file_is_json(const struct moe_import_file *file)
{
    size_t i = 0;
    while (i < file->head_bytes && isspace(file->head[i])) {
        i++;
    }
    return i < file->head_bytes && (file->head[i] == '{' || file->head[i] == '[');
}

bool moe_import_file_has(const struct moe_import_file *file, const char *text)
{
    const size_t length = strlen(text);
    for (size_t i = 0; i + length <= file->head_bytes; i++) {
        if (memcmp(file->head + i, text, length) == 0) {
            return true;
        }
    }
    return false;
}

bool moe_import_file_ends(const struct moe_import_file *file, const char *suffix)
{
    const size_t length = strlen(file->name);
    const size_t wanted = strlen(suffix);
    return length >= wanted && strcmp(file->name + length - wanted, suffix) == 0;
}

int32_t moe_import_file_number(const char *name, const char *before, const char *after)
{
    const size_t length = strlen(name);
    const size_t tail = strlen(after);
    const size_t head = strlen(before);
    if (length < tail || strcmp(name + length - tail, after) != 0) {
        return -1;
    }
    size_t digits = length - tail;
    int64_t value = 0;
    int64_t weight = 1;
    size_t count = 0;
    while (digits > 0 && isdigit((unsigned char) name[digits - 1]) && count < 9) {
        value += weight * (name[digits - 1] - '0');
        weight *= 10;
        digits--;
        count++;
    }
    return count == 0 || digits < head || memcmp(name + digits - head, before, head) != 0
               ? -1
               : (int32_t) value;
}

enum moe_status moe_import_check_ranks(const int32_t *ranks, size_t count, const char *folder,
                                       struct moe_error *err)
{
    for (size_t rank = 0; rank < count; rank++) {
        size_t found = 0;
        for (size_t i = 0; i < count; i++) {
            found += ranks[i] == (int32_t) rank;
        }
        if (found > 1) {
            return moe_fail(err, MOE_PARSE,
                            "%s: two files of rank %zu; one for each rank makes a dump, and "
                            "`moesim trace merge` joins traces of several dumps",
                            folder, rank);
        }
        if (found == 0) {
            return moe_fail(err, MOE_PARSE,
                            "%s: the file of rank %zu is missing; give those of all ranks together",
                            folder, rank);
        }
    }
    return MOE_OK;
}
