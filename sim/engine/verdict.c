#include "sim/engine/verdict.h"

#include <assert.h>
#include <gsl/gsl_cdf.h>
#include <gsl/gsl_statistics_double.h>
#include <math.h>

struct moe_estimate moe_estimate_of(const double *values, uint32_t count)
{
    assert(count > 0);
    const double mean = gsl_stats_mean(values, 1, count);
    if (count == 1) {
        return (struct moe_estimate){ .mean = mean, .half = NAN };
    }
    const double t = gsl_cdf_tdist_Pinv(0.975, count - 1);
    const double sd = gsl_stats_sd_m(values, 1, count, mean);
    return (struct moe_estimate){ .mean = mean, .half = t * sd / sqrt(count) };
}

/* The score as it was (lane < 0), or output tokens per scored nanosecond in a sensitivity lane. */
static double rate(const struct moe_study *study, const struct moe_run_result *run, int lane)
{
    const struct moe_token_account *a = &run->account[MOE_PHASE_SCORED];
    return lane < 0 ? moe_score_value(study->score, run)
                    : (double) a->output_tokens / (double) run->sensitivity_ns[lane];
}

static enum moe_score score_of(const struct moe_study *study)
{
    if (study->scenario->arrivals.kind == MOE_ARRIVAL_CLOSED) {
        return MOE_SCORE_OUTPUT_RATE;
    }
    if (moe_slo_is_asked(&study->scenario->slo)) {
        return MOE_SCORE_GOODPUT;
    }
    for (uint32_t i = 0; i < study->policy_count; i++) {
        for (uint32_t seed = 0; seed < study->seed_count; seed++) {
            const struct moe_run_result *run = &study->policies[i].runs[seed];
            if (study->policies[i].fits && !study->policies[i].oracle &&
                run->service.is_saturated) {
                return MOE_SCORE_OUTPUT_RATE;
            }
        }
    }
    return MOE_SCORE_SPEED;
}

/* Speed-ups over the baseline, paired by seed. scratch[seed_count]. */
static struct moe_estimate speedup(const struct moe_study *study, uint32_t policy, int lane,
                                   double *scratch)
{
    const struct moe_run_result *runs = study->policies[policy].runs;
    const struct moe_run_result *base = study->policies[study->baseline].runs;
    for (uint32_t i = 0; i < study->seed_count; i++) {
        const double own = rate(study, &runs[i], lane);
        const double other = rate(study, &base[i], lane);
        scratch[i] = own == other ? 1.0 : own / other; /* goodput may be 0 */
    }
    return moe_estimate_of(scratch, study->seed_count);
}

static bool contends(const struct moe_policy_summary *policy)
{
    return policy->fits && !policy->oracle;
}

/* With one seed there is no interval: only exact equality is then a tie. */
static bool overlap(struct moe_estimate a, struct moe_estimate b)
{
    if (isnan(a.half) || isnan(b.half)) {
        return a.mean == b.mean;
    }
    return a.mean - a.half <= b.mean + b.half && b.mean - b.half <= a.mean + a.half;
}

/* The contender with the highest mean; the first wins ties. policy_count when there is none. */
static uint32_t best_of(const struct moe_study *study, const struct moe_estimate *speedups)
{
    uint32_t best = study->policy_count;
    for (uint32_t i = 0; i < study->policy_count; i++) {
        if (contends(&study->policies[i]) &&
            (best == study->policy_count || speedups[i].mean > speedups[best].mean)) {
            best = i;
        }
    }
    return best;
}

static void summarise(struct moe_study *study, double *scratch)
{
    for (uint32_t i = 0; i < study->policy_count; i++) {
        struct moe_policy_summary *policy = &study->policies[i];
        policy->fits = true;
        for (uint32_t seed = 0; seed < study->seed_count; seed++) {
            policy->fits = policy->fits && policy->runs[seed].fits;
        }
        policy->oracle =
            (moe_composition_needs(&policy->composition) & MOE_POLICY_NEEDS_FUTURE) != 0;
        policy->largest_batch =
            moe_memory_largest_batch(&policy->runs[0].memory, study->mean_request_tokens);
        for (uint32_t m = 0; policy->fits && m < moe_metric_known_count(study->scenario); m++) {
            for (uint32_t seed = 0; seed < study->seed_count; seed++) {
                scratch[seed] = moe_metric_value((enum moe_metric) m, &policy->runs[seed]);
            }
            policy->metric[m] = moe_estimate_of(scratch, study->seed_count);
        }
    }
}

/* A lane flips the verdict when its best policy is one that the verdict did not name, and
 * the verdict's own best is clearly behind it there. */
static void find_flips(struct moe_study *study, struct moe_estimate *speedups, double *scratch)
{
    for (int lane = 0; lane < MOE_SENSITIVITY_LANES; lane++) {
        for (uint32_t i = 0; i < study->policy_count; i++) {
            if (study->policies[i].fits) {
                speedups[i] = speedup(study, i, lane, scratch);
            }
        }
        const uint32_t winner = best_of(study, speedups);
        if (winner != study->best && !overlap(speedups[winner], speedups[study->best])) {
            study->flips[study->flip_count++] =
                (struct moe_flip){ .part = (enum moe_cost_part)(lane / 2),
                                   .scale = moe_sensitivity_scale((uint32_t) lane),
                                   .winner = winner };
        }
    }
}

void moe_verdict_reach(struct moe_study *study, double *scratch)
{
    struct moe_estimate speedups[MOE_SCENARIO_POLICY_LIMIT] = { 0 };
    summarise(study, scratch);
    study->score = score_of(study);
    study->best = study->policy_count;
    study->tie_count = 0;
    study->flip_count = 0;
    for (uint32_t i = 0; i < study->policy_count && !study->policies[study->baseline].fits; i++) {
        if (contends(&study->policies[i])) {
            study->baseline = i; /* stands in; the report says so */
        }
    }
    if (!study->policies[study->baseline].fits) {
        return;
    }
    for (uint32_t i = 0; i < study->policy_count; i++) {
        if (study->policies[i].fits) {
            speedups[i] = speedup(study, i, -1, scratch);
            study->policies[i].speedup = speedups[i];
        }
    }
    study->best = best_of(study, speedups);
    if (study->best == study->policy_count) {
        return;
    }
    for (uint32_t i = 0; i < study->policy_count; i++) {
        struct moe_policy_summary *policy = &study->policies[i];
        policy->best = i == study->best;
        policy->tie =
            !policy->best && contends(policy) && overlap(speedups[i], speedups[study->best]);
        study->tie_count += policy->tie;
    }
    /* Lanes replay one schedule; over time a slower step would change who is in it. */
    study->sensitivity_known =
        study->scenario->attribution && study->scenario->arrivals.kind == MOE_ARRIVAL_CLOSED;
    if (study->sensitivity_known) {
        find_flips(study, speedups, scratch);
    }
}
