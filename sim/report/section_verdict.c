/* Which policy is best, how far it is from the bounds, and how sure that is. */
#include <math.h>
#include <string.h>

#include "sim/report/figure.h"
#include "sim/report/finding.h"
#include "sim/report/section.h"

enum { SENTENCE_BYTES = 1024 };

static const char *name_of(const struct moe_study *study, uint32_t policy)
{
    return study->policies[policy].composition.label;
}

/* "1.234 ± 0.012", or "1.234" without an interval. */
static const char *ratio_text(struct moe_estimate estimate, char *text, size_t text_bytes)
{
    const struct moe_figure half = moe_figure_half(estimate, 3);
    (void) snprintf(text, text_bytes, "%s%s%s", moe_figure_fixed(estimate.mean, 3).text,
                    half.text[0] == '\0' ? "" : " ", half.text);
    return text;
}

/* "lpt", "lpt and eplb", "lpt, eplb and random" */
static void list_ties(const struct moe_study *study, char *text, size_t text_bytes)
{
    size_t used = 0;
    uint32_t seen = 0;
    text[0] = '\0';
    for (uint32_t i = 0; i < study->policy_count && used < text_bytes - 1; i++) {
        if (study->policies[i].tie) {
            const char *joint = seen == 0 ? "" : seen + 1 == study->tie_count ? " and " : ", ";
            used +=
                (size_t) snprintf(text + used, text_bytes - used, "%s%s", joint, name_of(study, i));
            seen++;
        }
    }
}

/* What the best was chosen by, of one policy. */
static const char *score_text(const struct moe_study *study, uint32_t policy, char *text,
                              size_t text_bytes)
{
    static const enum moe_metric metrics[] = {
        [MOE_SCORE_OUTPUT_RATE] = MOE_METRIC_OUTPUT_RATE,
        [MOE_SCORE_GOODPUT] = MOE_METRIC_GOODPUT,
        [MOE_SCORE_SPEED] = MOE_METRIC_E2E_MEAN,
    };
    const struct moe_figure figure =
        moe_figure_real(study->policies[policy].metric[metrics[study->score]].mean);
    switch (study->score) {
    case MOE_SCORE_OUTPUT_RATE:
        (void) snprintf(text, text_bytes, "%s output tokens/s", figure.text);
        break;
    case MOE_SCORE_GOODPUT:
        (void) snprintf(text, text_bytes, "%s requests/s that meet the SLO", figure.text);
        break;
    case MOE_SCORE_SPEED:
        (void) snprintf(text, text_bytes, "%s ms from arrival to last token on average",
                        figure.text);
        break;
    }
    return text;
}

static void say_best(struct moe_page *page, const struct moe_study *study)
{
    const struct moe_policy_summary *best = &study->policies[study->best];
    char score[112];
    char ratio[112];
    char ties[SENTENCE_BYTES];
    char tail[SENTENCE_BYTES + 128];
    list_ties(study, ties, sizeof ties);
    if (study->seed_count == 1) {
        (void) snprintf(tail, sizeof tail,
                        "one seed gives no interval, so a small lead may be "
                        "chance");
    } else if (study->tie_count > 0) {
        (void) snprintf(tail, sizeof tail, "a tie with %s, whose interval%s its own", ties,
                        study->tie_count == 1 ? " overlaps" : "s overlap");
    } else {
        (void) snprintf(tail, sizeof tail, "no other policy's interval reaches its own");
    }
    if (study->best == study->baseline) {
        moe_page_field(page, "best", "%s, the baseline itself, with %s; %s",
                       best->composition.label, score_text(study, study->best, score, sizeof score),
                       tail);
    } else {
        moe_page_field(page, "best", "%s: %s, %s times %s%s; %s", best->composition.label,
                       score_text(study, study->best, score, sizeof score),
                       ratio_text(best->speedup, ratio, sizeof ratio),
                       study->score == MOE_SCORE_SPEED ? "as fast as " : "",
                       name_of(study, study->baseline), tail);
    }
}

