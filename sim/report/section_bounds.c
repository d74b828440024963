/* How far every policy's fullest GPUs are from the bounds (sim/engine/bound_meter.h). */
#include <stdio.h>

#include "sim/report/figure.h"
#include "sim/report/section.h"

static void regret_cell(struct moe_grid *grid, const struct moe_policy_summary *policy,
                        enum moe_metric metric)
{
    moe_grid_cell(grid, moe_figure_change(1.0 + policy->metric[metric].mean).text);
}

static void bound_row(struct moe_grid *grid, const struct moe_policy_summary *policy)
{
    moe_grid_cell(grid, policy->composition.label);
    regret_cell(grid, policy, MOE_METRIC_REGRET_PERFECT);
    regret_cell(grid, policy, MOE_METRIC_REGRET_SPLIT);
    if (policy->runs[0].bound.hindsight > 0.0) {
        regret_cell(grid, policy, MOE_METRIC_REGRET_HINDSIGHT);
    } else {
        moe_grid_cell(grid, "-");
    }
    regret_cell(grid, policy, MOE_METRIC_REGRET_NO_COPY);
}

void moe_section_bounds(struct moe_page *page, const struct moe_study *study)
{
    static const struct moe_grid_column columns[] = {
        { "", "policy", true, false },
        { "perfect", "balance", false, false },
        { "its copies,", "best split", false, false },
        { "as many copies,", "in hindsight", false, false },
        { "any plan", "without copies", false, false },
    };
    struct moe_grid grid;
    uint32_t rows = 0;
    moe_grid_begin(&grid, columns, sizeof columns / sizeof columns[0]);
    for (uint32_t i = 0; i < study->policy_count; i++) {
        if (study->policies[i].fits && study->policies[i].runs[0].bound.layer_steps > 0) {
            bound_row(&grid, &study->policies[i]);
            rows++;
        }
    }
    if (rows > 0) {
        char aside[96];
        (void) snprintf(aside, sizeof aside,
                        "load of the fullest GPU against each; every %dth scored step",
                        MOE_BOUND_STRIDE);
        moe_page_heading(page, "Regret", aside);
        moe_grid_print(&grid, page);
    }
}
