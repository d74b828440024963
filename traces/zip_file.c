#include "traces/zip_file.h"

#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <zip.h>

struct moe_zip {
    zip_t *archive;
    char path[4096];
};

static enum moe_status open_source(struct moe_zip **out, const char *name, zip_source_t *source,
                                   zip_error_t *reason, struct moe_error *err)
{
    struct moe_zip *zip = calloc(1, sizeof *zip);
    if (source == NULL || zip == NULL) {
        zip_source_free(source);
        free(zip);
        return moe_fail(err, MOE_LIMIT, "%s: no memory to read it", name);
    }
    (void) snprintf(zip->path, sizeof zip->path, "%s", name);
    zip->archive = zip_open_from_source(source, ZIP_RDONLY, reason);
    if (zip->archive == NULL) {
        const int code = zip_error_code_zip(reason);
        const enum moe_status status =
            code == ZIP_ER_OPEN || code == ZIP_ER_READ || code == ZIP_ER_NOENT ? MOE_IO
            : code == ZIP_ER_MEMORY                                            ? MOE_LIMIT
                                                                               : MOE_PARSE;
        zip_source_free(source);
        free(zip);
        return moe_fail(err, status, "%s: not a readable zip file: %s", name,
                        zip_error_strerror(reason));
    }
    *out = zip;
    return MOE_OK;
}

enum moe_status moe_zip_open(struct moe_zip **out, const char *path, struct moe_error *err)
{
    zip_error_t reason;
    zip_error_init(&reason);
    zip_source_t *source = zip_source_file_create(path, 0, -1, &reason);
    const enum moe_status status = open_source(out, path, source, &reason, err);
    zip_error_fini(&reason);
    return status;
}

enum moe_status moe_zip_open_memory(struct moe_zip **out, const char *name, const void *bytes,
                                    size_t size, struct moe_error *err)
{
    zip_error_t reason;
    zip_error_init(&reason);
    zip_source_t *source = zip_source_buffer_create(bytes, size, 0, &reason);
    const enum moe_status status = open_source(out, name, source, &reason, err);
    zip_error_fini(&reason);
    return status;
}

void moe_zip_close(struct moe_zip *zip)
{
    if (zip != NULL) {
        zip_discard(zip->archive); /* nothing was changed */
        free(zip);
    }
}

const char *moe_zip_path(const struct moe_zip *zip)
{
    return zip->path;
}

uint64_t moe_zip_member_count(const struct moe_zip *zip)
{
    const zip_int64_t count = zip_get_num_entries(zip->archive, 0);
    return count < 0 ? 0 : (uint64_t) count;
}

const char *moe_zip_member_name(const struct moe_zip *zip, uint64_t index)
{
    return zip_get_name(zip->archive, index, ZIP_FL_ENC_RAW);
}

int64_t moe_zip_find(const struct moe_zip *zip, const char *name)
{
    return zip_name_locate(zip->archive, name, ZIP_FL_ENC_RAW);
}

static enum moe_status check_member(const struct moe_zip *zip, uint64_t index, uint64_t limit,
                                    zip_stat_t *info, struct moe_error *err)
{
    const zip_uint64_t needed =
        ZIP_STAT_SIZE | ZIP_STAT_COMP_SIZE | ZIP_STAT_COMP_METHOD | ZIP_STAT_ENCRYPTION_METHOD;
    zip_stat_init(info);
    if (zip_stat_index(zip->archive, index, 0, info) != 0 || (info->valid & needed) != needed) {
        return moe_fail(err, MOE_PARSE, "%s: member %" PRIu64 " cannot be found: %s", zip->path,
                        index, zip_strerror(zip->archive));
    }
    const char *name = (info->valid & ZIP_STAT_NAME) != 0 ? info->name : "?";
    if (info->encryption_method != ZIP_EM_NONE ||
        (info->comp_method != ZIP_CM_STORE && info->comp_method != ZIP_CM_DEFLATE)) {
        return moe_fail(
            err, MOE_PARSE,
            "%s: member %.200s is encrypted or packed by method %u; stored and deflated "
            "ones are read",
            zip->path, name, info->comp_method);
    }
    limit = limit < MOE_ZIP_MEMBER_LIMIT ? limit : MOE_ZIP_MEMBER_LIMIT;
    if (info->size > limit) {
        return moe_fail(err, MOE_PARSE,
                        "%s: member %.200s has %" PRIu64 " bytes; at most %" PRIu64 " are read",
                        zip->path, name, (uint64_t) info->size, limit);
    }
    if (info->size > MOE_ZIP_RATIO_FREE_BYTES &&
        info->size / MOE_ZIP_RATIO_LIMIT > info->comp_size) {
        return moe_fail(err, MOE_PARSE,
                        "%s: member %.200s would unpack from %" PRIu64 " to %" PRIu64
                        " bytes; more "
                        "than %d times is no data",
                        zip->path, name, (uint64_t) info->comp_size, (uint64_t) info->size,
                        MOE_ZIP_RATIO_LIMIT);
    }
    return MOE_OK;
}

/* Grows with what really comes, so that a size that is only claimed costs nothing. */
static enum moe_status read_all(const struct moe_zip *zip, zip_file_t *file, uint64_t size,
                                unsigned char **out, struct moe_error *err)
{
    enum { PIECE = 1 << 20 };
    unsigned char *bytes = malloc(1);
    uint64_t done = 0;
    uint64_t room = 1;
    while (bytes != NULL) {
        if (done == room && done < size) {
            room = 2 * room < PIECE ? PIECE : 2 * room;
            room = room < size ? room : size;
            unsigned char *more = realloc(bytes, room);
            if (more == NULL) {
                free(bytes);
                return moe_fail(err, MOE_LIMIT, "%s: no memory for a member of %" PRIu64 " bytes",
                                zip->path, size);
            }
            bytes = more;
        }
        /* At the end one byte more is asked for, which is when libzip checks the sum. */
        unsigned char extra = 0;
        const zip_int64_t got =
            done == size ? zip_fread(file, &extra, 1) : zip_fread(file, bytes + done, room - done);
        if (got < 0 || (got == 0 && done < size) || (got > 0 && done == size)) {
            free(bytes);
            return moe_fail(err, MOE_PARSE,
                            "%s: a member is damaged after %" PRIu64 " of %" PRIu64 " bytes: %s",
                            zip->path, done, size,
                            got < 0 ? zip_file_strerror(file) : "not as long as it says");
        }
        if (done == size) {
            *out = bytes;
            return MOE_OK;
        }
        done += (uint64_t) got;
    }
    return moe_fail(err, MOE_LIMIT, "%s: no memory to read it", zip->path);
}

enum moe_status moe_zip_read(const struct moe_zip *zip, uint64_t index, uint64_t limit,
                             unsigned char **bytes, size_t *size, struct moe_error *err)
{
    zip_stat_t info;
    MOE_TRY(check_member(zip, index, limit, &info, err));
    zip_file_t *file = zip_fopen_index(zip->archive, index, 0);
    if (file == NULL) {
        return moe_fail(err, MOE_PARSE, "%s: member %" PRIu64 " cannot be read: %s", zip->path,
                        index, zip_strerror(zip->archive));
    }
    const enum moe_status status = read_all(zip, file, info.size, bytes, err);
    (void) zip_fclose(file);
    if (status == MOE_OK) {
        *size = (size_t) info.size;
    }
    return status;
}
