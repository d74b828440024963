#include "traces/safetensors.h"

#include <errno.h>
#include <inttypes.h>
#include <jansson.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "traces/json_documents.h"

struct entry {
    const char *name; /* of the header's, which stays */
    struct moe_tensor view;
    uint64_t begin; /* in the data */
    uint64_t end;
};

struct moe_safetensors {
    FILE *file;
    char path[4096];
    json_t *header;
    struct entry *entries;
    size_t count;
    uint64_t data_begin;
    uint64_t data_bytes;
};

static const struct {
    const char *name;
    enum moe_tensor_type type;
} types[] = {
    { "U8", MOE_TENSOR_U8 },     { "I8", MOE_TENSOR_I8 },   { "BOOL", MOE_TENSOR_BOOL },
    { "U16", MOE_TENSOR_U16 },   { "I16", MOE_TENSOR_I16 }, { "F16", MOE_TENSOR_F16 },
    { "U32", MOE_TENSOR_U32 },   { "I32", MOE_TENSOR_I32 }, { "F32", MOE_TENSOR_F32 },
    { "U64", MOE_TENSOR_U64 },   { "I64", MOE_TENSOR_I64 }, { "F64", MOE_TENSOR_F64 },
    { "BF16", MOE_TENSOR_BF16 },
};

/* A list of whole numbers >= 0 into out[*count]; false when it is none or longer than most. */
static bool read_numbers(const json_t *list, uint64_t *out, size_t most, uint32_t *count)
{
    if (!json_is_array(list) || json_array_size(list) > most) {
        return false;
    }
    for (size_t i = 0; i < json_array_size(list); i++) {
        const json_t *value = json_array_get(list, i);
        if (!json_is_integer(value) || json_integer_value(value) < 0) {
            return false;
        }
        out[i] = (uint64_t) json_integer_value(value);
    }
    *count = (uint32_t) json_array_size(list);
    return true;
}

static enum moe_status read_entry(const struct moe_safetensors *file, const char *name,
                                  const json_t *value, struct entry *out, struct moe_error *err)
{
    const char *type = json_string_value(json_object_get(value, "dtype"));
    uint64_t offsets[2] = { 0, 0 };
    uint32_t count = 0;
    char place[4200];
    size_t known = 0;
    while (known < sizeof types / sizeof types[0] &&
           (type == NULL || strcmp(types[known].name, type) != 0)) {
        known++;
    }
    if (known == sizeof types / sizeof types[0]) {
        return moe_fail(err, MOE_PARSE, "%s: tensor %.80s: dtype %.20s is not read", file->path,
                        name, type == NULL ? "(missing)" : type);
    }
    *out = (struct entry){ .name = name, .view = { .type = types[known].type } };
    if (!read_numbers(json_object_get(value, "shape"), out->view.shape, MOE_TENSOR_DIMENSION_LIMIT,
                      &out->view.dimension_count) ||
        !read_numbers(json_object_get(value, "data_offsets"), offsets, 2, &count) || count != 2 ||
        offsets[0] > offsets[1] || offsets[1] > file->data_bytes) {
        return moe_fail(err, MOE_PARSE,
                        "%s: tensor %.80s: shape or data_offsets make no sense (at most %d "
                        "dimensions, within the file's %" PRIu64 " bytes of data)",
                        file->path, name, MOE_TENSOR_DIMENSION_LIMIT, file->data_bytes);
    }
    out->begin = offsets[0];
    out->end = offsets[1];
    moe_tensor_set_strides(&out->view, false);
    (void) snprintf(place, sizeof place, "%s: tensor %.80s", file->path, name);
    MOE_TRY(moe_tensor_check(&out->view, out->end - out->begin, place, err));
    return out->view.item_count * moe_tensor_item_bytes(out->view.type) == out->end - out->begin
               ? MOE_OK
               : moe_fail(err, MOE_PARSE,
                          "%s: its data has %" PRIu64 " bytes, its shape needs %" PRIu64, place,
                          out->end - out->begin,
                          out->view.item_count * moe_tensor_item_bytes(out->view.type));
}

static enum moe_status read_entries(struct moe_safetensors *file, struct moe_error *err)
{
    const char *name = NULL;
    json_t *value = NULL;
    file->entries = calloc(json_object_size(file->header) + 1, sizeof *file->entries);
    if (file->entries == NULL) {
        return moe_fail(err, MOE_LIMIT, "%s: no memory for %zu tensors", file->path,
                        json_object_size(file->header));
    }
    json_object_foreach(file->header, name, value)
    {
        if (strcmp(name, "__metadata__") != 0) {
            MOE_TRY(read_entry(file, name, value, &file->entries[file->count], err));
            file->count++;
        }
    }
    return MOE_OK;
}

