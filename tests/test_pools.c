/* Prefill and decode on GPUs of their own: the links against a plain list of what was sent, one
 * request against the same on one GPU, and what cannot be. */
#include <criterion/criterion.h>
#include <inttypes.h>
#include <stdio.h>
#include <string.h>

#include "sim/base/random.h"
#include "sim/cost/calibration.h"
#include "sim/engine/pools/handover.h"
#include "sim/engine/study.h"
#include "sim/scenario/deployment.h"

enum { OVERRIDES = 24, SENT = 60, RANKS = 3 };

static struct moe_scenario scenario;
static struct moe_arena arena;

/* A small model on few GPUs, one request unless the overrides say more. */
static enum moe_status load(const char *const *extra, struct moe_error *err)
{
    static const char trace[] =
        "trace=" MOE_SOURCE_ROOT "/results/quickstart/group256-sample.trace.db";
    static const char *const usual[] = {
        trace,
        "model=group256",
        "cluster.nodes=1",
        "policies=contiguous",
        "seeds=1",
        "noise=false",
        "attribution=false",
        "arrivals.kind=poisson",
        "arrivals.rate=1",
        "arrivals.requests=1",
        "arrivals.lengths=lognormal",
        "arrivals.prompt_tokens=700",
        "arrivals.output_tokens=40",
        "arrivals.prompt_cv=0",
        "arrivals.output_cv=0",
    };
    const char *all[OVERRIDES];
    uint32_t count = sizeof usual / sizeof usual[0];
    memcpy(all, usual, sizeof usual);
    for (; *extra != NULL; extra++) {
        cr_assert_lt(count, OVERRIDES);
        all[count++] = *extra;
    }
    return moe_scenario_load(&scenario, NULL, all, count, err);
}

/* What became of the requests; the rate stays. */
static struct moe_service serve(const char *const *extra, bool *fits, char *why)
{
    struct moe_error err = { 0 };
    struct moe_study *study = NULL;
    struct moe_service service = { 0 };
    cr_assert_eq(load(extra, &err), MOE_OK, "%s", err.text);
    cr_assert_eq(moe_study_open(&study, &scenario, &err), MOE_OK, "%s", err.text);
    cr_assert_eq(moe_study_serve(study, 0, 0, scenario.arrivals.rate, &service, fits, why, &err),
                 MOE_OK, "%s", err.text);
    moe_study_destroy(study);
    return service;
}

static struct moe_service serve_well(const char *const *extra)
{
    char why[MOE_RUN_WHY_BYTES];
    bool fits = false;
    const struct moe_service service = serve(extra, &fits, why);
    cr_assert(fits, "%s", why);
    return service;
}

/* Of a cache of the request's prompt over an idle link. */
static moe_time_ns transfer_ns(uint32_t prompt)
{
    const struct moe_calibration *table = NULL;
    struct moe_cost *cost = NULL;
    struct moe_error err = { 0 };
    cr_assert_eq(moe_arena_init(&arena, (size_t) 16 << 20, NULL), MOE_OK);
    cr_assert_eq(moe_calibration_load(&table, "", &arena, &err), MOE_OK, "%s", err.text);
    cr_assert_eq(moe_cost_init_serving(&cost, table, &scenario.model, &scenario.cluster,
                                       &scenario.serving, &arena, &err),
                 MOE_OK, "%s", err.text);
    const double bytes = moe_model_kv_bytes(&scenario.model, prompt);
    const double ns = scenario.cluster.node_count == 1 ? moe_cost_bulk_copy(cost, bytes, 0.0).ns
                                                       : moe_cost_bulk_copy(cost, 0.0, bytes).ns;
    moe_arena_finish(&arena);
    return moe_time_round_up(ns);
}

static void same(const char *what, double got, double want)
{
    cr_assert_float_eq(got, want, 0.5, "%s: %.1f ns, not %.1f", what, got, want);
}

Test(pools, alone_a_request_takes_as_long_as_on_one_gpu_and_its_transfer)
{
    static const char *const one[] = { "cluster.gpus_per_node=1", NULL };
    static const char *const two[] = { "cluster.gpus_per_node=2", "pools.prefill_gpus=1", NULL };
    static const char *const early[] = { "cluster.gpus_per_node=2", "pools.prefill_gpus=1",
                                         "pools.first_token=prefill", NULL };
    const struct moe_service whole = serve_well(one);
    const struct moe_service late = serve_well(two);
    const double moved = (double) transfer_ns(700);
    cr_assert_gt(moved, 1000.0);
    same("e2e", late.e2e.mean, whole.e2e.mean + moved);
    same("ttft", late.ttft.mean, whole.ttft.mean + moved);
    same("tpot", late.tpot.mean, whole.tpot.mean);
    const struct moe_service soon = serve_well(early);
    same("e2e", soon.e2e.mean, whole.e2e.mean + moved);
    same("ttft", soon.ttft.mean, whole.ttft.mean);
    same("tpot", soon.tpot.mean, whole.tpot.mean + moved / 39.0);
}

