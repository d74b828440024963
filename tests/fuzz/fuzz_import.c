/* Any bytes as the file of any import format, which the first byte chooses: refused with a
 * reason, or read as something within the limits. */
#include <assert.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#include "traces/import.h"

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

/* A name under which each format takes a file, by its place in import.def. */
static const struct {
    const char *format;
    const char *name;
} kinds[] = {
    { "sglang_per_token", "a_0.pt" },
    { "sglang_per_pass", "a_0.pt" },
    { "sglang_stat", "a.pt" },
    { "flame", "a.pt" },
    { "sglang_response", "a.json" },
    { "vllm_response", "a.json" },
    { "array", "a.npy" },
    { "sglang_json", "a.json" },
    { "adrs", "a.json" },
    { "megatron", "a.jsonl" },
    { "moe_cache_lab", "a.jsonl" },
    { "vllm_routes", "a.jsonl" },
    { "speculative", "a.jsonl" },
    { "llamacpp", "a.csv" },
    { "count_csv", "a.csv" },
    { "azure", "a.csv" },
    { "mooncake", "a.jsonl" },
    { "harmoeny_raw", "0/moe_layer-0.csv" },
    { "auto", "a" },
    { "moesim", "a.jsonl" },
};

static enum moe_status begin(struct moe_import_receiver *receiver,
                             const struct moe_import_result *result, const uint16_t *placement,
                             uint32_t slot_count, struct moe_error *err)
{
    (void) receiver;
    (void) err;
    assert((placement != NULL) == (slot_count > 0));
    assert(result->model.layer_count <= MOE_TRACE_LAYER_LIMIT);
    return MOE_OK;
}

static enum moe_status request(struct moe_import_sink *sink,
                               const struct moe_trace_request *request, const int64_t *blocks,
                               size_t block_count, struct moe_error *err)
{
    (void) sink;
    (void) blocks;
    (void) block_count;
    (void) err;
    assert(request->prompt_tokens > 0 && request->output_tokens > 0);
    return MOE_OK;
}

static enum moe_status rows(struct moe_import_sink *sink, const uint16_t *experts,
                            uint64_t row_count, struct moe_error *err)
{
    (void) sink;
    (void) err;
    assert(experts != NULL && row_count > 0);
    return MOE_OK;
}

static enum moe_status load(struct moe_import_sink *sink, const struct moe_trace_load *load,
                            const double *counts, struct moe_error *err)
{
    (void) sink;
    (void) err;
    assert(load->rank >= MOE_TRACE_ALL_RANKS && counts[0] >= 0.0);
    return MOE_OK;
}

static char folder[] = "/dev/shm/moesim-fuzz-XXXXXX";

static void remove_folder(void)
{
    char inner[64];
    (void) snprintf(inner, sizeof inner, "%s/0", folder);
    (void) rmdir(inner);
    (void) rmdir(folder);
}

/* One folder for the whole process. */
static const char *folder_of(void)
{
    static bool made;
    char inner[64];
    if (!made) {
        made = true;
        if (mkdtemp(folder) == NULL) {
            abort();
        }
        (void) snprintf(inner, sizeof inner, "%s/0", folder);
        if (mkdir(inner, 0700) != 0 || atexit(remove_folder) != 0) {
            abort();
        }
    }
    return folder;
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    struct moe_import_receiver receiver = { { request, rows, load }, begin };
    struct moe_error err = { 0 };
    char path[128];
    const char *input = path;
    if (size == 0) {
        return 0;
    }
    const size_t kind = data[0] % (sizeof kinds / sizeof kinds[0]);
    (void) snprintf(path, sizeof path, "%s/%s", folder_of(), kinds[kind].name);
    FILE *file = fopen(path, "wb");
    if (file == NULL || fwrite(data + 1, 1, size - 1, file) != size - 1 || fclose(file) != 0) {
        abort();
    }
    const struct moe_import_request wanted = {
        .format = kinds[kind].format,
        .inputs = &input,
        .input_count = 1,
        .options = { .layers = "all", .expert_count = 0, .top_k = 6 },
    };
    const enum moe_status status = moe_import_read(&wanted, &receiver, &err);
    assert((status == MOE_OK) == (err.text[0] == '\0'));
    (void) unlink(path);
    return 0;
}
