/*
 * Study: every policy of a scenario under every seed, and what follows from it.
 *
 * Runs are independent and are shared out over threads; results lie in policy and seed
 * order whatever finished first, so the report is the same with any number of threads.
 *
 * Intervals are 95 %, Student's t over seeds. The verdict compares speed-ups over the
 * baseline, paired by seed (policies of one seed meet the same GPUs, the same noise and the
 * same order of requests), and calls policies whose intervals overlap the best one's a tie.
 * Oracles (policies that see the future) are bounds: they take no part in the verdict.
 */
#ifndef MOE_SIM_ENGINE_STUDY_H
#define MOE_SIM_ENGINE_STUDY_H

#include <stdbool.h>
#include <stdint.h>
#include <stdio.h>

#include "policies/composition.h"
#include "sim/cost/calibration.h"
#include "sim/engine/run.h"
#include "sim/scenario/scenario.h"
#include "traces/trace_store.h"

/* Mean over seeds and half the width of its 95 % interval; NAN half-width with one seed. */
struct moe_estimate {
    double mean;
    double half;
};

/* Figures of one run that are summarised over seeds. To add one: a line in metric.def, or in
 * service_metric.def when it is known only of requests that arrive over time. */
enum moe_metric {
#define MOE_METRIC(id, name, unit, higher_is_better, title) MOE_METRIC_##id,
#include "sim/engine/metric.def"
#undef MOE_METRIC
    MOE_METRIC_EVERY_COUNT, /* those of closed loops too */
    MOE_METRIC_EVERY_LAST = MOE_METRIC_EVERY_COUNT - 1,
#define MOE_SERVICE_METRIC(id, name, unit, higher_is_better, title, value) MOE_METRIC_##id,
#include "sim/engine/service_metric.def"
#undef MOE_SERVICE_METRIC
    MOE_METRIC_COUNT
};

/* How many of them, from the first on, are known of the scenario's runs. */
static inline uint32_t moe_metric_known_count(const struct moe_scenario *scenario)
{
    return scenario->arrivals.kind == MOE_ARRIVAL_CLOSED ? MOE_METRIC_EVERY_COUNT
                                                         : MOE_METRIC_COUNT;
}

const char *moe_metric_name(enum moe_metric metric);  /* "output_tokens_per_s" */
const char *moe_metric_unit(enum moe_metric metric);  /* "1/s", "ms", "" */
const char *moe_metric_title(enum moe_metric metric); /* "output tokens/s" */
bool moe_metric_higher_is_better(enum moe_metric metric);
double moe_metric_value(enum moe_metric metric, const struct moe_run_result *run);

/* What policies are compared by. Of requests that arrive over time all policies that keep up
 * serve as many, so that output tokens/s say nothing. */
enum moe_score {
    MOE_SCORE_OUTPUT_RATE, /* output tokens/s: closed loops, and where a contender is saturated */
    MOE_SCORE_GOODPUT,     /* requests/s that meet the SLO, when one is asked */
    MOE_SCORE_SPEED,       /* 1 / mean end-to-end latency, otherwise */
};

/* The higher the better. */
double moe_score_value(enum moe_score score, const struct moe_run_result *run);

struct moe_policy_summary {
    struct moe_composition composition; /* its label names it in every report */
    const struct moe_run_result *runs;  /* [seed_count] */
    bool fits;                          /* in every seed */
    bool oracle;                        /* sees the future: a bound, not a contender */
    struct moe_estimate metric[MOE_METRIC_COUNT];
    struct moe_estimate speedup; /* study's score over the baseline's, paired by seed */
    bool best;                   /* the highest mean speed-up of all contenders */
    bool tie;                    /* not the best, but its interval overlaps the best one's */
    uint64_t largest_batch;      /* requests of the trace's mean length that one GPU's KV holds */
};

/* A cost part that, moved by 20 %, changes the verdict. */
struct moe_flip {
    enum moe_cost_part part;
    double scale;    /* 0.8 or 1.2 */
    uint32_t winner; /* policy index that is then best */
};

struct moe_study {
    const struct moe_scenario *scenario;
    struct moe_trace_model trace_model;
    uint64_t trace_hash;
    uint64_t calibration_hash; /* of what it says, wherever it lies */
    uint64_t trace_requests;
    uint64_t trace_tokens;
    uint64_t planned_requests;
    uint64_t planned_tokens;
    double mean_request_tokens;                /* prompt + output */
    const struct moe_arrival_source *arrivals; /* NULL: closed loop; else survey is filled */
    struct moe_arrival_survey survey;          /* of the first seed's arrivals */
    enum moe_score score;                      /* what speed-ups are of */
    uint32_t policy_count;
    uint32_t seed_count;
    struct moe_policy_summary *policies; /* [policy_count], in the scenario's order */
    uint32_t baseline;      /* index; the first contender that fits when the scenario's does not */
    uint32_t best;          /* index; policy_count when nothing fits */
    uint32_t tie_count;     /* contenders that tie with the best */
    struct moe_flip *flips; /* [flip_count]; empty when attribution is off */
    uint32_t flip_count;
    bool sensitivity_known;
    bool audited;        /* every step of every run, and nothing was found */
    double wall_seconds; /* of this program; never in a report that must repeat */
};

struct moe_study_options {
    uint32_t threads; /* 0 = as OpenMP decides */
    FILE *detail;     /* event log of the first policy's first seed, or NULL */
    uint64_t detail_steps;
    bool audit;    /* sim/engine/audit.h, in every run */
    bool progress; /* on stderr */
};

/* Runs the whole study. The scenario must outlive it. Errors: whatever a run, the trace or
 * the calibration reports; MOE_RANGE when trace and model do not match. */
enum moe_status moe_study_create(struct moe_study **out, const struct moe_scenario *scenario,
                                 const struct moe_study_options *options,
                                 struct moe_error *err) MOE_MUST_CHECK;
void moe_study_destroy(struct moe_study *study);

/* The same before its first run, for searches: everything but runs, summaries and verdict. */
enum moe_status moe_study_open(struct moe_study **out, const struct moe_scenario *scenario,
                               struct moe_error *err) MOE_MUST_CHECK;

/* One run of an open study at another arrival rate: what became of its requests. seed counts
 * from 0. Every call makes the same run with the same answer, and several threads may call.
 * The scenario's arrivals must not be closed, nor recorded at one moment (asserted).
 * *fits false: the policy's plan leaves no room, why says for what.
 * Errors: as moe_run. */
enum moe_status moe_study_serve(const struct moe_study *study, uint32_t policy, uint32_t seed,
                                double rate, struct moe_service *service, bool *fits,
                                char why[MOE_RUN_WHY_BYTES], struct moe_error *err) MOE_MUST_CHECK;

/* mean and 95 % half-width of values[count]. */
struct moe_estimate moe_estimate_of(const double *values, uint32_t count);

#endif
