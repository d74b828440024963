/* How right predictions were (policies/predict_score.h). Left out when no policy predicts. */
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

static void score_row(struct moe_grid *grid, const char *label, const char *what,
                      const struct moe_foresight_score *score)
{
    moe_grid_cell(grid, label);
    moe_grid_cell(grid, what);
    moe_grid_cell(grid, moe_figure_share(score->error_share).text);
    moe_grid_cell(grid, moe_figure_share(score->wrong_share).text);
    moe_grid_cell(grid, moe_figure_share(score->hit_rate).text);
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
    return rows;
}

void moe_section_predictions(struct moe_page *page, const struct moe_study *study)
{
    static const struct moe_grid_column columns[] = {
        { "", "policy", true, false },
        { "", "what it predicts", true, false },
        { "mean error", "of a load", false, false },
        { "tokens", "misplaced", false, false },
        { "8 hottest", "found", false, false },
    };
    struct moe_grid grid;
    uint32_t rows = 0;
    moe_grid_begin(&grid, columns, sizeof columns / sizeof columns[0]);
    for (uint32_t i = 0; i < study->policy_count && rows + 2 <= MOE_GRID_ROWS; i++) {
        if (study->policies[i].fits) {
            rows += policy_rows(&grid, study, &study->policies[i]);
        }
    }
    if (rows > 0) {
        moe_page_heading(page, "Predictions",
                         "misplaced: at a wrong expert, were tokens routed so");
        moe_grid_print(&grid, page);
    }
}
