/* Placements made anew while serving: what moved, what that took, and when it pays. */
#include "sim/report/figure.h"
#include "sim/report/section.h"

#define COUNT(value) moe_figure_count(value).text

/* Means over the seeds of one policy. */
struct online_means {
    double plans;
    double moved_bytes;
    double stall_ns;
    double slowed_ns;
    double busy_ns;
    double gain_ns; /* per step and plan */
    double steps_between;
    double break_even; /* steps; negative: never */
};

static struct online_means means_of(const struct moe_study *study, uint32_t policy)
{
    struct online_means m = { 0 };
    const double seeds = study->seed_count;
    double steps = 0.0;
    for (uint32_t i = 0; i < study->seed_count; i++) {
        const struct moe_run_result *run = &study->policies[policy].runs[i];
        const struct moe_online_account *a = &run->online;
        m.plans += (double) a->plans;
        m.moved_bytes += a->moved_near_bytes + a->moved_far_bytes + a->moved_host_bytes;
        m.stall_ns += (double) a->stall_ns;
        m.slowed_ns += (double) a->slowed_ns;
        m.busy_ns += (double) (a->planner_ns + a->move_ns);
        m.gain_ns += a->gain_ns;
        for (uint32_t phase = 0; phase < MOE_PHASE_COUNT; phase++) {
            steps += (double) run->account[phase].steps;
        }
    }
    if (m.plans > 0.0) {
        m.gain_ns /= m.plans;
        m.break_even = m.gain_ns > 0.0 ? (m.stall_ns + m.slowed_ns) / m.plans / m.gain_ns : -1.0;
        m.steps_between = steps / m.plans;
    }
    m.moved_bytes /= seeds;
    m.busy_ns /= seeds;
    m.stall_ns /= seeds;
    m.slowed_ns /= seeds;
    m.plans /= seeds;
    return m;
}

static void online_row(struct moe_grid *grid, const struct moe_study *study, uint32_t policy)
{
    const struct online_means m = means_of(study, policy);
    moe_grid_cell(grid, study->policies[policy].composition.label);
    moe_grid_cell(grid, moe_figure_real(m.plans).text);
    if (m.plans <= 0.0) {
        moe_grid_span(grid, "keeps its first plan");
        return;
    }
    moe_grid_cell(grid, moe_figure_real(m.moved_bytes / m.plans / 1e9).text);
    moe_grid_cell(grid, moe_figure_real(m.busy_ns / m.plans / 1e6).text);
    moe_grid_cell(grid, moe_figure_real(m.stall_ns / m.plans / 1e6).text);
    moe_grid_cell(grid, moe_figure_real(m.gain_ns / 1e6).text);
    moe_grid_cell(grid, moe_figure_real(m.slowed_ns / m.plans / 1e6).text);
    moe_grid_cell(grid, m.break_even < 0.0 ? "never" : moe_figure_real(m.break_even).text);
    moe_grid_cell(grid, moe_figure_real(m.steps_between).text);
}

static const char *const mode_words[] = {
    [MOE_ONLINE_STALL] = "serving stands still meanwhile",
    [MOE_ONLINE_LAYERS] = "layer by layer beside serving, on a share of the links",
    [MOE_ONLINE_PREFETCH] = "during the step before; what is longer stalls",
};

void moe_section_online(struct moe_page *page, const struct moe_study *study)
{
    const struct moe_online_options *o = &study->scenario->online;
    struct moe_grid grid;
    if (o->every_steps == 0) {
        return;
    }
    static const struct moe_grid_column columns[] = {
        { .upper = "", .head = "policy", .left = true }, { .upper = "", .head = "plans" },
        { .upper = "moved", .head = "GB each" },         { .upper = "takes", .head = "ms each" },
        { .upper = "stalls", .head = "ms each" },        { .upper = "slows", .head = "ms each" },
        { .upper = "gains", .head = "ms a step" },       { .upper = "pays after", .head = "steps" },
        { .upper = "between", .head = "steps" },
    };
    moe_page_heading(page, "Placements made anew",
                     "means over seeds; gains: estimated, of experts");
    moe_grid_begin(&grid, columns, sizeof columns / sizeof columns[0]);
    for (uint32_t i = 0; i < study->policy_count; i++) {
        if (study->policies[i].fits) {
            online_row(&grid, study, i);
        }
    }
    moe_grid_print(&grid, page);
    moe_page_gap(page);
    moe_page_field(page, "when", "every %s steps%s%s", COUNT(o->every_steps),
                   o->max_balance < 1.0 ? ", if their mean/max load was below " : "",
                   o->max_balance < 1.0 ? moe_figure_fixed(o->max_balance, 2).text : "");
    moe_page_field(page, "how",
                   "weights from %s, %s; %s ms a plan and %s ms a layer are parameters",
                   o->source == MOE_ONLINE_HOST ? "host memory" : "other GPUs", mode_words[o->mode],
                   moe_figure_real(o->planner_ms).text, moe_figure_real(o->layer_ms).text);
}
