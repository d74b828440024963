/* Policies that read token routes: structure planted in the routes is found, and nothing is worse
 * than the placement that they start from. */
#include <criterion/criterion.h>
#include <math.h>
#include <stdio.h>
#include <string.h>

#include "sim/base/random.h"
#include "tests/place_case.h"

static struct moe_arena scratch;
static const struct moe_policy *policy;

static void open_policy(const char *name)
{
    cr_assert_eq(moe_policy_find(MOE_POLICY_PLACE, name, &policy, NULL), MOE_OK);
    cr_assert_eq(moe_arena_init(&scratch, CASE_SCRATCH_BYTES, NULL), MOE_OK);
}

static uint32_t gpu_of(const struct place_case *c, const struct moe_placement *plan, uint32_t layer,
                       uint16_t expert)
{
    const uint16_t *slots = moe_placement_layer(plan, layer);
    for (uint32_t slot = 0; slot < c->view.shape.slot_count; slot++) {
        if (slots[slot] == expert) {
            return slot / moe_placement_slots_per_gpu(&c->view.shape);
        }
    }
    cr_assert(false, "layer %u: expert %u has no slot", layer, expert);
    return 0;
}

/* What the first choices of all tokens pay from layer to layer: 1 inside a node, 2 across. */
static uint32_t hops(const struct place_case *c, const struct moe_placement *plan)
{
    const struct moe_placement_shape *shape = &c->view.shape;
    const uint32_t per_node = shape->gpu_count / shape->node_count;
    uint32_t price = 0;
    for (uint32_t token = 0; token < c->routes.token_count; token++) {
        for (uint32_t layer = 1; layer < shape->layer_count; layer++) {
            const uint16_t *row =
                c->expert + ((size_t) token * shape->layer_count + layer) * c->routes.top_k;
            const uint32_t from = gpu_of(c, plan, layer - 1, row[-(int) c->routes.top_k]);
            const uint32_t to = gpu_of(c, plan, layer, row[0]);
            price += from == to ? 0 : from / per_node == to / per_node ? 1 : 2;
        }
    }
    return price;
}

/* As many experts on every GPU as exflow has them, in their order. */
static void contiguous(const struct place_case *c, struct moe_placement *plan)
{
    const struct moe_placement_shape *shape = &c->view.shape;
    const uint32_t share = (shape->expert_count + shape->gpu_count - 1) / shape->gpu_count;
    for (uint32_t layer = 0; layer < shape->layer_count; layer++) {
        uint16_t *slots = moe_placement_layer(plan, layer);
        memset(slots, 0xff, shape->slot_count * sizeof *slots);
        for (uint32_t expert = 0; expert < shape->expert_count; expert++) {
            slots[expert / share * moe_placement_slots_per_gpu(shape) + expert % share] =
                (uint16_t) expert;
        }
    }
}

static bool exflow_holds(struct draws *draws, void *context, char why[PROPERTY_TEXT_LIMIT])
{
    static struct place_case c;
    static uint16_t slots[CASE_LAYERS * CASE_SLOTS];
    struct moe_error err = { 0 };
    (void) context;
    place_case_draw(&c, draws, false, false);
    struct moe_placement start = { c.view.shape, slots };
    if (place_case_solve(&c, policy, &scratch, &err) != MOE_OK) {
        (void) snprintf(why, PROPERTY_TEXT_LIMIT, "%s", err.text);
        return false;
    }
    contiguous(&c, &start);
    const uint32_t before = hops(&c, &start);
    const uint32_t after = hops(&c, &c.plan);
    (void) snprintf(why, PROPERTY_TEXT_LIMIT, "contiguous pays %u, exflow %u", before, after);
    return after <= before;
}

Test(route_policies, exflow_is_never_worse_than_contiguous)
{
    open_policy("exflow");
    const char *text = property_fails(exflow_holds, NULL, 1, 1000);
    cr_expect_null(text, "%s", text);
    moe_arena_finish(&scratch);
}

