/* The engine against its twin on random small cases: every figure of a run, to the
 * nanosecond. */
#include <assert.h>
#include <criterion/criterion.h>
#include <inttypes.h>
#include <math.h>
#include <stdio.h>
#include <string.h>

#include "tests/engine_case.h"
#include "tests/engine_drive.h"

enum { CASE_COUNT = 160, TEXT_BYTES = 32 << 10 };

static_assert((int) TWIN_HOST == (int) MOE_COST_HOST, "parts in one order");
static_assert((int) TWIN_SHARED == (int) MOE_COST_SHARED, "parts in one order");
static_assert((int) TWIN_COMBINE == (int) MOE_COST_COMBINE, "parts in one order");
static_assert((int) TWIN_PARTS == (int) MOE_COST_PART_COUNT, "parts in one order");
static_assert((int) TWIN_PUBLISHED == (int) MOE_PROVENANCE_PUBLISHED, "sources in one order");
static_assert((int) TWIN_SOURCES == (int) MOE_PROVENANCE_COUNT, "sources in one order");
static_assert((int) TWIN_BY_JITTER == (int) MOE_CAUSE_JITTER, "causes in one order");
static_assert((int) TWIN_BY_COMM == (int) MOE_CAUSE_COMM, "causes in one order");
static_assert((int) TWIN_LANES == (int) MOE_SENSITIVITY_LANES, "as many lanes");
static_assert((int) TWIN_EACH == (int) MOE_EXCHANGE_LOW_LATENCY, "modes in one order");
static_assert((int) TWIN_DRAIN == (int) MOE_PHASE_DRAIN, "phases in one order");

/* Where the two part, in words. */
struct difference {
    char text[200];
};

static bool differ(struct difference *out, const char *what, uint32_t i, double got, double want)
{
    if (out->text[0] == '\0') {
        (void) snprintf(out->text, sizeof out->text, "%s[%u] is %.17g, the twin has %.17g", what, i,
                        got, want);
    }
    return true;
}

static bool same_whole(struct difference *out, const char *what, uint32_t count, const int64_t *got,
                       const int64_t *want)
{
    for (uint32_t i = 0; i < count; i++) {
        if (got[i] != want[i]) {
            return !differ(out, what, i, (double) got[i], (double) want[i]);
        }
    }
    return true;
}

static bool same_count(struct difference *out, const char *what, uint32_t count,
                       const uint64_t *got, const uint64_t *want)
{
    for (uint32_t i = 0; i < count; i++) {
        if (got[i] != want[i]) {
            return !differ(out, what, i, (double) got[i], (double) want[i]);
        }
    }
    return true;
}

/* Sums in the same order of the same numbers: equal, not nearly. */
static bool same_real(struct difference *out, const char *what, uint32_t count, const double *got,
                      const double *want)
{
    for (uint32_t i = 0; i < count; i++) {
        if (got[i] != want[i]) {
            return !differ(out, what, i, got[i], want[i]);
        }
    }
    return true;
}

/* The twin keeps every duration; counted into a fresh histogram they must fill the same
 * buckets. */
static bool same_latency(struct difference *out, const char *what, const struct moe_latency *got,
                         const struct twin_samples *want, struct moe_arena *arena)
{
    struct moe_latency sorted;
    moe_arena_reset(arena);
    cr_assert_eq(moe_latency_init(&sorted, arena, NULL), MOE_OK);
    for (uint32_t i = 0; i < want->count; i++) {
        moe_latency_add(&sorted, want->ns[i], 1);
    }
    if (sorted.total != got->total || sorted.min_ns != got->min_ns ||
        sorted.max_ns != got->max_ns) {
        return !differ(out, what, 0, (double) got->total, (double) sorted.total);
    }
    for (uint32_t i = 0; i < MOE_LATENCY_BUCKETS; i++) {
        if (got->count[i] != sorted.count[i]) {
            return !differ(out, what, i, (double) got->count[i], (double) sorted.count[i]);
        }
    }
    return fabs(got->sum_ns - sorted.sum_ns) <= 1e-12 * sorted.sum_ns ||
           !differ(out, what, 0, got->sum_ns, sorted.sum_ns);
}