/* The cause of most of the waiting: what to look at first. */
static void say_cause(struct moe_page *page, const struct moe_study *study)
{
    const struct moe_finding_excess excess = moe_finding_excess(study, study->best);
    const double idle = (double) excess.idle_ns;
    uint32_t worst = 0;
    if (!study->policies[study->best].runs[0].attributed || excess.idle_ns == 0) {
        return;
    }
    for (uint32_t i = 1; i < MOE_CAUSE_COUNT; i++) {
        worst = excess.cause_ns[i] > excess.cause_ns[worst] ? i : worst;
    }
    const struct moe_estimate without =
        moe_finding_without(study, study->best, UINT32_C(1) << worst);
    moe_page_field(
        page, "waiting",
        "%s of all GPU time under %s, the largest part of it (%s) because of %s; "
        "without that "
        "%s %s",
        moe_figure_share(study->policies[study->best].metric[MOE_METRIC_IDLE_SHARE].mean).text,
        name_of(study, study->best), moe_figure_share((double) excess.cause_ns[worst] / idle).text,
        moe_cause_name((enum moe_cause) worst), moe_figure_change(without.mean).text,
        study->arrivals == NULL ? "tokens/s" : "steps/s");
}

static void say_perfect(struct moe_page *page, const struct moe_study *study)
{
    const uint32_t best = study->best;
    if (!study->policies[best].runs[0].attributed) {
        return;
    }
    const struct moe_estimate gain =
        moe_finding_without(study, best, UINT32_C(1) << MOE_CAUSE_ROUTING);
    if (study->arrivals != NULL) { /* how many come does not depend on it */
        moe_page_field(
            page, "perfect",
            "with perfectly balanced experts and its exchange as it is, %s would make %s "
            "steps/s",
            name_of(study, best), moe_figure_change(gain.mean).text);
        return;
    }
    const double rate = study->policies[best].metric[MOE_METRIC_OUTPUT_RATE].mean * gain.mean;
    moe_page_field(
        page, "perfect",
        "with perfectly balanced experts and its exchange as it is, %s would reach %s tokens/s, %s",
        name_of(study, best), moe_figure_real(rate).text, moe_figure_change(gain.mean).text);
}

static void say_no_copies(struct moe_page *page, const struct moe_study *study)
{
    const double bound = moe_finding_no_copy_imbalance(study, study->best);
    const double own = moe_finding_imbalance(study, study->best);
    char others[MOE_COMPOSITION_BYTES + 48] = "";
    char tail[160];
    if (study->best != study->baseline) {
        (void) snprintf(others, sizeof others, " and %.2f under %s",
                        moe_finding_imbalance(study, study->baseline),
                        name_of(study, study->baseline));
    }
    if (bound < 1.005) {
        (void) snprintf(tail, sizeof tail, "no expert is so hot that it would need a copy");
    } else {
        (void) snprintf(tail, sizeof tail,
                        "where no expert has copies the hottest one alone keeps it at %.2f or "
                        "more%s",
                        bound, own < bound ? ": copies are what it takes" : "");
    }
    moe_page_field(page, "no copies", "max/mean load is %.2f under %s%s; %s", own,
                   name_of(study, study->best), others, tail);
}

static void say_hindsight(struct moe_page *page, const struct moe_study *study)
{
    const uint32_t oracle = moe_finding_oracle(study);
    if (oracle == study->policy_count) {
        return;
    }
    const struct moe_estimate speed = study->policies[oracle].speedup;
    const double over_best = speed.mean / study->policies[study->best].speedup.mean;
    char ratio[112];
    char against[MOE_COMPOSITION_BYTES + 96] = "";
    if (study->best != study->baseline) {
        (void) snprintf(against, sizeof against, ", %s against %s",
                        moe_figure_change(over_best).text, name_of(study, study->best));
    }
    moe_page_field(page, "hindsight",
                   "%s, which plans on the scored requests themselves, reaches %s times %s%s",
                   name_of(study, oracle), ratio_text(speed, ratio, sizeof ratio),
                   name_of(study, study->baseline), against);
}

