/* Measured steps beside the simulated ones: the user's own check of the costs. */
#include <inttypes.h>
#include <math.h>

#include "sim/report/figure.h"
#include "sim/report/finding.h"
#include "sim/report/section.h"

enum { CELLS_PER_OCTAVE = 4, OCTAVES = MOE_STEP_CELLS / CELLS_PER_OCTAVE };

/* "+3.1 %" */
static struct moe_figure signed_share(double share)
{
    struct moe_figure figure;
    (void) snprintf(figure.text, sizeof figure.text, "%+.1f %%", 100.0 * share);
    return figure;
}

static void policy_row(struct moe_grid *grid, const struct moe_study *study, uint32_t policy,
                       const struct moe_overlay *overlay)
{
    struct moe_step_profile profile;
    moe_finding_profile(study, policy, &profile);
    const struct moe_overlay_error e =
        moe_overlay_compare(overlay, &profile, MOE_STEP_KINDS, MOE_STEP_CELLS);
    moe_grid_cell(grid, study->policies[policy].composition.label);
    moe_grid_cell(grid, moe_figure_count(e.count).text);
    if (e.count == 0) {
        moe_grid_span(grid, "no simulated step has as many tokens");
        return;
    }
    moe_grid_cell(grid, moe_figure_real(e.measured_ns * 1e-6).text);
    moe_grid_cell(grid, moe_figure_real(e.simulated_ns * 1e-6).text);
    moe_grid_cell(grid, signed_share(e.bias).text);
    moe_grid_cell(grid, moe_figure_share(e.mape).text);
    moe_grid_cell(grid, moe_figure_share(e.p95).text);
}

/* The cells of one octave of tokens together; quantiles are not, and so left out. */
static struct moe_overlay_error octave_error(const struct moe_overlay *overlay,
                                             const struct moe_step_profile *profile, uint32_t kind,
                                             uint32_t octave)
{
    struct moe_overlay_error sum = { 0 };
    for (uint32_t i = 0; i < CELLS_PER_OCTAVE; i++) {
        const struct moe_overlay_error e =
            moe_overlay_compare(overlay, profile, kind, octave * CELLS_PER_OCTAVE + i);
        const double n = (double) e.count;
        sum.count += e.count;
        sum.left_out += e.left_out;
        sum.bias += e.bias * n;
        sum.mape += e.mape * n;
        sum.measured_ns += e.measured_ns * n;
        sum.simulated_ns += e.simulated_ns * n;
    }
    if (sum.count > 0) {
        const double n = (double) sum.count;
        sum.bias /= n;
        sum.mape /= n;
        sum.measured_ns /= n;
        sum.simulated_ns /= n;
    }
    return sum;
}

static void octave_row(struct moe_grid *grid, const struct moe_overlay_error *e, uint32_t kind,
                       uint32_t octave)
{
    char range[112];
    (void) snprintf(range, sizeof range, "%s to %s", moe_figure_count(UINT64_C(1) << octave).text,
                    moe_figure_count((UINT64_C(2) << octave) - 1).text);
    moe_grid_cell(grid, kind == MOE_STEP_DECODE ? "decode" : "with prompts");
    moe_grid_cell(grid, range);
    moe_grid_cell(grid, moe_figure_count(e->count).text);
    if (e->count == 0) {
        moe_grid_span(grid, "nothing simulated to compare");
        return;
    }
    moe_grid_cell(grid, moe_figure_real(e->measured_ns * 1e-6).text);
    moe_grid_cell(grid, moe_figure_real(e->simulated_ns * 1e-6).text);
    moe_grid_cell(grid, signed_share(e->bias).text);
    moe_grid_cell(grid, moe_figure_share(e->mape).text);
}

static void print_octaves(struct moe_page *page, const struct moe_study *study,
                          const struct moe_overlay *overlay)
{
    static const struct moe_grid_column columns[] = {
        { "", "steps that", true, false }, { "", "tokens", false, false },
        { "", "steps", false, false },     { "mean ms", "measured", false, false },
        { "", "simulated", false, true },  { "error", "mean", false, false },
        { "", "absolute", false, true },
    };
    struct moe_step_profile profile;
    struct moe_grid grid;
    char aside[MOE_COMPOSITION_BYTES + 16];
    (void) snprintf(aside, sizeof aside, "under %s",
                    study->policies[study->baseline].composition.label);
    moe_finding_profile(study, study->baseline, &profile);
    moe_page_heading(page, "The same by tokens of a step", aside);
    moe_grid_begin(&grid, columns, sizeof columns / sizeof columns[0]);
    for (uint32_t kind = 0; kind < MOE_STEP_KINDS; kind++) {
        for (uint32_t octave = 0; octave < OCTAVES; octave++) {
            const struct moe_overlay_error e = octave_error(overlay, &profile, kind, octave);
            if (e.count + e.left_out > 0) {
                octave_row(&grid, &e, kind, octave);
            }
        }
    }
    moe_grid_print(&grid, page);
}

void moe_section_overlay(struct moe_page *page, const struct moe_study *study,
                         const struct moe_overlay *overlay)
{
    static const struct moe_grid_column columns[] = {
        { "", "policy", true, false },
        { "steps", "compared", false, false },
        { "mean ms", "measured", false, false },
        { "", "simulated", false, true },
        { "error", "mean", false, false },
        { "", "absolute", false, true },
        { "", "P95", false, true },
    };
    struct moe_grid grid;
    moe_page_heading(page, "Measured steps beside simulated ones",
                     "error: simulated over measured, less 1");
    moe_page_field(page, "measured", "%s: %s steps, hash %s", overlay->path,
                   moe_figure_count(overlay->count).text, moe_figure_hash(overlay->hash).text);
    moe_page_field(page, "",
                   "each against the mean of the simulated steps with as many tokens; those that "
                   "are half an octave away from all of them are left out");
    moe_grid_begin(&grid, columns, sizeof columns / sizeof columns[0]);
    for (uint32_t i = 0; i < study->policy_count; i++) {
        if (study->policies[i].fits) {
            policy_row(&grid, study, i, overlay);
        }
    }
    moe_grid_print(&grid, page);
    if (study->policies[study->baseline].fits) {
        print_octaves(page, study, overlay);
    }
}
