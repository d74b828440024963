/* What policies are shown before a run, against a plain reading of sim/engine/planning.h: random
 * traces, every window, batch and route once more from arrays. */
#include <criterion/criterion.h>
#include <math.h>
#include <stdio.h>
#include <string.h>

#include "sim/arrival/workload.h"
#include "sim/cost/calibration.h"
#include "sim/engine/planning.h"
#include "tests/engine_case.h"
#include "tests/engine_drive.h"
#include "tests/workload_twin.h"

enum { CASES = 60, TEXT_BYTES = 32 << 10, STEPS_LIMIT = 512 };

static struct engine_drive drive;
static char table[TEXT_BYTES];
static char text[TEXT_BYTES];
static struct twin_case c;

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

TestSuite(planning, .init = setup, .fini = teardown, .timeout = 120);

static uint32_t expert_at(uint32_t layer, uint32_t row, uint32_t k)
{
    const uint16_t id = c.route[row][layer % c.trace_layers][k];
    return id == TWIN_UNKNOWN ? MOE_EXPERT_UNKNOWN
                              : workload_twin_relabel(layer, c.trace_layers, c.cost.model.experts,
                                                      c.cost.model.groups, id);
}

/* The step in which each row of the planning window is served: seats filled in turn, a request
 * per seat at a time, prompt in one step, then a token a step. */
static uint32_t serve(uint32_t planned, uint32_t *step_of_row)
{
    const uint32_t gpus = c.cost.nodes * c.cost.gpus_per_node;
    uint32_t seats = gpus * c.running_per_gpu;
    uint32_t free_from[TWIN_REQUESTS] = { 0 };
    uint32_t steps = 0;
    while (seats > 1 && 8 * (seats - 1) >= planned) {
        seats--;
    }
    for (uint32_t r = 0; r < planned; r++) {
        uint32_t step = free_from[r % seats];
        for (uint32_t i = 0; i + 1 < c.prompt[r] + c.output[r]; i++) {
            step += i >= c.prompt[r];
            step_of_row[c.first_row[r] + i] = step;
        }
        free_from[r % seats] = step + 1;
        steps = step + 1 > steps ? step + 1 : steps;
    }
    return steps;
}

static void expect_batches(const struct moe_planning *planning, uint32_t planned, uint32_t rows)
{
    static uint32_t step_of_row[TWIN_CASE_ROWS];
    static float expected[STEPS_LIMIT][TWIN_LAYERS][TWIN_EXPERTS];
    const struct twin_model *m = &c.cost.model;
    const uint32_t steps = serve(planned, step_of_row);
    const uint32_t batches = steps < MOE_PLANNING_BATCH_LIMIT ? steps : MOE_PLANNING_BATCH_LIMIT;
    cr_assert_leq(steps, STEPS_LIMIT);
    cr_assert_eq(planning->batch_count, batches);
    memset(expected, 0, sizeof expected);
    for (uint32_t row = 0; row < rows; row++) {
        for (uint32_t l = 0; l < m->moe_layers; l++) {
            for (uint32_t k = 0; k < m->top_k; k++) {
                if (expert_at(l, row, k) != MOE_EXPERT_UNKNOWN) {
                    expected[step_of_row[row] * batches / steps][l][expert_at(l, row, k)] += 1.0F;
                }
            }
        }
    }
    const float *got = planning->batches;
    for (uint32_t b = 0; b < batches; b++) {
        for (uint32_t l = 0; l < m->moe_layers; l++) {
            for (uint32_t e = 0; e < m->experts; e++, got++) {
                cr_assert_eq(*got, expected[b][l][e], "batch %u, layer %u, expert %u", b, l, e);
            }
        }
    }
}

static void expect_loads(const double *got, uint32_t first_row, uint32_t end_row)
{
    const struct twin_model *m = &c.cost.model;
    double expected[TWIN_LAYERS][TWIN_EXPERTS] = { { 0 } };
    for (uint32_t row = first_row; row < end_row; row++) {
        for (uint32_t l = 0; l < m->moe_layers; l++) {
            for (uint32_t k = 0; k < m->top_k; k++) {
                if (expert_at(l, row, k) != MOE_EXPERT_UNKNOWN) {
                    expected[l][expert_at(l, row, k)] += 1.0;
                }
            }
        }
    }
    for (uint32_t l = 0; l < m->moe_layers; l++) {
        for (uint32_t e = 0; e < m->experts; e++) {
            cr_assert_eq(got[(size_t) l * m->experts + e], expected[l][e]);
        }
    }
}

