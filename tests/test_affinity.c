/* Affinity: clusters, coverage and the traffic between nodes that they save on a real trace. */
#include <criterion/criterion.h>
#include <math.h>
#include <string.h>

#include "policies/policy.h"
#include "policies/solve/affinity_solver.h"
#include "policies/solve/count_clusters.h"
#include "sim/base/random.h"
#include "tests/node_traffic.h"
#include "tests/trace_window.h"

enum { ARENA_BYTES = 64 << 20 };

static struct moe_arena arena;
static uint64_t counter;

static void open_arena(void)
{
    cr_assert_eq(moe_arena_init(&arena, ARENA_BYTES, NULL), MOE_OK);
}

static void close_arena(void)
{
    moe_arena_finish(&arena);
}

TestSuite(affinity, .init = open_arena, .fini = close_arena);

static uint32_t below(uint32_t bound)
{
    return (uint32_t) moe_random_below(moe_random_key(13, MOE_RANDOM_TEST), counter++, bound);
}

static double distance(const uint16_t *row, const float *centre, uint32_t width)
{
    double norm = 0.0;
    double sum = 0.0;
    for (uint32_t i = 0; i < width; i++) {
        norm += (double) row[i] * row[i];
    }
    for (uint32_t i = 0; i < width; i++) {
        const double x = norm > 0.0 ? row[i] / sqrt(norm) : 0.0;
        sum += (x - (double) centre[i]) * (x - (double) centre[i]);
    }
    return sum;
}

/* Rows about a few centres far apart come back as those clusters; balanced ones have even
 * sizes; the same key gives the same answer; free ones are each nearest to their own centre. */
Test(affinity, clusters_are_found)
{
    enum { WIDTH = 37, ROWS = 90 };
    for (uint32_t i = 0; i < 60; i++) {
        static uint16_t count[ROWS][WIDTH];
        const uint32_t kinds = 1 + below(5);
        const bool balanced = i % 2 == 1;
        const struct moe_count_rows rows = { &count[0][0], balanced ? ROWS : 7 + below(80), WIDTH };
        struct moe_clusters first;
        struct moe_clusters second;
        moe_arena_reset(&arena);
        for (uint32_t row = 0; row < ROWS; row++) {
            for (uint32_t cell = 0; cell < WIDTH; cell++) {
                const bool own = cell / 7 == row % kinds;
                count[row][cell] = (uint16_t) (own ? 40 + below(30) : below(6));
            }
        }
        cr_assert_eq(moe_clusters_fit(&first, &arena, &rows, kinds, balanced, 50, 2 * i + 1, NULL),
                     MOE_OK);
        cr_assert_eq(moe_clusters_fit(&second, &arena, &rows, kinds, balanced, 50, 2 * i + 1, NULL),
                     MOE_OK);
        for (uint32_t row = 0; row < rows.row_count; row++) {
            const uint32_t cluster = first.cluster_of[row];
            cr_assert_eq(second.cluster_of[row], cluster);
            cr_assert(ROWS % kinds != 0 || !balanced || cluster == first.cluster_of[row % kinds],
                      "case %u, row %u", i, row);
            for (uint32_t other = 0; !balanced && other < kinds; other++) {
                cr_assert_geq(distance(count[row], first.centre + (size_t) other * WIDTH, WIDTH),
                              distance(count[row], first.centre + (size_t) cluster * WIDTH, WIDTH) -
                                  1e-4,
                              "case %u, row %u", i, row);
            }
        }
        for (uint32_t cluster = 0; cluster < kinds; cluster++) {
            cr_assert(!balanced || first.size[cluster] == ROWS / kinds ||
                      first.size[cluster] == ROWS / kinds + 1);
        }
    }
}

/* Three groups of two experts, U by hand: expert 0 leads most and gets group 0; 1 and 2 follow;
 * what is left goes where room is; a copy each for what a group uses most and lacks. */
