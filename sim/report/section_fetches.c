/* Temporary copies that dispatch policies fetched: what they levelled, and what their way took.
 * Left out when no policy fetches. */
#include "sim/report/figure.h"
#include "sim/report/section.h"

static const double BYTES_PER_MEGABYTE = 1e6;
static const double NS_PER_MS = 1e6;

/* Means over the seeds of one policy, per scored step. */
struct fetch_means {
    double copies;
    double far_share;
    double megabytes;
    double transfer_ms;
    double exposed_ms;
    double exposed_share; /* of the step */
    double balance_with;
    double balance_without;
};

static struct fetch_means means_of(const struct moe_study *study, uint32_t policy)
{
    struct fetch_means m = { 0 };
    double far = 0.0;
    double exposed_ns = 0.0;
    double time_ns = 0.0;
    for (uint32_t i = 0; i < study->seed_count; i++) {
        const struct moe_run_result *run = &study->policies[policy].runs[i];
        const struct moe_fetch_account *a = &run->fetch;
        const double steps = (double) run->account[MOE_PHASE_SCORED].steps * study->seed_count;
        const double layers = (double) run->layer_steps * study->seed_count;
        const double copies = (double) (a->near_copies + a->far_copies);
        m.copies += copies / steps;
        m.megabytes += copies / steps * a->expert_bytes / BYTES_PER_MEGABYTE;
        m.transfer_ms += a->transfer_ns / steps / NS_PER_MS;
        m.exposed_ms += (double) a->exposed_ns / steps / NS_PER_MS;
        m.balance_with += run->balancedness_sum / layers;
        m.balance_without += a->even_balance / layers;
        far += (double) a->far_copies / steps;
        exposed_ns += (double) a->exposed_ns;
        time_ns += (double) run->account[MOE_PHASE_SCORED].time_ns;
    }
    m.far_share = m.copies > 0.0 ? far / m.copies : 0.0;
    m.exposed_share = time_ns > 0.0 ? exposed_ns / time_ns : 0.0;
    return m;
}

static bool fetches(const struct moe_study *study, uint32_t policy)
{
    return study->policies[policy].fits && study->policies[policy].runs[0].fetch.slots > 0;
}

static void fetch_row(struct moe_grid *grid, const struct moe_study *study, uint32_t policy)
{
    const struct fetch_means m = means_of(study, policy);
    moe_grid_cell(grid, study->policies[policy].composition.label);
    moe_grid_cell(grid, moe_figure_fixed(m.balance_without, 3).text);
    moe_grid_cell(grid, moe_figure_fixed(m.balance_with, 3).text);
    moe_grid_cell(grid, moe_figure_real(m.copies).text);
    moe_grid_cell(grid, moe_figure_real(m.megabytes).text);
    moe_grid_cell(grid, moe_figure_share(m.far_share).text);
    moe_grid_cell(grid, moe_figure_real(m.transfer_ms).text);
    moe_grid_cell(grid, moe_figure_real(m.exposed_ms).text);
    moe_grid_cell(grid, moe_figure_share(m.exposed_share).text);
}

void moe_section_fetches(struct moe_page *page, const struct moe_study *study)
{
    const struct moe_fetch_options *options = &study->scenario->fetch;
    static const struct moe_grid_column columns[] = {
        { .upper = "", .head = "policy", .left = true },
        { .upper = "balance", .head = "without" },
        { .upper = "mean/max", .head = "with" },
        { .upper = "copies", .head = "a step" },
        { .upper = "MB", .head = "a step" },
        { .upper = "far", .head = "links" },
        { .upper = "transfer", .head = "ms a step" },
        { .upper = "exposed", .head = "ms a step" },
        { .upper = "share", .head = "of time" },
    };
    struct moe_grid grid;
    uint32_t rows = 0;
    moe_grid_begin(&grid, columns, sizeof columns / sizeof columns[0]);
    for (uint32_t i = 0; i < study->policy_count && rows < MOE_GRID_ROWS; i++) {
        if (fetches(study, i)) {
            fetch_row(&grid, study, i);
            rows++;
        }
    }
    if (rows == 0) {
        return;
    }
    moe_page_heading(page, "Fetched copies",
                     "means over seeds; without: the plan's copies, evenly shared");
    moe_grid_print(&grid, page);
    moe_page_gap(page);
    moe_page_field(
        page, "where", "%s temporary slot%s on each GPU, the same for every layer: %s GB",
        moe_figure_count(options->slots).text, options->slots == 1 ? "" : "s",
        moe_figure_real(options->slots * moe_model_expert_bytes(&study->scenario->model) / 1e9)
            .text);
    moe_page_field(
        page, "how",
        "from GPUs that hold the expert%s, before the tokens and over the same links; %s "
        "of the time hidden (a parameter)",
        options->relay ? " or are getting it" : "", moe_figure_share(options->overlap).text);
}
