/* Why: who waited for whom, and what that cost. */
#include <math.h>
#include <stdio.h>
#include <string.h>

#include "sim/report/figure.h"
#include "sim/report/finding.h"
#include "sim/report/section.h"

enum { BAR_MARKS = 60, WORST = 5, MARK_BYTES = 4 };

static const char *name_of(const struct moe_study *study, uint32_t policy)
{
    return study->policies[policy].policy->name;
}

/* What each cause makes unequal, in a few words. */
static const char *cause_meaning(enum moe_cause cause)
{
    static const char *const meaning[MOE_CAUSE_COUNT] = {
        [MOE_CAUSE_ROUTING] = "experts' tokens differ",
        [MOE_CAUSE_BATCH] = "ranks' own tokens differ",
        [MOE_CAUSE_HARDWARE] = "GPUs differ",
        [MOE_CAUSE_JITTER] = "noise",
        [MOE_CAUSE_COMM] = "bytes in and out differ",
    };
    return meaning[cause];
}

/* One mark for each layer, or for the worst of several when there are many. */
static uint32_t layers_per_mark(uint32_t layer_count)
{
    return (layer_count + BAR_MARKS - 1) / BAR_MARKS;
}

static void draw(const struct moe_study *study, uint32_t policy, double high, char *marks)
{
    static const char *const level[] = { "▁", "▂", "▃", "▄", "▅", "▆", "▇", "█" };
    const uint32_t layers = study->policies[policy].runs->layer_count;
    const uint32_t width = layers_per_mark(layers);
    for (uint32_t first = 0; first < layers; first += width) {
        double worst = 1.0;
        for (uint32_t layer = first; layer < layers && layer < first + width; layer++) {
            worst = fmax(worst, moe_finding_layer_of(study, policy, layer).imbalance);
        }
        const double share = high > 1.0 ? (worst - 1.0) / (high - 1.0) : 0.0;
        const int step = (int) (share * 7.0 + 0.5);
        memcpy(marks, level[step < 0 ? 0 : step > 7 ? 7 : step], 3);
        marks += 3;
    }
    *marks = '\0';
}

static void draw_ruler(uint32_t layers, char *marks)
{
    const uint32_t width = layers_per_mark(layers);
    const uint32_t count = (layers + width - 1) / width;
    memset(marks, ' ', count);
    marks[count] = '\0';
    for (uint32_t at = 0; at < count; at += 10) {
        char number[16];
        const int length = snprintf(number, sizeof number, "%u", at * width);
        if (length > 0 && at + (uint32_t) length <= count) {
            memcpy(marks + at, number, (size_t) length);
        }
    }
}

void moe_section_layers(struct moe_page *page, const struct moe_study *study)
{
    double high = 1.0;
    uint32_t label = 5;
    uint32_t layers = 0;
    for (uint32_t i = 0; i < study->policy_count; i++) {
        const struct moe_policy_summary *p = &study->policies[i];
        for (uint32_t layer = 0; p->fits && layer < p->runs->layer_count; layer++) {
            high = fmax(high, moe_finding_layer_of(study, i, layer).imbalance);
        }
        layers = p->fits ? p->runs->layer_count : layers;
        label = (uint32_t) fmax(label, (double) strlen(p->policy->name));
    }
    if (layers == 0) {
        return;
    }
    char aside[64];
    char marks[BAR_MARKS * MARK_BYTES + 96];
    (void) snprintf(aside, sizeof aside, "max/mean load of the GPUs, ▁ 1.00 to █ %.2f", high);
    moe_page_heading(page, "Load by layer", aside);
    moe_page_bars_begin(page);
    for (uint32_t i = 0; i < study->policy_count; i++) {
        if (study->policies[i].fits) {
            draw(study, i, high, marks);
            const size_t used = strlen(marks);
            (void) snprintf(marks + used, sizeof marks - used, "  %.2f",
                            moe_finding_imbalance(study, i));
            moe_page_bar(page, name_of(study, i), label, marks);
        }
    }
    draw_ruler(layers, marks);
    moe_page_bar(page, "layer", label, marks);
    moe_page_bars_end(page);
}

static void cause_grid(struct moe_page *page, const struct moe_study *study, uint32_t policy,
                       const struct moe_finding_excess *excess)
{
    static const struct moe_grid_column columns[] = {
        { "", "cause", true, false },
        { "GPU time", "waited, ns", false, false },
        { "", "share", false, false },
        { "ms per", "step", false, false },
        { "tokens/s", "without", false, false },
        { "", "", true, true },
        { "", "", true, false },
    };
    struct moe_grid grid;
    const double gpus = study->policies[policy].runs->gpu_count;
    const double steps = (double) excess->steps;
    moe_grid_begin(&grid, columns, sizeof columns / sizeof columns[0]);
    for (uint32_t i = 0; i < MOE_CAUSE_COUNT; i++) {
        const struct moe_estimate gain = moe_finding_without(study, policy, UINT32_C(1) << i);
        struct moe_figure half = { "" };
        if (isfinite(gain.half)) {
            (void) snprintf(half.text, sizeof half.text, "± %.1f", 100.0 * gain.half);
        }
        const double ns = (double) excess->cause_ns[i];
        moe_grid_cell(&grid, moe_cause_name((enum moe_cause) i));
        moe_grid_cell(&grid, moe_figure_signed(excess->cause_ns[i]).text);
        moe_grid_cell(&grid, moe_figure_share(ns / (double) excess->idle_ns).text);
        moe_grid_cell(&grid, moe_figure_fixed(ns * 1e-6 / gpus / steps, 3).text);
        moe_grid_cell(&grid, moe_figure_change(gain.mean).text);
        moe_grid_cell(&grid, half.text);
        moe_grid_cell(&grid, cause_meaning((enum moe_cause) i));
    }
    const struct moe_estimate gain = moe_finding_without(study, policy, MOE_CAUSE_ALL);
    moe_grid_cell(&grid, "sum");
    moe_grid_cell(&grid, moe_figure_signed(excess->idle_ns).text);
    moe_grid_cell(&grid, moe_figure_share(1.0).text);
    moe_grid_cell(&grid, moe_figure_fixed((double) excess->idle_ns * 1e-6 / gpus / steps, 3).text);
    moe_grid_cell(&grid, moe_figure_change(gain.mean).text);
    moe_grid_cell(&grid, "");
    moe_grid_cell(&grid, "all removed at once");
    moe_grid_print(&grid, page);
}

