/* A predictor in the replay: what it is shown, when it is scored, what is refused. */
#include <criterion/criterion.h>
#include <math.h>
#include <string.h>

#include "sim/engine/foresight.h"

enum { LAYERS = 3, EXPERTS = 4 };

/* Says what it was shown: 1 + last[0], 1 + before[0], and bad when asked to. */
static float bad;

static enum moe_status tell(void *state, const struct moe_predict_view *view, float *predicted,
                            struct moe_error *err)
{
    (void) state;
    (void) err;
    predicted[0] = view->last == NULL ? 0.0f : 1.0f + (float) view->last[0];
    predicted[1] = view->before == NULL ? 0.0f : 1.0f + (float) view->before[0];
    predicted[2] = bad;
    cr_assert_null(view->actual);
    cr_assert_eq(view->lead_steps, 1);
    return MOE_OK;
}

static const struct moe_predict_methods methods = { .step = tell };
static const struct moe_policy teller = {
    MOE_POLICY_HEADER,     .name = "teller",   .summary = "says what it was shown",
    .source = "this test", .tie_rule = "none", .predict = &methods
};

static struct moe_arena arena;
static struct moe_place_view planning;
static struct moe_composition_part part;
static struct moe_foresight foresight;

static void setup(void)
{
    bad = 0.0f;
    cr_assert_eq(moe_arena_init(&arena, 1 << 16, NULL), MOE_OK);
    planning = (struct moe_place_view){ .shape = { LAYERS, EXPERTS, 8, 2, 1, 1 } };
    part = (struct moe_composition_part){ .policy = &teller };
    cr_assert_eq(moe_foresight_init(&foresight, &part, &planning, &arena, NULL), MOE_OK);
}

static void teardown(void)
{
    moe_arena_finish(&arena);
}

TestSuite(foresight, .init = setup, .fini = teardown);

/* Expert 0 of (step, layer) has 10 step + layer tokens. */
Test(foresight, shows_the_step_and_the_layer_before)
{
    for (uint32_t step = 0; step < 4; step++) {
        moe_foresight_begin_step(&foresight, step, step >= 2);
        for (uint32_t layer = 0; layer < LAYERS; layer++) {
            const uint64_t total[EXPERTS] = { 10 * step + layer, 5 };
            const float *said = NULL;
            cr_assert_eq(moe_foresight_layer(&foresight, layer, total, &said, NULL), MOE_OK);
            if (step == 0 && layer == 0) {
                cr_assert_null(said);
                continue;
            }
            cr_assert_eq(said[0], step == 0 ? 0.0f : (float) (1 + 10 * (step - 1) + layer));
            cr_assert_eq(said[1], layer == 0 ? 0.0f : (float) (1 + 10 * step + layer - 1));
        }
    }
    cr_assert_eq(foresight.score.scored, (uint64_t) 2 * LAYERS);
    cr_assert_eq(moe_foresight_result(&foresight.score).scored, (uint64_t) 2 * LAYERS);
}

Test(foresight, refuses_a_load_out_of_range)
{
    const float refused[] = { -1.0f, 1.01e30f, (float) NAN };
    for (uint32_t i = 0; i < 3; i++) {
        const uint64_t total[EXPERTS] = { 1 };
        const float *said = NULL;
        struct moe_error err = { 0 };
        bad = refused[i];
        moe_foresight_begin_step(&foresight, 0, true);
        cr_assert_eq(moe_foresight_layer(&foresight, 1, total, &said, &err), MOE_POLICY);
        cr_assert_not_null(strstr(err.text, "teller: layer 1, expert 2"), "%s", err.text);
        cr_assert_null(said);
    }
}

/* Tokens by slot become loads by expert: expert 1 has two copies. */
Test(foresight, watches_what_was_counted)
{
    const uint16_t expert_of_slot[LAYERS][8] = { { 0, 1, 2, 3, 1, MOE_SLOT_EMPTY },
                                                 { 3, 2, 1, 0, 1, MOE_SLOT_EMPTY },
                                                 { 1, 1, 0, 2, 3, MOE_SLOT_EMPTY } };
    uint16_t slots[LAYERS][8];
    uint32_t tokens[LAYERS][8] = { { 1, 2, 3, 4, 5 }, { 1, 2, 3, 4, 5 }, { 1, 2, 3, 4, 5 } };
    uint64_t total[EXPERTS];
    memset(slots, 0xff, sizeof slots);
    for (uint32_t layer = 0; layer < LAYERS; layer++) {
        memcpy(slots[layer], expert_of_slot[layer], 5 * sizeof(uint16_t));
    }
    moe_foresight_begin_step(&foresight, 0, true);
    cr_assert_eq(moe_foresight_watch(&foresight, &tokens[0][0], &slots[0][0], total, NULL), MOE_OK);
    const uint32_t wanted[LAYERS][EXPERTS] = { { 1, 7, 3, 4 }, { 4, 8, 2, 1 }, { 3, 3, 4, 5 } };
    cr_assert_arr_eq(foresight.now, wanted, sizeof wanted);
}

/* Half of the window's tokens were said to be elsewhere; lengths of windows do not matter. */
Test(foresight, scores_windows_by_their_shares)
{
    const double said[LAYERS * EXPERTS] = { 1, 1, 0, 0, 2, 2, 0, 0, 0, 0, 3, 3 };
    const double was[LAYERS * EXPERTS] = { 50, 0, 50, 0, 0, 50, 0, 50, 50, 0, 50, 0 };
    struct moe_foresight_score score;
    cr_assert_eq(moe_foresight_score_window(&planning.shape, said, was, &arena, &score, NULL),
                 MOE_OK);
    cr_assert_eq(score.scored, LAYERS);
    cr_assert_float_eq(score.wrong_share, 0.5, 1e-12);
    cr_assert_float_eq(score.error_share, 1.0, 1e-12);
}
