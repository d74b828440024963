/* Placements made anew: what a migration fetches, against a plain count, and what runs make of
 * it. */
#include <criterion/criterion.h>
#include <inttypes.h>
#include <stdio.h>
#include <string.h>

#include "sim/base/random.h"
#include "sim/engine/online/migration.h"
#include "tests/engine_case.h"
#include "tests/engine_drive.h"
#include "tests/property.h"

enum { GPUS = 4, EACH = 3, EXPERTS = 5, SLOTS = GPUS * EACH };

static void draw_plan(struct draws *draws, uint16_t *slots)
{
    for (uint32_t i = 0; i < SLOTS; i++) {
        const uint32_t expert = draw_below(draws, EXPERTS + 1);
        slots[i] = (uint16_t) (i < EXPERTS ? i : expert == EXPERTS ? MOE_SLOT_EMPTY : expert);
    }
    for (uint32_t i = SLOTS; i > 1; i--) {
        const uint32_t j = draw_below(draws, i);
        const uint16_t held = slots[i - 1];
        slots[i - 1] = slots[j];
        slots[j] = held;
    }
}

static bool on(const uint16_t *slots, uint32_t gpu, uint32_t expert)
{
    for (uint32_t i = gpu * EACH; i < (gpu + 1) * EACH; i++) {
        if (slots[i] == expert) {
            return true;
        }
    }
    return false;
}

/* Every GPU fetches each expert that it lacks once, from its node where that has one. */
static bool fetches_what_it_lacks(struct draws *draws, void *context, char why[PROPERTY_TEXT_LIMIT])
{
    uint16_t old_slots[SLOTS];
    uint16_t new_slots[SLOTS];
    const struct moe_placement_shape shape = { .layer_count = 1,
                                               .expert_count = EXPERTS,
                                               .slot_count = SLOTS,
                                               .gpu_count = GPUS,
                                               .node_count = 2,
                                               .group_count = 1 };
    const struct moe_placement from = { .shape = shape, .expert_of_slot = old_slots };
    const struct moe_placement to = { .shape = shape, .expert_of_slot = new_slots };
    double near_in[GPUS];
    double far_in[GPUS];
    double near_out[GPUS];
    double far_out[GPUS];
    struct moe_migration_room room = { near_in, far_in, near_out, far_out };
    struct moe_migration m;
    struct moe_migration host;
    uint64_t *fetched = context;
    draw_plan(draws, old_slots);
    draw_plan(draws, new_slots);
    moe_migration_find(&from, &to, 0, true, &room, &host);
    moe_migration_find(&from, &to, 0, false, &room, &m);
    double balance = 0.0;
    uint64_t lacking = 0;
    uint64_t far = 0;
    for (uint32_t gpu = 0; gpu < GPUS; gpu++) {
        uint32_t wants[2] = { 0 };
        for (uint32_t expert = 0; expert < EXPERTS; expert++) {
            const bool lacks = on(new_slots, gpu, expert) && !on(old_slots, gpu, expert);
            const bool near = on(old_slots, gpu ^ 1, expert);
            wants[lacks && !near] += lacks;
        }
        lacking += wants[0] + wants[1];
        far += wants[1];
        (void) snprintf(why, PROPERTY_TEXT_LIMIT, "GPU %u: %g near, %g far in; lacks %u, %u", gpu,
                        near_in[gpu], far_in[gpu], wants[0], wants[1]);
        if ((uint32_t) near_in[gpu] != wants[0] || (uint32_t) far_in[gpu] != wants[1]) {
            return false;
        }
        balance += near_in[gpu] + far_in[gpu] - near_out[gpu] - far_out[gpu];
    }
    *fetched += lacking;
    return m.copies == lacking && m.far_copies == far && m.near_copies == lacking - far &&
           host.host_copies == lacking && balance < 0.5 && balance > -0.5;
}

Test(online, a_migration_fetches_what_is_lacking_from_the_nearest)
{
    uint64_t fetched = 0;
    const char *fault = property_fails(fetches_what_it_lacks, &fetched, 5, 3000);
    cr_assert(fault == NULL, "%s", fault);
    cr_assert_gt(fetched, 3000);
}

