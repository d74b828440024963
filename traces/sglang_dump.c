#include "traces/sglang_dump.h"

#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

static bool is_torch(const struct moe_import_file *file)
{
    return moe_import_file_begins(file, "PK\003\004") && moe_import_file_ends(file, ".pt");
}

static const struct moe_pickle_value *first_record(const struct moe_pickle_value *root)
{
    const struct moe_pickle_value *records = moe_pickle_get(root, "records");
    return records == NULL || records->kind != MOE_PICKLE_LIST || records->list->count == 0
               ? NULL
               : &records->list->items[0];
}

bool moe_sglang_recognise(const struct moe_import_input *input, const char *top_key,
                          const char *record_key)
{
    for (size_t i = 0; i < input->file_count; i++) {
        struct moe_torch_file *file = NULL;
        if (!is_torch(&input->files[i]) ||
            moe_torch_file_open(&file, input->files[i].path, NULL) != MOE_OK) {
            continue;
        }
        const struct moe_pickle_value *root = moe_torch_file_root(file);
        const bool found =
            moe_pickle_get(root, top_key) != NULL &&
            (record_key == NULL || moe_pickle_get(first_record(root), record_key) != NULL);
        moe_torch_file_close(file);
        return found;
    }
    return false;
}

bool moe_sglang_is_unreadable(const struct moe_import_input *input)
{
    for (size_t i = 0; i < input->file_count; i++) {
        struct moe_torch_file *file = NULL;
        if (is_torch(&input->files[i])) {
            const bool opened = moe_torch_file_open(&file, input->files[i].path, NULL) == MOE_OK;
            moe_torch_file_close(file);
            return !opened;
        }
    }
    return false;
}

/* The map of one file: the same in all of them. */
static enum moe_status read_map(struct moe_sglang_dump *dump, const struct moe_torch_file *file,
                                const char *path, struct moe_error *err)
{
    static const char key[] = "last_physical_to_logical_map";
    struct moe_tensor tensor;
    unsigned char *bytes = NULL;
    MOE_TRY(moe_torch_file_tensor(file, moe_pickle_get(moe_torch_file_root(file), key), key,
                                  &tensor, &bytes, err));
    char shape[100];
    if (tensor.dimension_count != 2 || tensor.item_count == 0 ||
        tensor.shape[0] > MOE_TRACE_LAYER_LIMIT || tensor.shape[1] > MOE_TRACE_EXPERT_LIMIT ||
        (dump->map != NULL &&
         (tensor.shape[0] != dump->layer_count || tensor.shape[1] != dump->slot_count))) {
        free(bytes);
        return moe_fail(err, MOE_PARSE,
                        "%s: %s is %s; [layer][physical expert] is expected, the same in all ranks",
                        path, key, moe_tensor_shape_text(&tensor, shape, sizeof shape));
    }
    uint16_t *map = malloc(tensor.item_count * sizeof *map);
    const uint64_t good = map == NULL ? 0 : moe_tensor_experts(&tensor, 0, tensor.item_count, map);
    free(bytes);
    for (uint64_t i = 0; i < tensor.item_count; i++) {
        if (map == NULL || i >= good || map[i] == MOE_EXPERT_UNKNOWN ||
            (dump->map != NULL && dump->map[i] != map[i])) {
            free(map);
            return moe_fail(err, map == NULL ? MOE_LIMIT : MOE_PARSE,
                            "%s: %s[%" PRIu64 "][%" PRIu64 "] is no logical expert, or another one "
                            "than in rank 0",
                            path, key, i / tensor.shape[1], i % tensor.shape[1]);
        }
        dump->expert_count = map[i] >= dump->expert_count ? map[i] + 1U : dump->expert_count;
    }
    dump->layer_count = (uint32_t) tensor.shape[0];
    dump->slot_count = (uint32_t) tensor.shape[1];
    free(dump->map);
    dump->map = map;
    return MOE_OK;
}

