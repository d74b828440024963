/* What was asked, and that every token of the trace was replayed. */
#include <inttypes.h>
#include <string.h>

#include "sim/report/figure.h"
#include "sim/report/finding.h"
#include "sim/report/section.h"
#include "sim/scenario/deployment.h"

#define COUNT(value) moe_figure_count(value).text

static const char *plural(uint64_t count)
{
    return count == 1 ? "" : "s";
}

struct link_words {
    char text[32];
};

static struct link_words link_words(double bytes_s)
{
    struct link_words words = { "as calibrated" };
    if (bytes_s > 0.0) {
        (void) snprintf(words.text, sizeof words.text, "%g GB/s", bytes_s / 1e9);
    }
    return words;
}

static void model_and_cluster(struct moe_page *page, const struct moe_study *study)
{
    const struct moe_scenario *s = study->scenario;
    const struct moe_model *m = &s->model;
    const uint32_t gpus = moe_cluster_gpu_count(&s->cluster);
    const uint32_t spare = s->slot_count - m->expert_count;
    moe_page_field(page, "model",
                   "%s (%s): %u layers, %u of them with %u experts, top-%u; "
                   "%.1f MB per expert",
                   m->name, m->source, m->layer_count, m->moe_layer_count, m->expert_count,
                   m->top_k, moe_model_expert_bytes(m) / 1e6);
    moe_page_field(page, "cluster",
                   "%u GPUs: %u node%s of %u %s with %s GB each, %s GB of it kept "
                   "for workspace and communication",
                   gpus, s->cluster.node_count, plural(s->cluster.node_count),
                   s->cluster.gpus_per_node, s->cluster.gpu,
                   moe_figure_gigabytes(study->policies[0].runs[0].memory.gpu_bytes).text,
                   moe_figure_gigabytes(s->cluster.reserve_bytes).text);
    if (s->cluster.near_bytes_s > 0.0 || s->cluster.far_bytes_s > 0.0) {
        moe_page_field(page, "links", "assumed: %s for each GPU inside its node, %s between nodes",
                       link_words(s->cluster.near_bytes_s).text,
                       link_words(s->cluster.far_bytes_s).text);
    }
    moe_section_pools_asked(page, s);
    if (moe_deployment_has_pools(s)) {
        return;
    }
    moe_page_field(page, "slots",
                   "%s per layer, %u on each GPU: room for %u cop%s beside the %u "
                   "experts",
                   COUNT(s->slot_count), s->slot_count / gpus, spare, spare == 1 ? "y" : "ies",
                   m->expert_count);
    if (s->replica_budget > 0) {
        moe_page_field(page, "", "at most %s cop%s in all layers together",
                       COUNT(s->replica_budget), s->replica_budget == 1 ? "y" : "ies");
    }
}

/* What the replay adds to the recording; nothing when model and trace are one. */
static void replay_notes(struct moe_page *page, const struct moe_study *study)
{
    const struct moe_model *m = &study->scenario->model;
    const struct moe_trace_model *t = &study->trace_model;
    const char *label = "replay";
    if (strcmp(m->name, t->name) != 0) {
        moe_page_field(page, label, "assumed: routing of %s with the sizes of %s", t->name,
                       m->name);
        label = "";
    }
    if (m->moe_layer_count > t->layer_count) {
        moe_page_field(
            page, label,
            "assumed: %u trace layer%s replayed as %u; a layer that is used again has its "
            "experts permuted",
            t->layer_count, plural(t->layer_count), m->moe_layer_count);
    } else if (m->moe_layer_count < t->layer_count) {
        moe_page_field(page, label, "assumed: the first %u of %u trace layers stand for the model",
                       m->moe_layer_count, t->layer_count);
    }
    if (moe_scenario_samples_layers(study->scenario)) {
        moe_page_field(page, "sample",
                       "assumed: routes are counted in %u of %u layers, drawn anew in each step; "
                       "each other layer has the work of one of them",
                       study->scenario->counted_layers, m->moe_layer_count);
    }
}

