/* Placement policies by hand: cases small enough to know the answer. */
#include <criterion/criterion.h>
#include <math.h>
#include <stdio.h>
#include <string.h>

#include "tests/place_case.h"

static struct moe_arena scratch;
static const struct moe_policy *policy;

/* The simplest case, to be filled in by the test. */
static void open_case(struct place_case *c, const char *name, struct moe_placement_shape shape)
{
    struct draws draws = { 0 };
    place_case_draw(c, &draws, false, true);
    c->view.shape = shape;
    c->previous.shape = shape;
    cr_assert_eq(moe_policy_find(MOE_POLICY_PLACE, name, &policy, NULL), MOE_OK);
    cr_assert_eq(moe_arena_init(&scratch, CASE_SCRATCH_BYTES, NULL), MOE_OK);
}

static void expect_slots(struct place_case *c, const uint16_t *expected)
{
    struct moe_error err = { 0 };
    cr_assert_eq(place_case_solve(c, policy, &scratch, &err), MOE_OK, "%s", err.text);
    for (uint32_t slot = 0; slot < c->view.shape.slot_count; slot++) {
        cr_assert_eq(c->slots[slot], expected[slot], "%s, slot %u holds %u", policy->name, slot,
                     c->slots[slot]);
    }
}

enum { E = MOE_SLOT_EMPTY };

Test(baselines, block)
{
    static struct place_case c;
    static const uint16_t last[] = { 0, 1, 2, 2, 3, 4, 5, 5, 6, 7, 7, 7 };
    static const uint16_t next[] = { 0, 1, 2, 3, 3, 4, 5, 6, 6, 7, 0, 1 };
    static const uint16_t empty[] = { 0, 1, 2, E, 3, 4, 5, E, 6, 7, E, E };
    static const uint16_t *const expected[] = { last, next, empty };
    open_case(&c, "block", (struct moe_placement_shape){ 1, 8, 12, 3, 1, 1 });
    for (int spare = 0; spare < 3; spare++) {
        const double parameters[] = { spare };
        c.view.parameters = parameters;
        expect_slots(&c, expected[spare]);
    }
    /* Fewer experts than GPUs: nothing to repeat on the last. */
    static const uint16_t few[] = { 0, 1, E };
    c.view.shape = (struct moe_placement_shape){ 1, 2, 3, 3, 1, 1 };
    c.view.parameters = NULL;
    expect_slots(&c, few);
    moe_arena_finish(&scratch);
}

/* Mean GPU load 40, so that at the default target no copy should carry more than 20: expert 0
 * needs four copies, one per GPU, the others none, and five slots are never used. */
Test(baselines, megascale_copies_only_what_needs_it)
{
    static struct place_case c;
    static const uint16_t expected[] = { 0, 2, E, E, 0, 3, 6, E, 0, 4, 7, E, 0, 5, 1, E };
    open_case(&c, "megascale", (struct moe_placement_shape){ 1, 8, 16, 4, 1, 1 });
    static const double load[] = { 80, 8, 16, 14, 14, 12, 8, 8 };
    memcpy(c.load, load, sizeof load);
    expect_slots(&c, expected);
    uint32_t copies[8];
    moe_placement_count_copies(&c.plan, 0, copies);
    cr_assert_eq(copies[0], 4);
    /* The budget of copies is kept; then the hottest copy stays hotter. */
    c.view.replica_budget_total = 1;
    struct moe_error err = { 0 };
    cr_assert_eq(place_case_solve(&c, policy, &scratch, &err), MOE_OK, "%s", err.text);
    moe_placement_count_copies(&c.plan, 0, copies);
    cr_assert_eq(copies[0], 2);
    moe_arena_finish(&scratch);
}

