#include "sim/engine/step_profile.h"

#include <assert.h>
#include <math.h>

#include "sim/cost/logarithm.h"

#include "sim/base/no_malloc.h"

static const double reach = 1.4142135623730951; /* half an octave */

uint32_t moe_step_cell_of(uint64_t tokens)
{
    assert(tokens >= 1);
    const uint32_t cell = (uint32_t) (4.0 * moe_log2((double) tokens) + 1e-9);
    return cell < MOE_STEP_CELLS ? cell : MOE_STEP_CELLS - 1;
}

void moe_step_profile_add(struct moe_step_profile *profile, enum moe_step_kind kind,
                          uint64_t tokens, moe_time_ns step_ns)
{
    struct moe_step_cell *cell = &profile->cell[kind][moe_step_cell_of(tokens)];
    cell->count++;
    cell->tokens += (double) tokens;
    cell->ns += (double) step_ns;
}

void moe_step_profile_merge(struct moe_step_profile *into, const struct moe_step_profile *from)
{
    for (uint32_t kind = 0; kind < MOE_STEP_KINDS; kind++) {
        for (uint32_t i = 0; i < MOE_STEP_CELLS; i++) {
            into->cell[kind][i].count += from->cell[kind][i].count;
            into->cell[kind][i].tokens += from->cell[kind][i].tokens;
            into->cell[kind][i].ns += from->cell[kind][i].ns;
        }
    }
}

bool moe_step_profile_at(const struct moe_step_profile *profile, enum moe_step_kind kind,
                         uint64_t tokens, double *ns)
{
    const double wanted = (double) tokens;
    double below = 0.0; /* nearest cells' mean tokens; 0: none */
    double below_ns = 0.0;
    double above = 0.0;
    double above_ns = 0.0;
    for (uint32_t i = 0; i < MOE_STEP_CELLS && above == 0.0; i++) {
        const struct moe_step_cell *cell = &profile->cell[kind][i];
        if (cell->count == 0) {
            continue;
        }
        const double mean = cell->tokens / (double) cell->count;
        const double mean_ns = cell->ns / (double) cell->count;
        if (mean <= wanted) {
            below = mean;
            below_ns = mean_ns;
        } else {
            above = mean;
            above_ns = mean_ns;
        }
    }
    const bool near_below = below > 0.0 && below * reach >= wanted;
    const bool near_above = above > 0.0 && above <= wanted * reach;
    if (below > 0.0 && above > 0.0 && (near_below || near_above)) {
        *ns = below_ns + (above_ns - below_ns) * ((wanted - below) / (above - below));
        return true;
    }
    *ns = near_below ? below_ns : above_ns;
    return near_below || near_above;
}
