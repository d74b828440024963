/* Random scenarios through whole runs under the audit: every way to serve, closed and open. */
#include <criterion/criterion.h>
#include <inttypes.h>
#include <stdio.h>
#include <string.h>

#include "sim/scenario/deployment.h"
#include "tests/engine_case.h"
#include "tests/engine_drive.h"

enum { CASES = 300 };

static struct engine_drive drive;
static struct twin_case c;
static struct moe_run_result result;
static char table[32 << 10];
static char text[32 << 10];

static void setup(void)
{
    FILE *file = fopen(MOE_SOURCE_ROOT "/tests/data/tiny-calibration.csv", "r");
    cr_assert_not_null(file);
    table[fread(table, 1, sizeof table - 1, file)] = '\0';
    cr_assert_eq(fclose(file), 0);
    engine_drive_open(&drive);
}

static void teardown(void)
{
    engine_drive_close(&drive);
}

TestSuite(audit, .init = setup, .fini = teardown);

/* A way to serve, drawn on top of the case. */
static void draw_serving(struct twin_draw *draw, struct moe_scenario *scenario)
{
    struct moe_serving *s = &scenario->serving;
    const uint32_t gpus = scenario->cluster.gpus_per_node;
    s->running_per_gpu = 1 + twin_below(draw, 9);
    s->kv = (enum moe_kv_mode)(twin_below(draw, 3) > 0);
    s->page_tokens = 1 + twin_below(draw, 8);
    s->order = (enum moe_batch_order) twin_below(draw, 2);
    s->preempt = (enum moe_preempt) twin_below(draw, 2);
    s->output_reserve = twin_below(draw, 3) / 2.0;
    s->drafts = twin_below(draw, 2) * twin_below(draw, 4);
    s->acceptance = twin_below(draw, 5) / 4.0;
    s->exchange = (enum moe_exchange_mode) twin_below(draw, 5);
    s->attention_ranks = gpus % 2 == 0 ? 1 + twin_below(draw, 2) : 1;
    s->graph_size_count = twin_below(draw, 3);
    s->graph_sizes[0] = 1 + twin_below(draw, 3);
    s->graph_sizes[1] = 4 + twin_below(draw, 30);
}

/* Steps in two halves, sometimes with interference; or drafts that cost something. */
static void draw_overlap(struct twin_draw *draw, struct moe_scenario *scenario)
{
    struct moe_serving *s = &scenario->serving;
    if (twin_below(draw, 2) == 0) {
        s->overlap = MOE_OVERLAP_TWO_BATCH;
        s->shared = MOE_SHARED_SERIAL;
        s->overlap_tokens = 2 + twin_below(draw, 3);
        s->overlap_compute = 1.0 + twin_below(draw, 3) / 4.0;
        s->overlap_comm = 1.0 + twin_below(draw, 3) / 4.0;
    } else {
        s->draft_layers = twin_below(draw, 3);
        s->acceptance_count = twin_below(draw, 3);
        s->acceptance_at[0] = twin_below(draw, 5) / 4.0;
        s->acceptance_at[1] = twin_below(draw, 5) / 4.0;
    }
}

static void draw_arrivals(struct twin_draw *draw, struct moe_scenario *scenario)
{
    struct moe_arrival_options *a = &scenario->arrivals;
    if (twin_below(draw, 3) == 0) {
        return; /* a closed loop */
    }
    a->kind = twin_below(draw, 2) == 0 ? MOE_ARRIVAL_POISSON : MOE_ARRIVAL_BURSTS;
    a->rate = 1.0 + 2000.0 * twin_below(draw, 200);
    a->burst_on_s = 0.001;
    a->burst_off_s = 0.002;
    a->requests = 20 + twin_below(draw, 60);
    a->longest_tokens = 60;
    if (twin_below(draw, 2) == 0) {
        a->lengths = MOE_ARRIVAL_LENGTHS_LOGNORMAL;
        a->prompt_tokens = 1 + twin_below(draw, 30);
        a->output_tokens = 1 + twin_below(draw, 60);
    }
}

