#include "sim/arrival/rate_clock.h"

#include <assert.h>
#include <math.h>

#include "sim/arrival/arrival_gap.h"

#include "sim/base/no_malloc.h"

void moe_rate_clock_init(struct moe_rate_clock *clock, const struct moe_rate_schedule *schedule,
                         uint64_t burst_key)
{
    *clock = (struct moe_rate_clock){
        .schedule = schedule,
        .burst_key = burst_key,
        .switch_s = INFINITY,
    };
    if (schedule->bursts) {
        clock->switch_s = schedule->stay_s[0] * moe_gap_exponential(burst_key, 0);
    }
}

/* The piece of time from now on in which the rate is linear: until end_s, from..to. */
struct piece {
    double end_s;
    double from;
    double slope; /* per second */
    bool dead;    /* the rate is 0 here and for ever after */
};

static struct piece piece_at(struct moe_rate_clock *clock)
{
    const struct moe_rate_schedule *s = clock->schedule;
    double factor = 1.0;
    double slope = 0.0;
    double end_s = INFINITY;
    if (s->count > 0) {
        while (clock->point + 1 < s->count && s->at_s[clock->point + 1] <= clock->now_s) {
            clock->point++;
        }
        const uint32_t i = clock->point;
        factor = s->factor[i];
        if (i + 1 < s->count) {
            end_s = s->at_s[i + 1];
            slope = (s->factor[i + 1] - s->factor[i]) / (end_s - s->at_s[i]);
            factor += slope * (clock->now_s - s->at_s[i]);
        }
    }
    const double rate = s->rate * (s->bursts ? s->multiplier[clock->switches % 2] : 1.0);
    const double from = rate * factor;
    return (struct piece){
        .end_s = end_s < clock->switch_s ? end_s : clock->switch_s,
        .from = from > 0.0 ? from : 0.0, /* rounding at a point of factor 0 */
        .slope = rate * slope,
        .dead = isinf(end_s) && !(factor > 0.0),
    };
}

static void switch_burst(struct moe_rate_clock *clock)
{
    clock->switches++;
    clock->switch_s += clock->schedule->stay_s[clock->switches % 2] *
                       moe_gap_exponential(clock->burst_key, clock->switches);
}

bool moe_rate_clock_advance(struct moe_rate_clock *clock, double amount)
{
    assert(amount > 0.0);
    for (;;) {
        const struct piece piece = piece_at(clock);
        const double whole_s = piece.end_s - clock->now_s;
        const double last = piece.from + piece.slope * whole_s;
        const double inside = isinf(whole_s)
                                  ? (piece.from > 0.0 ? INFINITY : 0.0)
                                  : 0.5 * (piece.from + (last > 0.0 ? last : 0.0)) * whole_s;
        if (amount < inside) {
            /* from x + slope x^2 / 2 = amount, in the form that loses no digits. */
            const double root = piece.from * piece.from + 2.0 * piece.slope * amount;
            const double step = 2.0 * amount / (piece.from + sqrt(root > 0.0 ? root : 0.0));
            const double now_s = clock->now_s + step;
            clock->now_s = now_s < piece.end_s ? now_s : piece.end_s;
            return true;
        }
        if (piece.dead) {
            return false;
        }
        amount = amount > inside ? amount - inside : 0x1p-200; /* never 0: see root */
        clock->now_s = piece.end_s;
        if (clock->now_s >= clock->switch_s) {
            switch_burst(clock);
        }
    }
}
