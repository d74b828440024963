/* The kind itself, named scalars, and what the quality of the fits is. */
#include <math.h>
#include <stdio.h>
#include <string.h>

#include "sim/calibration/assembly.h"

enum moe_provenance moe_assembly_provenance(const struct moe_assembly *assembly,
                                            enum moe_provenance provenance)
{
    return assembly->foreign ? MOE_PROVENANCE_ASSUMED : provenance;
}

const char *moe_assembly_source(struct moe_assembly *assembly, const char *source)
{
    return assembly->foreign ? moe_table_builder_text(assembly->builder, "as %s: %.360s",
                                                      assembly->base_kind, source)
                             : source;
}

enum moe_status moe_assembly_kind(struct moe_assembly *assembly, struct moe_error *err)
{
    const struct moe_fitter *fitter = assembly->fitter;
    const struct moe_evidence_gpu *gpu = &fitter->evidence->gpus[0];
    const struct moe_calibration_gpu_kind *base =
        moe_calibration_find_kind(assembly->base, assembly->base_kind);
    MOE_ASSEMBLY_ROW(assembly, gpu_kind, row)
    *row = (struct moe_calibration_gpu_kind){
        .name = fitter->gpu_kind,
        .memory_bytes = gpu->memory_bytes,
        .sm_count = gpu->sm_count,
        .boost_hz = gpu->boost_mhz > 0.0 ? gpu->boost_mhz * 1e6 : base->boost_hz,
        .read_bytes_s = fitter->read_bytes_s,
        .bf16_flop_s = fitter->bf16_flop_s,
        .fp8_flop_s = fitter->fp8_flop_s,
        .provenance = MOE_PROVENANCE_MEASURED,
        .source = assembly->source,
    };
    return MOE_OK;
}

struct value {
    double value; /* 0: not measured */
    enum moe_provenance provenance;
    char note[80];
};

/* The median over runs and GPUs of a ceiling; 0 when nobody has it. */
static double ceiling_median(const struct moe_fitter *fitter, const char *name)
{
    const struct moe_evidence *evidence = fitter->evidence;
    double *values = MOE_NEW(fitter->arena, double, evidence->ceiling_count + 1);
    uint32_t used = 0;
    for (uint32_t i = 0; i < evidence->ceiling_count && values != NULL; i++) {
        if (strcmp(evidence->ceilings[i].name, name) == 0 && evidence->ceilings[i].value > 0.0) {
            values[used++] = evidence->ceilings[i].value;
        }
    }
    return used == 0 ? 0.0 : moe_median(values, used);
}

/* The median bandwidth of permutations and combinations. */
static double copy_rate(const struct moe_fitter *fitter)
{
    double values[64];
    uint32_t used = 0;
    for (uint32_t i = 0; i < fitter->line_count && used < 64; i++) {
        const struct moe_fitter_line *line = &fitter->lines[i];
        if ((line->kind == MOE_EVIDENCE_PERMUTE || line->kind == MOE_EVIDENCE_COMBINE) &&
            line->fitted >= 3) {
            values[used++] = line->roofline.bandwidth_bytes_s;
        }
    }
    return used == 0 ? 0.0 : moe_median(values, used);
}

static const struct moe_fitter_line *core_line(const struct moe_fitter *fitter,
                                               enum moe_evidence_kind kind)
{
    for (uint32_t i = 0; i < fitter->line_count; i++) {
        if (fitter->lines[i].kind == kind && fitter->lines[i].fitted >= 4) {
            return &fitter->lines[i];
        }
    }
    return NULL;
}

/* How much longer than the burst tables say what is bound by arithmetic takes under load that
 * lasts; 0 without such points. */
static double sustained_factor(const struct moe_fitter *fitter)
{
    const struct moe_evidence *evidence = fitter->evidence;
    double *values = MOE_NEW(fitter->arena, double, evidence->point_count + 1);
    uint32_t used = 0;
    for (uint32_t p = 0; p < evidence->point_count && values != NULL; p++) {
        double ns = 0.0;
        double log_ns = 0.0;
        double mhz = 0.0;
        if (evidence->points[p].role == MOE_EVIDENCE_SUSTAINED &&
            fitter->share[MOE_FACTOR_COMPUTE][p] > 0.6 &&
            moe_fitter_as_measured(fitter, p, &log_ns, &mhz) &&
            moe_fitter_predict(fitter, p, MOE_OBSERVATION_NO_GPU, &ns)) {
            values[used++] = 1.0 + (exp(log_ns) / ns - 1.0) / fitter->share[MOE_FACTOR_COMPUTE][p];
        }
    }
    return used == 0 ? 0.0 : moe_median(values, used);
}