static enum moe_status record_rank(const struct moe_torch_file *file, const char *path,
                                   const struct moe_pickle_list **records, int32_t *rank,
                                   struct moe_error *err)
{
    const struct moe_pickle_value *value = moe_pickle_get(moe_torch_file_root(file), "records");
    if (value == NULL || value->kind != MOE_PICKLE_LIST || value->list->count == 0) {
        return moe_fail(
            err, MOE_PARSE, "%s: records is %s; a list of at least one is expected", path,
            value != NULL && value->kind == MOE_PICKLE_LIST ? "empty"
                                                            : moe_pickle_kind_text(value));
    }
    *records = value->list;
    for (size_t i = 0; i < value->list->count; i++) {
        const struct moe_pickle_value *own = moe_pickle_get(&value->list->items[i], "rank");
        if (own == NULL || own->kind != MOE_PICKLE_INT || own->integer < 0 ||
            own->integer >= MOE_TRACE_RANK_LIMIT || (i > 0 && own->integer != *rank)) {
            return moe_fail(err, MOE_PARSE,
                            "%s: record %zu: rank is %s; a number from 0 is expected, the same in "
                            "all records of a file",
                            path, i, moe_pickle_kind_text(own));
        }
        *rank = (int32_t) own->integer;
    }
    return MOE_OK;
}

/* A rank's file that lies beside those given: NAME_0.pt was given, NAME_1.pt was not. */
static enum moe_status check_siblings(const char *path, size_t rank_count, struct moe_error *err)
{
    const char *under = strrchr(path, '_');
    char sibling[4096];
    if (under == NULL || snprintf(sibling, sizeof sibling, "%.*s_%zu.pt", (int) (under - path),
                                  path, rank_count) >= (int) sizeof sibling) {
        return MOE_OK;
    }
    return access(sibling, F_OK) != 0
               ? MOE_OK
               : moe_fail(
                     err, MOE_PARSE,
                     "%s: the file of rank %zu is missing among those given; give those of all "
                     "ranks together",
                     sibling, rank_count);
}

/* Every rank has a record of every pass, in the same order. */
static enum moe_status check_passes(const struct moe_sglang_dump *dump, struct moe_error *err)
{
    for (size_t rank = 1; rank < dump->rank_count; rank++) {
        const struct moe_sglang_rank *mine = &dump->ranks[rank];
        for (size_t i = 0; i < dump->ranks[0].records->count || i < mine->records->count; i++) {
            int64_t first = -1;
            int64_t other = -1;
            if (i < dump->ranks[0].records->count) {
                MOE_TRY(moe_sglang_record_number(dump, 0, i, "forward_pass_id", &first, err));
            }
            if (i < mine->records->count) {
                MOE_TRY(moe_sglang_record_number(dump, rank, i, "forward_pass_id", &other, err));
            }
            if (first != other) {
                return moe_fail(err, MOE_PARSE,
                                "%s: record %zu is of pass %" PRId64
                                ", that of rank 0 of pass %" PRId64
                                " (-1: none); every rank must have recorded every pass",
                                mine->path, i, other, first);
            }
        }
    }
    return MOE_OK;
}

