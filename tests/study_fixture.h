/*
 * Study fixture: a study made by hand, small enough to check by eye, for the tests of what
 * reports and stores make of it. 2 MoE layers of 4 experts, top-2, 8 slots on 4 GPUs of 2
 * nodes, and four policies:
 *   contiguous   the baseline
 *   eplb         faster by 20 % in every seed
 *   lpt          does not fit
 *   hindsight    the oracle, faster by 25 %
 * Its verdict is reached by the engine's own moe_verdict_reach.
 */
#ifndef MOE_TESTS_STUDY_FIXTURE_H
#define MOE_TESTS_STUDY_FIXTURE_H

#include <criterion/criterion.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "sim/engine/study.h"
#include "sim/engine/verdict.h"

enum {
    FIXTURE_LAYERS = 2,
    FIXTURE_GPUS = 4,
    FIXTURE_SLOTS = 8,
    FIXTURE_EXPERTS = 4,
    FIXTURE_POLICIES = 4,
    FIXTURE_SEED_LIMIT = 3,
    FIXTURE_STEPS = 100,
    FIXTURE_CAUSE_NS = 1000003, /* indivisible: a sum that is rounded shows */
};

struct study_fixture {
    struct moe_study study;
    struct moe_scenario scenario;
    struct moe_arena arena;
    struct moe_policy_summary policies[FIXTURE_POLICIES];
    struct moe_run_result runs[FIXTURE_POLICIES][FIXTURE_SEED_LIMIT];
    struct moe_flip flips[MOE_SENSITIVITY_LANES];
};

static inline void fixture_scenario(struct moe_scenario *s, uint32_t seed_count)
{
    static const char *const names[FIXTURE_POLICIES] = { "contiguous", "eplb", "lpt", "hindsight" };
    *s = (struct moe_scenario){
        .name = "by hand",
        .trace_path = "traces/tiny.db",
        .model_ref = "tiny.yaml",
        .model = { .name = "tiny",
                   .source = "made up",
                   .layer_count = 3,
                   .moe_layer_count = FIXTURE_LAYERS,
                   .hidden_size = 1000,
                   .vocabulary_size = 1000,
                   .expert_count = FIXTURE_EXPERTS,
                   .top_k = 2,
                   .group_count = 1,
                   .group_limit = 1,
                   .expert_size = 500,
                   .dense_size = 2000,
                   .gated = true,
                   .attention = MOE_ATTENTION_GQA,
                   .head_count = 8,
                   .kv_head_count = 2,
                   .head_size = 100,
                   .kv_layer_count = 3,
                   .expert_bytes_per_weight = 2,
                   .dense_bytes_per_weight = 2,
                   .kv_bytes_per_value = 2 },
        .cluster = { .node_count = 2, .gpus_per_node = 2, .gpu = "H200", .reserve_bytes = 8e9 },
        .slot_count = FIXTURE_SLOTS,
        .serving = { .running_per_gpu = 16, .step_tokens = 512, .plan_share = 0.2, .passes = 3 },
        .policy_count = FIXTURE_POLICIES,
        .baseline = "contiguous",
        .seed_count = seed_count,
        .first_seed = 7,
        .attribution = true,
        .noise = true,
    };
    for (uint32_t i = 0; i < FIXTURE_POLICIES; i++) {
        (void) snprintf(s->policies[i], sizeof s->policies[i], "%s", names[i]);
    }
}

static inline void fixture_tables(struct moe_run_result *r, struct moe_arena *arena)
{
    const size_t layers = FIXTURE_LAYERS;
    r->gpu_last = MOE_NEW(arena, uint64_t, FIXTURE_GPUS);
    r->gpu_lead_ns = MOE_NEW(arena, moe_time_ns, FIXTURE_GPUS);
    r->gpu_factor = MOE_NEW(arena, struct moe_gpu_factor, FIXTURE_GPUS);
    r->gpu_in_tail = MOE_NEW(arena, bool, FIXTURE_GPUS);
    r->gpu_layer_tokens = MOE_NEW(arena, uint64_t, layers * FIXTURE_GPUS);
    r->layer_idle_ns = MOE_NEW(arena, moe_time_ns, layers);
    r->layer_max_load = MOE_NEW(arena, double, layers);
    r->layer_mean_load = MOE_NEW(arena, double, layers);
    r->expert_tokens = MOE_NEW(arena, uint64_t, layers * FIXTURE_EXPERTS);
    r->expert_lead_ns = MOE_NEW(arena, moe_time_ns, layers * FIXTURE_EXPERTS);
    r->expert_of_slot = MOE_NEW(arena, uint16_t, layers * FIXTURE_SLOTS);
    cr_assert_eq(moe_latency_init(&r->step, arena, NULL), MOE_OK);
    cr_assert_eq(moe_latency_init(&r->ttft, arena, NULL), MOE_OK);
    cr_assert_eq(moe_latency_init(&r->itl, arena, NULL), MOE_OK);
    cr_assert_eq(moe_latency_init(&r->tpot, arena, NULL), MOE_OK);
    cr_assert_eq(moe_latency_init(&r->e2e, arena, NULL), MOE_OK);
}

