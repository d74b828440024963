/* How much: speed, balance and memory per policy. */
#include <math.h>
#include <string.h>

#include "sim/report/figure.h"
#include "sim/report/finding.h"
#include "sim/report/section.h"

static void metric_cell(struct moe_grid *grid, const struct moe_policy_summary *policy,
                        enum moe_metric metric)
{
    moe_grid_cell(grid, moe_figure_real(policy->metric[metric].mean).text);
}

static void speed_row(struct moe_grid *grid, const struct moe_study *study, uint32_t index)
{
    const struct moe_policy_summary *p = &study->policies[index];
    const struct moe_estimate rate = p->metric[MOE_METRIC_OUTPUT_RATE];
    moe_grid_cell(grid, p->composition.label);
    if (!p->fits) {
        char text[MOE_GRID_SPAN_BYTES];
        (void) snprintf(text, sizeof text, "does not fit: %s", moe_finding_why(study, index));
        moe_grid_span(grid, text);
        return;
    }
    moe_grid_cell(grid, moe_figure_real(rate.mean).text);
    moe_grid_cell(grid, moe_figure_half(rate, moe_figure_places(rate.mean)).text);
    if (!study->policies[study->baseline].fits) {
        moe_grid_cell(grid, "-");
        moe_grid_cell(grid, "");
    } else if (index == study->baseline) {
        moe_grid_cell(grid, "1");
        moe_grid_cell(grid, "");
    } else {
        moe_grid_cell(grid, moe_figure_fixed(p->speedup.mean, 3).text);
        moe_grid_cell(grid, moe_figure_half(p->speedup, 3).text);
    }
    metric_cell(grid, p, MOE_METRIC_TTFT_P50);
    metric_cell(grid, p, MOE_METRIC_TTFT_P99);
    metric_cell(grid, p, MOE_METRIC_ITL_P50);
    metric_cell(grid, p, MOE_METRIC_ITL_P99);
    moe_grid_cell(grid, moe_finding_mark(study, index));
}

static void memory_row(struct moe_grid *grid, const struct moe_study *study, uint32_t index)
{
    const struct moe_policy_summary *p = &study->policies[index];
    double plan[MOE_PLAN_FIGURE_COUNT];
    for (uint32_t i = 0; i < MOE_PLAN_FIGURE_COUNT; i++) {
        plan[i] = moe_plan_figure_estimate(study, index, (enum moe_plan_figure) i).mean;
    }
    moe_grid_cell(grid, p->composition.label);
    if (p->fits) {
        moe_grid_cell(grid, moe_figure_fixed(p->metric[MOE_METRIC_BALANCEDNESS].mean, 3).text);
        moe_grid_cell(grid, moe_figure_share(p->metric[MOE_METRIC_IDLE_SHARE].mean).text);
        moe_grid_cell(grid, moe_figure_fixed(p->metric[MOE_METRIC_FAR_BYTES].mean / 1e6, 2).text);
    } else {
        moe_grid_cell(grid, "-");
        moe_grid_cell(grid, "-");
        moe_grid_cell(grid, "-");
    }
    moe_grid_cell(grid, moe_figure_fixed(plan[MOE_PLAN_KV_TOKENS], 0).text);
    moe_grid_cell(grid, moe_figure_fixed(floor(plan[MOE_PLAN_LARGEST_BATCH]), 0).text);
    moe_grid_cell(grid, moe_figure_gigabytes(plan[MOE_PLAN_REPLICA_BYTES]).text);
    moe_grid_cell(grid, moe_figure_gigabytes(plan[MOE_PLAN_MOVED_BYTES]).text);
}