static enum moe_status open_files(struct moe_sglang_dump *dump, struct moe_import_input *input,
                                  struct moe_error *err)
{
    int32_t *numbers = calloc(input->file_count, sizeof *numbers);
    struct moe_sglang_rank *read = calloc(input->file_count, sizeof *read);
    dump->ranks = calloc(input->file_count, sizeof *dump->ranks);
    enum moe_status status = MOE_OK;
    if (numbers == NULL || read == NULL || dump->ranks == NULL) {
        status = moe_fail(err, MOE_LIMIT, "no memory for %zu files", input->file_count);
    }
    size_t count = 0;
    for (size_t i = 0; status == MOE_OK && i < input->file_count; i++) {
        struct moe_import_file *file = &input->files[i];
        if (!is_torch(file)) {
            continue;
        }
        file->is_used = true;
        struct moe_sglang_rank *rank = &read[count];
        rank->path = file->path;
        status = moe_torch_file_open(&rank->file, file->path, err);
        if (status == MOE_OK) {
            count++;
            status = record_rank(rank->file, file->path, &rank->records, &numbers[count - 1], err);
        }
        if (status == MOE_OK) {
            status = read_map(dump, rank->file, file->path, err);
        }
    }
    if (status == MOE_OK) {
        status = count == 0 ? (enum moe_status) moe_fail(err, MOE_PARSE, "%s: no .pt files",
                                                         input->paths[0])
                            : moe_import_check_ranks(numbers, count, input->paths[0], err);
    }
    for (size_t i = 0; i < count; i++) {
        /* Not in order when the ranks are not what they must be; then all are only closed. */
        dump->ranks[status == MOE_OK ? (size_t) numbers[i] : i] = read[i];
    }
    dump->rank_count = count;
    free(read);
    free(numbers);
    return status;
}

enum moe_status moe_sglang_dump_open(struct moe_sglang_dump *dump, struct moe_import_input *input,
                                     struct moe_import_description *out, struct moe_error *err)
{
    MOE_TRY(open_files(dump, input, err));
    MOE_TRY(check_siblings(dump->ranks[dump->rank_count - 1].path, dump->rank_count, err));
    MOE_TRY(check_passes(dump, err));
    out->model.layer_count = dump->layer_count;
    out->model.expert_count = dump->expert_count;
    for (uint32_t i = 0; i < dump->layer_count; i++) {
        out->layer_number[i] = i;
    }
    out->placement = dump->map;
    out->slot_count = dump->slot_count;
    (void) snprintf(out->record->engine, sizeof out->record->engine, "SGLang");
    (void) snprintf(out->record->note, sizeof out->record->note,
                    "%zu rank%s; physical experts mapped back by the last recorded map",
                    dump->rank_count, dump->rank_count == 1 ? "" : "s");
    return MOE_OK;
}

void moe_sglang_dump_close(struct moe_sglang_dump *dump)
{
    for (size_t i = 0; i < dump->rank_count; i++) {
        moe_torch_file_close(dump->ranks[i].file);
    }
    free(dump->ranks);
    free(dump->map);
    *dump = (struct moe_sglang_dump){ 0 };
}

enum moe_status moe_sglang_record_number(const struct moe_sglang_dump *dump, size_t rank,
                                         size_t record, const char *key, int64_t *out,
                                         struct moe_error *err)
{
    const struct moe_pickle_value *value =
        moe_pickle_get(&dump->ranks[rank].records->items[record], key);
    if (value == NULL || value->kind != MOE_PICKLE_INT || value->integer < 0) {
        return moe_fail(err, MOE_PARSE, "%s: record %zu: %s is %s; a number from 0 is expected",
                        dump->ranks[rank].path, record, key, moe_pickle_kind_text(value));
    }
    *out = value->integer;
    return MOE_OK;
}

enum moe_status moe_sglang_record_tensor(const struct moe_sglang_dump *dump, size_t rank,
                                         size_t record, const char *key, uint32_t dimension_count,
                                         struct moe_tensor *out, unsigned char **bytes,
                                         struct moe_error *err)
{
    char what[120];
    char shape[100];
    (void) snprintf(what, sizeof what, "record %zu: %s", record, key);
    MOE_TRY(moe_torch_file_tensor(dump->ranks[rank].file,
                                  moe_pickle_get(&dump->ranks[rank].records->items[record], key),
                                  what, out, bytes, err));
    if (out->dimension_count != dimension_count || out->shape[0] != dump->layer_count) {
        free(*bytes);
        *bytes = NULL;
        return moe_fail(err, MOE_PARSE,
                        "%s: %s has shape %s; %u dimensions are expected, the first of %u layers",
                        dump->ranks[rank].path, what,
                        moe_tensor_shape_text(out, shape, sizeof shape), dimension_count,
                        dump->layer_count);
    }
    return MOE_OK;
}