static struct engine_drive drive;
static struct twin_case c;
static char table[32 << 10];
static char text[32 << 10];

/* The case under an online option; eplb's plan takes the place of the case's. */
static enum moe_status run_online(uint64_t seed, const struct moe_online_options *options,
                                  struct moe_run_result *result, struct moe_error *err)
{
    engine_case_make(seed, table, &c, text, sizeof text);
    c.group = TWIN_OFFERED;
    c.dispatch = TWIN_IN_TURN;
    engine_drive_scenario(&c, &drive.scenario);
    drive.scenario.online = *options;
    drive.place = "eplb";
    return engine_drive_scene(&drive, &c, text, false, result, err);
}

/* Under the audit: every mode serves every token, stalls take time, and nothing else does. */
Test(online, runs_are_conserved_and_stalls_are_time, .timeout = 300)
{
    static const enum moe_online_mode modes[] = { MOE_ONLINE_STALL, MOE_ONLINE_LAYERS,
                                                  MOE_ONLINE_PREFETCH };
    FILE *file = fopen(MOE_SOURCE_ROOT "/tests/data/tiny-calibration.csv", "r");
    uint64_t plans = 0;
    uint64_t moved = 0;
    uint64_t moving = 0;
    uint64_t slowed = 0;
    cr_assert_not_null(file);
    table[fread(table, 1, sizeof table - 1, file)] = '\0';
    (void) fclose(file);
    engine_drive_open(&drive);
    for (uint64_t seed = 0; seed < 120; seed++) {
        const struct moe_online_options options = {
            .every_steps = 1 + (uint32_t) (seed % 5),
            .max_balance = seed % 7 == 0 ? 0.7 : 1.0,
            .mode = modes[seed % 3],
            .source = seed % 2 == 0 ? MOE_ONLINE_PEERS : MOE_ONLINE_HOST,
            .planner_ms = 0.001 * (double) (seed % 4),
            .layer_ms = 0.001,
            .layers_per_step = 1 + (uint32_t) (seed % 2),
            .link_share = 0.5,
            .host_bytes_s = 5e10,
        };
        struct moe_run_result result;
        struct moe_error err = { 0 };
        const enum moe_status status = run_online(seed, &options, &result, &err);
        if (status == MOE_RANGE || status == MOE_POLICY || (status == MOE_OK && !result.fits)) {
            continue;
        }
        cr_assert_eq(status, MOE_OK, "seed %" PRIu64 ": %s", seed, err.text);
        const struct moe_online_account *a = &result.online;
        plans += a->plans;
        moved += a->moved_slots;
        moving += a->moving_steps;
        slowed += (uint64_t) a->slowed_ns;
        moe_time_ns time_ns = 0;
        for (uint32_t phase = 0; phase < MOE_PHASE_COUNT; phase++) {
            time_ns += result.account[phase].time_ns;
        }
        cr_assert_leq(2 * a->slowed_ns, time_ns, "half of the links is left to tokens");
        cr_assert(a->slowed_ns == 0 || a->moving_steps > 0);
        cr_assert_leq(a->scored_stall_ns, a->stall_ns);
        cr_assert_leq(a->stall_ns, a->planner_ns + a->move_ns);
        if (options.mode == MOE_ONLINE_STALL) {
            cr_assert_eq(a->stall_ns, a->planner_ns + a->move_ns);
        } else if (options.mode == MOE_ONLINE_LAYERS) {
            cr_assert_eq(a->stall_ns, 0);
        }
        cr_assert_eq(a->moved_host_bytes > 0.0,
                     options.source == MOE_ONLINE_HOST && a->moved_slots > 0);
        cr_assert_eq(a->moved_near_bytes + a->moved_far_bytes > 0.0,
                     options.source == MOE_ONLINE_PEERS && a->moved_slots > 0);
    }
    engine_drive_close(&drive);
    cr_assert_gt(slowed, 0);
    cr_assert(plans > 200 && moved > 200 && moving > 50, "%" PRIu64 " %" PRIu64 " %" PRIu64, plans,
              moved, moving);
}
