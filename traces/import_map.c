#include "traces/import_map.h"

#include <assert.h>
#include <ctype.h>
#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

enum { PIECE_IDS = 1 << 17 };

_Static_assert(PIECE_IDS >= MOE_TRACE_LAYER_LIMIT * MOE_TRACE_TOP_K_LIMIT, "a piece holds a row");

/* One number of a list of layers; *text moves behind it. */
static enum moe_status read_number(const char **text, uint32_t *out, struct moe_error *err)
{
    uint64_t value = 0;
    const char *at = *text;
    for (; isdigit((unsigned char) *at) && value <= UINT32_MAX; at++) {
        value = value * 10 + (uint64_t) (*at - '0');
    }
    if (at == *text || value > UINT32_MAX) {
        return moe_fail(err, MOE_RANGE,
                        "--layers: '%.40s' is no layer number; all, moe, or a list "
                        "like 3-60,62 is allowed",
                        *text);
    }
    *text = at;
    *out = (uint32_t) value;
    return MOE_OK;
}

static enum moe_status mark(const struct moe_import_description *description, uint32_t first,
                            uint32_t last, bool *keep, struct moe_error *err)
{
    const uint32_t count = description->model.layer_count;
    for (uint64_t number = first; number <= last; number++) {
        uint32_t i = 0;
        while (i < count && description->layer_number[i] != number) {
            i++;
        }
        if (i == count) {
            return moe_fail(
                err, MOE_RANGE,
                "--layers: layer %" PRIu64 " was not recorded; the %u recorded ones are "
                "numbered from %u to %u",
                number, count, description->layer_number[0], description->layer_number[count - 1]);
        }
        keep[i] = true;
    }
    return MOE_OK;
}

static enum moe_status keep_list(const struct moe_import_description *description, const char *text,
                                 bool *keep, struct moe_error *err)
{
    for (;;) {
        uint32_t first = 0;
        uint32_t last = 0;
        MOE_TRY(read_number(&text, &first, err));
        last = first;
        if (*text == '-') {
            text++;
            MOE_TRY(read_number(&text, &last, err));
        }
        if (last < first) {
            return moe_fail(err, MOE_RANGE, "--layers: %u-%u ends before it begins", first, last);
        }
        MOE_TRY(mark(description, first, last, keep, err));
        if (*text == '\0') {
            return MOE_OK;
        }
        if (*text != ',') {
            return moe_fail(err, MOE_RANGE, "--layers: '%.40s' does not belong in a list of layers",
                            text);
        }
        text++;
    }
}

static enum moe_status choose_layers(const struct moe_import_measure *measure, const char *wanted,
                                     bool *keep, const char *what, struct moe_error *err)
{
    const struct moe_import_description *description = measure->description;
    const uint32_t count = description->model.layer_count;
    const bool all = wanted != NULL && strcmp(wanted, "all") == 0;
    const bool moe = wanted != NULL && strcmp(wanted, "moe") == 0;
    if (wanted != NULL && !all && !moe) {
        return keep_list(description, wanted, keep, err);
    }
    for (uint32_t i = 0; i < count; i++) {
        const bool used = measure->layer_is_used[i];
        keep[i] = all || (description->layers_stated ? description->is_moe_layer[i] : used);
        if (wanted == NULL && !description->layers_stated && !used) {
            return moe_fail(err, MOE_RANGE,
                            "%s: layer %u holds only zeros or unknowns and may be dense; --layers "
                            "moe leaves such layers out, --layers all keeps them, and a list like "
                            "3-60 names those wanted",
                            what, description->layer_number[i]);
        }
    }
    return MOE_OK;
}

/* "layers 1-8 of the recorded 0-8", runs of consecutive engine numbers as ranges. */
static void describe_layers(const struct moe_import_map *map, const char *wanted, char *text,
                            size_t size)
{
    const struct moe_import_description *description = map->description;
    const uint32_t count = map->model.layer_count;
    size_t used = (size_t) snprintf(text, size, "layer%s ", count == 1 ? "" : "s");
    for (uint32_t i = 0; i < count && used < size;) {
        uint32_t end = i + 1;
        const uint32_t first = description->layer_number[map->layers[i]];
        while (end < count && description->layer_number[map->layers[end]] == first + (end - i)) {
            end++;
        }
        const char *comma = i == 0 ? "" : ",";
        used += (size_t) (end - i == 1 ? snprintf(text + used, size - used, "%s%u", comma, first)
                                       : snprintf(text + used, size - used, "%s%u-%u", comma, first,
                                                  first + (end - i) - 1));
        i = end;
    }
    if (used < size) {
        (void) snprintf(
            text + used, size - used, " of the recorded %u-%u (%s%s)", description->layer_number[0],
            description->layer_number[description->model.layer_count - 1],
            wanted == NULL ? "layers not said" : "--layers ", wanted == NULL ? "" : wanted);
    }
}