/* Requests 0 .. 3 start from GPUs 0 .. 3 of two nodes; request r wants expert 3 - r. */
Test(baselines, topology_aware_follows_the_tokens)
{
    static struct place_case c;
    static const uint16_t expected[] = { 3, 2, 1, 0 };
    open_case(&c, "topology_aware", (struct moe_placement_shape){ 1, 4, 4, 4, 2, 1 });
    for (uint32_t r = 0; r < 4; r++) {
        c.request[r] = r;
        c.expert[r] = (uint16_t) (3 - r);
        c.first_token[r] = r;
    }
    c.first_token[4] = 4;
    c.routes.request_count = 4;
    c.routes.token_count = 4;
    c.routes.top_k = 1;
    c.topology = (struct moe_policy_topology){ 1.0, 5.0 };
    expect_slots(&c, expected);
    /* In runs of consecutive requests each GPU gets the same one; the answer is the same. With
     * half the requests, in turn uses only the first node, in runs both. */
    const double runs[] = { 1.0 };
    c.view.parameters = runs;
    expect_slots(&c, expected);
    c.routes.request_count = 2;
    c.routes.token_count = 2;
    static const uint16_t spread[] = { 3, 0, 2, 1 }; /* request 1 starts from GPU 2 */
    expect_slots(&c, spread);
    moe_arena_finish(&scratch);
}

/* Two steady experts and two that alternate; GPU 1 is twice as fast as GPU 0. The steady hot one
 * goes to the fast GPU; the alternating ones, whose peaks never meet, may share one. */
Test(baselines, gem_uses_speed_and_time)
{
    static struct place_case c;
    static const float batches[2][4] = { { 40, 10, 20, 0 }, { 40, 10, 0, 20 } };
    open_case(&c, "gem", (struct moe_placement_shape){ 1, 4, 4, 2, 1, 1 });
    c.view.batch_count = 2;
    memcpy(c.batches, batches, sizeof batches);
    c.speed.point_count = 2;
    c.points[1] = 100.0;
    const double time_ns[] = { 0.0, 200.0, 0.0, 100.0 };
    memcpy(c.time_ns, time_ns, sizeof time_ns);
    struct moe_error err = { 0 };
    cr_assert_eq(place_case_solve(&c, policy, &scratch, &err), MOE_OK, "%s", err.text);
    /* Times on (GPU 0, GPU 1): {1, 2 | 0, 3} takes max(60, 40) and max(20, 60); {2, 3 | 0, 1}
     * takes max(40, 50) twice, the least there is. */
    cr_assert_eq(c.slots[0], 2);
    cr_assert_eq(c.slots[1], 3);
    moe_arena_finish(&scratch);
}

/* --- properties of gem ----------------------------------------------------------------------- */

/* Mean over batches of the slowest GPU's time, from the definition. */
static double mean_time(const struct place_case *c)
{
    const struct moe_placement_shape *shape = &c->view.shape;
    double sum = 0.0;
    for (uint32_t batch = 0; batch < c->view.batch_count; batch++) {
        const float *row = moe_place_view_batch(&c->view, batch);
        double slowest = 0.0;
        for (uint32_t gpu = 0; gpu < shape->gpu_count; gpu++) {
            const uint32_t capacity = moe_placement_slots_per_gpu(shape);
            double tokens = 0.0;
            for (uint32_t i = gpu * capacity; i < (gpu + 1) * capacity; i++) {
                tokens += c->slots[i] == MOE_SLOT_EMPTY ? 0.0 : (double) row[c->slots[i]];
            }
            slowest = fmax(slowest, moe_policy_speed_ns(c->view.speed, gpu, tokens));
        }
        sum += slowest;
    }
    return sum / c->view.batch_count;
}

/* No exchange with the GPU that is slowest in most time helps any more: checked with one batch,
 * where that GPU is the slowest one, by trying all of them. */
