#include "traces/load_gather.h"

#include <assert.h>
#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

enum { LOAD_LIMIT = 1 << 24 };

enum moe_status moe_load_gather_domain(struct moe_load_gather *gather, const char *name,
                                       const char *place, uint32_t *out, struct moe_error *err)
{
    for (uint32_t i = 0; i < gather->domain_count; i++) {
        if (strcmp(gather->domains[i], name) == 0) {
            *out = i;
            return MOE_OK;
        }
    }
    if (gather->domain_count == MOE_TRACE_DOMAIN_LIMIT || name[0] == '\0' ||
        strlen(name) >= sizeof gather->domains[0]) {
        return moe_fail(err, MOE_RANGE,
                        "%s: domain '%.40s'; names of 1 to %zu bytes and at most %d of them are "
                        "allowed",
                        place, name, sizeof gather->domains[0] - 1, MOE_TRACE_DOMAIN_LIMIT);
    }
    (void) snprintf(gather->domains[gather->domain_count], sizeof gather->domains[0], "%s", name);
    *out = gather->domain_count++;
    return MOE_OK;
}

static int compare(const void *a, const void *b)
{
    const struct moe_gathered_load *x = a;
    const struct moe_gathered_load *y = b;
    if (x->domain != y->domain) {
        return x->domain < y->domain ? -1 : 1;
    }
    if (x->step != y->step) {
        return x->step < y->step ? -1 : 1;
    }
    return x->rank < y->rank ? -1 : x->rank > y->rank;
}

static enum moe_status note(struct moe_load_gather *gather, const struct moe_gathered_load *load,
                            const char *place, struct moe_error *err)
{
    if (gather->load_count > 0 && compare(&gather->loads[gather->load_count - 1], load) == 0) {
        return MOE_OK;
    }
    if (gather->load_count == gather->load_room) {
        const size_t room = gather->load_room == 0 ? 64 : 2 * gather->load_room;
        struct moe_gathered_load *loads = realloc(gather->loads, room * sizeof *loads);
        if (room > LOAD_LIMIT || loads == NULL) {
            gather->loads = loads != NULL ? loads : gather->loads;
            return moe_fail(err, room > LOAD_LIMIT ? MOE_RANGE : MOE_LIMIT,
                            "%s: more than %d loads, or no memory for them", place, LOAD_LIMIT);
        }
        gather->loads = loads;
        gather->load_room = room;
    }
    gather->loads[gather->load_count++] = *load;
    return MOE_OK;
}

enum moe_status moe_load_gather_take(struct moe_load_gather *gather, const struct moe_load_row *row,
                                     const char *place, double **out, struct moe_error *err)
{
    const struct moe_gathered_load load = { row->step, row->rank, row->domain };
    *out = NULL;
    if (row->layer >= MOE_LOAD_GATHER_LAYER_END || row->rank >= MOE_TRACE_RANK_LIMIT) {
        return moe_fail(err, MOE_RANGE, "%s: layer %u, rank %d; below %d and %d are allowed", place,
                        row->layer, row->rank, MOE_LOAD_GATHER_LAYER_END, MOE_TRACE_RANK_LIMIT);
    }
    if (!gather->is_filling) {
        gather->layer_is_seen[row->layer] = true;
        return note(gather, &load, place, err);
    }
    const struct moe_gathered_load *found =
        bsearch(&load, gather->loads, gather->load_count, sizeof load, compare);
    if (found == NULL || !gather->layer_is_seen[row->layer]) {
        return moe_fail(err, MOE_PARSE, "%s: the file changed while it was read", place);
    }
    const size_t cell =
        (size_t) (found - gather->loads) * gather->layer_count + gather->layer_index[row->layer];
    if (gather->is_there[cell]) {
        return moe_fail(err, MOE_PARSE, "%s: layer %u stands twice in its step", place, row->layer);
    }
    gather->is_there[cell] = true;
    *out = gather->counts + cell * gather->expert_count;
    return MOE_OK;
}