/* 1000 tokens of the trace, 200 planned on, the other 800 three times: 2600 in each run. */
static inline void fixture_account(struct moe_run_result *r, moe_time_ns time_ns)
{
    const struct moe_token_account phases[MOE_PHASE_COUNT] = {
        { 10, 400, 100, 5, UINT64_C(400) * 4, time_ns / 10, 0 },
        { FIXTURE_STEPS, 1900, 950, 38, UINT64_C(1900) * 4, time_ns, 0 },
        { 12, 300, 150, 9, UINT64_C(300) * 4, time_ns / 8, 0 },
    };
    memcpy(r->account, phases, sizeof phases);
    r->unknown_assignments = 13;
}

static inline void fixture_waiting(struct moe_run_result *r, moe_time_ns time_ns, uint32_t seed)
{
    r->attributed = true;
    for (uint32_t cause = 0; cause < MOE_CAUSE_COUNT; cause++) {
        r->cause_idle_ns[cause] = (moe_time_ns) (MOE_CAUSE_COUNT - cause) * FIXTURE_CAUSE_NS + seed;
        r->idle_ns += r->cause_idle_ns[cause];
    }
    r->barriers = (uint64_t) FIXTURE_STEPS * (2 * FIXTURE_LAYERS + 1);
    for (uint32_t subset = 0; subset < MOE_CAUSE_SUBSETS; subset++) {
        moe_time_ns gone = 0;
        for (uint32_t cause = 0; cause < MOE_CAUSE_COUNT; cause++) {
            gone += (subset >> cause & 1) == 0 ? time_ns / 50 * (MOE_CAUSE_COUNT - cause) : 0;
        }
        r->subset_time_ns[subset] = time_ns - gone;
    }
    for (uint32_t gpu = 0; gpu < FIXTURE_GPUS; gpu++) {
        r->gpu_last[gpu] = 50 * gpu + seed;
        r->gpu_lead_ns[gpu] = 250000 * (moe_time_ns) gpu;
        r->gpu_factor[gpu] = (struct moe_gpu_factor){ 1.0 + 0.01 * gpu + 0.001 * seed, 1.0, 0.99 };
        r->gpu_in_tail[gpu] = seed == 8 && gpu == 3;
    }
}

static inline void fixture_loads(struct moe_run_result *r, double imbalance)
{
    for (uint32_t layer = 0; layer < FIXTURE_LAYERS; layer++) {
        r->layer_idle_ns[layer] = r->idle_ns / 2 - (moe_time_ns) layer;
        r->layer_mean_load[layer] = 950.0;
        r->layer_max_load[layer] = 950.0 * (imbalance + 0.1 * layer);
        for (uint32_t gpu = 0; gpu < FIXTURE_GPUS; gpu++) {
            r->gpu_layer_tokens[layer * FIXTURE_GPUS + gpu] = 950;
        }
        for (uint32_t expert = 0; expert < FIXTURE_EXPERTS; expert++) {
            const uint32_t cell = layer * FIXTURE_EXPERTS + expert;
            r->expert_tokens[cell] =
                500 + (expert == 0 ? 300U : 0U) + (expert == 1 ? 300 * layer : 0U);
            r->expert_lead_ns[cell] = 100000 * (moe_time_ns) (cell % 5);
        }
        for (uint32_t slot = 0; slot < FIXTURE_SLOTS; slot++) {
            r->expert_of_slot[layer * FIXTURE_SLOTS + slot] = (uint16_t) (slot % FIXTURE_EXPERTS);
        }
        r->max_load_sum += r->layer_max_load[layer];
        r->mean_load_sum += r->layer_mean_load[layer];
    }
    r->no_copy_load_sum = 1.25 * r->mean_load_sum;
    r->layer_steps = (uint64_t) FIXTURE_STEPS * FIXTURE_LAYERS;
    r->balancedness_sum = (double) r->layer_steps / imbalance;
    r->imbalance_sum = (double) r->layer_steps * (imbalance - 1.0);
    r->bound = (struct moe_bound_sums){ .layer_steps = FIXTURE_LAYERS,
                                        .own = 1000.0 * imbalance,
                                        .perfect = 1000.0,
                                        .split = 1000.0 * (1.0 + imbalance) / 2.0,
                                        .no_copy = 1250.0,
                                        .hindsight = 1040.0 };
}

