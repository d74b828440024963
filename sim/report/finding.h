/*
 * Finding: what a report says beyond the figures that a study holds: sums over seeds,
 * shares, distances to bounds, and who is to blame. Every form of report takes these from
 * here, so that no two forms can disagree.
 *
 * policy is an index into study->policies of a policy that fits (asserted where it
 * matters). Lists are ordered as said, ties by the lowest index.
 */
#ifndef MOE_SIM_REPORT_FINDING_H
#define MOE_SIM_REPORT_FINDING_H

#include <stdbool.h>
#include <stdint.h>

#include "sim/engine/study.h"

/* Where a policy stands: one word for tables, JSON and SQL. */
const char *moe_finding_mark(const struct moe_study *study, uint32_t policy);

/* Why the policy does not fit: of the first of its seeds that does not; "" when all do. */
const char *moe_finding_why(const struct moe_study *study, uint32_t policy);

/* A run that was made under the seed-th seed (of the first policy that fits), for what all
 * policies share: the hardware. NULL when nothing fits. */
const struct moe_run_result *moe_finding_run_of_seed(const struct moe_study *study, uint32_t seed);

/* Figures of a run that follow from its plan alone, summarised as metrics are. */
enum moe_plan_figure {
    MOE_PLAN_KV_TOKENS,     /* KV cache of one GPU, in tokens */
    MOE_PLAN_LARGEST_BATCH, /* requests of the trace's mean length that it holds */
    MOE_PLAN_REPLICA_BYTES, /* copies beyond one of each expert, whole cluster */
    MOE_PLAN_MOVED_BYTES,   /* expert weights that change place against contiguous */
    MOE_PLAN_FIGURE_COUNT
};

const char *moe_plan_figure_name(enum moe_plan_figure figure);
const char *moe_plan_figure_unit(enum moe_plan_figure figure);
double moe_plan_figure_value(const struct moe_study *study, const struct moe_run_result *run,
                             enum moe_plan_figure figure);
struct moe_estimate moe_plan_figure_estimate(const struct moe_study *study, uint32_t policy,
                                             enum moe_plan_figure figure);

/* The token account: what a run must replay (planning set once, the rest passes times; of
 * requests that arrive over time, those of the first seed), and what it did, over all phases. */
uint64_t moe_finding_tokens_due(const struct moe_study *study);
struct moe_token_account moe_finding_replayed(const struct moe_run_result *run);
/* Tokens as due, and each (token, layer, k) counted once. */
bool moe_finding_accounted(const struct moe_study *study, const struct moe_run_result *run);
/* Every run that was made is accounted for. */
bool moe_finding_all_accounted(const struct moe_study *study);

/* Output tokens/s with the causes of the mask removed, over those as it was; paired by
 * seed. Needs attribution. */
struct moe_estimate moe_finding_without(const struct moe_study *study, uint32_t policy,
                                        uint32_t causes);

/* max / mean GPU load, summed over layers and steps of all seeds: as it was, and as no
 * placement without copies can beat (the hottest expert on a GPU of its own). */
double moe_finding_imbalance(const struct moe_study *study, uint32_t policy);
double moe_finding_no_copy_imbalance(const struct moe_study *study, uint32_t policy);

/* The fitting oracle with the highest mean speed-up; policy_count when there is none. */
uint32_t moe_finding_oracle(const struct moe_study *study);

/* Steps of all phases by their tokens, all seeds together. */
void moe_finding_profile(const struct moe_study *study, uint32_t policy,
                         struct moe_step_profile *profile);

/* The critical path summed over seeds. */
struct moe_critical_path moe_finding_path(const struct moe_study *study, uint32_t policy);
/* Part of the path, all provenances; of a provenance, all parts; of everything. */
moe_time_ns moe_finding_part_ns(const struct moe_critical_path *path, enum moe_cost_part part);
moe_time_ns moe_finding_provenance_ns(const struct moe_critical_path *path,
                                      enum moe_provenance provenance);
moe_time_ns moe_finding_path_ns(const struct moe_critical_path *path);

/* The straggler excess, summed over seeds. idle_ns is GPU time: GPUs x (max - mean). */
struct moe_finding_excess {
    moe_time_ns idle_ns;
    moe_time_ns cause_ns[MOE_CAUSE_COUNT]; /* sums to idle_ns; zeros without attribution */
    moe_time_ns time_ns;                   /* scored time, times GPUs */
    uint64_t steps;
    uint64_t barriers;
};
struct moe_finding_excess moe_finding_excess(const struct moe_study *study, uint32_t policy);

/* One rank, over all seeds. A simulated GPU has other hardware in every seed. */
struct moe_finding_rank {
    uint32_t gpu;
    uint32_t node;
    uint64_t last;              /* barriers at which it was the last */
    moe_time_ns lead_ns;        /* what that cost: its lead over the next */
    struct moe_gpu_factor low;  /* its time factors, what-ifs included, least over the seeds and */
    struct moe_gpu_factor high; /* the run, and largest */
};
struct moe_finding_layer {
    uint32_t layer;
    moe_time_ns idle_ns;
    double imbalance; /* max / mean load */
};
struct moe_finding_expert {
    uint32_t layer;
    uint32_t expert;
    uint32_t copies; /* in the first seed's plan */
    uint64_t tokens;
    double share;        /* of its layer's tokens */
    moe_time_ns lead_ns; /* lead of the last rank where it was the largest expert */
};
struct moe_finding_rank moe_finding_rank_of(const struct moe_study *study, uint32_t policy,
                                            uint32_t gpu);
struct moe_finding_layer moe_finding_layer_of(const struct moe_study *study, uint32_t policy,
                                              uint32_t layer);
struct moe_finding_expert moe_finding_expert_of(const struct moe_study *study, uint32_t policy,
                                                uint32_t layer, uint32_t expert);

/* The worst ones, at most limit: ranks by how often they were last, layers by waiting,
 * experts by what they cost; none that cost nothing. Returns how many. */
uint32_t moe_finding_worst_ranks(const struct moe_study *study, uint32_t policy,
                                 struct moe_finding_rank *worst, uint32_t limit);
uint32_t moe_finding_worst_layers(const struct moe_study *study, uint32_t policy,
                                  struct moe_finding_layer *worst, uint32_t limit);
uint32_t moe_finding_worst_experts(const struct moe_study *study, uint32_t policy,
                                   struct moe_finding_expert *worst, uint32_t limit);

#endif