static const char *const exchange_words[] = {
    [MOE_EXCHANGE_EXACT] = "by exact counts, every copy straight to its GPU",
    [MOE_EXCHANGE_PADDED] = "padded to the longest",
    [MOE_EXCHANGE_HIERARCHICAL] = "by exact counts, between nodes one copy per token and node",
    [MOE_EXCHANGE_LOW_LATENCY] = "of a message for every token and expert, straight to its GPU",
    [MOE_EXCHANGE_ALL_GATHER] = "replaced by gathering all tokens and scattering the sums",
};

static void say_runs(struct moe_page *page, const struct moe_study *study)
{
    const struct moe_scenario *s = study->scenario;
    moe_page_field(page, "runs",
                   "%u polic%s, %u seed%s from %" PRIu64 "; hardware differences and "
                   "jitter %s; %s is the baseline",
                   study->policy_count, study->policy_count == 1 ? "y" : "ies", study->seed_count,
                   plural(study->seed_count), s->first_seed, s->noise ? "on" : "off", s->baseline);
    moe_page_field(page, "costs", "%s, hash %s",
                   s->calibration_path[0] == '\0' ? "the table that ships with moesim"
                                                  : s->calibration_path,
                   moe_figure_hash(study->calibration_hash).text);
}

/* Ways to serve and what-ifs that are not the default. */
static void say_ways(struct moe_page *page, const struct moe_scenario *s)
{
    const struct moe_serving *v = &s->serving;
    if (v->kv == MOE_KV_PAGES) {
        moe_page_field(page, "cache",
                       "KV pages of %u tokens; when they run out %s gives way, and "
                       "computes its cache again; admission keeps %s of outputs to come free",
                       v->page_tokens,
                       v->preempt == MOE_PREEMPT_LAST_ADMITTED ? "the request admitted last"
                                                               : "that with least output",
                       moe_figure_share(v->output_reserve).text);
    }
    if (v->order == MOE_BATCH_PREFILL_FIRST) {
        moe_page_field(page, "batches", "a rank with prompts to read reads nothing else");
    }
    if (v->attention_ranks > 1) {
        moe_page_field(page, "attention",
                       "tensor parallel over %u GPUs, which are one rank: requests and tokens "
                       "stated for a GPU are those of a rank",
                       v->attention_ranks);
    }
    if (v->graph_size_count > 0) {
        moe_page_field(page, "graphs", "decode batches padded to %s tokens", v->graph_sizes_text);
    }
    if (v->overlap == MOE_OVERLAP_TWO_BATCH) {
        moe_page_field(page, "overlap",
                       "steps run in two halves where every rank has %s tokens or more: one "
                       "exchanges while the other computes",
                       COUNT(v->overlap_tokens));
    }
    if (v->drafts > 0) {
        moe_page_field(
            page, "drafts",
            "%u a step, accepted with probability %s each after those before it; %s", v->drafts,
            v->acceptance_count > 0 ? v->acceptances_text : moe_figure_fixed(v->acceptance, 2).text,
            v->draft_layers > 0 ? "what they cost is in steps and memory, with routes of "
                                  "the last MoE layer (assumed)"
                                : "drafting itself is free of charge");
    }
    if (s->hardware.clock == MOE_CLOCK_SUSTAINED) {
        moe_page_field(page, "clock", "as under load that lasts");
    }
    for (uint32_t i = 0; i < s->hardware.event_count; i++) {
        moe_page_field(page, i == 0 ? "what if" : "", "%s", s->hardware.events[i]);
    }
}