/* Sometimes a GPU dies early on, or is slow for a while. */
static void draw_hardware(struct twin_draw *draw, struct moe_scenario *scenario)
{
    struct moe_hardware_options *h = &scenario->hardware;
    const uint32_t gpus = moe_cluster_gpu_count(&scenario->cluster);
    h->event_count = twin_below(draw, 3) == 0 ? 1 + twin_below(draw, 2) : 0;
    h->recovery_s = 1e-5;
    for (uint32_t i = 0; i < h->event_count; i++) {
        const moe_time_ns within_ns = 200 * (moe_time_ns) twin_below(draw, 20);
        h->event[i] = (struct moe_hardware_event){
            .kind = (enum moe_hardware_event_kind)(2 - twin_below(draw, 5) % 3),
            .gpu = twin_below(draw, gpus),
            .factor = 1.0 + twin_below(draw, 3),
            .begin_ns = within_ns * twin_below(draw, 2000),
            .end_ns = INT64_MAX,
        };
    }
}

static bool someone_dies(const struct moe_scenario *scenario)
{
    bool dies = false;
    for (uint32_t i = 0; i < scenario->hardware.event_count; i++) {
        dies = dies || scenario->hardware.event[i].kind == MOE_HARDWARE_DEAD;
    }
    return dies;
}

/* Prefill and decode on GPUs of their own, where requests come over time and nobody dies. */
static void draw_pools(struct twin_draw *draw, struct moe_scenario *scenario)
{
    const struct moe_cluster *cluster = &scenario->cluster;
    struct moe_pools_options *p = &scenario->pools;
    const uint32_t parts = cluster->node_count > 1 ? cluster->node_count : cluster->gpus_per_node;
    const uint32_t part = cluster->node_count > 1 ? cluster->gpus_per_node : 1;
    const bool apart = scenario->arrivals.kind != MOE_ARRIVAL_CLOSED && !someone_dies(scenario);
    if (twin_below(draw, 2) == 0 || !apart || parts < 2) {
        return;
    }
    scenario->cluster.memory_bytes = 1e15;
    scenario->serving.attention_ranks = 1;
    p->prefill_gpus = part * (1 + twin_below(draw, parts - 1));
    p->tokens[0] = 1 + twin_below(draw, 40);
    p->running[1] = 1 + twin_below(draw, 9);
    p->transfer = (enum moe_pool_transfer) twin_below(draw, 2);
    p->first_token = (enum moe_pool_first_token) twin_below(draw, 2);
}

/* Takes out what the scenario's keys rule out together, and, all but one time in eight, what is
 * refused beside the rest: too few cases would be served otherwise. */
static void reconcile(struct twin_draw *draw, struct moe_scenario *scenario, uint32_t *dispatch)
{
    const bool halves = scenario->serving.overlap != MOE_OVERLAP_NONE;
    const bool charged = scenario->serving.drafts * scenario->serving.draft_layers > 0;
    if (halves || charged) {
        scenario->counted_layers = 0; /* both need all layers */
    }
    if (halves) {
        scenario->fetch.slots = 0; /* not priced in halves */
    }
    if (twin_below(draw, 8) == 0) {
        return;
    }
    /* A dispatch policy knows the first placement only, and the counts of all layers. */
    if (someone_dies(scenario) || moe_scenario_samples_layers(scenario)) {
        *dispatch = TWIN_IN_TURN;
    }
    if (charged) {
        scenario->fetch.slots = 0; /* layers that draft have no temporary copies */
    }
}