static void print_speed(struct moe_page *page, const struct moe_study *study)
{
    static const struct moe_grid_column columns[] = {
        { "", "policy", true, false }, { "output", "tokens/s", false, false },
        { "", "", true, true },        { "", "speed-up", false, false },
        { "", "", true, true },        { "TTFT ms", "p50", false, false },
        { "", "p99", false, true },    { "ITL ms", "p50", false, false },
        { "", "p99", false, true },    { "", "", true, false },
    };
    struct moe_grid grid;
    char aside[96];
    if (study->seed_count == 1) {
        (void) snprintf(aside, sizeof aside, "one seed: no intervals");
    } else {
        (void) snprintf(aside, sizeof aside, "mean and 95 %% interval over %u seeds",
                        study->seed_count);
    }
    if (study->arrivals != NULL && study->score != MOE_SCORE_OUTPUT_RATE) {
        const size_t used = strlen(aside);
        (void) snprintf(aside + used, sizeof aside - used, "; speed-up: of %s",
                        study->score == MOE_SCORE_GOODPUT ? "goodput" : "a request");
    }
    moe_page_heading(page, "Throughput", aside);
    moe_grid_begin(&grid, columns, sizeof columns / sizeof columns[0]);
    for (uint32_t i = 0; i < study->policy_count; i++) {
        speed_row(&grid, study, i);
    }
    moe_grid_print(&grid, page);
}

static void print_memory(struct moe_page *page, const struct moe_study *study)
{
    static const struct moe_grid_column columns[] = {
        { "", "policy", true, false },
        { "balance", "mean/max", false, false },
        { "GPU time", "waiting", false, false },
        { "MB/token", "far links", false, false },
        { "KV tokens", "per GPU", false, false },
        { "requests", "that fit", false, false },
        { "copies", "GB", false, false },
        { "moved", "GB", false, false },
    };
    struct moe_grid grid;
    moe_page_heading(page, "Balance and memory",
                     "copies, moved: whole cluster; requests: one GPU's KV cache");
    moe_grid_begin(&grid, columns, sizeof columns / sizeof columns[0]);
    for (uint32_t i = 0; i < study->policy_count; i++) {
        memory_row(&grid, study, i);
    }
    moe_grid_print(&grid, page);
}

/* Whether any fitting policy spends time in that part. */
static bool is_used(const struct moe_study *study, enum moe_cost_part part)
{
    for (uint32_t i = 0; i < study->policy_count; i++) {
        if (study->policies[i].fits) {
            const struct moe_critical_path path = moe_finding_path(study, i);
            if (moe_finding_part_ns(&path, part) > 0) {
                return true;
            }
        }
    }
    return false;
}

static void time_row(struct moe_grid *grid, const struct moe_study *study, uint32_t policy)
{
    const struct moe_critical_path path = moe_finding_path(study, policy);
    const double ms = 1e-6 / (double) moe_finding_excess(study, policy).steps;
    moe_grid_cell(grid, study->policies[policy].composition.label);
    for (uint32_t i = 0; i < MOE_COST_PART_COUNT; i++) {
        const enum moe_cost_part part = (enum moe_cost_part) i;
        if (is_used(study, part)) {
            moe_grid_cell(grid,
                          moe_figure_fixed((double) moe_finding_part_ns(&path, part) * ms, 2).text);
        }
    }
    moe_grid_cell(grid, moe_figure_fixed((double) moe_finding_path_ns(&path) * ms, 2).text);
}

/* Why one policy is faster than another: a step as its slowest ranks make it, part by part. */
static void print_time(struct moe_page *page, const struct moe_study *study)
{
    struct moe_grid_column columns[MOE_COST_PART_COUNT + 2] = { { "", "policy", true, false } };
    struct moe_grid grid;
    uint32_t count = 1;
    for (uint32_t i = 0; i < MOE_COST_PART_COUNT; i++) {
        if (is_used(study, (enum moe_cost_part) i)) {
            columns[count++] =
                (struct moe_grid_column){ "", moe_cost_part_name((enum moe_cost_part) i), false,
                                          false };
        }
    }
    if (count == 1) {
        return;
    }
    columns[count++] = (struct moe_grid_column){ "", "step", false, false };
    moe_page_heading(page, "Where the time goes",
                     "ms per step, along what each barrier waited for");
    moe_grid_begin(&grid, columns, count);
    for (uint32_t i = 0; i < study->policy_count; i++) {
        if (study->policies[i].fits) {
            time_row(&grid, study, i);
        }
    }
    moe_grid_print(&grid, page);
}

void moe_section_throughput(struct moe_page *page, const struct moe_study *study)
{
    print_speed(page, study);
    print_memory(page, study);
    print_time(page, study);
}