static bool gem_is_settled(struct draws *draws, void *context, char why[PROPERTY_TEXT_LIMIT])
{
    static struct place_case c;
    struct moe_error err = { 0 };
    (void) context;
    place_case_draw(&c, draws, true, true);
    c.view.shape.layer_count = 1;
    c.view.batch_count = 1;
    const double parameters[] = { 0.5, 32, 65534 };
    c.view.parameters = parameters;
    if (place_case_solve(&c, policy, &scratch, &err) != MOE_OK) {
        (void) snprintf(why, PROPERTY_TEXT_LIMIT, "%s", err.text);
        return false;
    }
    const double settled = mean_time(&c);
    for (uint32_t a = 0; a < c.view.shape.slot_count; a++) {
        for (uint32_t b = a + 1; b < c.view.shape.slot_count; b++) {
            const uint16_t held = c.slots[a];
            if (held == MOE_SLOT_EMPTY || c.slots[b] == MOE_SLOT_EMPTY) {
                continue;
            }
            c.slots[a] = c.slots[b];
            c.slots[b] = held;
            const double exchanged = mean_time(&c);
            c.slots[b] = c.slots[a];
            c.slots[a] = held;
            if (exchanged < settled * (1.0 - 1e-8)) {
                (void) snprintf(why, PROPERTY_TEXT_LIMIT, "slots %u and %u: %g, exchanged %g", a, b,
                                settled, exchanged);
                return false;
            }
        }
    }
    return true;
}

/* Other numbers of the GPUs renumber the plan: their speeds tell them apart. */
static bool gem_follows_gpus(struct draws *draws, void *context, char why[PROPERTY_TEXT_LIMIT])
{
    static struct place_case c;
    static struct place_case turned;
    struct moe_error err = { 0 };
    size_t to[CASE_GPUS];
    (void) context;
    place_case_draw(&c, draws, true, true);
    const uint32_t gpus = c.view.shape.gpu_count;
    const uint32_t capacity = moe_placement_slots_per_gpu(&c.view.shape);
    for (uint32_t gpu = 0; gpu < gpus; gpu++) {
        const uint32_t other = draw_below(draws, gpu + 1);
        to[gpu] = gpu;
        to[gpu] = to[other];
        to[other] = gpu;
    }
    turned = c;
    for (size_t gpu = 0; gpu < gpus; gpu++) {
        memcpy(turned.time_ns + to[gpu] * CASE_POINTS, c.time_ns + gpu * CASE_POINTS,
               CASE_POINTS * sizeof *c.time_ns);
    }
    turned.speed.tokens = turned.points;
    turned.speed.time_ns = turned.time_ns;
    turned.view.speed = &turned.speed;
    if (place_case_solve(&c, policy, &scratch, &err) != MOE_OK ||
        place_case_solve(&turned, policy, &scratch, &err) != MOE_OK) {
        (void) snprintf(why, PROPERTY_TEXT_LIMIT, "%s", err.text);
        return false;
    }
    for (uint32_t layer = 0; layer < c.view.shape.layer_count; layer++) {
        for (size_t gpu = 0; gpu < gpus; gpu++) {
            if (memcmp(moe_placement_layer(&c.plan, layer) + gpu * capacity,
                       moe_placement_layer(&turned.plan, layer) + to[gpu] * capacity,
                       capacity * sizeof(uint16_t)) != 0) {
                (void) snprintf(why, PROPERTY_TEXT_LIMIT, "layer %u, GPU %zu of %u", layer, gpu,
                                gpus);
                return false;
            }
        }
    }
    return true;
}

Test(baselines, gem_properties)
{
    cr_assert_eq(moe_policy_find(MOE_POLICY_PLACE, "gem", &policy, NULL), MOE_OK);
    cr_assert_eq(moe_arena_init(&scratch, CASE_SCRATCH_BYTES, NULL), MOE_OK);
    const char *text = property_fails(gem_is_settled, NULL, 1, 1000);
    cr_expect_null(text, "%s", text);
    text = property_fails(gem_follows_gpus, NULL, 1, 1000);
    cr_expect_null(text, "%s", text);
    moe_arena_finish(&scratch);
}
