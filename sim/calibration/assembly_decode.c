/* The tables of decode attention, and what its kinds' lines are worth beside them. */
#include <string.h>

#include "sim/calibration/assembly.h"

struct moe_fitter moe_assembly_lines_alone(const struct moe_fitter *fitter)
{
    struct moe_fitter alone = *fitter;
    alone.decode_of = NULL;
    return alone;
}

enum moe_status moe_assembly_line_missed(bool *missed, const struct moe_assembly *assembly,
                                         const struct moe_fitter_line *line, struct moe_error *err)
{
    const struct moe_fitter alone = moe_assembly_lines_alone(assembly->fitter);
    const uint32_t count = alone.evidence->series_count;
    uint32_t *self = MOE_NEW(alone.arena, uint32_t, (size_t) count + 1);
    bool any = false;
    if (self == NULL) {
        return moe_fail(err, MOE_LIMIT, "%s: no memory for its lines", alone.evidence->name);
    }
    for (uint32_t s = 0; s < count; s++) {
        self[s] = s;
    }
    for (uint32_t s = 0; s < count && !any; s++) {
        struct moe_quality quality;
        if (alone.line_of[s] != MOE_FITTER_NONE && &alone.lines[alone.line_of[s]] == line) {
            MOE_TRY(moe_quality_together(&quality, &alone, self, s, MOE_FIT_HELDOUT, err));
            any = quality.checked > 0 && quality.status == MOE_FIT_MISSED;
        }
    }
    *missed = any;
    return MOE_OK;
}

/* Whether the series' held-out points bear its table out; what nobody could check does not. */
static bool holds(const struct moe_assembly *assembly, const struct moe_fitter_decode *decode)
{
    for (uint32_t i = 0; i < assembly->quality_count; i++) {
        const struct moe_quality *quality = &assembly->quality[i];
        if (moe_fitter_decode_of(assembly->fitter, quality->series) == decode &&
            quality->points == MOE_FIT_HELDOUT) {
            return quality->status == MOE_FIT_CALIBRATED;
        }
    }
    return false;
}

static bool same_shape(const struct moe_calibration_decode *a,
                       const struct moe_calibration_decode *b)
{
    return a->kind == b->kind && a->q_heads == b->q_heads && a->kv_heads == b->kv_heads &&
           a->head_size == b->head_size && a->value_size == b->value_size;
}

/* Whether a row of the base fills a gap: of this kind of GPU, not measured here, and not faster
 * than the cards that were. */
static bool fills_gap(const struct moe_assembly *assembly,
                      const struct moe_calibration_decode *base)
{
    const struct moe_fitter *fitter = assembly->fitter;
    bool fills = !assembly->foreign && strcmp(base->gpu_kind, fitter->gpu_kind) == 0 &&
                 base->bandwidth_bytes_s <= fitter->read_bytes_s;
    for (uint32_t i = 0; i < fitter->decode_count; i++) {
        fills = fills && !same_shape(&fitter->decodes[i].row, base) &&
                strcmp(fitter->decodes[i].row.series, base->series) != 0;
    }
    for (uint32_t i = 0; i < assembly->base->decode_point_count; i++) {
        const struct moe_calibration_decode_point *point = &assembly->base->decode_point_rows[i];
        const double bytes =
            (double) point->sequences * point->context * moe_calibration_decode_bytes(base);
        fills = fills && (strcmp(point->series, base->series) != 0 ||
                          point->median_ns >= bytes / fitter->read_bytes_s * 1e9);
    }
    return fills;
}

static enum moe_status add_base(struct moe_assembly *assembly, struct moe_error *err)
{
    const struct moe_calibration *base = assembly->base;
    for (uint32_t i = 0; i < base->decode_count; i++) {
        if (!fills_gap(assembly, &base->decode_rows[i])) {
            continue;
        }
        MOE_ASSEMBLY_ROW(assembly, decode, row)
        *row = base->decode_rows[i];
        for (uint32_t p = 0; p < base->decode_point_count; p++) {
            if (strcmp(base->decode_point_rows[p].series, base->decode_rows[i].series) == 0) {
                MOE_ASSEMBLY_ROW(assembly, decode_point, point)
                *point = base->decode_point_rows[p];
            }
        }
    }
    return MOE_OK;
}

enum moe_status moe_assembly_decodes(struct moe_assembly *assembly, struct moe_error *err)
{
    for (uint32_t i = 0; i < assembly->fitter->decode_count; i++) {
        const struct moe_fitter_decode *decode = &assembly->fitter->decodes[i];
        MOE_ASSEMBLY_ROW(assembly, decode, row)
        *row = decode->row;
        row->provenance =
            holds(assembly, decode) ? MOE_PROVENANCE_MEASURED : MOE_PROVENANCE_EXTRAPOLATED;
        row->source = assembly->source;
        for (uint32_t p = 0; p < decode->count; p++) {
            MOE_ASSEMBLY_ROW(assembly, decode_point, point)
            *point = decode->points[p];
            point->provenance = MOE_PROVENANCE_MEASURED;
            point->source = assembly->source;
        }
    }
    return add_base(assembly, err);
}