/* "0.98 to 1.03", or one figure when it is the same in all seeds. */
static void factor_cell(struct moe_grid *grid, double low, double high)
{
    char text[MOE_GRID_CELL_BYTES];
    if (low < high) {
        (void) snprintf(text, sizeof text, "%.3f to %.3f", low, high);
    } else {
        (void) snprintf(text, sizeof text, "%.3f", low);
    }
    moe_grid_cell(grid, text);
}

static void rank_grid(struct moe_page *page, const struct moe_study *study, uint32_t policy,
                      const struct moe_finding_excess *excess)
{
    static const struct moe_grid_column columns[] = {
        { "", "last ranks", true, false },        { "", "node", false, false },
        { "barriers", "at which", false, false }, { "", "", false, true },
        { "lead", "ms", false, false },           { "compute", "factor", false, false },
        { "memory", "factor", false, false },
    };
    struct moe_finding_rank worst[WORST];
    struct moe_grid grid;
    const uint32_t count = moe_finding_worst_ranks(study, policy, worst, WORST);
    moe_grid_begin(&grid, columns, sizeof columns / sizeof columns[0]);
    for (uint32_t i = 0; i < count; i++) {
        char name[32];
        (void) snprintf(name, sizeof name, "GPU %u", worst[i].gpu);
        moe_grid_cell(&grid, name);
        moe_grid_cell(&grid, moe_figure_count(worst[i].node).text);
        moe_grid_cell(&grid, moe_figure_count(worst[i].last).text);
        moe_grid_cell(&grid,
                      moe_figure_share((double) worst[i].last / (double) excess->barriers).text);
        moe_grid_cell(&grid, moe_figure_fixed((double) worst[i].lead_ns * 1e-6, 1).text);
        factor_cell(&grid, worst[i].compute_low, worst[i].compute_high);
        factor_cell(&grid, worst[i].memory_low, worst[i].memory_high);
    }
    moe_grid_print(&grid, page);
}

/* "layer 12 (8.1 %, max/mean 2.31), ..." */
static void say_layers(struct moe_page *page, const struct moe_study *study, uint32_t policy,
                       const struct moe_finding_excess *excess)
{
    struct moe_finding_layer worst[WORST];
    char text[512] = "";
    size_t used = 0;
    const uint32_t count = moe_finding_worst_layers(study, policy, worst, WORST);
    for (uint32_t i = 0; i < count && used < sizeof text - 1; i++) {
        used += (size_t) snprintf(
            text + used, sizeof text - used, "%s%u (%s)", i == 0 ? "" : ", ", worst[i].layer,
            moe_figure_share((double) worst[i].idle_ns / (double) excess->idle_ns).text);
    }
    if (count > 0) {
        moe_page_field(page, "worst layers", "%s of the waiting", text);
    }
}

static void say_experts(struct moe_page *page, const struct moe_study *study, uint32_t policy)
{
    struct moe_finding_expert worst[WORST];
    const uint32_t count = moe_finding_worst_experts(study, policy, worst, WORST);
    for (uint32_t i = 0; i < count; i++) {
        moe_page_field(page, i == 0 ? "worst experts" : "",
                       "layer %u, expert %u: %s of its layer's tokens, %u cop%s; led by %s ms",
                       worst[i].layer, worst[i].expert, moe_figure_share(worst[i].share).text,
                       worst[i].copies, worst[i].copies == 1 ? "y" : "ies",
                       moe_figure_fixed((double) worst[i].lead_ns * 1e-6, 1).text);
    }
}

void moe_section_stragglers(struct moe_page *page, const struct moe_study *study, uint32_t policy)
{
    const struct moe_finding_excess excess = moe_finding_excess(study, policy);
    const struct moe_run_result *first = study->policies[policy].runs;
    char title[96];
    char aside[128];
    (void) snprintf(title, sizeof title, "Stragglers: %s", name_of(study, policy));
    (void) snprintf(aside, sizeof aside, "%s of all GPU time is waiting at barriers",
                    moe_figure_share((double) excess.idle_ns / (double) excess.time_ns).text);
    moe_page_heading(page, title, aside);
    if (excess.idle_ns == 0) {
        moe_page_text(page, "No rank ever waited for another.");
        return;
    }
    if (first->attributed) {
        cause_grid(page, study, policy, &excess);
    } else {
        moe_page_text(page, "Why was not asked: attribution is off.");
    }
    moe_page_text(page, "%s", "");
    rank_grid(page, study, policy, &excess);
    moe_page_text(page, "%s", "");
    say_layers(page, study, policy, &excess);
    say_experts(page, study, policy);
}