static void serving_and_runs(struct moe_page *page, const struct moe_study *study)
{
    const struct moe_scenario *s = study->scenario;
    const struct moe_serving *v = &s->serving;
    moe_section_arrivals(page, study);
    moe_page_field(page, "serving",
                   "%s%s requests running on each GPU, at most %s tokens "
                   "per GPU and step; prefill and decode %s; all-to-all %s%s; shared expert %s",
                   study->arrivals == NULL ? "closed loop, " : "at most ",
                   COUNT(v->running_per_gpu), COUNT(v->step_tokens),
                   moe_deployment_has_pools(s) ? "apart" : "together", exchange_words[v->exchange],
                   v->common_exit ? ", left together" : "",
                   v->shared == MOE_SHARED_SERIAL ? "after the dispatch" : "beside the dispatch");
    say_ways(page, s);
    if (study->arrivals != NULL) {
        moe_page_field(page, "plan, score",
                       "planned on the first %s requests; those that come take the routes of the "
                       "other %s",
                       COUNT(study->planned_requests),
                       COUNT(study->trace_requests - study->planned_requests));
        say_runs(page, study);
        return;
    }
    moe_page_field(page, "plan, score",
                   "planned on the first %s requests, scored on the other %s%s%s%s; those planned "
                   "on are replayed last, unscored",
                   COUNT(study->planned_requests),
                   COUNT(study->trace_requests - study->planned_requests),
                   v->passes == 1 ? "" : ", replayed ", v->passes == 1 ? "" : COUNT(v->passes),
                   v->passes == 1 ? "" : " times");
    say_runs(page, study);
}

void moe_section_asked(struct moe_page *page, const struct moe_study *study, const char *chosen)
{
    moe_page_heading(page, "Asked", "");
    model_and_cluster(page, study);
    moe_page_field(page, "trace", "%s (%s): %s requests of %.0f tokens on average, hash %s",
                   study->trace_model.name, study->scenario->trace_path,
                   COUNT(study->trace_requests), study->mean_request_tokens,
                   moe_figure_hash(study->trace_hash).text);
    replay_notes(page, study);
    serving_and_runs(page, study);
    if (chosen != NULL) {
        moe_page_field(page, "defaults", "%s", chosen);
    }
}

/* "a", or "a to b" when runs differ. */
struct span {
    uint64_t low;
    uint64_t high;
};

static void widen(struct span *span, bool first, uint64_t value)
{
    span->low = first || value < span->low ? value : span->low;
    span->high = first || value > span->high ? value : span->high;
}

static const char *show(const struct span *span, char *text, size_t text_bytes)
{
    if (span->low == span->high) {
        (void) snprintf(text, text_bytes, "%s", COUNT(span->low));
    } else {
        (void) snprintf(text, text_bytes, "%s to %s", COUNT(span->low), COUNT(span->high));
    }
    return text;
}

struct account_spans {
    struct span phase[MOE_PHASE_COUNT];
    struct span assignments;
    uint64_t all_assignments;
    uint64_t unknown;
    uint32_t runs;
};

static struct account_spans spans_of(const struct moe_study *study)
{
    struct account_spans spans = { 0 };
    for (uint32_t policy = 0; policy < study->policy_count; policy++) {
        for (uint32_t i = 0; i < study->seed_count; i++) {
            const struct moe_run_result *run = &study->policies[policy].runs[i];
            if (!run->fits) {
                continue;
            }
            const uint64_t assignments = moe_finding_replayed(run).assignments;
            for (uint32_t phase = 0; phase < MOE_PHASE_COUNT; phase++) {
                widen(&spans.phase[phase], spans.runs == 0, run->account[phase].tokens);
            }
            widen(&spans.assignments, spans.runs == 0, assignments);
            spans.all_assignments += assignments;
            spans.unknown += run->unknown_assignments;
            spans.runs++;
        }
    }
    return spans;
}

