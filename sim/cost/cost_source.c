#include "sim/cost/cost_source.h"

#include <stdio.h>
#include <string.h>

#include "sim/cost/cost_state.h"

enum { SOURCE_LIMIT = 48, NAME_BYTES = 64 };

struct list {
    const struct moe_calibration *calibration;
    struct moe_arena *arena;
    struct moe_cost_source *sources; /* [SOURCE_LIMIT] */
    uint32_t count;
};

static const struct moe_calibration_fit_quality *
find_quality(const struct list *list, const char *table, enum moe_fit_points points)
{
    for (uint32_t i = 0; i < list->calibration->fit_quality_count; i++) {
        const struct moe_calibration_fit_quality *row = &list->calibration->fit_quality_rows[i];
        if (row->points == points && strcmp(row->series, table) == 0) {
            return row;
        }
    }
    return NULL;
}

static void add(struct list *list, enum moe_cost_part part, const char *table,
                enum moe_provenance provenance, const char *source)
{
    for (uint32_t i = 0; i < list->count; i++) {
        if (strcmp(list->sources[i].table, table) == 0) {
            return;
        }
    }
    if (list->count < SOURCE_LIMIT) {
        list->sources[list->count++] = (struct moe_cost_source){
            .part = part,
            .table = table,
            .provenance = provenance,
            .source = source,
            .heldout = find_quality(list, table, MOE_FIT_HELDOUT),
            .skew = find_quality(list, table, MOE_FIT_SKEW),
        };
    }
}

static void add_curve(struct list *list, enum moe_cost_part part, const struct moe_curve *curve)
{
    const struct moe_calibration_series *series = curve->series;
    add(list, part, series->name, (enum moe_provenance) series->provenance, series->source);
}

static void add_block(struct list *list, enum moe_cost_part part,
                      const struct moe_cost_block *block)
{
    for (uint32_t i = 0; i < block->matrix_count; i++) {
        add_curve(list, part, &block->matrices[i].curve);
    }
}

static enum moe_status add_link(struct list *list, enum moe_cost_part part,
                                const struct moe_cost_link *link, struct moe_error *err)
{
    char *name = MOE_NEW(list->arena, char, NAME_BYTES);
    if (name == NULL) {
        return moe_fail(err, MOE_LIMIT, "no memory for the names of cost tables");
    }
    if (link->segment_count > 0) {
        (void) snprintf(name, NAME_BYTES, "%s-%u%s", moe_segment_op_name(link->first->op),
                        link->first->ranks,
                        link->first->link == MOE_LINK_FAR ? " between nodes" : "");
        add(list, part, name, (enum moe_provenance) link->first->provenance, link->first->source);
    }
    return MOE_OK;
}

/* The series of decode attention, and the rates of what has none: prompts. Named scalars have no
 * quality of their own; the core's is that of all series of its kind. */
static void add_core(struct list *list, const struct moe_cost *cost)
{
    const struct moe_calibration *calibration = list->calibration;
    const struct moe_calibration_decode *decode = cost->decode.series;
    if (decode != NULL) {
        add(list, MOE_COST_ATTENTION, decode->series, (enum moe_provenance) decode->provenance,
            decode->source);
    }
    for (uint32_t i = 0; i < calibration->parameter_count; i++) {
        const struct moe_calibration_parameter *row = &calibration->parameter_rows[i];
        if (strcmp(row->name, moe_parameter_name(cost->core_rate)) == 0 &&
            strcmp(row->gpu_kind, cost->gpu_kind) == 0) {
            add(list, MOE_COST_ATTENTION,
                cost->core_rate == MOE_PARAMETER_MLA_BYTES_S ? "kv_mla" : "kv_gqa",
                cost->core_provenance, row->source);
        }
    }
}

enum moe_status moe_cost_sources(const struct moe_cost_source **sources, uint32_t *count,
                                 const struct moe_cost *cost,
                                 const struct moe_calibration *calibration, struct moe_arena *arena,
                                 struct moe_error *err)
{
    struct list list = {
        .calibration = calibration,
        .arena = arena,
        .sources = MOE_NEW(arena, struct moe_cost_source, SOURCE_LIMIT),
    };
    if (list.sources == NULL) {
        return moe_fail(err, MOE_LIMIT, "no memory for the names of cost tables");
    }
    add_block(&list, MOE_COST_ATTENTION, &cost->attention);
    add_block(&list, MOE_COST_ATTENTION, &cost->linear);
    add_core(&list, cost);
    add_block(&list, MOE_COST_DENSE, &cost->dense);
    add_block(&list, MOE_COST_GATE, &cost->gate);
    add_block(&list, MOE_COST_SHARED, &cost->shared);
    for (uint32_t part = 0; part < 2; part++) {
        for (uint32_t link = 0; link < MOE_LINK_COUNT; link++) {
            MOE_TRY(add_link(&list, part == 0 ? MOE_COST_DISPATCH : MOE_COST_COMBINE,
                             &cost->links[part][link], err));
        }
        if (part == 0) {
            add_curve(&list, MOE_COST_EXPERT, &cost->expert);
        }
    }
    add_block(&list, MOE_COST_HEAD, &cost->head);
    *sources = list.sources;
    *count = list.count;
    return MOE_OK;
}