Test(pools, layers_are_sent_while_later_ones_run)
{
    static const char *const one[] = { "cluster.gpus_per_node=1", NULL };
    static const char *const two[] = { "cluster.gpus_per_node=2", "pools.prefill_gpus=1",
                                       "pools.transfer=layered", NULL };
    const struct moe_service whole = serve_well(one);
    const struct moe_service late = serve_well(two);
    const double moved = (double) transfer_ns(700);
    const double layers =
        (double) scenario.model.kv_layer_count + scenario.model.window_layer_count;
    cr_assert_gt(whole.ttft.mean, moved); /* all but the last layer fit beside the prefill */
    cr_assert_float_eq(late.e2e.mean, whole.e2e.mean + moved / layers, 1.0);
}

/* Prompts only end in the prefill pool; between nodes the slower links are used. */
Test(pools, nodes_and_prompts_without_output)
{
    static const char *const one[] = { "cluster.gpus_per_node=2", "arrivals.output_tokens=1",
                                       NULL };
    static const char *const apart[] = { "cluster.nodes=2", "cluster.gpus_per_node=2",
                                         "pools.prefill_gpus=2", "arrivals.output_tokens=1", NULL };
    /* Without copies, whose turns would go on from the prompt where all GPUs do both. */
    static const char *const outputs[] = { "cluster.nodes=2",        "cluster.gpus_per_node=2",
                                           "pools.prefill_gpus=2",   "pools.prefill_slots=256",
                                           "pools.decode_slots=256", NULL };
    static const char *const together[] = { "cluster.gpus_per_node=2", "slots=256", NULL };
    const struct moe_service whole = serve_well(one);
    same("prompts only", serve_well(apart).e2e.mean, whole.e2e.mean);
    const struct moe_service near = serve_well(together);
    const struct moe_service far = serve_well(outputs);
    same("between nodes", far.e2e.mean, near.e2e.mean + (double) transfer_ns(700));
}

/* A decode pool with one seat: prompts wait for it, in order, and their latency holds that. */
Test(pools, a_decode_pool_without_seats_is_waited_for)
{
    static const char *const many[] = { "cluster.gpus_per_node=2", "pools.prefill_gpus=1",
                                        "pools.decode_running=1",  "arrivals.requests=40",
                                        "arrivals.rate=100000",    NULL };
    static const char *const roomy[] = { "cluster.gpus_per_node=2", "pools.prefill_gpus=1",
                                         "arrivals.requests=40", "arrivals.rate=100000", NULL };
    const struct moe_service narrow = serve_well(many);
    const struct moe_service wide = serve_well(roomy);
    cr_assert_gt(narrow.ttft.max, 3.0 * wide.ttft.max);
    cr_assert_gt(narrow.e2e.max, 3.0 * wide.e2e.max);
    /* Not more than one at a time: the last ends after all outputs were made one by one. */
    cr_assert_gt(narrow.e2e.max, 39.0 * 39.0 * wide.tpot.p50 / 20.0);
}

/* One after the other on every link, told plainly: what begins is after everything that used its
 * sender or receiver. */