/* An uneven all-to-all against the even one: reported, and a parameter only where the matrices
 * were planned as anchors, as held-out and skew points are never fitted. */
static double incast_factor(const struct moe_fitter *fitter)
{
    const struct moe_evidence *evidence = fitter->evidence;
    double *values = MOE_NEW(fitter->arena, double, evidence->point_count + 1);
    uint32_t used = 0;
    for (uint32_t p = 0; p < evidence->point_count && values != NULL; p++) {
        double ns = 0.0;
        if (evidence->series[evidence->points[p].series].kind == MOE_EVIDENCE_ALL_TO_ALL_V &&
            fitter->known[p] && evidence->points[p].bytes >= 1048576.0 &&
            moe_fitter_predict(fitter, p, MOE_OBSERVATION_NO_GPU, &ns)) {
            values[used++] = exp(fitter->centre[p]) / ns;
        }
    }
    return used < 3 ? 0.0 : moe_median(values, used);
}

/* What one kind of work costs beside the other: the median over loads and GPUs of the time under
 * over the time alone (names of calibrate/collective/overlap.h); 0 without such points. */
static double overlap_factor(const struct moe_fitter *fitter, const char *under, const char *alone)
{
    const struct moe_evidence *evidence = fitter->evidence;
    double *values = MOE_NEW(fitter->arena, double, evidence->point_count + 1);
    uint32_t used = 0;
    for (uint32_t p = 0; p < evidence->point_count && values != NULL; p++) {
        const struct moe_evidence_point *point = &evidence->points[p];
        if (evidence->series[point->series].kind != MOE_EVIDENCE_OVERLAP || !fitter->known[p] ||
            strcmp(point->histogram, under) != 0) {
            continue;
        }
        for (uint32_t q = 0; q < evidence->point_count; q++) {
            const struct moe_evidence_point *other = &evidence->points[q];
            if (other->series == point->series && fitter->known[q] &&
                other->tokens == point->tokens && other->bytes_per_peer == point->bytes_per_peer &&
                strcmp(other->histogram, alone) == 0) {
                values[used++] = exp(fitter->centre[p] - fitter->centre[q]);
            }
        }
    }
    return used == 0 ? 0.0 : moe_median(values, used);
}

static void set(struct value *values, enum moe_parameter parameter, double value, const char *note)
{
    values[parameter].value = value;
    values[parameter].provenance = MOE_PROVENANCE_MEASURED;
    (void) snprintf(values[parameter].note, sizeof values[parameter].note, "%s", note);
}

static enum moe_status set_core(struct moe_assembly *assembly, struct value *values,
                                const struct moe_fitter_line *line,
                                const enum moe_parameter *parameters, struct moe_error *err)
{
    char note[80];
    bool missed = false;
    if (line == NULL) {
        return MOE_OK;
    }
    MOE_TRY(moe_assembly_line_missed(&missed, assembly, line, err));
    (void) snprintf(note, sizeof note, "%.20s, %u points", line->name, line->fitted);
    set(values, parameters[0], line->roofline.bandwidth_bytes_s, note);
    set(values, parameters[1], line->roofline.peak_flop_s, note);
    set(values, parameters[2], line->roofline.p, note);
    set(values, parameters[3], line->roofline.t0_ns, note);
    for (int i = 0; i < 4 && missed; i++) {
        values[parameters[i]].provenance = MOE_PROVENANCE_EXTRAPOLATED;
    }
    return MOE_OK;
}

/* Whether exchanges of the file bear the rates of uneven ones: a base's stay with its own curves. */
static bool has_uneven(const struct moe_fitter *fitter)
{
    bool found = false;
    for (uint32_t i = 0; i < fitter->exchange_count; i++) {
        found = found || (fitter->exchanges[i].kind == MOE_EVIDENCE_ALL_TO_ALL &&
                          fitter->exchanges[i].fitted > 0);
    }
    return found;
}