/* The simplest case of a shape and top_k, with room for all tokens in one request. */
static void open_case(struct place_case *c, struct moe_placement_shape shape, uint32_t tokens,
                      uint32_t top_k)
{
    struct draws draws = { 0 };
    place_case_draw(c, &draws, false, true);
    c->view.shape = shape;
    c->previous.shape = shape;
    c->routes.top_k = top_k;
    c->routes.token_count = tokens;
    c->routes.request_count = 1;
    c->first_token[1] = tokens;
    memset(c->request, 0, sizeof c->request);
    for (uint32_t i = 0; i < shape.layer_count * shape.expert_count; i++) {
        c->load[i] = 1.0;
    }
}

/* A token that visits e in one layer visits a fixed partner of e in the next: nobody need hop. */
Test(route_policies, chains_stay_on_one_gpu)
{
    static struct place_case c;
    enum { EXPERTS = 12, TOKENS = 24 };
    for (uint32_t number = 0; number < 50; number++) {
        const uint64_t key = moe_random_key(number, MOE_RANDOM_TEST);
        open_policy("exflow");
        open_case(&c, (struct moe_placement_shape){ 3, EXPERTS, EXPERTS, 4, 2, 1 }, TOKENS, 1);
        for (uint32_t layer = 0; layer < 3; layer++) {
            uint16_t partner[EXPERTS];
            for (uint32_t i = 0; i < EXPERTS; i++) {
                const uint32_t j = (uint32_t) moe_random_below(key, layer * 100 + i, i + 1);
                partner[i] = (uint16_t) i;
                partner[i] = partner[j];
                partner[j] = (uint16_t) i;
            }
            for (uint32_t token = 0; token < TOKENS; token++) {
                c.expert[token * 3 + layer] = partner[token % EXPERTS];
            }
        }
        struct moe_error err = { 0 };
        cr_assert_eq(place_case_solve(&c, policy, &scratch, &err), MOE_OK, "%s", err.text);
        cr_assert_eq(hops(&c, &c.plan), 0, "%u", number);
        /* One expert per GPU: the same of moetuner's clusters. */
        cr_assert_eq(moe_policy_find(MOE_POLICY_PLACE, "moetuner", &policy, NULL), MOE_OK);
        c.view.shape.gpu_count = EXPERTS;
        cr_assert_eq(place_case_solve(&c, policy, &scratch, &err), MOE_OK, "%s", err.text);
        cr_assert_eq(hops(&c, &c.plan), 0, "%u", number);
        moe_arena_finish(&scratch);
    }
}

/* Sum over GPUs of |load - mean| in one layer. */
static double unevenness(const struct place_case *c, const struct moe_placement *plan,
                         uint32_t layer)
{
    double gpu_load[CASE_GPUS];
    double mean = 0.0;
    double sum = 0.0;
    moe_placement_gpu_load(plan, layer, c->load + (size_t) layer * c->view.shape.expert_count,
                           gpu_load);
    for (uint32_t gpu = 0; gpu < c->view.shape.gpu_count; gpu++) {
        mean += gpu_load[gpu] / c->view.shape.gpu_count;
    }
    for (uint32_t gpu = 0; gpu < c->view.shape.gpu_count; gpu++) {
        sum += fabs(gpu_load[gpu] - mean);
    }
    return sum;
}