Test(affinity, coverage_by_hand)
{
    double use[3][6] = {
        { 9.0, 8.0, 7.0, 1.0, 0.0, 0.0 },
        { 1.0, 2.0, 3.0, 6.0, 5.0, 0.0 },
        { 0.0, 4.0, 3.5, 5.0, 4.0, 0.0 },
    };
    const struct moe_affinity affinity = { .shape = { 1, 6, 9, 3, 3, 1 },
                                           .group_count = 3,
                                           .use = &use[0][0] };
    uint64_t order[6];
    uint32_t fill[3];
    uint8_t member[3][6];
    const struct moe_affinity_scratch scratch = { order, fill };
    /* Leads: 8, 4, 3.5, 1, 1, 0. */
    const uint8_t bare[3][6] = { { 1, 1, 0, 0, 0, 0 }, { 0, 0, 0, 1, 1, 0 }, { 0, 0, 1, 0, 0, 1 } };
    const uint8_t more[3][6] = { { 1, 1, 1, 0, 0, 0 }, { 0, 0, 1, 1, 1, 0 }, { 0, 0, 1, 1, 0, 1 } };
    moe_affinity_cover(&affinity, 0, 0, &scratch, &member[0][0]);
    cr_assert_arr_eq(member, bare, sizeof bare);
    moe_affinity_cover(&affinity, 0, UINT32_MAX, &scratch, &member[0][0]);
    cr_assert_arr_eq(member, more, sizeof more);
    moe_affinity_cover(&affinity, 0, 2, &scratch, &member[0][0]);
    cr_assert_arr_eq(member[1], more[1], 6);
    cr_assert_arr_eq(member[2], bare[2], 6);
}

Test(affinity, every_expert_is_covered_within_room)
{
    for (int i = 0; i < 300; i++) {
        const uint32_t groups = 1 + below(6);
        const uint32_t gpus = groups * (1 + below(3));
        const uint32_t experts = 1 + below(60);
        const uint32_t per_gpu = (experts - 1) / gpus + 1 + below(3);
        const uint32_t limit = below(40);
        moe_arena_reset(&arena);
        struct moe_affinity affinity = { .shape = { 1, experts, per_gpu * gpus, gpus, groups, 1 },
                                         .group_count = groups };
        affinity.use = MOE_NEW(&arena, double, (size_t) groups *experts);
        double *load = MOE_NEW(&arena, double, experts);
        for (uint32_t cell = 0; cell < groups * experts; cell++) {
            affinity.use[cell] = below(i % 3 == 0 ? 2 : 1000);
            load[cell % experts] += affinity.use[cell];
        }
        struct moe_placement plan;
        cr_assert_eq(moe_placement_init(&plan, &arena, &affinity.shape, NULL), MOE_OK);
        cr_assert_eq(moe_affinity_place(&affinity, load, limit, &arena, &plan, NULL), MOE_OK);
        cr_assert_eq(moe_placement_check(&plan, NULL), MOE_OK);
        uint32_t used = 0;
        uint32_t per_group[6] = { 0 };
        for (uint32_t slot = 0; slot < plan.shape.slot_count; slot++) {
            const bool full = plan.expert_of_slot[slot] != MOE_SLOT_EMPTY;
            used += full;
            per_group[slot / (plan.shape.slot_count / groups)] += full;
        }
        cr_assert_leq(used, experts + limit);
        for (uint32_t group = 0; group < groups; group++) {
            cr_assert(limit > 0 || per_group[group] == experts / groups ||
                      per_group[group] == experts / groups + 1);
        }
    }
}

static double *sum_of(const struct trace_window *window)
{
    const size_t cells = (size_t) window->layers * window->experts;
    float *counts = MOE_NEW(&arena, float, cells);
    double *load = MOE_NEW(&arena, double, cells);
    trace_window_count(window, 1, counts);
    for (size_t i = 0; i < cells; i++) {
        load[i] = (double) counts[i];
    }
    return load;
}

static struct moe_placement plan_of(const char *name, const struct moe_place_view *view)
{
    const struct moe_policy *policy = NULL;
    struct moe_placement plan = { 0 };
    struct moe_error err = { 0 };
    cr_assert_eq(moe_policy_find(MOE_POLICY_PLACE, name, &policy, NULL), MOE_OK);
    cr_assert_eq(moe_placement_init(&plan, &arena, &view->shape, NULL), MOE_OK);
    cr_assert_eq(moe_policy_place(policy, view, &arena, &plan, &err), MOE_OK, "%s", err.text);
    return plan;
}

/* Seats requests in their order, as the engine asks a group policy: rounds of seats_per_gpu
 * requests for every GPU, no KV limit. */