/* What the copies of the best cost in KV cache. */
static void say_price(struct moe_page *page, const struct moe_study *study)
{
    const struct moe_estimate copies =
        moe_plan_figure_estimate(study, study->best, MOE_PLAN_REPLICA_BYTES);
    const double kv = moe_plan_figure_estimate(study, study->best, MOE_PLAN_KV_TOKENS).mean;
    const double before = moe_plan_figure_estimate(study, study->baseline, MOE_PLAN_KV_TOKENS).mean;
    char against[MOE_COMPOSITION_BYTES + 96];
    if (study->best == study->baseline || before <= 0.0) {
        return;
    }
    (void) snprintf(against, sizeof against, kv == before ? "as many as %s%s" : "%s against %s",
                    kv == before ? name_of(study, study->baseline)
                                 : moe_figure_change(kv / before).text,
                    kv == before ? "" : name_of(study, study->baseline));
    if (copies.mean > 0.0) {
        moe_page_field(page, "price", "%s GB of copies leave %s tokens of KV cache on each GPU, %s",
                       moe_figure_gigabytes(copies.mean).text, moe_figure_fixed(kv, 0).text,
                       against);
    } else {
        moe_page_field(page, "price", "it needs no copies: %s tokens of KV cache on each GPU, %s",
                       moe_figure_fixed(kv, 0).text, against);
    }
}

void moe_section_verdict(struct moe_page *page, const struct moe_study *study)
{
    moe_page_heading(page, "Verdict", "");
    if (!study->policies[study->baseline].fits || study->best == study->policy_count) {
        moe_page_text(page, "None: no policy that could be used in practice fits.");
        moe_page_field(page, name_of(study, study->baseline), "%s",
                       moe_finding_why(study, study->baseline));
        return;
    }
    if (strcmp(name_of(study, study->baseline), study->scenario->baseline) != 0) {
        moe_page_field(page, "baseline", "%s does not fit; the others are compared with %s instead",
                       study->scenario->baseline, name_of(study, study->baseline));
    }
    say_best(page, study);
    say_price(page, study);
    say_cause(page, study);
    say_perfect(page, study);
    say_no_copies(page, study);
    say_hindsight(page, study);
}

/* Whether any of the part's time comes from anything but a measurement of ours. */
static bool is_measured(const struct moe_critical_path *path, enum moe_cost_part part)
{
    return path->ns[part][MOE_PROVENANCE_MEASURED] == moe_finding_part_ns(path, part);
}

/* What moving the part by 20 % does to the verdict, in a few words. */
static void part_effect(const struct moe_study *study, const struct moe_critical_path *path,
                        enum moe_cost_part part, char *text, size_t text_bytes)
{
    size_t used = 0;
    (void) snprintf(text, text_bytes, "%s",
                    is_measured(path, part)     ? "measured"
                    : !study->sensitivity_known ? "not tested"
                                                : "same verdict");
    for (uint32_t i = 0; i < study->flip_count && used < text_bytes - 1; i++) {
        const struct moe_flip *flip = &study->flips[i];
        if (flip->part == part && !is_measured(path, part)) {
            used += (size_t) snprintf(text + used, text_bytes - used, "%s%s20 %%: %s",
                                      used == 0 ? "" : "; ", flip->scale < 1.0 ? "-" : "+",
                                      name_of(study, flip->winner));
        }
    }
}

/* A column for each provenance that occurs. */
static uint32_t provenance_columns(const struct moe_critical_path *path,
                                   struct moe_grid_column *columns)
{
    uint32_t count = 0;
    columns[count++] = (struct moe_grid_column){ "", "part", true, false };
    columns[count++] = (struct moe_grid_column){ "of the", "time", false, false };
    for (uint32_t i = 0; i < MOE_PROVENANCE_COUNT; i++) {
        if (moe_finding_provenance_ns(path, (enum moe_provenance) i) > 0) {
            columns[count++] =
                (struct moe_grid_column){ "", moe_provenance_name((enum moe_provenance) i), false,
                                          false };
        }
    }
    columns[count++] = (struct moe_grid_column){ "moved by 20 %", "up or down", true, false };
    return count;
}