static void expect_routes(const struct moe_policy_routes *routes, uint32_t planned, uint32_t rows)
{
    const struct twin_model *m = &c.cost.model;
    const uint16_t *got = routes->expert;
    cr_assert_eq(routes->token_count, rows);
    cr_assert_eq(routes->request_count, planned);
    cr_assert_eq(routes->planned_requests, planned);
    cr_assert_eq(routes->top_k, m->top_k);
    cr_assert_eq(routes->domain_count, 1);
    for (uint32_t r = 0; r < planned; r++) {
        cr_assert_eq(routes->first_token[r], c.first_row[r]);
        cr_assert_eq(routes->request_domain[r], 0);
        for (uint32_t i = 0; i + 1 < c.prompt[r] + c.output[r]; i++) {
            const uint32_t row = c.first_row[r] + i;
            cr_assert_eq(routes->request[row], r);
            cr_assert_eq(routes->phase[row],
                         i < c.prompt[r] ? MOE_ROUTE_PREFILL : MOE_ROUTE_DECODE);
            for (uint32_t l = 0; l < m->moe_layers; l++) {
                for (uint32_t k = 0; k < m->top_k; k++, got++) {
                    cr_assert_eq(*got, expert_at(l, row, k), "row %u, layer %u", row, l);
                }
            }
        }
    }
    cr_assert_eq(routes->first_token[planned], rows);
}

static void expect_planning(uint64_t seed, uint32_t needs)
{
    struct moe_trace *trace = NULL;
    struct moe_replay_map map;
    struct moe_planning planning;
    struct moe_error err = { 0 };
    engine_case_make(seed, table, &c, text, sizeof text);
    moe_arena_reset(&drive.setup);
    engine_drive_scenario(&c, &drive.scenario);
    cr_assert_eq(engine_drive_store(&drive, &c, &err), MOE_OK, "%s", err.text);
    cr_assert_eq(moe_trace_open(&trace, drive.path, &err), MOE_OK, "%s", err.text);
    cr_assert_eq(moe_replay_map_init(&map, moe_trace_model(trace), c.cost.model.moe_layers,
                                     &drive.setup, NULL),
                 MOE_OK);
    const uint32_t planned = moe_workload_planned_count(c.requests, c.plan_share);
    const struct moe_planning_source source = { .scenario = &drive.scenario,
                                                .map = &map,
                                                .trace = trace,
                                                .planned_requests = planned,
                                                .needs = needs };
    cr_assert_eq(moe_planning_init(&planning, &source, &err), MOE_OK, "%s", err.text);
    const uint32_t rows = c.first_row[planned];
    expect_loads(planning.load, 0, rows);
    expect_loads(planning.future_load, rows, c.rows);
    if ((needs & MOE_POLICY_NEEDS_BATCHES) != 0) {
        expect_batches(&planning, planned, rows);
    } else {
        cr_assert_null(planning.batches);
        cr_assert_eq(planning.batch_count, 0);
    }
    cr_assert_eq(planning.has_routes, (needs & MOE_POLICY_NEEDS_ROUTES) != 0);
    if (planning.has_routes) {
        expect_routes(&planning.routes, planned, rows);
    }
    moe_planning_finish(&planning);
    moe_planning_finish(&planning);
    moe_trace_close(trace);
}

Test(planning, shows_the_windows_as_they_are)
{
    for (uint64_t seed = 0; seed < CASES; seed++) {
        expect_planning(seed, seed % 4 == 0   ? MOE_POLICY_NEEDS_LOAD
                              : seed % 4 == 1 ? MOE_POLICY_NEEDS_BATCHES
                              : seed % 4 == 2 ? MOE_POLICY_NEEDS_ROUTES
                                              : MOE_POLICY_NEEDS_ALL);
    }
}