struct seen {
    uint64_t lost;
    uint32_t served;
    uint32_t refused;
    uint64_t preemptions;
    uint64_t rejected;
    uint64_t padded;
    uint64_t repeated;
    uint64_t halved;     /* scored steps in halves */
    uint64_t moved;      /* requests handed over */
    uint64_t charged;    /* scenarios with drafts that cost something */
    uint64_t read_again; /* rows in decode pools */
};

static void serve(uint64_t seed, struct seen *seen)
{
    struct twin_draw draw = twin_draw_of(seed + 1000000);
    struct twin_draw apart = twin_draw_of(seed + 2000000);
    struct moe_error err = { 0 };
    engine_case_make(seed, table, &c, text, sizeof text);
    engine_drive_scenario(&c, &drive.scenario);
    draw_serving(&draw, &drive.scenario);
    draw_overlap(&apart, &drive.scenario);
    draw_arrivals(&draw, &drive.scenario);
    draw_hardware(&draw, &drive.scenario);
    draw_pools(&apart, &drive.scenario);
    drive.place = moe_deployment_has_pools(&drive.scenario) ? "contiguous" : NULL;
    drive.scenario.counted_layers = twin_below(&apart, 4) == 0; /* one of them, as a sample */
    reconcile(&apart, &drive.scenario, &c.dispatch);
    /* A pool of at most so many tokens, so that pages run out. */
    drive.kv_limit = twin_below(&draw, 3) == 0 ? 0 : 70 + twin_below(&draw, 80);
    const bool events =
        seed % 4 == 0 && drive.place == NULL && drive.scenario.serving.overlap == MOE_OVERLAP_NONE;
    const enum moe_status status = engine_drive_scene(&drive, &c, text, events, &result, &err);
    if (status == MOE_RANGE || status == MOE_POLICY || (status == MOE_OK && !result.fits)) {
        seen->refused++;
        return;
    }
    cr_assert_eq(status, MOE_OK, "seed %" PRIu64 ": %s", seed, err.text);
    seen->served++;
    seen->preemptions += result.preemptions;
    seen->rejected += result.rejected_rows;
    seen->lost += result.lost_requests;
    seen->padded += result.padded_rows;
    seen->repeated += result.repeated_rows;
    seen->halved += result.halves.steps;
    seen->moved += result.handover.count;
    seen->charged += drive.scenario.serving.drafts * drive.scenario.serving.draft_layers > 0;
    seen->read_again += drive.place != NULL ? result.recomputed_rows : 0;
    moe_time_ns causes = 0;
    for (uint32_t cause = 0; cause < MOE_CAUSE_COUNT; cause++) {
        causes += result.cause_idle_ns[cause];
    }
    cr_assert_eq(causes, result.idle_ns, "seed %" PRIu64, seed);
    uint64_t tokens = 0;
    for (uint32_t phase = 0; phase < MOE_PHASE_COUNT; phase++) {
        tokens += result.account[phase].tokens;
    }
    cr_assert_eq(tokens + result.hit_rows, result.served_rows + result.recomputed_rows +
                                               result.rejected_rows + result.lost_rows);
}

Test(audit, random_scenarios_conserve_tokens_bytes_pages_and_time)
{
    struct seen seen = { 0 };
    for (uint64_t seed = 0; seed < CASES; seed++) {
        serve(seed, &seen);
    }
    cr_assert_gt(seen.served, CASES / 2, "%u served, %u refused", seen.served, seen.refused);
    cr_assert_gt(seen.preemptions, 150, "%" PRIu64 " preemptions, %u served", seen.preemptions,
                 seen.served);
    cr_assert_gt(seen.lost, 5, "%" PRIu64 " lost", seen.lost);
    cr_assert_gt(seen.rejected, 200);
    cr_assert_gt(seen.padded, 200);
    cr_assert_gt(seen.repeated, 200);
    cr_assert_gt(seen.halved, 200);
    cr_assert_gt(seen.moved, 1000);
    cr_assert_gt(seen.charged, 10);
    cr_assert_gt(seen.read_again, 200);
}