static enum moe_status measure(struct moe_assembly *assembly, struct value *values,
                               struct moe_error *err)
{
    const struct moe_fitter *fitter = assembly->fitter;
    static const enum moe_parameter gqa[] = { MOE_PARAMETER_ATTENTION_BYTES_S,
                                              MOE_PARAMETER_ATTENTION_FLOP_S,
                                              MOE_PARAMETER_ATTENTION_P,
                                              MOE_PARAMETER_ATTENTION_T0_NS };
    static const enum moe_parameter mla[] = { MOE_PARAMETER_MLA_BYTES_S, MOE_PARAMETER_MLA_FLOP_S,
                                              MOE_PARAMETER_MLA_P, MOE_PARAMETER_MLA_T0_NS };
    MOE_TRY(set_core(assembly, values, core_line(fitter, MOE_EVIDENCE_KV_GQA), gqa, err));
    MOE_TRY(set_core(assembly, values, core_line(fitter, MOE_EVIDENCE_KV_MLA), mla, err));
    set(values, MOE_PARAMETER_LAUNCH_NS, ceiling_median(fitter, "graph_node_ns"), "graph_node_ns");
    set(values, MOE_PARAMETER_COPY_BYTES_S, copy_rate(fitter), "permute and combine");
    set(values, MOE_PARAMETER_BURST_HZ, 1e6 * ceiling_median(fitter, "burst_mhz"), "burst_mhz");
    set(values, MOE_PARAMETER_SUSTAINED_HZ, 1e6 * ceiling_median(fitter, "sustained_mhz"),
        "sustained_mhz");
    set(values, MOE_PARAMETER_SUSTAINED_FACTOR, sustained_factor(fitter), "sustained points");
    set(values, MOE_PARAMETER_OVERLAP_COMPUTE, overlap_factor(fitter, "gemm-under", "gemm-alone"),
        "overlap");
    set(values, MOE_PARAMETER_OVERLAP_COMM,
        overlap_factor(fitter, "exchange-under", "exchange-alone"), "overlap");
    set(values, MOE_PARAMETER_INCAST_FACTOR, incast_factor(fitter), "all_to_all_v");
    if (has_uneven(fitter)) {
        set(values, MOE_PARAMETER_ONE_WAY_SAVING, fitter->one_way_saving,
            "one way against both ways");
        set(values, MOE_PARAMETER_OWN_BYTES_S, fitter->own_bytes_s,
            fitter->own_is_measured ? "all_to_all_v" : "0.145 of reading, as another run of H200");
        if (!fitter->own_is_measured) {
            values[MOE_PARAMETER_OWN_BYTES_S].provenance = MOE_PROVENANCE_ASSUMED;
        }
    }
    if (fitter->drift.found) {
        set(values, MOE_PARAMETER_DRIFT_TAU_S, fitter->drift.tau_s, "sentinels");
    }
    return MOE_OK;
}

static const struct moe_calibration_parameter *find_base(const struct moe_assembly *assembly,
                                                         enum moe_parameter parameter)
{
    const struct moe_calibration *base = assembly->base;
    for (uint32_t i = 0; i < base->parameter_count; i++) {
        if (strcmp(base->parameter_rows[i].gpu_kind, assembly->base_kind) == 0 &&
            strcmp(base->parameter_rows[i].name, moe_parameter_name(parameter)) == 0) {
            return &base->parameter_rows[i];
        }
    }
    return NULL;
}

enum moe_status moe_assembly_parameters(struct moe_assembly *assembly, struct moe_error *err)
{
    struct value values[MOE_PARAMETER_COUNT] = { 0 };
    MOE_TRY(measure(assembly, values, err));
    for (uint32_t p = 0; p < MOE_PARAMETER_COUNT; p++) {
        const struct moe_calibration_parameter *base = find_base(assembly, p);
        if (values[p].value <= 0.0 && base == NULL) {
            continue;
        }
        MOE_ASSEMBLY_ROW(assembly, parameter, row)
        if (values[p].value > 0.0) {
            *row = (struct moe_calibration_parameter){
                .gpu_kind = assembly->fitter->gpu_kind,
                .name = moe_parameter_name(p),
                .value = moe_round_digits(values[p].value, MOE_FITTER_DIGITS),
                .provenance = values[p].provenance,
                .source = moe_table_builder_text(assembly->builder, "%s; %s", assembly->source,
                                                 values[p].note),
            };
        } else {
            *row = *base;
            row->gpu_kind = assembly->fitter->gpu_kind;
            row->provenance = moe_assembly_provenance(assembly, base->provenance);
            row->source = moe_assembly_source(assembly, base->source);
        }
    }
    return MOE_OK;
}

