/* How right predictions were, and which tokens were not computed as the router wanted. Left out
 * when no policy predicts or drops. */
#include <stdio.h>

#include "sim/report/figure.h"
#include "sim/report/section.h"

/* Means over the seeds. */
static struct moe_foresight_score mean_score(const struct moe_study *study,
                                             const struct moe_policy_summary *policy, bool window)
{
    struct moe_foresight_score mean = { 0 };
    for (uint32_t i = 0; i < study->seed_count; i++) {
        const struct moe_foresight_score *score =
            window ? &policy->runs[i].foreseen_window : &policy->runs[i].foreseen_steps;
        mean.scored += score->scored;
        mean.error_share += score->error_share / study->seed_count;
        mean.wrong_share += score->wrong_share / study->seed_count;
        mean.hit_rate += score->hit_rate / study->seed_count;
    }
    return mean;
}

/* Of all assignments of the runs that reached a slot or were dropped. */
static double dropped_share(const struct moe_study *study, const struct moe_policy_summary *policy)
{
    double dropped = 0.0;
    double all = 0.0;
    for (uint32_t i = 0; i < study->seed_count; i++) {
        const struct moe_run_result *run = &policy->runs[i];
        for (uint32_t phase = 0; phase < MOE_PHASE_COUNT; phase++) {
            all += (double) run->account[phase].assignments;
        }
        all -= (double) run->unknown_assignments;
        dropped += (double) run->dropped_assignments;
    }
    return all > 0.0 ? dropped / all : 0.0;
}

static void score_row(struct moe_grid *grid, const char *label, const char *what,
                      const struct moe_foresight_score *score)
{
    moe_grid_cell(grid, label);
    moe_grid_cell(grid, what);
    moe_grid_cell(grid, moe_figure_share(score->error_share).text);
    moe_grid_cell(grid, moe_figure_share(score->wrong_share).text);
    moe_grid_cell(grid, moe_figure_share(score->hit_rate).text);
    moe_grid_cell(grid, "");
}

/* Rows of one policy; returns how many. */
static uint32_t policy_rows(struct moe_grid *grid, const struct moe_study *study,
                            const struct moe_policy_summary *policy)
{
    const char *label = policy->composition.label;
    const struct moe_foresight_score window = mean_score(study, policy, true);
    const struct moe_foresight_score steps = mean_score(study, policy, false);
    uint32_t rows = 0;
    if (window.scored > 0) {
        score_row(grid, label, "the scored window", &window);
        rows++;
    }
    if (steps.scored > 0) {
        score_row(grid, label, "each step", &steps);
        rows++;
    }
    if (policy->composition.part[MOE_POLICY_DISPATCH].policy->dispatch->may_drop) {
        moe_grid_cell(grid, label);
        moe_grid_cell(grid, "drops");
        moe_grid_cell(grid, "");
        moe_grid_cell(grid, "");
        moe_grid_cell(grid, "");
        moe_grid_cell(grid, moe_figure_share(dropped_share(study, policy)).text);
        rows++;
    }
    return rows;
}

void moe_section_quality(struct moe_page *page, const struct moe_study *study)
{
    static const struct moe_grid_column columns[] = {
        { "", "policy", true, false },
        { "", "what it predicts", true, false },
        { "mean error", "of a load", false, false },
        { "tokens", "misplaced", false, false },
        { "8 hottest", "found", false, false },
        { "choices", "dropped", false, false },
    };
    struct moe_grid grid;
    uint32_t rows = 0;
    moe_grid_begin(&grid, columns, sizeof columns / sizeof columns[0]);
    for (uint32_t i = 0; i < study->policy_count && rows + 3 <= MOE_GRID_ROWS; i++) {
        if (study->policies[i].fits) {
            rows += policy_rows(&grid, study, &study->policies[i]);
        }
    }
    if (rows > 0) {
        moe_page_heading(page, "Predictions and quality",
                         "misplaced: at a wrong expert, were tokens routed so");
        moe_grid_print(&grid, page);
    }
}
