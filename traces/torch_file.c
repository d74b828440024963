#include "traces/torch_file.h"

#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "traces/zip_file.h"

#define PICKLE_LIMIT_BYTES (UINT64_C(256) << 20)

struct moe_torch_file {
    struct moe_zip *zip;
    unsigned char *data; /* data.pkl, which the pickle points into */
    struct moe_pickle *pickle;
    char folder[256]; /* inside the zip file, with the last slash */
};

/* data.pkl lies in a folder that has the file's name. */
static int64_t find_pickle(struct moe_torch_file *file)
{
    static const char wanted[] = "/data.pkl";
    for (uint64_t i = 0; i < moe_zip_member_count(file->zip); i++) {
        const char *name = moe_zip_member_name(file->zip, i);
        const char *slash = name == NULL ? NULL : strchr(name, '/');
        if (slash != NULL && strcmp(slash, wanted) == 0 &&
            (size_t) (slash + 1 - name) < sizeof file->folder) {
            memcpy(file->folder, name, (size_t) (slash + 1 - name));
            return (int64_t) i;
        }
    }
    return -1;
}

static enum moe_status check_order(const struct moe_torch_file *file, struct moe_error *err)
{
    char name[300];
    unsigned char *bytes = NULL;
    size_t size = 0;
    (void) snprintf(name, sizeof name, "%sbyteorder", file->folder);
    const int64_t member = moe_zip_find(file->zip, name);
    if (member < 0) {
        return MOE_OK; /* before torch 2.1 */
    }
    MOE_TRY(moe_zip_read(file->zip, (uint64_t) member, 64, &bytes, &size, err));
    const bool little = size >= 6 && memcmp(bytes, "little", 6) == 0;
    free(bytes);
    return little ? MOE_OK
                  : moe_fail(err, MOE_PARSE, "%s: its storages are not little-endian",
                             moe_zip_path(file->zip));
}

static enum moe_status load(struct moe_torch_file *file, struct moe_error *err)
{
    char name[4200];
    size_t size = 0;
    const int64_t member = find_pickle(file);
    if (member < 0) {
        return moe_fail(err, MOE_PARSE, "%s: no member data.pkl: not written by torch.save",
                        moe_zip_path(file->zip));
    }
    MOE_TRY(check_order(file, err));
    MOE_TRY(
        moe_zip_read(file->zip, (uint64_t) member, PICKLE_LIMIT_BYTES, &file->data, &size, err));
    (void) snprintf(name, sizeof name, "%s: data.pkl", moe_zip_path(file->zip));
    return moe_pickle_parse(&file->pickle, name, file->data, size, err);
}

static enum moe_status open_with(struct moe_torch_file **out, const char *path, const void *bytes,
                                 size_t size, struct moe_error *err)
{
    struct moe_torch_file *file = calloc(1, sizeof *file);
    if (file == NULL) {
        return moe_fail(err, MOE_LIMIT, "%s: no memory to read it", path);
    }
    enum moe_status status = bytes == NULL
                                 ? moe_zip_open(&file->zip, path, err)
                                 : moe_zip_open_memory(&file->zip, path, bytes, size, err);
    if (status == MOE_OK) {
        status = load(file, err);
    }
    if (status != MOE_OK) {
        moe_torch_file_close(file);
        return status;
    }
    *out = file;
    return MOE_OK;
}

enum moe_status moe_torch_file_open(struct moe_torch_file **out, const char *path,
                                    struct moe_error *err)
{
    return open_with(out, path, NULL, 0, err);
}

enum moe_status moe_torch_file_open_memory(struct moe_torch_file **out, const char *name,
                                           const void *bytes, size_t size, struct moe_error *err)
{
    return open_with(out, name, bytes, size, err);
}

void moe_torch_file_close(struct moe_torch_file *file)
{
    if (file != NULL) {
        moe_pickle_close(file->pickle);
        free(file->data);
        moe_zip_close(file->zip);
        free(file);
    }
}

const struct moe_pickle_value *moe_torch_file_root(const struct moe_torch_file *file)
{
    return moe_pickle_root(file->pickle);
}

enum moe_status moe_torch_file_tensor(const struct moe_torch_file *file,
                                      const struct moe_pickle_value *value, const char *what,
                                      struct moe_tensor *out, unsigned char **bytes,
                                      struct moe_error *err)
{
    const char *path = moe_zip_path(file->zip);
    char name[400];
    size_t size = 0;
    if (value == NULL || value->kind != MOE_PICKLE_TENSOR) {
        return moe_fail(err, MOE_PARSE, "%s: %s is %s; a tensor is expected", path, what,
                        moe_pickle_kind_text(value));
    }
    const struct moe_pickle_tensor *tensor = value->tensor;
    const struct moe_pickle_storage *storage = tensor->storage;
    const uint64_t item = moe_tensor_item_bytes(storage->type);
    (void) snprintf(name, sizeof name, "%sdata/%s", file->folder, storage->key);
    const int64_t member = moe_zip_find(file->zip, name);
    if (member < 0) {
        return moe_fail(err, MOE_PARSE, "%s: %s: its storage, member %s, is missing", path, what,
                        name);
    }
    unsigned char *read = NULL;
    MOE_TRY(moe_zip_read(file->zip, (uint64_t) member, UINT64_MAX, &read, &size, err));
    struct moe_tensor view = tensor->view;
    if (storage->item_count > size / item) {
        free(read);
        return moe_fail(err, MOE_PARSE,
                        "%s: %s: its storage has %zu bytes, too few for %" PRIu64 " items", path,
                        what, size, storage->item_count);
    }
    char place[4400];
    (void) snprintf(place, sizeof place, "%s: %s", path, what);
    const enum moe_status status =
        moe_tensor_check(&view, (storage->item_count - tensor->offset) * item, place, err);
    if (status != MOE_OK) {
        free(read);
        return status;
    }
    view.data = read + tensor->offset * item;
    *out = view;
    *bytes = read;
    return MOE_OK;
}
