/* The search for a rate against limits that are known, and the command's answers end to end on
 * queues. */
#include <criterion/criterion.h>
#include <math.h>

#include "sim/engine/goodput.h"

/* Passes up to limit; a request takes 0.5 s. */
struct limit {
    double limit;
    uint32_t calls;
    double rates[64];
};

static enum moe_status pass(void *context, double rate, bool *passes, struct moe_service *at,
                            struct moe_error *err)
{
    struct limit *l = context;
    (void) err;
    l->rates[l->calls++ % 64] = rate;
    *passes = rate <= l->limit;
    *at = (struct moe_service){ .known = true, .offered_rate = rate, .e2e = { .mean = 5e8 } };
    return MOE_OK;
}

Test(goodput, search_ends_within_the_tolerance_from_below)
{
    for (double limit = 0.01; limit < 1e4; limit *= 1.37) {
        for (double start = 0.3; start < 300.0; start *= 7.0) {
            struct limit l = { .limit = limit };
            const struct moe_goodput_trial trial = { &l, pass };
            struct moe_goodput found;
            cr_assert_eq(moe_goodput_search(&trial, start, 0.01, &found, NULL), MOE_OK);
            if (limit >= start * 16384.0) {
                cr_assert_eq(found.end, MOE_GOODPUT_UNBOUNDED);
                continue;
            }
            const double near = start / 4.0;
            const double idle = near > 0.2 ? 0.2 : near / 16384.0;
            if (limit < near && limit < idle) {
                cr_assert_eq(found.end, MOE_GOODPUT_IMPOSSIBLE);
                continue;
            }
            cr_assert_eq(found.end, MOE_GOODPUT_FOUND, "limit %g from %g", limit, start);
            cr_assert_leq(found.rate, limit);
            cr_assert_gt(found.failed_rate, limit);
            cr_assert_leq(found.failed_rate, found.rate * 1.01);
            cr_assert_eq(found.at.offered_rate, found.rate, "figures of another rate");
            cr_assert_eq(found.runs, l.calls);
            cr_assert_leq(found.runs, 24u);
        }
    }
}

Test(goodput, what_no_rate_passes_is_given_up_where_requests_meet_no_others)
{
    struct limit l = { .limit = 0.0 };
    const struct moe_goodput_trial trial = { &l, pass };
    struct moe_goodput found;
    cr_assert_eq(moe_goodput_search(&trial, 16.0, 0.01, &found, NULL), MOE_OK);
    cr_assert_eq(found.end, MOE_GOODPUT_IMPOSSIBLE);
    cr_assert_eq(l.calls, 4); /* 16, 8, 4, and a tenth of a request in the system */
    cr_assert_eq(found.rate, 0.2);
    cr_assert_eq(found.at.offered_rate, 0.2);
}

Test(goodput, what_every_rate_passes_is_said_to_be_unbounded)
{
    struct limit l = { .limit = INFINITY };
    const struct moe_goodput_trial trial = { &l, pass };
    struct moe_goodput found;
    cr_assert_eq(moe_goodput_search(&trial, 1.0, 0.01, &found, NULL), MOE_OK);
    cr_assert_eq(found.end, MOE_GOODPUT_UNBOUNDED);
    cr_assert_eq(l.calls, 1u + MOE_GOODPUT_REACH);
    cr_assert_eq(found.at.offered_rate, found.rate);
}