static enum moe_status parse_header(struct moe_safetensors *file, const char *text, size_t length,
                                    struct moe_error *err)
{
    json_error_t reason = { 0 };
    size_t values = 0;
    for (size_t i = 0; i < length; i++) {
        values += text[i] == ',' || text[i] == '{' || text[i] == '[';
    }
    if (values > MOE_JSON_VALUE_LIMIT) {
        return moe_fail(err, MOE_RANGE, "%s: a header of %zu values; at most %d are read",
                        file->path, values, MOE_JSON_VALUE_LIMIT);
    }
    file->header = json_loadb(text, length, JSON_REJECT_DUPLICATES, &reason);
    if (!json_is_object(file->header)) {
        return moe_fail(err, MOE_PARSE, "%s: its header is no JSON object: %s", file->path,
                        file->header == NULL ? reason.text : "another value");
    }
    return read_entries(file, err);
}

static enum moe_status read_header(struct moe_safetensors *file, struct moe_error *err)
{
    unsigned char bytes[8];
    uint64_t length = 0;
    if (fseeko(file->file, 0, SEEK_END) != 0) {
        return moe_fail(err, MOE_IO, "%s: %s", file->path, strerror(errno));
    }
    const off_t size = ftello(file->file);
    rewind(file->file);
    if (size < 8 || fread(bytes, 1, sizeof bytes, file->file) != sizeof bytes) {
        return moe_fail(err, MOE_PARSE, "%s: shorter than the 8 bytes of a header's length",
                        file->path);
    }
    memcpy(&length, bytes, sizeof length);
    if (length > MOE_SAFETENSORS_HEADER_LIMIT || length > (uint64_t) size - 8) {
        return moe_fail(err, MOE_PARSE,
                        "%s: a header of %" PRIu64
                        " bytes; at most %d, and what the file of %" PRId64
                        " bytes has room for, are read",
                        file->path, length, MOE_SAFETENSORS_HEADER_LIMIT, (int64_t) size);
    }
    char *text = malloc((size_t) length + 1);
    if (text == NULL) {
        return moe_fail(err, MOE_LIMIT, "%s: no memory for its header", file->path);
    }
    file->data_begin = 8 + length;
    file->data_bytes = (uint64_t) size - file->data_begin;
    enum moe_status status = MOE_OK;
    if (fread(text, 1, (size_t) length, file->file) != (size_t) length) {
        status = moe_fail(err, MOE_IO, "%s: cannot be read: %s", file->path, strerror(errno));
    } else {
        status = parse_header(file, text, (size_t) length, err);
    }
    free(text);
    return status;
}

static enum moe_status open_stream(struct moe_safetensors **out, const char *path, FILE *stream,
                                   struct moe_error *err)
{
    struct moe_safetensors *file = calloc(1, sizeof *file);
    if (stream == NULL || file == NULL) {
        const int reason = errno;
        if (stream != NULL) {
            (void) fclose(stream);
        }
        free(file);
        return moe_fail(err, MOE_IO, "%s: %s", path, strerror(reason));
    }
    file->file = stream;
    (void) snprintf(file->path, sizeof file->path, "%s", path);
    const enum moe_status status = read_header(file, err);
    if (status != MOE_OK) {
        moe_safetensors_close(file);
        return status;
    }
    *out = file;
    return MOE_OK;
}

enum moe_status moe_safetensors_open(struct moe_safetensors **out, const char *path,
                                     struct moe_error *err)
{
    return open_stream(out, path, fopen(path, "rbe"), err);
}

enum moe_status moe_safetensors_open_memory(struct moe_safetensors **out, const char *name,
                                            const unsigned char *bytes, size_t size,
                                            struct moe_error *err)
{
    void *writable = NULL;
    memcpy(&writable, &bytes, sizeof writable); /* opened for reading only */
    return open_stream(out, name,
                       size == 0 ? fopen("/dev/null", "rbe") : fmemopen(writable, size, "rb"), err);
}

void moe_safetensors_close(struct moe_safetensors *file)
{
    if (file != NULL) {
        (void) fclose(file->file);
        json_decref(file->header);
        free(file->entries);
        free(file);
    }
}

size_t moe_safetensors_count(const struct moe_safetensors *file)
{
    return file->count;
}

const char *moe_safetensors_name(const struct moe_safetensors *file, size_t index)
{
    return file->entries[index].name;
}

enum moe_status moe_safetensors_read(const struct moe_safetensors *file, size_t index,
                                     struct moe_tensor *out, unsigned char **bytes,
                                     struct moe_error *err)
{
    const struct entry *entry = &file->entries[index];
    const size_t size = (size_t) (entry->end - entry->begin);
    unsigned char *read = malloc(size + 1);
    if (read == NULL) {
        return moe_fail(err, MOE_LIMIT, "%s: no memory for tensor %.80s", file->path, entry->name);
    }
    if (fseeko(file->file, (off_t) (file->data_begin + entry->begin), SEEK_SET) != 0 ||
        fread(read, 1, size, file->file) != size) {
        free(read);
        return moe_fail(err, MOE_IO, "%s: tensor %.80s cannot be read: %s", file->path, entry->name,
                        strerror(errno));
    }
    *out = entry->view;
    out->data = read;
    *bytes = read;
    return MOE_OK;
}