/* Shares of all the time, one for each column of provenance_columns. */
static void provenance_cells(struct moe_grid *grid, const struct moe_critical_path *path,
                             const moe_time_ns *ns)
{
    const double all = (double) moe_finding_path_ns(path);
    for (uint32_t i = 0; i < MOE_PROVENANCE_COUNT; i++) {
        if (moe_finding_provenance_ns(path, (enum moe_provenance) i) > 0) {
            moe_grid_cell(grid, ns[i] == 0 ? "" : moe_figure_share((double) ns[i] / all).text);
        }
    }
}

static void provenance_grid(struct moe_page *page, const struct moe_study *study,
                            const struct moe_critical_path *path)
{
    struct moe_grid_column columns[MOE_PROVENANCE_COUNT + 3];
    struct moe_grid grid;
    moe_time_ns sums[MOE_PROVENANCE_COUNT];
    const double all = (double) moe_finding_path_ns(path);
    moe_grid_begin(&grid, columns, provenance_columns(path, columns));
    for (uint32_t i = 0; i < MOE_COST_PART_COUNT; i++) {
        const enum moe_cost_part part = (enum moe_cost_part) i;
        const moe_time_ns ns = moe_finding_part_ns(path, part);
        char effect[MOE_GRID_CELL_BYTES];
        if (ns == 0) {
            continue;
        }
        moe_grid_cell(&grid, moe_cost_part_name(part));
        moe_grid_cell(&grid, moe_figure_share((double) ns / all).text);
        provenance_cells(&grid, path, path->ns[part]);
        part_effect(study, path, part, effect, sizeof effect);
        moe_grid_cell(&grid, effect);
    }
    for (uint32_t i = 0; i < MOE_PROVENANCE_COUNT; i++) {
        sums[i] = moe_finding_provenance_ns(path, (enum moe_provenance) i);
    }
    moe_grid_cell(&grid, "all");
    moe_grid_cell(&grid, moe_figure_share(1.0).text);
    provenance_cells(&grid, path, sums);
    moe_grid_cell(&grid, "");
    moe_grid_print(&grid, page);
}

static void say_sensitivity(struct moe_page *page, const struct moe_study *study,
                            const struct moe_critical_path *path)
{
    uint32_t told = 0;
    if (!study->sensitivity_known) {
        moe_page_text(page,
                      study->arrivals == NULL
                          ? "How the verdict depends on the costs was not tested: attribution is "
                            "off."
                          : "How the verdict depends on the costs was not tested: of requests that "
                            "arrive over time it needs runs of its own (moved costs would change "
                            "who is in a step); compare with a calibration changed by 20 %%.");
        return;
    }
    for (uint32_t i = 0; i < study->flip_count; i++) {
        const struct moe_flip *flip = &study->flips[i];
        if (!is_measured(path, flip->part)) {
            moe_page_text(page, "If %s were 20 %% %s than its table says, %s would be best.",
                          moe_cost_part_name(flip->part), flip->scale < 1.0 ? "cheaper" : "dearer",
                          name_of(study, flip->winner));
            told++;
        }
    }
    if (told == 0) {
        moe_page_text(page, "No cost part, moved by 20 %% up or down, changes the verdict.");
    }
}

/* GPUs of the prior's slow tail may change a verdict more than any price: they are named. */
static void say_slow_gpus(struct moe_page *page, const struct moe_study *study)
{
    enum { NAMED = 8 };
    char text[768] = "";
    size_t used = 0;
    uint32_t slow = 0;
    uint32_t all = 0;
    for (uint32_t i = 0; i < study->seed_count; i++) {
        const struct moe_run_result *run = moe_finding_run_of_seed(study, i);
        for (uint32_t gpu = 0; gpu < run->gpu_count; gpu++) {
            const struct moe_gpu_factor *f = &run->gpu_factor[gpu];
            all++;
            slow += run->gpu_in_tail[gpu];
            if (run->gpu_in_tail[gpu] && slow <= NAMED && used < sizeof text - 1) {
                used += (size_t) snprintf(
                    text + used, sizeof text - used,
                    "%sGPU %u of seed %llu (compute %.2f, memory %.2f, comm %.2f)",
                    slow == 1 ? "" : ", ", gpu, (unsigned long long) run->seed, f->compute,
                    f->memory, f->comm);
            }
        }
    }
    if (slow > 0) {
        moe_page_text(
            page, "Of the %u simulated GPUs %u %s in the slow tail of the hardware prior: %s%s.",
            all, slow, slow == 1 ? "is" : "are", text, slow > NAMED ? " and others" : "");
    }
}