/* No exchange of two experts makes a layer's clusters more even. */
static bool moetuner_is_even(struct draws *draws, void *context, char why[PROPERTY_TEXT_LIMIT])
{
    static struct place_case c;
    struct moe_error err = { 0 };
    (void) context;
    place_case_draw(&c, draws, false, false);
    if (place_case_solve(&c, policy, &scratch, &err) != MOE_OK) {
        (void) snprintf(why, PROPERTY_TEXT_LIMIT, "%s", err.text);
        return false;
    }
    for (uint32_t layer = 0; layer < c.view.shape.layer_count; layer++) {
        uint16_t *slots = moe_placement_layer(&c.plan, layer);
        const double settled = unevenness(&c, &c.plan, layer);
        for (uint32_t a = 0; a < c.view.shape.slot_count; a++) {
            for (uint32_t b = a + 1; b < c.view.shape.slot_count; b++) {
                const uint16_t held = slots[a];
                if (held == MOE_SLOT_EMPTY || slots[b] == MOE_SLOT_EMPTY) {
                    continue;
                }
                slots[a] = slots[b];
                slots[b] = held;
                const double exchanged = unevenness(&c, &c.plan, layer);
                slots[b] = slots[a];
                slots[a] = held;
                if (exchanged < settled * (1.0 - 1e-6)) {
                    (void) snprintf(why, PROPERTY_TEXT_LIMIT, "layer %u: %g, exchanged %g", layer,
                                    settled, exchanged);
                    return false;
                }
            }
        }
    }
    return true;
}

Test(route_policies, moetuner_clusters_are_even)
{
    open_policy("moetuner");
    const char *text = property_fails(moetuner_is_even, NULL, 1, 150);
    cr_expect_null(text, "%s", text);
    moe_arena_finish(&scratch);
}

/* Tokens choose two experts of the same residue: four cliques, found whatever their numbers. */
Test(route_policies, grace_finds_what_is_chosen_together)
{
    static struct place_case c;
    open_policy("grace");
    open_case(&c, (struct moe_placement_shape){ 1, 12, 12, 4, 2, 1 }, 36, 2);
    size_t token = 0;
    for (uint16_t a = 0; a < 12; a++) {
        for (uint16_t b = a % 4; b < 12; b = (uint16_t) (b + 4)) {
            if (a != b) {
                c.expert[token++] = a;
                c.expert[token++] = b;
            }
        }
    }
    c.routes.token_count = token / 2;
    struct moe_error err = { 0 };
    cr_assert_eq(place_case_solve(&c, policy, &scratch, &err), MOE_OK, "%s", err.text);
    for (uint16_t expert = 4; expert < 12; expert++) {
        cr_assert_eq(gpu_of(&c, &c.plan, 0, expert), gpu_of(&c, &c.plan, 0, expert % 4), "%u",
                     expert);
    }
    moe_arena_finish(&scratch);
}

/* Fullest GPU 60 of mean 30: rho = 2, so two more copies for its hot expert (50 > 60 * 2 / 3),
 * on the two emptiest GPUs; the other experts have one. */
Test(route_policies, grace_copies_the_hot_expert_of_the_fullest_gpu)
{
    static struct place_case c;
    static const double load[] = { 50, 10, 25, 5, 15, 5, 5, 5 };
    open_policy("grace");
    open_case(&c, (struct moe_placement_shape){ 1, 8, 12, 4, 1, 1 }, 4, 2);
    memcpy(c.load, load, sizeof load);
    for (uint16_t i = 0; i < 8; i++) { /* four tokens: 0 and 1, 2 and 3, ... */
        c.expert[i] = i;
    }
    struct moe_error err = { 0 };
    uint32_t copies[8];
    cr_assert_eq(place_case_solve(&c, policy, &scratch, &err), MOE_OK, "%s", err.text);
    moe_placement_count_copies(&c.plan, 0, copies);
    for (uint32_t expert = 0; expert < 8; expert++) {
        cr_assert_eq(copies[expert], expert == 0 ? 3 : 1, "expert %u: %u", expert, copies[expert]);
    }
    const uint32_t home = gpu_of(&c, &c.plan, 0, 1);
    const uint32_t warm = gpu_of(&c, &c.plan, 0, 2);
    const uint16_t *slots = moe_placement_layer(&c.plan, 0);
    for (uint32_t gpu = 0; gpu < 4; gpu++) {
        bool holds = false;
        for (uint32_t i = 0; i < 3; i++) {
            holds |= slots[gpu * 3 + i] == 0;
        }
        cr_assert_eq(holds, gpu == home || gpu != warm);
    }
    moe_arena_finish(&scratch);
}