static enum moe_status choose_experts(struct moe_import_map *map,
                                      const struct moe_import_measure *measure, uint32_t wanted,
                                      const char *what, struct moe_error *err)
{
    const uint32_t recorded = measure->description->model.expert_count;
    if (recorded != 0 && wanted != 0 && recorded != wanted) {
        return moe_fail(err, MOE_RANGE, "%s: --experts %u, but it states %u", what, wanted,
                        recorded);
    }
    const uint32_t count = recorded != 0 ? recorded : wanted;
    if (count == 0) {
        return moe_fail(err, MOE_RANGE,
                        "%s: does not state how many experts a layer has; give --experts N (the "
                        "largest id in it is %u)",
                        what, measure->id_end == 0 ? 0 : measure->id_end - 1);
    }
    if (measure->id_end > count) {
        return moe_fail(err, MOE_RANGE, "%s: holds expert %u; the model has experts 0 to %u", what,
                        measure->id_end - 1, count - 1);
    }
    map->model.expert_count = count;
    return MOE_OK;
}

static enum moe_status choose_warmup(struct moe_import_map *map,
                                     const struct moe_import_measure *measure, bool skip,
                                     struct moe_trace_provenance *record, const char *what,
                                     struct moe_error *err)
{
    const bool routes = map->model.content == MOE_TRACE_ROUTES;
    const uint64_t warmup = moe_import_measure_warmup(measure);
    if (!skip || warmup == 0) {
        return MOE_OK;
    }
    if (warmup == (routes ? measure->row_count : measure->load_count)) {
        return moe_fail(err, MOE_RANGE,
                        "%s: all %" PRIu64 " %s are identical: --skip-warmup would leave nothing",
                        what, warmup, routes ? "rows" : "loads");
    }
    map->skip_rows = warmup;
    record->rows_skipped = warmup;
    (void) snprintf(record->skip_reason, sizeof record->skip_reason,
                    "warm-up: the leading %s are identical (--skip-warmup)",
                    routes ? "rows" : "loads");
    return MOE_OK;
}

static enum moe_status choose(struct moe_import_map *map, const struct moe_import_measure *measure,
                              const struct moe_import_options *options,
                              struct moe_trace_provenance *record, const char *what,
                              struct moe_error *err)
{
    bool keep[MOE_TRACE_LAYER_LIMIT] = { false };
    MOE_TRY(choose_layers(measure, options->layers, keep, what, err));
    map->model.layer_count = 0;
    for (uint32_t i = 0; i < measure->description->model.layer_count; i++) {
        if (keep[i]) {
            map->layers[map->model.layer_count++] = i;
        }
    }
    if (map->model.layer_count == 0) {
        return moe_fail(err, MOE_RANGE, "%s: no layer is left: all hold only zeros or unknowns",
                        what);
    }
    describe_layers(map, options->layers, record->layer_map, sizeof record->layer_map);
    MOE_TRY(choose_experts(map, measure, options->expert_count, what, err));
    if (measure->description->top_k_is_padded && measure->k_end > 0) {
        map->model.top_k = measure->k_end;
    }
    return choose_warmup(map, measure, options->skip_warmup, record, what, err);
}

static enum moe_status map_request(struct moe_import_sink *sink,
                                   const struct moe_trace_request *request, const int64_t *blocks,
                                   size_t block_count, struct moe_error *err)
{
    struct moe_import_map *map = (struct moe_import_map *) sink;
    struct moe_trace_request left = *request;
    const uint64_t rows = moe_trace_request_rows(request);
    const uint64_t skip = map->left_to_skip < rows ? map->left_to_skip : rows;
    map->left_to_skip -= skip;
    if (skip == rows && map->skip_rows > 0 && skip > 0) {
        return MOE_OK;
    }
    const uint32_t of_prompt = skip < left.prompt_tokens ? (uint32_t) skip : left.prompt_tokens - 1;
    left.prompt_tokens -= of_prompt;
    left.output_tokens -= (uint32_t) skip - of_prompt;
    return map->next->request(map->next, &left, blocks, block_count, err);
}