/* Finish times: nothing for nothing, never falling, of a slow GPU more; memory and links are
 * those of the scenario. */
Test(planning, shows_the_cluster_of_the_seed)
{
    const struct moe_calibration *calibration = NULL;
    const struct moe_planning planning = { .domain_count = 1 };
    struct moe_cost *cost = NULL;
    static struct moe_planning_run run;
    struct moe_error err = { 0 };
    engine_case_make(3, table, &c, text, sizeof text);
    c.noise = true;
    c.cost.nodes = 2;
    c.cost.gpus_per_node = 2;
    c.slots = (c.cost.model.experts + 3) / 4 * 4;
    moe_arena_reset(&drive.setup);
    engine_drive_scenario(&c, &drive.scenario);
    cr_assert_eq(moe_calibration_parse(&calibration, text, strlen(text), "case",
                                       MOE_CALIBRATION_FITTED, &drive.setup, &err),
                 MOE_OK, "%s", err.text);
    cr_assert_eq(moe_cost_init(&cost, calibration, &drive.scenario.model, &drive.scenario.cluster,
                               &drive.setup, &err),
                 MOE_OK, "%s", err.text);
    cr_assert_eq(moe_planning_view(&run, &planning, &drive.scenario, cost, 7, &drive.setup, &err),
                 MOE_OK);
    const double slots_per_gpu = c.slots / 4.0;
    for (uint32_t gpu = 0; gpu < 4; gpu++) {
        const struct moe_gpu_factor factor = moe_cost_gpu_factor(cost, 7, gpu);
        double before = -1.0;
        cr_assert_eq(moe_policy_speed_ns(&run.speed, gpu, 0.0), 0.0);
        for (uint32_t i = 0; i < run.speed.point_count; i++) {
            const double ns = moe_policy_speed_ns(&run.speed, gpu, run.speed.tokens[i]);
            cr_assert_geq(ns, before);
            before = ns;
        }
        const struct moe_expert_work one = { 1.0, 1.0, 1.0, 1.0 };
        cr_assert_float_eq(moe_policy_speed_ns(&run.speed, gpu, 1.0),
                           moe_cost_expert(cost, &one, &factor).ns, 1e-6);
        const double tile = moe_cost_tile_tokens(cost);
        const struct moe_expert_work full = { 65536.0, slots_per_gpu, 65536.0 / tile,
                                              65536.0 / slots_per_gpu };
        cr_assert_float_eq(moe_policy_speed_ns(&run.speed, gpu, 65536.0),
                           moe_cost_expert(cost, &full, &factor).ns, 1e-3);
    }
    cr_assert_gt(run.topology.near_ns, 0.0);
    cr_assert_gt(run.topology.far_ns, run.topology.near_ns / 100.0);
    cr_assert_eq(run.memory.expert_bytes, moe_model_expert_bytes(&drive.scenario.model));
    cr_assert_eq(run.view.seed, 7);
}

Test(planning, a_need_that_the_trace_cannot_meet_is_refused_before_the_run)
{
    static const struct moe_policy by_domain = { MOE_POLICY_HEADER, .name = "by_domain",
                                                 .needs = MOE_POLICY_NEEDS_DOMAINS };
    struct moe_composition composition = { .label = "eplb+group=by_domain" };
    struct moe_trace *trace = NULL;
    struct moe_error err = { 0 };
    composition.part[MOE_POLICY_GROUP].policy = &by_domain;
    engine_case_make(0, table, &c, text, sizeof text);
    cr_assert_eq(engine_drive_store(&drive, &c, &err), MOE_OK, "%s", err.text);
    cr_assert_eq(moe_trace_open(&trace, drive.path, &err), MOE_OK, "%s", err.text);
    cr_assert_eq(moe_planning_check(&composition, trace, &err), MOE_POLICY);
    cr_assert_not_null(strstr(err.text, "eplb+group=by_domain needs domain labels"), "%s",
                       err.text);
    cr_assert_not_null(strstr(err.text, "one domain, 'all'"), "%s", err.text);
    moe_trace_close(trace);
}
