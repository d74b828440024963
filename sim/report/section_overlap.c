/* Steps in two halves: what they hide, and what they gain or cost. */
#include "sim/report/figure.h"
#include "sim/report/section.h"

/* Sums over the seeds of one policy. */
struct overlap_sums {
    double steps;
    double all_steps;
    double time_ns;
    double one_piece_ns;
    double exchange_ns;
    double hidden_ns;
};

static struct overlap_sums sums_of(const struct moe_study *study, uint32_t policy)
{
    struct overlap_sums sums = { 0 };
    for (uint32_t i = 0; i < study->seed_count; i++) {
        const struct moe_run_result *run = &study->policies[policy].runs[i];
        sums.steps += (double) run->halves.steps;
        sums.all_steps += (double) run->account[MOE_PHASE_SCORED].steps;
        sums.time_ns += (double) run->halves.time_ns;
        sums.one_piece_ns += (double) run->halves.one_piece_ns;
        sums.exchange_ns += (double) run->halves.use.exchange_ns;
        sums.hidden_ns += (double) run->halves.use.hidden_ns;
    }
    return sums;
}

static void print_row(struct moe_grid *grid, const struct moe_study *study, uint32_t policy)
{
    const struct overlap_sums sums = sums_of(study, policy);
    moe_grid_cell(grid, study->policies[policy].composition.label);
    if (sums.steps <= 0.0) {
        moe_grid_span(grid, "no step had tokens enough on every rank");
        return;
    }
    moe_grid_cell(grid, moe_figure_share(sums.steps / sums.all_steps).text);
    moe_grid_cell(grid, moe_figure_real(sums.time_ns / sums.steps * 1e-6).text);
    moe_grid_cell(grid, moe_figure_real(sums.one_piece_ns / sums.steps * 1e-6).text);
    moe_grid_cell(grid, moe_figure_real(sums.one_piece_ns / sums.time_ns).text);
    moe_grid_cell(
        grid,
        moe_figure_share(sums.exchange_ns > 0.0 ? sums.hidden_ns / sums.exchange_ns : 0.0).text);
}

void moe_section_overlap(struct moe_page *page, const struct moe_study *study)
{
    static const struct moe_grid_column columns[] = {
        { "", "policy", true, false },         { "steps in", "halves", false, false },
        { "step ms", "halves", false, false }, { "", "one piece", false, true },
        { "", "gain", false, false },          { "exchange", "hidden", false, false },
    };
    struct moe_grid grid;
    if (study->scenario->serving.overlap == MOE_OVERLAP_NONE) {
        return;
    }
    moe_page_heading(page, "Overlap", "the same batches in two halves and in one piece");
    moe_grid_begin(&grid, columns, sizeof columns / sizeof columns[0]);
    for (uint32_t i = 0; i < study->policy_count; i++) {
        if (study->policies[i].fits) {
            print_row(&grid, study, i);
        }
    }
    moe_grid_print(&grid, page);
}