/* Held-out error against its gate, and that of uneven rows: "2.9 %, P95 9.1 %; ..". */
static size_t say_error(char *text, size_t bytes, const char *what,
                        const struct moe_calibration_fit_quality *row)
{
    if (row == NULL || row->checked == 0) {
        return 0;
    }
    const size_t used = (size_t) snprintf(text, bytes, "%s %.1f %%, P95 %.1f %%", what,
                                          100.0 * row->mape, 100.0 * row->p95);
    return used < bytes ? used : bytes - 1;
}

static void source_text(char *text, size_t bytes, const struct moe_cost_source *source)
{
    const struct moe_calibration_fit_quality *held = source->heldout;
    size_t used = 0;
    if (source->provenance > MOE_PROVENANCE_EXTRAPOLATED) {
        (void) snprintf(text, bytes, "%s: %s", moe_provenance_name(source->provenance),
                        source->source);
        return;
    }
    if (held == NULL || held->status == MOE_FIT_UNCHECKED) {
        (void) snprintf(text, bytes, "measured; nothing was held out to check it");
        return;
    }
    used = (size_t) snprintf(text, bytes, "measured; %s its gate: ",
                             held->status == MOE_FIT_MISSED ? "MISSED" : "meets");
    used += say_error(text + used, bytes - used, "held-out", held);
    if (held->gate_p95 < 1.0) {
        used += (size_t) snprintf(text + used, bytes - used, " against %g %%, %g %%",
                                  100.0 * held->gate_mape, 100.0 * held->gate_p95);
    } else {
        used +=
            (size_t) snprintf(text + used, bytes - used, " against %g %%", 100.0 * held->gate_mape);
    }
    if (source->skew != NULL && source->skew->checked > 0) {
        used += (size_t) snprintf(text + used, bytes - used, "; ");
        (void) say_error(text + used, bytes - used, "uneven rows", source->skew);
    }
}

/* Which table each part takes, where a fit made some of them: what it did not measure is filled
 * from elsewhere, and what missed its gate says so. */
static void say_sources(struct moe_page *page, const struct moe_study *study)
{
    bool missed = false;
    if (!study->is_fitted) {
        return;
    }
    moe_page_gap(page);
    for (uint32_t i = 0; i < study->source_count; i++) {
        const struct moe_cost_source *source = &study->sources[i];
        const bool again = i > 0 && study->sources[i - 1].part == source->part;
        char text[600];
        source_text(text, sizeof text, source);
        missed = missed || (source->provenance == MOE_PROVENANCE_EXTRAPOLATED);
        moe_page_field(page, again ? "" : moe_cost_part_name(source->part), "%s: %s", source->table,
                       text);
    }
    if (missed) {
        moe_page_text(page,
                      "Tables that missed their gate count as extrapolated between their points.");
    }
}

void moe_section_provenance(struct moe_page *page, const struct moe_study *study)
{
    if (study->best == study->policy_count) {
        return;
    }
    const struct moe_critical_path path = moe_finding_path(study, study->best);
    char aside[MOE_COMPOSITION_BYTES + 64];
    (void) snprintf(aside, sizeof aside, "share of the predicted time of %s",
                    name_of(study, study->best));
    moe_page_heading(page, "How sure: where the costs come from", aside);
    provenance_grid(page, study, &path);
    say_sensitivity(page, study, &path);
    say_slow_gpus(page, study);
    say_sources(page, study);
}
