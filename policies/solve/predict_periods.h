/*
 * Periods: a planning window cut into parts of about equally many tokens, in order of time.
 *
 * A window's batches are cut by steps, and its first and last steps serve few requests; the loads
 * of a batch with few tokens say little, and a predictor that gives them a whole step's weight
 * would plan on noise. A batch belongs to the period in which the middle of its tokens lies;
 * periods that no batch falls into are left out.
 */
#ifndef MOE_POLICIES_PREDICT_PERIODS_H
#define MOE_POLICIES_PREDICT_PERIODS_H

#include <stdint.h>

#include "policies/policy.h"
#include "sim/base/arena.h"
#include "sim/base/error.h"

struct moe_predict_periods {
    uint32_t count;
    size_t cells; /* layers x experts */
    double *load; /* [period][layer][expert] tokens */
};

/* At most limit periods, 0: every batch is one. lead is the first period before the end that is
 * known, 1 the last. Errors: MOE_POLICY when there are fewer than lead; MOE_LIMIT when scratch
 * is full. */
enum moe_status moe_predict_periods_cut(struct moe_predict_periods *periods,
                                        const struct moe_place_view *planning, uint32_t limit,
                                        uint32_t lead, struct moe_arena *scratch,
                                        struct moe_error *err) MOE_MUST_CHECK;

static inline const double *moe_predict_period(const struct moe_predict_periods *periods,
                                               uint32_t period)
{
    return periods->load + period * periods->cells;
}

/* Scales every layer of load to the layer's tokens in the whole window: what is predicted are
 * shares. A layer without prediction keeps the window's own loads. */
void moe_predict_periods_scale(const struct moe_predict_periods *periods,
                               const struct moe_placement_shape *shape, double *load);

/* The parameter of the predictors that use them. */
#define MOE_PREDICT_PERIODS_PARAMETER                                                              \
    {                                                                                              \
        .name = "periods", .kind = MOE_PARAMETER_WHOLE, .standard = 8.0, .min = 0.0, .max = 256.0, \
        .help = "parts of equally many tokens into which a planning window is cut; 0: its "        \
                "batches",                                                                         \
        .source = "own"                                                                            \
    }

/* How much of a window's end counts as lately. */
#define MOE_PREDICT_RECENT_PARAMETER(text)                                                         \
    {                                                                                              \
        .name = "recent", .kind = MOE_PARAMETER_REAL, .standard = 0.25, .min = 0.0001, .max = 1.0, \
        .help = "share of the window's requests, the last ones, " text, .source = "own"            \
    }

#endif