Test(pools, links_carry_one_cache_after_the_other)
{
    static const char *const two[] = { "cluster.gpus_per_node=6", "pools.prefill_gpus=3", NULL };
    const struct moe_calibration *table = NULL;
    struct moe_cost *cost = NULL;
    struct moe_error err = { 0 };
    struct moe_handover handover;
    moe_time_ns end[SENT];
    uint32_t from[SENT];
    uint32_t to[SENT];
    const uint64_t key = moe_random_key(9, MOE_RANDOM_DRAFTS);
    cr_assert_eq(load(two, &err), MOE_OK, "%s", err.text);
    cr_assert_eq(moe_arena_init(&arena, (size_t) 16 << 20, NULL), MOE_OK);
    cr_assert_eq(moe_calibration_load(&table, "", &arena, &err), MOE_OK);
    cr_assert_eq(moe_cost_init_serving(&cost, table, &scenario.model, &scenario.cluster,
                                       &scenario.serving, &arena, &err),
                 MOE_OK);
    const struct moe_handover_setup setup = { &scenario, cost, RANKS, RANKS, SENT };
    cr_assert_eq(moe_handover_init(&handover, &setup, &arena, &err), MOE_OK);
    moe_time_ns now = 0;
    for (uint32_t i = 0; i < SENT; i++) {
        const uint32_t prompt = 1 + (uint32_t) moe_random_below(key, UINT64_C(4) * i, 3000);
        from[i] = (uint32_t) moe_random_below(key, 4 * i + 1, RANKS);
        to[i] = (uint32_t) moe_random_below(key, 4 * i + 2, RANKS);
        now += (moe_time_ns) moe_random_below(key, 4 * i + 3, 100000);
        handover.items[i] = (struct moe_handover_item){ .arrival = { .prompt_tokens = prompt },
                                                        .rank = from[i],
                                                        .kv_held = i };
        moe_time_ns begin = now;
        for (uint32_t j = 0; j < i; j++) {
            begin = (from[j] == from[i] || to[j] == to[i]) && end[j] > begin ? end[j] : begin;
        }
        end[i] = begin + moe_time_round_up(moe_handover_price(&handover, prompt).ns);
        cr_assert_eq(moe_handover_begin(&handover, i, to[i], now), end[i], "%u", i);
    }
    struct moe_handover_release release;
    moe_time_ns before = 0;
    for (uint32_t i = 0; i < SENT; i++) {
        moe_time_ns next = 0;
        cr_assert(moe_handover_next_release(&handover, &next));
        cr_assert_not(moe_handover_take_release(&handover, next - 1, &release));
        cr_assert(moe_handover_take_release(&handover, next, &release));
        cr_assert_eq(release.ready_ns, end[release.kv_tokens]);
        cr_assert_eq(release.rank, from[release.kv_tokens]);
        cr_assert_geq(release.ready_ns, before);
        before = release.ready_ns;
    }
    cr_assert_not(moe_handover_next_release(&handover, &before));
    moe_arena_finish(&arena);
}

Test(pools, what_cannot_be_says_what_to_change)
{
    static const struct {
        const char *extra[6];
        const char *says;
    } cases[] = {
        { { "pools.prefill_gpus=8" }, "leave none to decode; at most 7" },
        { { "cluster.nodes=3", "pools.prefill_gpus=12" }, "no whole nodes of 8; 8 would be" },
        { { "pools.prefill_gpus=4", "arrivals.kind=closed", "arrivals.rate=0",
            "arrivals.requests=0", "arrivals.lengths=recorded" },
          "set arrivals.kind" },
        { { "pools.prefill_gpus=4", "slots=288" }, "pools.decode_slots" },
        { { "pools.prefill_gpus=4", "pools.decode_slots=252" }, "256 is the least" },
        { { "pools.prefill_gpus=3", "serving.attention_ranks=2" }, "change pools.prefill_gpus" },
        { { "pools.prefill_gpus=4", "hardware.events=dead gpu=1 at=1" }, "leave the event out" },
        { { "model=deepseek-v3", "serving.overlap=two_batch" }, "serving.shared_expert to serial" },
        { { "serving.overlap_comm=0.3" }, "neither 0 nor at least 0.5" },
    };
    for (size_t i = 0; i < sizeof cases / sizeof cases[0]; i++) {
        struct moe_error err = { 0 };
        cr_assert_eq(load(cases[i].extra, &err), MOE_RANGE, "%s", cases[i].says);
        cr_expect_not_null(strstr(err.text, cases[i].says), "%s", err.text);
    }
}

/* Memory that holds the model on eight GPUs but not on the two that decode. */
Test(pools, a_pool_whose_memory_is_short_is_named)
{
    static const char *const small[] = { "model=deepseek-v3", "pools.prefill_gpus=6",
                                         "cluster.memory_gb=141", NULL };
    static const char *const longest[] = { "pools.prefill_gpus=4", "cluster.memory_gb=30",
                                           "arrivals.longest_tokens=16000000",
                                           "arrivals.output_tokens=9000000", NULL };
    char why[MOE_RUN_WHY_BYTES];
    bool fits = true;
    (void) serve(small, &fits, why);
    cr_assert_not(fits);
    cr_assert_not_null(strstr(why, "decode pool: weights need"), "%s", why);
    cr_assert_not_null(strstr(why, "GPUs would hold it"), "%s", why);
    (void) serve(longest, &fits, why);
    cr_assert_not(fits);
    cr_assert_not_null(strstr(why, "decode pool: the longest request has 9000700"), "%s", why);
}