/* What dropping dispatch policies left without an expert: the price of their balance. */
static void say_dropped(struct moe_page *page, const struct moe_study *study)
{
    const char *label = "dropped";
    for (uint32_t policy = 0; policy < study->policy_count; policy++) {
        uint64_t dropped = 0;
        uint64_t all = 0;
        for (uint32_t i = 0; i < study->seed_count; i++) {
            const struct moe_run_result *run = &study->policies[policy].runs[i];
            dropped += run->dropped_assignments;
            all += run->fits ? moe_finding_replayed(run).assignments : 0;
        }
        if (dropped > 0) {
            moe_page_field(page, label, "%s of them under %s: no quota was left for them",
                           moe_figure_share((double) dropped / (double) all).text,
                           study->policies[policy].composition.label);
            label = "";
        }
    }
}

/* Requests that a GPU took with it when it died. */
static void say_lost(struct moe_page *page, const struct moe_study *study)
{
    for (uint32_t i = 0; i < study->policy_count; i++) {
        const struct moe_run_result *run = &study->policies[i].runs[0];
        if (run->fits && run->dead_gpus > 0) {
            moe_page_field(page, "lost",
                           "%s: %u GPU%s died in the first seed's run; %s requests "
                           "began anew on others",
                           study->policies[i].composition.label, run->dead_gpus,
                           plural(run->dead_gpus), COUNT(run->lost_requests));
        }
    }
}

void moe_section_account(struct moe_page *page, const struct moe_study *study)
{
    const struct account_spans spans = spans_of(study);
    const uint64_t rest = study->trace_tokens - study->planned_tokens;
    const uint32_t passes = study->scenario->serving.passes;
    char text[MOE_PHASE_COUNT][112];
    char activations[112];
    moe_page_heading(page, "Tokens", "");
    moe_page_field(page, "trace", "%s = %s planned on + %s to score", COUNT(study->trace_tokens),
                   COUNT(study->planned_tokens), COUNT(rest));
    if (spans.runs == 0) {
        return;
    }
    moe_page_field(page, "each run", "%s warm-up + %s scored + %s drain",
                   show(&spans.phase[MOE_PHASE_WARMUP], text[0], sizeof text[0]),
                   show(&spans.phase[MOE_PHASE_SCORED], text[1], sizeof text[1]),
                   show(&spans.phase[MOE_PHASE_DRAIN], text[2], sizeof text[2]));
    moe_page_field(page, "", "warm-up: until %s; drain: after the last to score was admitted",
                   study->arrivals == NULL
                       ? "as many requests have ended as run at once"
                       : "a tenth of the requests, or as many as run at once, have ended");
    moe_page_field(page, "activations",
                   "%s per run: each token, layer and choice once, at combine; %s unknown",
                   show(&spans.assignments, activations, sizeof activations),
                   moe_figure_share((double) spans.unknown / (double) spans.all_assignments).text);
    say_dropped(page, study);
    say_lost(page, study);
    if (study->audited) {
        moe_page_field(page, "audit",
                       "tokens, bytes, pages and time were conserved in every step of %u run%s",
                       spans.runs, plural(spans.runs));
    }
    if (moe_finding_all_accounted(study) && study->arrivals != NULL) {
        moe_page_field(page, "account",
                       "every token of the requests that came, %s under the first seed, was "
                       "processed in each of %u run%s%s",
                       COUNT(moe_finding_tokens_due(study)), spans.runs, plural(spans.runs),
                       study->arrivals->is_stretched ? "; routes repeated to these lengths" : "");
    } else if (moe_finding_all_accounted(study)) {
        moe_page_field(page, "account",
                       "all %s tokens of the trace were replayed in each of %u "
                       "run%s: those planned on once, the others %s%s",
                       COUNT(study->trace_tokens), spans.runs, plural(spans.runs),
                       passes == 1 ? "once" : COUNT(passes), passes == 1 ? " too" : " times");
    } else {
        moe_page_field(page, "account",
                       "WRONG: a run did not replay the %s tokens that were due; "
                       "please report this",
                       COUNT(moe_finding_tokens_due(study)));
    }
}
