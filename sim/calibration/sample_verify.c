#include "sim/calibration/sample_verify.h"

#include <assert.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "sim/calibration/evidence.h"
#include "sim/cost/calibration.h"

static const double read_margin = 1.02;
static const double flop_margin = 1.05;

static const struct {
    const char *text;
    const char *broken; /* what it means when it is not so */
    int is_damage;
} checks[MOE_SAMPLE_CHECK_COUNT] = {
    [MOE_SAMPLE_CHECK_CELLS] = { "every cell of the samples is in its range",
                                 "the samples cannot be read", 1 },
    [MOE_SAMPLE_CHECK_VISITS] = { "no visit is there twice",
                                  "visits are there twice: merged from a run and its copy?", 1 },
    [MOE_SAMPLE_CHECK_TABLES] = { "fitted tables, if any, can be read by a run",
                                  "no run can read the fitted tables; `moesim fit` makes new ones",
                                  1 },
    [MOE_SAMPLE_CHECK_FITTING] = { "fitted tables, if any, are made of these samples",
                                   "the fitted tables are not made of these samples", 1 },
    [MOE_SAMPLE_CHECK_PHYSICS] = { "no sample is faster than its run's ceilings",
                                   "samples are faster than what their run measured as possible",
                                   0 },
    [MOE_SAMPLE_CHECK_RUNS] = { "every run ended in order",
                                "runs were cut off; what they have is good, passes may be missing",
                                0 },
    [MOE_SAMPLE_CHECK_HELDOUT] = { "every series that was fitted has held-out points",
                                   "series have nothing held out: their error is not known", 0 },
    [MOE_SAMPLE_CHECK_TIES] = { "every run shares points with another",
                                "runs share no point with another: what differs between their days "
                                "cannot be told from what differs between their GPUs",
                                0 },
    [MOE_SAMPLE_CHECK_REPEATS] = { "nine of ten later passes are within 1.5 % of the first",
                                   "later passes are further from the first than is asked", 0 },
};

const char *moe_sample_check_text(enum moe_sample_check check)
{
    assert(check < MOE_SAMPLE_CHECK_COUNT);
    return checks[check].text;
}

const char *moe_sample_check_broken(enum moe_sample_check check)
{
    assert(check < MOE_SAMPLE_CHECK_COUNT);
    return checks[check].broken;
}

int moe_sample_check_is_damage(enum moe_sample_check check)
{
    assert(check < MOE_SAMPLE_CHECK_COUNT);
    return checks[check].is_damage;
}

#define FINDING(out, check, ...)                                                         \
    do {                                                                                 \
        struct moe_sample_verdict *verdict_ = &(out)->verdicts[check];                   \
        if (verdict_->count++ == 0) {                                                    \
            moe_error_set(&verdict_->first, MOE_RANGE, __FILE__, __LINE__, __VA_ARGS__); \
        }                                                                                \
    } while (0)

/* What makes a visit one. */
struct visit {
    uint32_t key[4]; /* point, run, GPU, pass */
    double begin_s;
    int64_t id;
};

static int compare_visits(const void *left, const void *right)
{
    const struct visit *a = left;
    const struct visit *b = right;
    for (int i = 0; i < 4; i++) {
        if (a->key[i] != b->key[i]) {
            return a->key[i] < b->key[i] ? -1 : 1;
        }
    }
    if (a->begin_s != b->begin_s) {
        return a->begin_s < b->begin_s ? -1 : 1;
    }
    return (a->id > b->id) - (a->id < b->id);
}

static enum moe_status check_visits(struct moe_sample_verification *out,
                                    const struct moe_evidence *evidence, struct moe_error *err)
{
    struct visit *visits = malloc(evidence->sample_count * sizeof visits[0]);
    if (visits == NULL) {
        return moe_fail(err, MOE_LIMIT, "%s: no memory for %u samples", evidence->name,
                        evidence->sample_count);
    }
    for (uint32_t i = 0; i < evidence->sample_count; i++) {
        const struct moe_evidence_sample *s = &evidence->samples[i];
        visits[i] = (struct visit){ { s->point, s->run, s->gpu, s->pass }, s->begin_s, s->id };
    }
    qsort(visits, evidence->sample_count, sizeof visits[0], compare_visits);
    for (uint32_t i = 1; i < evidence->sample_count; i++) {
        const struct visit *a = &visits[i - 1];
        const struct visit *b = &visits[i];
        if (memcmp(a->key, b->key, sizeof a->key) == 0 && a->begin_s == b->begin_s) {
            FINDING(out, MOE_SAMPLE_CHECK_VISITS, "samples %lld and %lld are of one visit",
                    (long long) a->id, (long long) b->id);
        }
    }
    free(visits);
    return MOE_OK;
}