static inline void fixture_times(struct moe_run_result *r, moe_time_ns time_ns)
{
    r->path.ns[MOE_COST_EXPERT][MOE_PROVENANCE_MEASURED] = time_ns / 2;
    r->path.ns[MOE_COST_DISPATCH][MOE_PROVENANCE_PUBLISHED] = time_ns / 4;
    r->path.ns[MOE_COST_COMBINE][MOE_PROVENANCE_ASSUMED] = time_ns - time_ns / 2 - time_ns / 4;
    for (uint32_t lane = 0; lane < MOE_SENSITIVITY_LANES; lane++) {
        r->sensitivity_ns[lane] = time_ns;
    }
    moe_latency_add(&r->step, time_ns / FIXTURE_STEPS, FIXTURE_STEPS);
    moe_latency_add(&r->itl, time_ns / FIXTURE_STEPS, 950);
    moe_latency_add(&r->ttft, 2 * time_ns / FIXTURE_STEPS, 38);
    moe_latency_add(&r->tpot, time_ns / FIXTURE_STEPS, 38);
    moe_latency_add(&r->e2e, time_ns / 4, 38);
    r->near_copies = 1000.0;
    r->far_copies = 3000.0;
    r->dispatch_bytes = 1000.0;
    r->combine_bytes = 2000.0;
}

/* rate: speed over the baseline's, before what the seed adds to it. */
static inline void fixture_run(struct study_fixture *f, uint32_t policy, uint32_t index,
                               double rate, double imbalance)
{
    struct moe_run_result *r = &f->runs[policy][index];
    const uint64_t seed = f->scenario.first_seed + index;
    const moe_time_ns time_ns = (moe_time_ns) (1e9 / (rate + 0.01 * index * (policy == 1)));
    *r = (struct moe_run_result){ .seed = seed,
                                  .fits = policy != 2,
                                  .layer_count = FIXTURE_LAYERS,
                                  .gpu_count = FIXTURE_GPUS,
                                  .slot_count = FIXTURE_SLOTS,
                                  .expert_count = FIXTURE_EXPERTS,
                                  .moved_slots = (uint64_t) 3 * policy,
                                  .memory = { .gpu_bytes = 141e9,
                                              .copy_bytes = 1e9 * policy,
                                              .kv_bytes_per_token = 1000,
                                              .kv_bytes = 1e8 - 1e7 * policy,
                                              .kv_tokens = 100000 - 10000 * policy,
                                              .weights_fit = policy != 2 } };
    memcpy(r->policy, f->scenario.policies[policy], sizeof r->policy);
    fixture_tables(r, &f->arena);
    if (!r->fits) {
        (void) snprintf(r->why, sizeof r->why,
                        "weights need 150.0 GB beside 8.0 GB of reserve; a GPU has 141.0 GB");
        return;
    }
    fixture_account(r, time_ns);
    fixture_waiting(r, time_ns, (uint32_t) seed);
    fixture_loads(r, imbalance);
    fixture_times(r, time_ns);
}

/* Runs as described above, without a verdict. */
static inline void fixture_make(struct study_fixture *f, uint32_t seed_count)
{
    static const double rate[FIXTURE_POLICIES] = { 1.0, 1.2, 1.0, 1.25 };
    static const double imbalance[FIXTURE_POLICIES] = { 1.6, 1.1, 1.0, 1.05 };
    memset(f, 0, sizeof *f);
    fixture_scenario(&f->scenario, seed_count);
    cr_assert_eq(moe_arena_init(&f->arena, (size_t) 32 << 20, NULL), MOE_OK);
    f->study = (struct moe_study){
        .scenario = &f->scenario,
        .trace_model = { .name = "tiny",
                         .layer_count = 1,
                         .expert_count = FIXTURE_EXPERTS,
                         .top_k = 2 },
        .trace_hash = 0x0123456789abcdef,
        .calibration_hash = 0xfedcba9876543210,
        .trace_requests = 20,
        .trace_tokens = 1000,
        .planned_requests = 4,
        .planned_tokens = 200,
        .mean_request_tokens = 51.0,
        .policy_count = FIXTURE_POLICIES,
        .seed_count = seed_count,
        .policies = f->policies,
        .flips = f->flips,
        .wall_seconds = 123.456,
    };
    for (uint32_t policy = 0; policy < FIXTURE_POLICIES; policy++) {
        cr_assert_eq(moe_composition_parse(&f->policies[policy].composition,
                                           f->scenario.policies[policy], NULL),
                     MOE_OK);
        f->policies[policy].runs = f->runs[policy];
        for (uint32_t i = 0; i < seed_count; i++) {
            fixture_run(f, policy, i, rate[policy], imbalance[policy]);
        }
    }
}

static inline void fixture_judge(struct study_fixture *f)
{
    double scratch[FIXTURE_SEED_LIMIT];
    moe_verdict_reach(&f->study, scratch);
}

static inline void fixture_finish(struct study_fixture *f)
{
    moe_arena_finish(&f->arena);
}

#endif