static bool same_accounts(struct difference *d, const struct moe_run_result *got,
                          const struct twin_result *want)
{
    bool same = true;
    for (uint32_t p = 0; p < TWIN_PHASES; p++) {
        const struct moe_token_account *a = &got->account[p];
        const struct twin_account *b = &want->account[p];
        same = same && same_count(d, "steps", 1, &a->steps, &b->steps) &&
               same_count(d, "tokens", 1, &a->tokens, &b->tokens) &&
               same_count(d, "output tokens", 1, &a->output_tokens, &b->outputs) &&
               same_count(d, "requests", 1, &a->requests, &b->requests) &&
               same_count(d, "assignments", 1, &a->assignments, &b->assignments) &&
               same_whole(d, "time", 1, &a->time_ns, &b->time);
    }
    return same && same_count(d, "unknown", 1, &got->unknown_assignments, &want->unknown) &&
           same_count(d, "dropped", 1, &got->dropped_assignments, &want->dropped);
}

static bool same_sums(struct difference *d, const struct moe_run_result *got,
                      const struct twin_result *want)
{
    return same_real(d, "balancedness", 1, &got->balancedness_sum, &want->balancedness) &&
           same_real(d, "imbalance", 1, &got->imbalance_sum, &want->imbalance) &&
           same_real(d, "mean load", 1, &got->mean_load_sum, &want->mean_load) &&
           same_real(d, "max load", 1, &got->max_load_sum, &want->max_load) &&
           same_real(d, "no-copy load", 1, &got->no_copy_load_sum, &want->no_copy_load) &&
           same_count(d, "layer steps", 1, &got->layer_steps, &want->layer_steps) &&
           same_real(d, "near copies", 1, &got->near_copies, &want->near_copies) &&
           same_real(d, "far copies", 1, &got->far_copies, &want->far_copies) &&
           same_real(d, "local copies", 1, &got->local_copies, &want->local_copies) &&
           same_whole(d, "idle", 1, &got->idle_ns, &want->idle) &&
           same_count(d, "barriers", 1, &got->barriers, &want->barriers) &&
           same_whole(d, "cause idle", TWIN_CAUSES, got->cause_idle_ns, want->cause_idle) &&
           same_whole(d, "subset time", TWIN_SUBSETS, got->subset_time_ns, want->subset_time) &&
           same_whole(d, "lane time", TWIN_LANES, got->sensitivity_ns, want->lane_time) &&
           same_whole(d, "critical path", TWIN_PARTS * TWIN_SOURCES, got->path.ns[0],
                      want->path[0]);
}

static bool same_fetches(struct difference *d, const struct moe_run_result *got,
                         const struct twin_result *want)
{
    const struct moe_fetch_account *a = &got->fetch;
    return same_count(d, "near fetches", 1, &a->near_copies, &want->fetched_near) &&
           same_count(d, "far fetches", 1, &a->far_copies, &want->fetched_far) &&
           same_count(d, "fetching layers", 1, &a->layer_steps, &want->fetching_layers) &&
           (fabs(a->transfer_ns - want->transfer) <= 1e-12 * want->transfer ||
            !differ(d, "transfers", 0, a->transfer_ns, want->transfer)) &&
           same_whole(d, "exposed", 1, &a->exposed_ns, &want->fetch_exposed) &&
           same_real(d, "even balance", 1, &a->even_balance, &want->even_balance);
}