static enum moe_status add_quality(struct moe_assembly *assembly, const char *name,
                                   const struct moe_quality *quality, struct moe_error *err)
{
    MOE_ASSEMBLY_ROW(assembly, fit_quality, row)
    *row = (struct moe_calibration_fit_quality){
        .series = moe_table_builder_text(assembly->builder, "%.63s", name),
        .gpu_kind = assembly->fitter->gpu_kind,
        .points = quality->points,
        .status = quality->status,
        .fitted = quality->fitted,
        .checked = quality->checked,
        .mape = moe_round_digits(quality->mape, MOE_FITTER_DIGITS),
        .p95 = moe_round_digits(quality->p95, MOE_FITTER_DIGITS),
        .bias = moe_round_digits(quality->bias, MOE_FITTER_DIGITS),
        .worst = moe_round_digits(quality->worst, MOE_FITTER_DIGITS),
        .gate_mape = quality->gate_mape,
        .gate_p95 = quality->gate_p95,
        .repeat_share =
            quality->repeats.count == 0
                ? 0.0
                : moe_round_digits((double) quality->repeats.agreeing / quality->repeats.count,
                                   MOE_FITTER_DIGITS),
        .reason = moe_table_builder_text(assembly->builder, "%.200s", quality->reason),
        .provenance = MOE_PROVENANCE_MEASURED,
        .source = assembly->source,
    };
    return MOE_OK;
}

/* The series of one table together, under the table's name. */
static enum moe_status add_together(struct moe_assembly *assembly, const struct moe_fitter *fitter,
                                    const char *name, const uint32_t *member_of, uint32_t index,
                                    struct moe_error *err)
{
    for (int points = MOE_FIT_HELDOUT; points <= MOE_FIT_SKEW; points++) {
        struct moe_quality all;
        MOE_TRY(moe_quality_together(&all, fitter, member_of, index, (enum moe_fit_points) points,
                                     err));
        if (all.checked > 0) {
            MOE_TRY(add_quality(assembly, name, &all, err));
        }
    }
    return MOE_OK;
}

enum moe_status moe_assembly_quality(struct moe_assembly *assembly, struct moe_error *err)
{
    const struct moe_fitter *fitter = assembly->fitter;
    const struct moe_evidence *evidence = fitter->evidence;
    const struct moe_fitter lines = moe_assembly_lines_alone(fitter);
    for (uint32_t i = 0; i < assembly->quality_count; i++) {
        MOE_TRY(add_quality(assembly, evidence->series[assembly->quality[i].series].name,
                            &assembly->quality[i], err));
    }
    for (uint32_t i = 0; i < fitter->shape_count; i++) {
        if (fitter->shapes[i].shape.op == MOE_SERIES_EXPERT && fitter->shapes[i].shape.count > 0) {
            MOE_TRY(add_together(assembly, fitter, fitter->shapes[i].shape.name, fitter->shape_of,
                                 i, err));
        }
    }
    for (uint32_t i = 0; i < fitter->line_count; i++) {
        const struct moe_fitter_line *line = &fitter->lines[i];
        if (line->fitted > 0 &&
            (line->kind == MOE_EVIDENCE_KV_GQA || line->kind == MOE_EVIDENCE_KV_MLA)) {
            MOE_TRY(add_together(assembly, &lines, line->name, fitter->line_of, i, err));
        }
    }
    MOE_ASSEMBLY_ROW(assembly, fitting, fitting)
    *fitting = (struct moe_calibration_fitting){
        .gpu_kind = assembly->fitter->gpu_kind,
        .samples_hash = moe_table_builder_text(assembly->builder, "%016llx",
                                               (unsigned long long) evidence->hash),
        .samples = evidence->sample_count,
        .program = "moesim " MOE_VERSION,
        .provenance = MOE_PROVENANCE_MEASURED,
        .source = assembly->source,
    };
    return MOE_OK;
}
