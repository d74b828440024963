/* What differs: GPUs, and one time from the next. */
#include <gsl/gsl_statistics_double.h>
#include <math.h>
#include <string.h>

#include "sim/calibration/assembly.h"

enum { LEAST_CARDS = 4, LEAST_SAMPLES = 8, QUANTILE_COUNT = 6, STILL_VISITS = 20 };
static const double pass_s = 0.03; /* of drift.tau_s (calibration_parameters.def) */

/* A GPU's factor as far as it can be told from 1: of a deviation d with standard error s the share
 * 1 - (s/d)^2 is kept (positive-part James-Stein), so that a run does not take for true what a wide
 * interval only guesses, while a slow card that is sure stays as slow as it is. */
static double sure_factor(const struct moe_fitter_gpu *gpu, uint32_t class)
{
    const double deviation = log(gpu->factor[class]);
    const double error = log(gpu->high[class] / gpu->low[class]) / (2.0 * 1.96);
    if (gpu->points[class] == 0 || fabs(deviation) <= error) {
        return 1.0;
    }
    const double share = error / deviation;
    return moe_round_digits(exp(deviation * (1.0 - share * share)), MOE_FITTER_DIGITS);
}

static enum moe_status add_gpu(struct moe_assembly *assembly, uint32_t index, struct moe_error *err)
{
    const struct moe_fitter_gpu *gpu = &assembly->fitter->gpus[index];
    const char *uuid = assembly->fitter->evidence->gpus[index].uuid;
    MOE_ASSEMBLY_ROW(assembly, gpu, row)
    *row = (struct moe_calibration_gpu){
        .uuid = uuid,
        .gpu_kind = assembly->fitter->gpu_kind,
        .compute = sure_factor(gpu, MOE_FACTOR_COMPUTE),
        .memory = sure_factor(gpu, MOE_FACTOR_MEMORY),
        .comm = sure_factor(gpu, MOE_FACTOR_COMM),
        .provenance = MOE_PROVENANCE_MEASURED,
        .source = assembly->source,
    };
    for (uint32_t c = 0; c < MOE_FACTOR_COUNT; c++) {
        if (gpu->points[c] == 0) {
            continue;
        }
        MOE_ASSEMBLY_ROW(assembly, gpu_interval, interval)
        *interval = (struct moe_calibration_gpu_interval){
            .uuid = uuid,
            .class = c,
            .low = moe_round_digits(gpu->low[c], MOE_FITTER_DIGITS),
            .high = moe_round_digits(gpu->high[c], MOE_FITTER_DIGITS),
            .run_sd = moe_round_digits(gpu->run_sd[c], MOE_FITTER_DIGITS),
            .points = gpu->points[c],
            .runs = gpu->runs,
            .provenance = MOE_PROVENANCE_MEASURED,
            .source = assembly->source,
        };
    }
    return MOE_OK;
}

/* A single card says nothing of how cards differ: then runs draw from the prior. */
static enum moe_status add_gpus(struct moe_assembly *assembly, struct moe_error *err)
{
    const uint32_t count = assembly->fitter->evidence->gpu_count;
    for (uint32_t g = 0; g < count && count > 1; g++) {
        MOE_TRY(add_gpu(assembly, g, err));
    }
    return MOE_OK;
}

static enum moe_status add_factors(struct moe_assembly *assembly, struct moe_error *err)
{
    const struct moe_evidence *evidence = assembly->fitter->evidence;
    double *logs = MOE_NEW(assembly->fitter->arena, double, evidence->gpu_count + 1);
    if (logs == NULL) {
        return moe_fail(err, MOE_LIMIT, "%s: no memory for its GPUs", evidence->name);
    }
    for (uint32_t i = 0; i < assembly->base->factor_count; i++) {
        const struct moe_calibration_factor *base = &assembly->base->factor_rows[i];
        uint32_t cards = 0;
        if (strcmp(base->gpu_kind, assembly->base_kind) != 0) {
            continue;
        }
        for (uint32_t g = 0; g < evidence->gpu_count; g++) {
            if (assembly->fitter->gpus[g].points[base->class] > 0) {
                logs[cards++] = log(assembly->fitter->gpus[g].factor[base->class]);
            }
        }
        MOE_ASSEMBLY_ROW(assembly, factor, row)
        *row = *base;
        row->gpu_kind = assembly->fitter->gpu_kind;
        row->provenance = moe_assembly_provenance(assembly, base->provenance);
        row->source = moe_assembly_source(assembly, base->source);
        if (cards >= LEAST_CARDS) {
            row->sd = moe_round_digits(gsl_stats_sd(logs, 1, cards), MOE_FITTER_DIGITS);
            row->provenance = moe_provenance_worse(MOE_PROVENANCE_MEASURED, row->provenance);
            row->source = moe_table_builder_text(assembly->builder,
                                                 "sd measured of %u cards; the tail is the "
                                                 "base's: %.300s",
                                                 cards, base->source);
        }
    }
    return MOE_OK;
}