static bool same_arrays(struct difference *d, const struct moe_run_result *got,
                        const struct twin_result *want)
{
    const uint32_t gpus = got->gpu_count;
    const uint32_t experts = got->expert_count;
    bool same =
        same_count(d, "GPU last", gpus, got->gpu_last, want->gpu_last) &&
        same_whole(d, "GPU lead", gpus, got->gpu_lead_ns, want->gpu_lead) &&
        same_whole(d, "layer idle", got->layer_count, got->layer_idle_ns, want->layer_idle) &&
        same_real(d, "layer max", got->layer_count, got->layer_max_load, want->layer_max) &&
        same_real(d, "layer mean", got->layer_count, got->layer_mean_load, want->layer_mean);
    for (uint32_t l = 0; l < got->layer_count; l++) {
        same = same &&
               same_count(d, "GPU tokens", gpus, got->gpu_layer_tokens + (size_t) l * gpus,
                          want->gpu_tokens[l]) &&
               same_count(d, "expert tokens", experts, got->expert_tokens + (size_t) l * experts,
                          want->expert_tokens[l]) &&
               same_whole(d, "expert lead", experts, got->expert_lead_ns + (size_t) l * experts,
                          want->expert_lead[l]);
    }
    for (uint32_t g = 0; g < gpus; g++) {
        const double a[] = { got->gpu_factor[g].compute, got->gpu_factor[g].memory,
                             got->gpu_factor[g].comm };
        const double b[] = { want->factor[g].compute, want->factor[g].memory,
                             want->factor[g].comm };
        for (uint32_t i = 0; i < 3; i++) {
            /* Drawn through an inverse that the twin solves in another way. */
            same = same && (fabs(a[i] - b[i]) < 3e-12 || !differ(d, "factor", g, a[i], b[i]));
        }
    }
    return same;
}

static struct engine_drive drive;
static struct moe_arena samples;
static char table[TEXT_BYTES];
static char text[TEXT_BYTES];

static void setup(void)
{
    FILE *file = fopen(MOE_SOURCE_ROOT "/tests/data/tiny-calibration.csv", "r");
    cr_assert_not_null(file);
    table[fread(table, 1, sizeof table - 1, file)] = '\0';
    cr_assert_eq(fclose(file), 0);
    cr_assert_eq(moe_arena_init(&samples, 1 << 20, NULL), MOE_OK);
    engine_drive_open(&drive);
}

static void teardown(void)
{
    engine_drive_close(&drive);
    moe_arena_finish(&samples);
}

TestSuite(engine_twin, .init = setup, .fini = teardown, .timeout = 170);

/* Runs both and says where they part. *scored: the case had something to score. */
static struct difference compare(const struct twin_case *c, bool events, bool *scored)
{
    static struct twin_result want;
    struct moe_run_result got;
    struct difference d = { "" };
    struct moe_error err = { 0 };
    engine_twin_run(c, &want);
    const enum moe_status status = engine_drive_run(&drive, c, text, events, &got, &err);
    *scored = false;
    if (want.fits && want.nothing_scored) {
        if (status != MOE_RANGE) {
            (void) differ(&d, "status", 0, status, MOE_RANGE);
        }
        return d;
    }
    if (status != MOE_OK) {
        (void) snprintf(d.text, sizeof d.text, "refused: %.150s", err.text);
        return d;
    }
    if (got.fits != want.fits || got.memory.weights_fit != want.weights_fit ||
        got.memory.kv_tokens != want.kv_tokens) {
        (void) differ(&d, "KV tokens", 0, (double) got.memory.kv_tokens, (double) want.kv_tokens);
        return d;
    }
    if (!want.fits) {
        return d;
    }
    *scored = true;
    int64_t causes = 0;
    for (uint32_t i = 0; i < TWIN_CAUSES; i++) {
        causes += got.cause_idle_ns[i];
    }
    (void) same_whole(&d, "sum of the causes", 1, &causes, &got.idle_ns);
    (void) (same_accounts(&d, &got, &want) && same_arrays(&d, &got, &want) &&
            same_sums(&d, &got, &want) && same_fetches(&d, &got, &want) &&
            same_latency(&d, "step length", &got.step, &want.step, &samples) &&
            same_latency(&d, "TTFT", &got.ttft, &want.ttft, &samples) &&
            same_latency(&d, "ITL", &got.itl, &want.itl, &samples) &&
            same_latency(&d, "TPOT", &got.tpot, &want.tpot, &samples) &&
            same_latency(&d, "E2E", &got.e2e, &want.e2e, &samples));
    return d;
}

