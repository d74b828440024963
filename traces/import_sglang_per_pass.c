/*
 * Import format "sglang_per_pass": SGLang's expert distribution recorder in the mode per_pass:
 * for each forward pass and rank the tokens of every physical expert, global_physical_count
 * [layer][physical expert]. Becomes loads of logical experts per pass and source rank.
 */
#include <inttypes.h>
#include <stdlib.h>
#include <string.h>

#include "traces/sglang_dump.h"

struct per_pass {
    struct moe_sglang_dump dump;
    double *physical; /* [layer][slot] */
    double *logical;  /* [layer][expert] */
};

static bool recognise(const struct moe_import_input *input)
{
    return moe_sglang_recognise(input, "last_physical_to_logical_map", "global_physical_count") &&
           !moe_sglang_recognise(input, "last_physical_to_logical_map", "topk_ids_of_layer");
}

static void close_import(void *state)
{
    struct per_pass *import = state;
    if (import != NULL) {
        moe_sglang_dump_close(&import->dump);
        free(import->physical);
        free(import->logical);
        free(import);
    }
}

static enum moe_status open_import(void **state, struct moe_import_input *input,
                                   struct moe_import_description *out, struct moe_error *err)
{
    struct per_pass *import = calloc(1, sizeof *import);
    if (import == NULL) {
        return moe_fail(err, MOE_LIMIT, "no memory to import");
    }
    *state = import;
    MOE_TRY(moe_sglang_dump_open(&import->dump, input, out, err));
    const struct moe_sglang_dump *dump = &import->dump;
    out->model.content = MOE_TRACE_LOADS;
    import->physical =
        calloc((size_t) dump->layer_count * dump->slot_count, sizeof *import->physical);
    import->logical =
        calloc((size_t) dump->layer_count * dump->expert_count, sizeof *import->logical);
    return import->physical != NULL && import->logical != NULL
               ? MOE_OK
               : moe_fail(err, MOE_LIMIT, "no memory for %u layers of %u experts",
                          dump->layer_count, dump->expert_count);
}

static enum moe_status add_record(struct per_pass *import, size_t rank, size_t record,
                                  struct moe_error *err)
{
    const struct moe_sglang_dump *dump = &import->dump;
    const size_t cells = (size_t) dump->layer_count * dump->slot_count;
    struct moe_tensor tensor;
    unsigned char *bytes = NULL;
    MOE_TRY(moe_sglang_record_tensor(dump, rank, record, "global_physical_count", 2, &tensor,
                                     &bytes, err));
    const uint64_t good =
        tensor.item_count == cells ? moe_tensor_counts(&tensor, 0, cells, import->physical) : 0;
    free(bytes);
    if (good < cells) {
        return moe_fail(err, MOE_PARSE,
                        "%s: record %zu: global_physical_count: layer %" PRIu64
                        ", physical expert %" PRIu64 " is missing or no count",
                        dump->ranks[rank].path, record, good / dump->slot_count,
                        good % dump->slot_count);
    }
    for (size_t i = 0; i < cells; i++) {
        const size_t layer = i / dump->slot_count;
        import->logical[layer * dump->expert_count + dump->map[i]] += import->physical[i];
    }
    return MOE_OK;
}

/* Records of one pass stand together: one for each gatherer (two micro-batches have two). */
static enum moe_status feed(void *state, struct moe_import_sink *sink, struct moe_error *err)
{
    struct per_pass *import = state;
    const struct moe_sglang_dump *dump = &import->dump;
    const size_t cells = (size_t) dump->layer_count * dump->expert_count;
    const size_t count = dump->ranks[0].records->count;
    uint64_t steps = 0;
    for (size_t first = 0; first < count; steps++) {
        int64_t pass = 0;
        size_t end = first;
        for (int64_t next = pass; end < count; end++) {
            MOE_TRY(moe_sglang_record_number(dump, 0, end, "forward_pass_id", &next, err));
            pass = end == first ? next : pass;
            if (next != pass) {
                break;
            }
        }
        for (size_t rank = 0; rank < dump->rank_count; rank++) {
            const struct moe_trace_load load = { steps, pass, (int32_t) rank, 0 };
            memset(import->logical, 0, cells * sizeof *import->logical);
            for (size_t record = first; record < end; record++) {
                MOE_TRY(add_record(import, rank, record, err));
            }
            MOE_TRY(sink->load(sink, &load, import->logical, err));
        }
        first = end;
    }
    return MOE_OK;
}

const struct moe_import_format moe_import_sglang_per_pass = {
    .name = "sglang_per_pass",
    .summary = "SGLang's recorder, mode per_pass: .pt files of all ranks",
    .recognise = recognise,
    .open = open_import,
    .feed = feed,
    .close = close_import,
};
