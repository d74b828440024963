/*
 * CSV report: one row per policy and figure. The first nine columns are always these,
 *
 *   policy, mark, fits, oracle, metric, unit, higher_is_better, mean, half_width
 *
 * and after them stands one column per seed, seed_1, seed_2, ... by the seeds' own numbers.
 * The figures are those of metric.def, then speedup (over the baseline, per seed too), then
 * those of the plan. What does not apply is empty. No field needs quotes.
 */
#include <inttypes.h>
#include <math.h>

#include "sim/report/finding.h"
#include "sim/report/report.h"

struct row {
    const struct moe_study *study;
    uint32_t policy;
    const char *metric;
    const char *unit;
    bool higher_is_better;
    bool known;
    struct moe_estimate estimate;
};

static void put_number(FILE *out, double value, bool known)
{
    (void) fputc(',', out);
    if (known && isfinite(value)) {
        (void) fprintf(out, "%.12g", value);
    }
}

static void begin_row(FILE *out, const struct row *row)
{
    const struct moe_policy_summary *p = &row->study->policies[row->policy];
    (void) fprintf(out, "%s,%s,%d,%d,%s,%s,%d", p->composition.label,
                   moe_finding_mark(row->study, row->policy), p->fits, p->oracle, row->metric,
                   row->unit, row->higher_is_better);
    put_number(out, row->estimate.mean, row->known);
    put_number(out, row->estimate.half, row->known);
}

static void put_metrics(FILE *out, const struct moe_study *study, uint32_t policy)
{
    const struct moe_policy_summary *p = &study->policies[policy];
    for (uint32_t i = 0; i < moe_metric_known_count(study->scenario); i++) {
        const enum moe_metric metric = (enum moe_metric) i;
        const struct row row = { study,
                                 policy,
                                 moe_metric_name(metric),
                                 moe_metric_unit(metric),
                                 moe_metric_higher_is_better(metric),
                                 p->fits,
                                 p->metric[i] };
        begin_row(out, &row);
        for (uint32_t seed = 0; seed < study->seed_count; seed++) {
            put_number(out, p->fits ? moe_metric_value(metric, &p->runs[seed]) : 0.0, p->fits);
        }
        (void) fputc('\n', out);
    }
}

static void put_speedup(FILE *out, const struct moe_study *study, uint32_t policy)
{
    const struct moe_policy_summary *p = &study->policies[policy];
    const struct moe_policy_summary *base = &study->policies[study->baseline];
    const bool known = p->fits && base->fits;
    const struct row row = { study, policy, "speedup", "", true, known, p->speedup };
    begin_row(out, &row);
    for (uint32_t seed = 0; seed < study->seed_count; seed++) {
        const double own = known ? moe_score_value(study->score, &p->runs[seed]) : 0.0;
        const double other = known ? moe_score_value(study->score, &base->runs[seed]) : 1.0;
        put_number(out, own == other ? 1.0 : own / other, known);
    }
    (void) fputc('\n', out);
}

static void put_plan(FILE *out, const struct moe_study *study, uint32_t policy)
{
    for (uint32_t i = 0; i < MOE_PLAN_FIGURE_COUNT; i++) {
        const enum moe_plan_figure figure = (enum moe_plan_figure) i;
        const bool higher = figure == MOE_PLAN_KV_TOKENS || figure == MOE_PLAN_LARGEST_BATCH;
        const struct row row = { study,
                                 policy,
                                 moe_plan_figure_name(figure),
                                 moe_plan_figure_unit(figure),
                                 higher,
                                 true,
                                 moe_plan_figure_estimate(study, policy, figure) };
        begin_row(out, &row);
        for (uint32_t seed = 0; seed < study->seed_count; seed++) {
            put_number(out,
                       moe_plan_figure_value(study, &study->policies[policy].runs[seed], figure),
                       true);
        }
        (void) fputc('\n', out);
    }
}

static enum moe_status write(const struct moe_study *study,
                             const struct moe_report_options *options, FILE *out,
                             struct moe_error *err)
{
    (void) options;
    (void) fputs("policy,mark,fits,oracle,metric,unit,higher_is_better,mean,half_width", out);
    for (uint32_t seed = 0; seed < study->seed_count; seed++) {
        (void) fprintf(out, ",seed_%" PRIu64, study->scenario->first_seed + seed);
    }
    (void) fputc('\n', out);
    for (uint32_t policy = 0; policy < study->policy_count; policy++) {
        put_metrics(out, study, policy);
        put_speedup(out, study, policy);
        put_plan(out, study, policy);
    }
    return moe_report_stream_status(out, err);
}

const struct moe_report moe_report_csv = {
    .name = "csv",
    .summary = "for spreadsheets: a row per policy and figure",
    .write = write,
};
