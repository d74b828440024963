/*
 * Export form "npy": the folder of arrays that the import format "numpy" reads (import_numpy.c):
 * experts.npy, prompt_len.npy, output_len.npy, domain.npy, meta.json. Routes only: arrival times
 * are refused, for there is no array for them, and a placement in force stays behind.
 */
#include <errno.h>
#include <inttypes.h>
#include <jansson.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#include "sim/base/output_file.h"
#include "traces/export.h"

enum { PIECE_IDS = 1 << 18, HEADER_BYTES = 128, FILE_COUNT = 5 };

_Static_assert(PIECE_IDS >= MOE_TRACE_LAYER_LIMIT * MOE_TRACE_TOP_K_LIMIT, "a piece holds a row");

enum { EXPERTS, PROMPT_LEN, OUTPUT_LEN, DOMAIN, META };

static const char *const names[FILE_COUNT] = { "experts.npy", "prompt_len.npy", "output_len.npy",
                                               "domain.npy", "meta.json" };

/* The folder being written; files are committed together at the end. */
struct folder {
    struct moe_trace *trace;
    bool is_wide; /* ids of 4 bytes, for unknown ones and beyond u1 */
    struct moe_output_file files[FILE_COUNT];
    uint16_t *piece;      /* [PIECE_IDS]; owned */
    unsigned char *bytes; /* [4 * PIECE_IDS]; owned */
};

/* Header of format version 1.0: magic, length, a dict padded to 128 bytes in all. */
static void print_header(FILE *out, const char *descr, const char *shape)
{
    char text[HEADER_BYTES - 10 + 1];
    const int used =
        snprintf(text, sizeof text, "{'descr': '%s', 'fortran_order': False, 'shape': (%s), }",
                 descr, shape);
    memset(text + used, ' ', sizeof text - 1 - (size_t) used);
    text[sizeof text - 2] = '\n';
    (void) fwrite("\x93NUMPY\x01\x00\x76\x00", 1, 10, out);
    (void) fwrite(text, 1, sizeof text - 1, out);
}

/* Whether there is an unknown choice, or an expert that takes two bytes. */
static enum moe_status find_width(struct folder *folder, struct moe_error *err)
{
    const struct moe_trace_model *model = moe_trace_model(folder->trace);
    const uint64_t ids = (uint64_t) model->layer_count * model->top_k;
    const uint64_t row_count = moe_trace_row_count(folder->trace);
    const uint64_t most = PIECE_IDS / ids;
    folder->is_wide = model->expert_count > 256;
    for (uint64_t row = 0; row < row_count && !folder->is_wide;) {
        const uint64_t rows = row_count - row < most ? row_count - row : most;
        MOE_TRY(moe_trace_read(folder->trace, row, rows, folder->piece, err));
        for (uint64_t i = 0; i < rows * ids; i++) {
            folder->is_wide = folder->is_wide || folder->piece[i] == MOE_EXPERT_UNKNOWN;
        }
        row += rows;
    }
    return MOE_OK;
}

static enum moe_status write_experts(struct folder *folder, struct moe_error *err)
{
    const struct moe_trace_model *model = moe_trace_model(folder->trace);
    const uint64_t ids = (uint64_t) model->layer_count * model->top_k;
    const uint64_t row_count = moe_trace_row_count(folder->trace);
    const uint64_t most = PIECE_IDS / ids;
    FILE *out = folder->files[EXPERTS].stream;
    char shape[80];
    (void) snprintf(shape, sizeof shape, "%" PRIu64 ", %u, %u", row_count, model->layer_count,
                    model->top_k);
    print_header(out, folder->is_wide ? "<i4" : "|u1", shape);
    for (uint64_t row = 0; row < row_count;) {
        const uint64_t rows = row_count - row < most ? row_count - row : most;
        MOE_TRY(moe_trace_read(folder->trace, row, rows, folder->piece, err));
        for (uint64_t i = 0; i < rows * ids; i++) {
            const uint16_t id = folder->piece[i];
            if (folder->is_wide) {
                const int32_t value = id == MOE_EXPERT_UNKNOWN ? -1 : id;
                memcpy(folder->bytes + 4 * i, &value, 4);
            } else {
                folder->bytes[i] = (unsigned char) id;
            }
        }
        (void) fwrite(folder->bytes, folder->is_wide ? 4 : 1, (size_t) (rows * ids), out);
        row += rows;
    }
    return MOE_OK;
}

static void write_requests(struct folder *folder)
{
    const struct moe_trace_request *requests = moe_trace_requests(folder->trace);
    const uint64_t count = moe_trace_request_count(folder->trace);
    char shape[32];
    (void) snprintf(shape, sizeof shape, "%" PRIu64 ",", count);
    for (int part = PROMPT_LEN; part <= DOMAIN; part++) {
        FILE *out = folder->files[part].stream;
        print_header(out, "<i8", shape);
        for (uint64_t i = 0; i < count; i++) {
            const int64_t value = part == PROMPT_LEN   ? requests[i].prompt_tokens
                                  : part == OUTPUT_LEN ? requests[i].output_tokens
                                                       : requests[i].domain;
            (void) fwrite(&value, sizeof value, 1, out);
        }
    }
}