static double run_ceiling(const struct moe_evidence *evidence,
                          const struct moe_evidence_sample *sample, const char *name)
{
    for (uint32_t i = 0; i < evidence->ceiling_count; i++) {
        const struct moe_evidence_ceiling *ceiling = &evidence->ceilings[i];
        if (ceiling->run == sample->run && ceiling->gpu == sample->gpu &&
            strcmp(ceiling->name, name) == 0) {
            return ceiling->value;
        }
    }
    return 0.0;
}

static void check_physics(struct moe_sample_verification *out, const struct moe_evidence *evidence)
{
    for (uint32_t i = 0; i < evidence->sample_count; i++) {
        const struct moe_evidence_sample *sample = &evidence->samples[i];
        const struct moe_evidence_point *point = &evidence->points[sample->point];
        const struct moe_evidence_series *series = &evidence->series[point->series];
        if ((series->kind != MOE_EVIDENCE_EXPERT && series->kind != MOE_EVIDENCE_GEMM) ||
            (sample->flags & MOE_EVIDENCE_UNPHYSICAL) != 0) {
            continue;
        }
        const double read = run_ceiling(evidence, sample, "read_bytes_s");
        const double flop = run_ceiling(
            evidence, sample, strcmp(series->dtype, "fp8") == 0 ? "fp8_flop_s" : "bf16_flop_s");
        const double s = sample->median_us * 1e-6;
        if ((read > 0.0 && point->bytes / s > read * read_margin) ||
            (flop > 0.0 && point->flops / s > flop * flop_margin)) {
            FINDING(out, MOE_SAMPLE_CHECK_PHYSICS,
                    "sample %lld of %s: %.3g bytes/s and %.3g FLOP/s, ceilings %.3g and %.3g",
                    (long long) sample->id, series->name, point->bytes / s, point->flops / s, read,
                    flop);
        }
    }
}

static void check_runs(struct moe_sample_verification *out, const struct moe_evidence *evidence,
                       const unsigned char *run_ties)
{
    for (uint32_t r = 0; r < evidence->run_count; r++) {
        if (evidence->runs[r].wall_s <= 0.0) {
            FINDING(out, MOE_SAMPLE_CHECK_RUNS, "the run of %s was cut off",
                    evidence->runs[r].started_at);
        }
        if (evidence->run_count > 1 && run_ties[r] == 0) {
            FINDING(out, MOE_SAMPLE_CHECK_TIES, "the run of %s has no point that another has",
                    evidence->runs[r].started_at);
        }
    }
}

static void check_heldout(struct moe_sample_verification *out, const struct moe_evidence *evidence)
{
    for (uint32_t s = 0; s < evidence->series_count; s++) {
        uint32_t anchors = 0;
        uint32_t heldout = 0;
        for (uint32_t p = 0; p < evidence->point_count; p++) {
            if (evidence->points[p].series == s) {
                anchors += evidence->points[p].role == MOE_EVIDENCE_ANCHOR ? 1 : 0;
                heldout += evidence->points[p].role == MOE_EVIDENCE_HELDOUT ? 1 : 0;
            }
        }
        const enum moe_evidence_kind kind = evidence->series[s].kind;
        const bool predicted = kind != MOE_EVIDENCE_OVERLAP && kind != MOE_EVIDENCE_LAUNCH;
        if (predicted && anchors > 0 && heldout == 0) {
            FINDING(out, MOE_SAMPLE_CHECK_HELDOUT, "%s has %u anchors and nothing held out",
                    evidence->series[s].name, anchors);
        }
    }
}

/* A run is tied when one of its points was also measured in another. */
static enum moe_status check_run_ties(struct moe_sample_verification *out,
                                      const struct moe_evidence *evidence, struct moe_error *err)
{
    uint32_t *seen = calloc(evidence->point_count + 1, sizeof seen[0]); /* run + 1 */
    unsigned char *tied = calloc(evidence->run_count + 1, 1);
    enum moe_status status = MOE_OK;
    if (seen == NULL || tied == NULL) {
        status = moe_fail(err, MOE_LIMIT, "%s: no memory for %u points", evidence->name,
                          evidence->point_count);
        goto done;
    }
    for (uint32_t i = 0; i < evidence->sample_count; i++) {
        const struct moe_evidence_sample *sample = &evidence->samples[i];
        uint32_t *first = &seen[sample->point];
        if (*first != 0 && *first != sample->run + 1) {
            tied[sample->run] = 1;
            tied[*first - 1] = 1;
        }
        *first = *first == 0 ? sample->run + 1 : *first;
    }
    check_runs(out, evidence, tied);
done:
    free(seen);
    free(tied);
    return status;
}