enum moe_status moe_load_gather_turn(struct moe_load_gather *gather, const char *place,
                                     struct moe_error *err)
{
    for (uint32_t layer = 0; layer < MOE_LOAD_GATHER_LAYER_END; layer++) {
        gather->layer_index[layer] = gather->layer_count;
        gather->layer_count += gather->layer_is_seen[layer];
    }
    if (gather->load_count == 0) {
        return moe_fail(err, MOE_PARSE, "%s: holds no loads", place);
    }
    qsort(gather->loads, gather->load_count, sizeof *gather->loads, compare);
    size_t kept = 1;
    for (size_t i = 1; i < gather->load_count; i++) {
        if (compare(&gather->loads[i], &gather->loads[kept - 1]) != 0) {
            gather->loads[kept++] = gather->loads[i];
        }
    }
    gather->load_count = kept;
    const uint64_t cells = (uint64_t) gather->layer_count * gather->expert_count;
    if (gather->layer_count > MOE_TRACE_LAYER_LIMIT ||
        kept > MOE_LOAD_GATHER_BYTES / sizeof(double) / (cells + 1)) {
        return moe_fail(
            err, MOE_RANGE,
            "%s: %zu loads of %u layers of %u experts, which are held in memory; at most "
            "%d layers and %" PRIu64 " bytes are allowed",
            place, kept, gather->layer_count, gather->expert_count, MOE_TRACE_LAYER_LIMIT,
            MOE_LOAD_GATHER_BYTES);
    }
    gather->counts = calloc(kept * cells + 1, sizeof *gather->counts);
    gather->is_there = calloc(kept * gather->layer_count, sizeof *gather->is_there);
    gather->is_filling = true;
    return gather->counts != NULL && gather->is_there != NULL
               ? MOE_OK
               : moe_fail(err, MOE_LIMIT, "%s: no memory for %zu loads", place, kept);
}

static enum moe_status check_ranks(const struct moe_load_gather *gather, const char *place,
                                   struct moe_error *err)
{
    const struct moe_gathered_load *loads = gather->loads;
    int32_t count = 0;
    while ((size_t) count < gather->load_count && loads[count].step == loads[0].step &&
           loads[count].domain == loads[0].domain) {
        count++;
    }
    for (size_t i = 0; i < gather->load_count; i++) {
        const int32_t expected = (int32_t) (i % (size_t) count);
        if (loads[0].rank != MOE_TRACE_ALL_RANKS &&
            (loads[i].rank != expected || loads[i].step != loads[i - (size_t) expected].step)) {
            return moe_fail(err, MOE_PARSE,
                            "%s: step %" PRId64 ": rank %d is missing or out of place; every step "
                            "has the same ranks from 0 on",
                            place, loads[i].step, expected);
        }
    }
    return MOE_OK;
}

enum moe_status moe_load_gather_describe(const struct moe_load_gather *gather, const char *place,
                                         struct moe_import_description *out, struct moe_error *err)
{
    uint32_t count = 0;
    MOE_TRY(check_ranks(gather, place, err));
    out->model.content = MOE_TRACE_LOADS;
    out->model.layer_count = gather->layer_count;
    out->model.expert_count = gather->expert_count;
    out->model.domain_count = gather->domain_count;
    memcpy(out->model.domains, gather->domains, sizeof out->model.domains);
    out->layers_stated = true; /* what was counted is a MoE layer */
    for (uint32_t layer = 0; layer < MOE_LOAD_GATHER_LAYER_END; layer++) {
        if (gather->layer_is_seen[layer]) {
            out->is_moe_layer[count] = true;
            out->layer_number[count++] = layer;
        }
    }
    for (size_t i = 0; i < gather->load_count * gather->layer_count; i++) {
        if (!gather->is_there[i]) {
            const struct moe_gathered_load *load = &gather->loads[i / gather->layer_count];
            return moe_fail(
                err, MOE_PARSE,
                "%s: layer %u is missing in step %" PRId64 ", rank %d (-1: none), domain "
                "%s",
                place, out->layer_number[i % gather->layer_count], load->step, load->rank,
                gather->domain_count == 0 ? "all" : gather->domains[load->domain]);
        }
    }
    return MOE_OK;
}

enum moe_status moe_load_gather_feed(const struct moe_load_gather *gather,
                                     struct moe_import_sink *sink, struct moe_error *err)
{
    const size_t cells = (size_t) gather->layer_count * gather->expert_count;
    uint64_t step = 0;
    for (size_t i = 0; i < gather->load_count; i++) {
        const struct moe_gathered_load *load = &gather->loads[i];
        step += i > 0 && (load[-1].domain != load->domain || load[-1].step != load->step);
        const struct moe_trace_load sent = { step, load->step, load->rank, load->domain };
        MOE_TRY(sink->load(sink, &sent, gather->counts + i * cells, err));
    }
    return MOE_OK;
}

void moe_load_gather_finish(struct moe_load_gather *gather)
{
    free(gather->loads);
    free(gather->counts);
    free(gather->is_there);
    gather->loads = NULL;
    gather->counts = NULL;
    gather->is_there = NULL;
    gather->load_count = 0;
}