/* One row, recorded to trace. */
static void map_row(const struct moe_import_map *map, const uint16_t *from, uint16_t *to)
{
    const uint32_t wide = map->description->model.top_k;
    const uint32_t top_k = map->model.top_k;
    for (uint32_t layer = 0; layer < map->model.layer_count; layer++, to += top_k) {
        memcpy(to, from + (size_t) map->layers[layer] * wide, top_k * sizeof *to);
    }
}

static enum moe_status map_rows(struct moe_import_sink *sink, const uint16_t *experts,
                                uint64_t row_count, struct moe_error *err)
{
    struct moe_import_map *map = (struct moe_import_map *) sink;
    const struct moe_trace_model *wide = &map->description->model;
    const size_t from_row = (size_t) wide->layer_count * wide->top_k;
    const size_t to_row = (size_t) map->model.layer_count * map->model.top_k;
    const uint64_t most = PIECE_IDS / to_row;
    const uint64_t early = map->skip_rows > map->seen_rows ? map->skip_rows - map->seen_rows : 0;
    const uint64_t skip = early < row_count ? early : row_count;
    map->seen_rows += row_count;
    experts += skip * from_row;
    row_count -= skip;
    while (row_count > 0) {
        const uint64_t rows = row_count < most ? row_count : most;
        for (uint64_t row = 0; row < rows; row++) {
            map_row(map, experts + row * from_row, map->rows + row * to_row);
        }
        MOE_TRY(map->next->rows(map->next, map->rows, rows, err));
        experts += rows * from_row;
        row_count -= rows;
    }
    return MOE_OK;
}

static enum moe_status map_load(struct moe_import_sink *sink, const struct moe_trace_load *load,
                                const double *counts, struct moe_error *err)
{
    struct moe_import_map *map = (struct moe_import_map *) sink;
    const size_t experts = map->model.expert_count;
    struct moe_trace_load left = *load;
    if (map->seen_loads++ < map->skip_rows) {
        return MOE_OK;
    }
    left.step -= map->skip_rows; /* only loads of all ranks are skipped, and they are steps */
    for (uint32_t layer = 0; layer < map->model.layer_count; layer++) {
        memcpy(map->counts + layer * experts, counts + map->layers[layer] * experts,
               experts * sizeof *counts);
    }
    return map->next->load(map->next, &left, map->counts, err);
}

enum moe_status moe_import_map_init(struct moe_import_map *map,
                                    const struct moe_import_measure *measure,
                                    const struct moe_import_options *options,
                                    struct moe_trace_provenance *record, const char *what,
                                    struct moe_error *err)
{
    const struct moe_trace_model *model = &measure->description->model;
    *map = (struct moe_import_map){
        .sink = { map_request, map_rows, map_load },
        .description = measure->description,
        .model = *model,
    };
    if (model->content == MOE_TRACE_ARRIVALS) {
        (void) snprintf(record->layer_map, sizeof record->layer_map, "no layers");
        return MOE_OK;
    }
    MOE_TRY(choose(map, measure, options, record, what, err));
    map->rows = malloc((size_t) PIECE_IDS * sizeof *map->rows);
    if (model->content == MOE_TRACE_LOADS) {
        map->counts =
            malloc((size_t) model->layer_count * model->expert_count * sizeof *map->counts);
    }
    if (map->rows == NULL || (model->content == MOE_TRACE_LOADS && map->counts == NULL)) {
        moe_import_map_finish(map);
        return moe_fail(err, MOE_LIMIT, "%s: no memory to read it", what);
    }
    return MOE_OK;
}

void moe_import_map_begin(struct moe_import_map *map, struct moe_import_sink *next)
{
    map->next = next;
    map->seen_rows = 0;
    map->seen_loads = 0;
    map->left_to_skip = map->model.content == MOE_TRACE_ROUTES ? map->skip_rows : 0;
}

enum moe_status moe_import_map_placement(const struct moe_import_map *map, uint16_t **out,
                                         struct moe_error *err)
{
    const struct moe_import_description *description = map->description;
    const size_t slots = description->slot_count;
    assert(description->placement != NULL);
    uint16_t *placement = malloc((size_t) map->model.layer_count * slots * sizeof *placement);
    if (placement == NULL) {
        return moe_fail(err, MOE_LIMIT, "no memory for a placement of %zu slots", slots);
    }
    for (uint32_t layer = 0; layer < map->model.layer_count; layer++) {
        memcpy(placement + layer * slots, description->placement + map->layers[layer] * slots,
               slots * sizeof *placement);
    }
    *out = placement;
    return MOE_OK;
}

void moe_import_map_finish(struct moe_import_map *map)
{
    free(map->rows);
    free(map->counts);
    map->rows = NULL;
    map->counts = NULL;
}