static enum moe_status check_tables(struct moe_sample_verification *out, struct moe_database *db,
                                    const char *path, const struct moe_evidence *evidence,
                                    struct moe_error *err)
{
    enum { ARENA_BYTES = 256 << 20 };
    struct moe_arena arena;
    const struct moe_calibration *calibration = NULL;
    struct moe_error why = { 0 };
    int64_t there = 0;
    MOE_TRY(moe_database_scalar(
        db, "SELECT count(*) FROM sqlite_schema WHERE type = 'table' AND name = 'gpu_kind'", 0,
        &there, err));
    if (there == 0) {
        return MOE_OK; /* samples alone */
    }
    MOE_TRY(moe_arena_init(&arena, ARENA_BYTES, err));
    if (moe_calibration_read(&calibration, db, path, &arena, &why) != MOE_OK) {
        FINDING(out, MOE_SAMPLE_CHECK_TABLES, "%s", why.text);
    } else if (evidence != NULL) {
        char hash[20];
        (void) snprintf(hash, sizeof hash, "%016llx", (unsigned long long) evidence->hash);
        for (uint32_t i = 0; i < calibration->fitting_count; i++) {
            if (strcmp(calibration->fitting_rows[i].samples_hash, hash) != 0) {
                FINDING(out, MOE_SAMPLE_CHECK_FITTING,
                        "tables of samples %s, but the file holds %s; `moesim fit` makes new ones",
                        calibration->fitting_rows[i].samples_hash, hash);
            }
        }
        if (calibration->fitting_count == 0) {
            FINDING(out, MOE_SAMPLE_CHECK_FITTING, "the tables do not say what they are made of");
        }
    }
    moe_arena_finish(&arena);
    return MOE_OK;
}

/* As measured, in microseconds: what is asked is asked of that reading. */
static enum moe_status check_repeats(struct moe_sample_verification *out,
                                     const struct moe_evidence *evidence, struct moe_error *err)
{
    struct moe_arena arena;
    MOE_TRY(moe_arena_init(&arena, moe_repeats_bytes(evidence), err));
    struct moe_repeats *series = MOE_NEW(&arena, struct moe_repeats, evidence->series_count);
    enum moe_status status = MOE_OK;
    if (series == NULL) {
        status = moe_fail(err, MOE_LIMIT, "%s: no memory for its repeats", evidence->name);
        goto done;
    }
    status = moe_repeats_count(series, evidence, &arena, err);
    if (status == MOE_OK) {
        out->all_repeats = moe_repeats_by_kind(out->repeats, series, evidence);
        const uint32_t count = out->all_repeats.count;
        if (out->all_repeats.agreeing < MOE_REPEATS_ASKED * count) {
            FINDING(out, MOE_SAMPLE_CHECK_REPEATS, "%u of %u are within it, 90 %% are asked",
                    out->all_repeats.agreeing, count);
        }
    }
done:
    moe_arena_finish(&arena);
    return status;
}

enum moe_status moe_sample_verify(struct moe_sample_verification *out, const char *path,
                                  struct moe_error *err)
{
    struct moe_sample_verification result = { 0 };
    struct moe_evidence evidence = { 0 };
    struct moe_database db;
    struct moe_error why = { 0 };
    MOE_TRY(moe_database_open(&db, &moe_calibration_database, path, MOE_DATABASE_READ, err));
    enum moe_status status = moe_evidence_read(&evidence, &db, path, &why);
    const bool readable = status == MOE_OK;
    if (!readable) {
        FINDING(&result, MOE_SAMPLE_CHECK_CELLS, "%s", why.text);
    }
    status = check_tables(&result, &db, path, readable ? &evidence : NULL, err);
    moe_database_close(&db);
    if (status == MOE_OK && readable) {
        result.samples = evidence.sample_count;
        check_physics(&result, &evidence);
        check_heldout(&result, &evidence);
        status = check_visits(&result, &evidence, err);
        if (status == MOE_OK) {
            status = check_run_ties(&result, &evidence, err);
        }
        if (status == MOE_OK) {
            status = check_repeats(&result, &evidence, err);
        }
    }
    moe_evidence_finish(&evidence);
    if (status == MOE_OK) {
        *out = result;
    }
    return status;
}