static enum moe_status write_meta(struct folder *folder, struct moe_error *err)
{
    const struct moe_trace_model *model = moe_trace_model(folder->trace);
    json_t *domains = json_array();
    json_t *meta = NULL;
    for (uint32_t i = 0; domains != NULL && i < model->domain_count; i++) {
        if (json_array_append_new(domains, json_string(model->domains[i])) != 0) {
            json_decref(domains);
            domains = NULL;
        }
    }
    if (domains != NULL) {
        meta = json_pack("{s:s, s:i, s:i, s:i, s:i, s:i, s:o}", "model", model->name, "experts",
                         (int) model->expert_count, "top_k", (int) model->top_k, "moe_layers",
                         (int) model->layer_count, "groups", (int) model->group_count, "top_groups",
                         (int) model->group_limit, "domains", domains);
    }
    const struct {
        const char *key;
        uint32_t value;
    } sizes[] = { { "hidden", model->hidden_size },
                  { "expert_ff", model->expert_size },
                  { "shared_ff", model->shared_size } };
    bool failed = meta == NULL;
    for (size_t i = 0; !failed && i < sizeof sizes / sizeof sizes[0]; i++) {
        failed = sizes[i].value > 0 && /* 0: not recorded */
                 json_object_set_new(meta, sizes[i].key, json_integer(sizes[i].value)) != 0;
    }
    failed = failed || json_dumpf(meta, folder->files[META].stream, JSON_INDENT(1)) != 0;
    json_decref(meta);
    return failed ? moe_fail(err, MOE_IO, "%s: meta.json cannot be written",
                             moe_trace_path(folder->trace))
                  : MOE_OK;
}

static enum moe_status open_files(struct folder *folder, const char *path, bool overwrite,
                                  struct moe_error *err)
{
    for (int i = 0; i < FILE_COUNT; i++) {
        char name[4096];
        if (snprintf(name, sizeof name, "%s/%s", path, names[i]) >= (int) sizeof name) {
            return moe_fail(err, MOE_RANGE, "%.200s: a path of more than %zu bytes", path,
                            sizeof name - 1);
        }
        MOE_TRY(moe_output_file_open(&folder->files[i], name, overwrite, err));
    }
    return MOE_OK;
}

static enum moe_status write_all(struct folder *folder, const char *path, bool overwrite,
                                 struct moe_error *err)
{
    folder->piece = malloc(PIECE_IDS * sizeof *folder->piece);
    folder->bytes = malloc((size_t) 4 * PIECE_IDS);
    if (folder->piece == NULL || folder->bytes == NULL) {
        return moe_fail(err, MOE_LIMIT, "no memory to export");
    }
    MOE_TRY(open_files(folder, path, overwrite, err));
    MOE_TRY(find_width(folder, err));
    MOE_TRY(write_experts(folder, err));
    write_requests(folder);
    MOE_TRY(write_meta(folder, err));
    for (int i = 0; i < FILE_COUNT; i++) {
        MOE_TRY(moe_output_file_commit(&folder->files[i], err));
    }
    return MOE_OK;
}

static enum moe_status write_folder(struct moe_trace *trace, const char *path, bool overwrite,
                                    struct moe_error *err)
{
    struct folder folder = { .trace = trace };
    if (moe_trace_model(trace)->content != MOE_TRACE_ROUTES) {
        return moe_fail(err, MOE_RANGE, "%s: holds %s; npy takes routes, jsonl everything",
                        moe_trace_path(trace),
                        moe_trace_content_text(moe_trace_model(trace)->content));
    }
    for (uint64_t i = 0; i < moe_trace_request_count(trace); i++) {
        if (moe_trace_requests(trace)[i].arrival_ns >= 0) {
            return moe_fail(err, MOE_RANGE,
                            "%s: request %" PRIu64
                            " has an arrival time, which npy does not take; jsonl does",
                            moe_trace_path(trace), i);
        }
    }
    const bool is_new = mkdir(path, 0777) == 0;
    if (!is_new && errno != EEXIST) {
        return moe_fail(err, MOE_IO, "%.300s: %s", path, strerror(errno));
    }
    const enum moe_status status = write_all(&folder, path, overwrite, err);
    for (int i = 0; i < FILE_COUNT; i++) {
        moe_output_file_discard(&folder.files[i]);
    }
    if (status != MOE_OK && is_new) {
        (void) rmdir(path); /* stays when a file was moved there already */
    }
    free(folder.piece);
    free(folder.bytes);
    return status;
}

const struct moe_export_format moe_export_npy = {
    .name = "npy",
    .summary =
        "a folder of experts.npy, prompt_len.npy, ... without placement; import format numpy",
    .write = write_folder,
};