static bool belongs(enum moe_jitter jitter, enum moe_evidence_kind kind)
{
    switch (jitter) {
    case MOE_JITTER_EXPERT:
        return kind == MOE_EVIDENCE_EXPERT;
    case MOE_JITTER_COMM:
        return kind >= MOE_EVIDENCE_ALL_TO_ALL && kind <= MOE_EVIDENCE_ALL_REDUCE;
    case MOE_JITTER_COMPUTE:
        return kind == MOE_EVIDENCE_GEMM || kind == MOE_EVIDENCE_KV_GQA ||
               kind == MOE_EVIDENCE_KV_MLA || kind == MOE_EVIDENCE_GATE;
    case MOE_JITTER_COUNT:
        break;
    }
    return false;
}

/* Quantile by quantile the median over samples of quantile / median: the typical operation's
 * noise from one call to the next, whatever its level. */
static uint32_t typical_quantiles(const struct moe_assembly *assembly, enum moe_jitter jitter,
                                  double *quantiles, double *scratch)
{
    const struct moe_evidence *evidence = assembly->fitter->evidence;
    uint32_t used = 0;
    for (uint32_t q = 0; q < QUANTILE_COUNT; q++) {
        used = 0;
        for (uint32_t s = 0; s < evidence->sample_count; s++) {
            const struct moe_evidence_sample *sample = &evidence->samples[s];
            const uint32_t series = evidence->points[sample->point].series;
            if (sample->quantile_us[0] > 0.0 && belongs(jitter, evidence->series[series].kind)) {
                scratch[used++] = sample->quantile_us[q] / sample->median_us;
            }
        }
        if (used > 0) {
            quantiles[q] = moe_round_digits(moe_median(scratch, used), MOE_FITTER_DIGITS);
            quantiles[q] = fmin(fmax(quantiles[q], 0.5), 100.0);
        }
    }
    return used;
}

static enum moe_status add_jitter(struct moe_assembly *assembly, struct moe_error *err)
{
    double *scratch =
        MOE_NEW(assembly->fitter->arena, double, assembly->fitter->evidence->sample_count);
    if (scratch == NULL) {
        return moe_fail(err, MOE_LIMIT, "%s: no memory for its noise",
                        assembly->fitter->evidence->name);
    }
    for (uint32_t i = 0; i < assembly->base->jitter_count; i++) {
        const struct moe_calibration_jitter *base = &assembly->base->jitter_rows[i];
        double q[QUANTILE_COUNT];
        if (strcmp(base->gpu_kind, assembly->base_kind) != 0) {
            continue;
        }
        const uint32_t samples =
            typical_quantiles(assembly, (enum moe_jitter) base->class, q, scratch);
        MOE_ASSEMBLY_ROW(assembly, jitter, row)
        *row = *base;
        row->gpu_kind = assembly->fitter->gpu_kind;
        row->provenance = moe_assembly_provenance(assembly, base->provenance);
        row->source = moe_assembly_source(assembly, base->source);
        if (samples >= LEAST_SAMPLES) {
            row->min = q[0];
            row->p5 = q[1];
            row->p25 = q[2];
            row->p50 = 1.0;
            row->p75 = q[3];
            row->p95 = q[4];
            row->p99 = q[5];
            row->provenance = MOE_PROVENANCE_MEASURED;
            row->source = moe_table_builder_text(assembly->builder, "%s; %u samples",
                                                 assembly->source, samples);
        }
    }
    return MOE_OK;
}

static enum moe_status add_drift(struct moe_assembly *assembly, struct moe_error *err)
{
    const struct moe_fitter *fitter = assembly->fitter;
    for (uint32_t i = 0; i < assembly->base->drift_count; i++) {
        const struct moe_calibration_drift *base = &assembly->base->drift_rows[i];
        if (strcmp(base->gpu_kind, assembly->base_kind) != 0) {
            continue;
        }
        MOE_ASSEMBLY_ROW(assembly, drift, row)
        *row = *base;
        row->gpu_kind = fitter->gpu_kind;
        row->provenance = moe_assembly_provenance(assembly, base->provenance);
        row->source = moe_assembly_source(assembly, base->source);
        if (fitter->drift.found || fitter->sentinel_visits >= STILL_VISITS) {
            row->phi = fitter->drift.found
                           ? moe_round_digits(exp(-pass_s / fitter->drift.tau_s), MOE_FITTER_DIGITS)
                           : 0.0;
            row->sigma = fitter->drift.found
                             ? moe_round_digits(fitter->drift.sigma, MOE_FITTER_DIGITS)
                             : 0.0;
            row->provenance = MOE_PROVENANCE_MEASURED;
            row->source = moe_table_builder_text(
                assembly->builder, "%s; %u sentinels%s", assembly->source, fitter->sentinel_visits,
                fitter->drift.found ? "" : ", no drift beyond their noise");
        }
    }
    return MOE_OK;
}

enum moe_status moe_assembly_noise(struct moe_assembly *assembly, struct moe_error *err)
{
    MOE_TRY(add_gpus(assembly, err));
    MOE_TRY(add_factors(assembly, err));
    MOE_TRY(add_jitter(assembly, err));
    return add_drift(assembly, err);
}