/* Sets *field; false when it was that already. */
static bool set(uint32_t *field, uint32_t value)
{
    const bool other = *field != value;
    *field = value;
    return other;
}

static bool clear(bool *field)
{
    const bool was = *field;
    *field = false;
    return was;
}

static bool drop_request(struct twin_case *c)
{
    if (c->requests <= 2) {
        return false;
    }
    c->requests--;
    c->rows = c->first_row[c->requests];
    return true;
}

static bool drop_layer(struct twin_model *m)
{
    if (m->moe_layers == 1 || m->layers != m->moe_layers || m->kv_layers != m->layers) {
        return false;
    }
    m->moe_layers--;
    m->layers--;
    m->kv_layers--;
    return true;
}

/* Simpler cases, tried in turn; false when a case cannot be made simpler this way. */
static bool simplify(struct twin_case *c, uint32_t way)
{
    const bool tight = c->memory_bytes > 0;
    switch (way) {
    case 0:
        return drop_request(c);
    case 1:
        return clear(&c->noise);
    case 2:
        return set(&c->passes, 1);
    case 3:
        return set(&c->running_per_gpu, 1);
    case 4:
        return clear(&c->common_exit);
    case 5:
        return set(&c->exchange, TWIN_EXACT);
    case 6:
        c->memory_bytes = 0;
        return tight;
    case 7:
        return set(&c->cost.model.shared_size, 0);
    case 8:
        return drop_layer(&c->cost.model);
    case 9:
        return set(&c->dispatch, TWIN_IN_TURN);
    case 10:
        return set(&c->group, TWIN_OFFERED);
    case 11:
        return set(&c->fetch_slots, 0);
    case 12:
        return clear(&c->fetch_relay);
    default:
        return set(&c->step_tokens, 8192);
    }
}

enum { SIMPLER_WAYS = 14 };

static void explain(struct twin_case *c, uint64_t seed)
{
    static struct twin_case simpler;
    bool scored = false;
    struct difference d = compare(c, false, &scored);
    for (uint32_t way = 0; way < SIMPLER_WAYS;) {
        simpler = *c;
        struct difference still = { "" };
        if (simplify(&simpler, way)) {
            still = compare(&simpler, false, &scored);
        }
        if (still.text[0] != '\0') {
            *c = simpler;
            d = still;
        } else {
            way++;
        }
    }
    cr_assert_fail("seed %" PRIu64 ": %s; shrunk to %u requests, %u passes, %u x %u GPUs, %u MoE "
                   "layers, %u running, budget %u, exchange %u, noise %d, shared %u, dispatch %u, "
                   "group %u, fetch slots %u",
                   seed, d.text, c->requests, c->passes, c->cost.nodes, c->cost.gpus_per_node,
                   c->cost.model.moe_layers, c->running_per_gpu, c->step_tokens, c->exchange,
                   c->noise, c->cost.model.shared_size, c->dispatch, c->group, c->fetch_slots);
}

Test(engine_twin, agrees_to_the_nanosecond)
{
    static struct twin_case c;
    uint32_t scored_count = 0;
    uint32_t fetching_count = 0;
    for (uint64_t seed = 0; seed < CASE_COUNT; seed++) {
        bool scored = false;
        engine_case_make(seed, table, &c, text, sizeof text);
        if (compare(&c, seed % 4 == 0, &scored).text[0] != '\0') {
            explain(&c, seed);
        }
        scored_count += scored;
        fetching_count += scored && c.fetch_slots > 0 && c.dispatch != TWIN_IN_TURN;
    }
    cr_assert_gt(scored_count, CASE_COUNT * 3 / 5, "only %u cases had a step to score",
                 scored_count);
    cr_assert_gt(fetching_count, CASE_COUNT / 6, "only %u cases fetched", fetching_count);
}
