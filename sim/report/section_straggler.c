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
    return study->policies[policy].composition.label;
}

/* What each cause makes unequal, in a few words. */
static const char *cause_meaning(enum moe_cause cause)
{
    static const char *const meaning[MOE_CAUSE_COUNT] = {
        [MOE_CAUSE_ROUTING] = "experts' tokens differ",
        [MOE_CAUSE_BATCH] = "ranks' own tokens differ",
        [MOE_CAUSE_HARDWARE] = "GPUs differ",
        [MOE_CAUSE_JITTER] = "noise",
        [MOE_CAUSE_COMM] = "bytes differ, by tokens and routing",
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

/* "0         10        20": every tenth mark has its layer's number. */
static void draw_ruler(uint32_t layers, char *text, size_t text_bytes)
{
    const uint32_t width = layers_per_mark(layers);
    size_t used = 0;
    text[0] = '\0';
    for (uint32_t at = 0; at * width < layers && used < text_bytes - 1; at += 10) {
        used += (size_t) snprintf(text + used, text_bytes - used, "%*s%u", (int) (at - used), "",
                                  at * width);
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
        label = (uint32_t) fmax(label, (double) strlen(p->composition.label));
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
    draw_ruler(layers, marks, sizeof marks);
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
        { "", "last ranks", true, false },
        { "", "node", false, false },
        { "last at", "barriers", false, false },
        { "", "", false, true },
        { "later than", "next, ms", false, false },
        { "time factor:", "compute", false, false },
        { "", "memory", false, false },
        { "", "comm", false, false },
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
        moe_grid_cell(&grid, moe_figure_real((double) worst[i].lead_ns * 1e-6).text);
        factor_cell(&grid, worst[i].low.compute, worst[i].high.compute);
        factor_cell(&grid, worst[i].low.memory, worst[i].high.memory);
        factor_cell(&grid, worst[i].low.comm, worst[i].high.comm);
    }
    moe_grid_print(&grid, page);
}

static void layer_cells(struct moe_grid *grid, const struct moe_finding_layer *layer, double idle)
{
    char name[32];
    (void) snprintf(name, sizeof name, "layer %u", layer->layer);
    moe_grid_cell(grid, name);
    moe_grid_cell(grid, moe_figure_share((double) layer->idle_ns / idle).text);
    moe_grid_cell(grid, moe_figure_fixed(layer->imbalance, 2).text);
}

static void expert_cells(struct moe_grid *grid, const struct moe_finding_expert *expert)
{
    char name[MOE_GRID_CELL_BYTES];
    (void) snprintf(name, sizeof name, "layer %u, expert %u", expert->layer, expert->expert);
    moe_grid_cell(grid, name);
    moe_grid_cell(grid, moe_figure_count(expert->copies).text);
    moe_grid_cell(grid, moe_figure_share(expert->share).text);
    moe_grid_cell(grid, moe_figure_real((double) expert->lead_ns * 1e-6).text);
}

/* The worst layers and, beside them, the worst experts. */
static void place_grid(struct moe_page *page, const struct moe_study *study, uint32_t policy,
                       const struct moe_finding_excess *excess)
{
    enum { LAYER_CELLS = 3, EXPERT_CELLS = 4 };
    static const struct moe_grid_column columns[LAYER_CELLS + EXPERT_CELLS] = {
        { "", "worst layers", true, false },
        { "share of", "waiting", false, false },
        { "load", "max/mean", false, false },
        { "", "worst experts", true, false },
        { "", "copies", false, false },
        { "share of", "its layer", false, false },
        { "later than", "next, ms", false, false },
    };
    struct moe_finding_layer layers[WORST];
    struct moe_finding_expert experts[WORST];
    struct moe_grid grid;
    const uint32_t layer_count = moe_finding_worst_layers(study, policy, layers, WORST);
    const uint32_t expert_count = moe_finding_worst_experts(study, policy, experts, WORST);
    moe_grid_begin(&grid, columns, LAYER_CELLS + EXPERT_CELLS);
    for (uint32_t i = 0; i < layer_count || i < expert_count; i++) {
        if (i < layer_count) {
            layer_cells(&grid, &layers[i], (double) excess->idle_ns);
        }
        for (uint32_t c = 0; i >= layer_count && c < LAYER_CELLS; c++) {
            moe_grid_cell(&grid, "");
        }
        if (i < expert_count) {
            expert_cells(&grid, &experts[i]);
        }
        for (uint32_t c = 0; i >= expert_count && c < EXPERT_CELLS; c++) {
            moe_grid_cell(&grid, "");
        }
    }
    moe_grid_print(&grid, page);
}

void moe_section_stragglers(struct moe_page *page, const struct moe_study *study, uint32_t policy)
{
    const struct moe_finding_excess excess = moe_finding_excess(study, policy);
    const struct moe_run_result *first = study->policies[policy].runs;
    char title[MOE_COMPOSITION_BYTES + 16];
    char aside[128];
    (void) snprintf(title, sizeof title, "Stragglers: %s", name_of(study, policy));
    (void) snprintf(
        aside, sizeof aside, "%s of all GPU time is waiting at barriers",
        moe_figure_share(study->policies[policy].metric[MOE_METRIC_IDLE_SHARE].mean).text);
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
    moe_page_gap(page);
    rank_grid(page, study, policy, &excess);
    moe_page_gap(page);
    place_grid(page, study, policy, &excess);
}