static void seat(const struct moe_place_view *view, const struct trace_window *window,
                 uint32_t seats_per_gpu, uint32_t *node_of_request)
{
    const struct moe_policy *policy = NULL;
    struct moe_place_view shown;
    double values[MOE_POLICY_PARAMETER_LIMIT];
    void *state = NULL;
    uint32_t lookahead = 1;
    uint32_t seats[64];
    uint64_t kv[64];
    const uint32_t gpus = view->shape.gpu_count;
    const size_t cells = (size_t) window->layers * window->experts;
    float *signature = MOE_NEW(&arena, float, cells);
    cr_assert_eq(moe_policy_find(MOE_POLICY_GROUP, "affinity", &policy, NULL), MOE_OK);
    cr_assert_eq(moe_policy_show(policy, view, &shown, values, NULL), MOE_OK);
    cr_assert_eq(policy->group->init(&shown, NULL, &arena, &state, &lookahead, NULL), MOE_OK);
    for (uint32_t request = 0; request < window->routes.request_count; request++) {
        for (uint32_t gpu = 0; gpu < gpus && request % (gpus * seats_per_gpu) == 0; gpu++) {
            seats[gpu] = seats_per_gpu;
            kv[gpu] = 1;
        }
        memset(signature, 0, cells * sizeof *signature);
        for (uint32_t token = window->routes.first_token[request];
             token < window->routes.first_token[request + 1] &&
             window->routes.phase[token] == MOE_ROUTE_PREFILL;
             token++) {
            for (uint32_t i = 0; i < window->layers * window->routes.top_k; i++) {
                const uint16_t expert =
                    window->routes
                        .expert[(size_t) token * window->layers * window->routes.top_k + i];
                signature[i / window->routes.top_k * window->experts + expert] += 1.0f;
            }
        }
        const struct moe_waiting_request waiting = { .request = request, .signature = signature };
        const struct moe_group_view asked = { .shape = view->shape,
                                              .waiting_count = 1,
                                              .waiting = &waiting,
                                              .free_seats = seats,
                                              .kv_free_tokens = kv };
        struct moe_group_choice choice = { 0 };
        cr_assert_eq(policy->group->choose(state, &asked, &choice, NULL), MOE_OK);
        cr_assert_lt(choice.gpu, gpus);
        cr_assert_gt(seats[choice.gpu], 0);
        seats[choice.gpu]--;
        node_of_request[request] = choice.gpu / (gpus / view->shape.node_count);
    }
}

/* Planned on the first half of a recorded trace, scored on the second, no copies, 4 nodes of 4
 * GPUs: less leaves the nodes than under linear placement and EPLB with requests in turn. */
Test(affinity, less_traffic_between_nodes_on_a_recorded_trace)
{
    struct moe_trace *trace = NULL;
    struct trace_window before;
    struct trace_window after;
    cr_assert_eq(moe_trace_open(
                     &trace, MOE_SOURCE_ROOT "/results/quickstart/group256-sample.trace.db", NULL),
                 MOE_OK);
    const uint32_t half = (uint32_t) moe_trace_request_count(trace) / 2;
    cr_assert(trace_window_read(&before, trace, 0, half, UINT32_MAX));
    cr_assert_geq(half, 100);
    cr_assert(trace_window_read(&after, trace, half, half, UINT32_MAX));
    const struct moe_place_view view = { .shape = { before.layers, before.experts, 256, 16, 4, 8 },
                                         .seed = 1,
                                         .load = sum_of(&before),
                                         .routes = &before.routes };
    const struct moe_placement linear = plan_of("contiguous", &view);
    const struct moe_placement eplb = plan_of("eplb", &view);
    const struct moe_placement affinity = plan_of("affinity", &view);
    uint32_t *in_turn = MOE_NEW(&arena, uint32_t, half);
    uint32_t *seated = MOE_NEW(&arena, uint32_t, half);
    for (uint32_t request = 0; request < half; request++) {
        in_turn[request] = request % 4;
    }
    seat(&view, &after, 4, seated);
    const struct node_traffic by_linear = node_traffic_count(&after, &linear, in_turn);
    const struct node_traffic by_eplb = node_traffic_count(&after, &eplb, in_turn);
    const struct node_traffic by_affinity = node_traffic_count(&after, &affinity, seated);
    const struct node_traffic unseated = node_traffic_count(&after, &affinity, in_turn);
    cr_assert_lt(by_affinity.apart, 0.85 * by_linear.apart, "%g", by_affinity.apart);
    cr_assert_lt(by_affinity.apart, 0.85 * by_eplb.apart);
    cr_assert_lt(by_affinity.joined, by_linear.joined, "%g", by_affinity.joined);
    cr_assert_lt(by_affinity.joined, by_eplb.joined);
    /* What saves is requests meeting their experts, not the placement alone. */
    cr_assert_lt(by_affinity.apart, 0.85 * unseated.apart);
    trace_window_finish(&before);
    trace_window_finish(&after);
    moe_trace_close(trace);
}
