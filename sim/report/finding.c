#include "sim/report/finding.h"

#include <assert.h>

#include "sim/model/model.h"

enum { SEED_LIMIT = 100 }; /* as scenario.seeds allows */

const char *moe_finding_mark(const struct moe_study *study, uint32_t policy)
{
    const struct moe_policy_summary *p = &study->policies[policy];
    return !p->fits                             ? "does not fit"
           : p->best                            ? "best"
           : p->tie                             ? "tie"
           : p->oracle                          ? "oracle"
           : policy == study->baseline          ? "baseline"
           : study->best == study->policy_count ? "not ranked"
                                                : "behind";
}

const char *moe_finding_why(const struct moe_study *study, uint32_t policy)
{
    for (uint32_t i = 0; i < study->seed_count; i++) {
        if (!study->policies[policy].runs[i].fits) {
            return study->policies[policy].runs[i].why;
        }
    }
    return "";
}

const struct moe_run_result *moe_finding_run_of_seed(const struct moe_study *study, uint32_t seed)
{
    for (uint32_t i = 0; i < study->policy_count; i++) {
        if (study->policies[i].fits) {
            return &study->policies[i].runs[seed];
        }
    }
    return NULL;
}

static const struct {
    const char *name;
    const char *unit;
} plan_figures[MOE_PLAN_FIGURE_COUNT] = {
    [MOE_PLAN_KV_TOKENS] = { "kv_tokens_per_gpu", "tokens" },
    [MOE_PLAN_LARGEST_BATCH] = { "largest_batch_per_gpu", "requests" },
    [MOE_PLAN_REPLICA_BYTES] = { "replica_bytes", "B" },
    [MOE_PLAN_MOVED_BYTES] = { "moved_bytes", "B" },
};

const char *moe_plan_figure_name(enum moe_plan_figure figure)
{
    return plan_figures[figure].name;
}

const char *moe_plan_figure_unit(enum moe_plan_figure figure)
{
    return plan_figures[figure].unit;
}

double moe_plan_figure_value(const struct moe_study *study, const struct moe_run_result *run,
                             enum moe_plan_figure figure)
{
    switch (figure) {
    case MOE_PLAN_KV_TOKENS:
        return (double) run->memory.kv_tokens;
    case MOE_PLAN_LARGEST_BATCH:
        return (double) moe_memory_largest_batch(&run->memory, study->mean_request_tokens);
    case MOE_PLAN_REPLICA_BYTES:
        return run->memory.copy_bytes;
    case MOE_PLAN_MOVED_BYTES:
        return (double) run->moved_slots * moe_model_expert_bytes(&study->scenario->model);
    case MOE_PLAN_FIGURE_COUNT:
        break;
    }
    assert(0);
    return 0.0;
}

struct moe_estimate moe_plan_figure_estimate(const struct moe_study *study, uint32_t policy,
                                             enum moe_plan_figure figure)
{
    double values[SEED_LIMIT];
    assert(study->seed_count <= SEED_LIMIT);
    for (uint32_t i = 0; i < study->seed_count; i++) {
        values[i] = moe_plan_figure_value(study, &study->policies[policy].runs[i], figure);
    }
    return moe_estimate_of(values, study->seed_count);
}

uint64_t moe_finding_tokens_due(const struct moe_study *study)
{
    if (study->arrivals != NULL) {
        const struct moe_arrival_survey *come = &study->survey;
        return come->prompt_tokens + come->output_tokens - come->count;
    }
    return study->planned_tokens +
           study->scenario->serving.passes * (study->trace_tokens - study->planned_tokens);
}

struct moe_token_account moe_finding_replayed(const struct moe_run_result *run)
{
    struct moe_token_account sum = { 0 };
    for (uint32_t phase = 0; phase < MOE_PHASE_COUNT; phase++) {
        const struct moe_token_account *a = &run->account[phase];
        sum.steps += a->steps;
        sum.tokens += a->tokens;
        sum.output_tokens += a->output_tokens;
        sum.requests += a->requests;
        sum.assignments += a->assignments;
        sum.time_ns += a->time_ns;
    }
    return sum;
}

bool moe_finding_accounted(const struct moe_study *study, const struct moe_run_result *run)
{
    const struct moe_token_account sum = moe_finding_replayed(run);
    const struct moe_model *model = &study->scenario->model;
    const uint32_t layers = moe_scenario_samples_layers(study->scenario)
                                ? study->scenario->counted_layers
                                : model->moe_layer_count;
    const bool closed = study->scenario->arrivals.kind == MOE_ARRIVAL_CLOSED;
    const uint64_t due = closed ? moe_finding_tokens_due(study) : run->served_rows;
    if (run->prefill != NULL && !moe_finding_accounted(study, run->prefill)) {
        return false;
    }
    return sum.tokens ==
               due - run->hit_rows + run->recomputed_rows + run->rejected_rows + run->lost_rows &&
           sum.assignments == sum.tokens * layers * model->top_k;
}

bool moe_finding_all_accounted(const struct moe_study *study)
{
    for (uint32_t policy = 0; policy < study->policy_count; policy++) {
        for (uint32_t i = 0; i < study->seed_count; i++) {
            const struct moe_run_result *run = &study->policies[policy].runs[i];
            if (run->fits && !moe_finding_accounted(study, run)) {
                return false;
            }
        }
    }
    return true;
}

struct moe_estimate moe_finding_without(const struct moe_study *study, uint32_t policy,
                                        uint32_t causes)
{
    double ratio[SEED_LIMIT];
    assert(study->seed_count <= SEED_LIMIT);
    for (uint32_t i = 0; i < study->seed_count; i++) {
        const moe_time_ns *ns = study->policies[policy].runs[i].subset_time_ns;
        assert(study->policies[policy].runs[i].attributed);
        ratio[i] = (double) ns[MOE_CAUSE_ALL] / (double) ns[MOE_CAUSE_ALL & ~causes];
    }
    return moe_estimate_of(ratio, study->seed_count);
}

/* Sum of one load over that of the mean. */
static double load_ratio(const struct moe_study *study, uint32_t policy, bool no_copy)
{
    double load = 0.0;
    double mean = 0.0;
    for (uint32_t i = 0; i < study->seed_count; i++) {
        const struct moe_run_result *run = &study->policies[policy].runs[i];
        load += no_copy ? run->no_copy_load_sum : run->max_load_sum;
        mean += run->mean_load_sum;
    }
    return mean > 0.0 ? load / mean : 1.0;
}

double moe_finding_imbalance(const struct moe_study *study, uint32_t policy)
{
    return load_ratio(study, policy, false);
}

double moe_finding_no_copy_imbalance(const struct moe_study *study, uint32_t policy)
{
    return load_ratio(study, policy, true);
}

uint32_t moe_finding_oracle(const struct moe_study *study)
{
    uint32_t best = study->policy_count;
    for (uint32_t i = 0; i < study->policy_count; i++) {
        const struct moe_policy_summary *p = &study->policies[i];
        if (p->fits && p->oracle &&
            (best == study->policy_count || p->speedup.mean > study->policies[best].speedup.mean)) {
            best = i;
        }
    }
    return best;
}

void moe_finding_profile(const struct moe_study *study, uint32_t policy,
                         struct moe_step_profile *profile)
{
    *profile = (struct moe_step_profile){ 0 };
    for (uint32_t i = 0; i < study->seed_count; i++) {
        moe_step_profile_merge(profile, &study->policies[policy].runs[i].profile);
    }
}

struct moe_critical_path moe_finding_path(const struct moe_study *study, uint32_t policy)
{
    struct moe_critical_path sum = { 0 };
    for (uint32_t i = 0; i < study->seed_count; i++) {
        const struct moe_critical_path *path = &study->policies[policy].runs[i].path;
        for (uint32_t part = 0; part < MOE_COST_PART_COUNT; part++) {
            for (uint32_t source = 0; source < MOE_PROVENANCE_COUNT; source++) {
                sum.ns[part][source] += path->ns[part][source];
            }
        }
    }
    return sum;
}

moe_time_ns moe_finding_part_ns(const struct moe_critical_path *path, enum moe_cost_part part)
{
    moe_time_ns sum = 0;
    for (uint32_t source = 0; source < MOE_PROVENANCE_COUNT; source++) {
        sum += path->ns[part][source];
    }
    return sum;
}

moe_time_ns moe_finding_provenance_ns(const struct moe_critical_path *path,
                                      enum moe_provenance provenance)
{
    moe_time_ns sum = 0;
    for (uint32_t part = 0; part < MOE_COST_PART_COUNT; part++) {
        sum += path->ns[part][provenance];
    }
    return sum;
}

moe_time_ns moe_finding_path_ns(const struct moe_critical_path *path)
{
    moe_time_ns sum = 0;
    for (uint32_t part = 0; part < MOE_COST_PART_COUNT; part++) {
        sum += moe_finding_part_ns(path, (enum moe_cost_part) part);
    }
    return sum;
}

struct moe_finding_excess moe_finding_excess(const struct moe_study *study, uint32_t policy)
{
    struct moe_finding_excess sum = { 0 };
    for (uint32_t i = 0; i < study->seed_count; i++) {
        const struct moe_run_result *run = &study->policies[policy].runs[i];
        const struct moe_token_account *scored = &run->account[MOE_PHASE_SCORED];
        sum.idle_ns += run->idle_ns;
        sum.time_ns += scored->time_ns * run->gpu_count;
        sum.steps += scored->steps;
        sum.barriers += run->barriers;
        for (uint32_t cause = 0; run->attributed && cause < MOE_CAUSE_COUNT; cause++) {
            sum.cause_ns[cause] += run->cause_idle_ns[cause];
        }
    }
    return sum;
}

/* The larger, or the smaller, of each class. */
static struct moe_gpu_factor factor_of(const struct moe_gpu_factor *a,
                                       const struct moe_gpu_factor *b, bool larger)
{
    return (struct moe_gpu_factor){
        .compute = (a->compute > b->compute) == larger ? a->compute : b->compute,
        .memory = (a->memory > b->memory) == larger ? a->memory : b->memory,
        .comm = (a->comm > b->comm) == larger ? a->comm : b->comm,
    };
}

/* A what-if that lasts holds for both bounds; one that begins or ends for the one it moves. */
static void apply_event(const struct moe_hardware_event *event, struct moe_finding_rank *rank)
{
    const bool lasts = event->begin_ns == 0 && event->end_ns == INT64_MAX;
    const bool slows = event->factor > 1.0;
    struct moe_gpu_factor *const bounds[] = { &rank->low, &rank->high };
    for (uint32_t i = 0; i < 2; i++) {
        if (!lasts && slows != (bounds[i] == &rank->high)) {
            continue;
        }
        if (event->kind == MOE_HARDWARE_SLOW) {
            bounds[i]->compute *= event->factor;
            bounds[i]->memory *= event->factor;
        } else if (event->kind == MOE_HARDWARE_LINK) {
            bounds[i]->comm *= event->factor;
        }
    }
}

struct moe_finding_rank moe_finding_rank_of(const struct moe_study *study, uint32_t policy,
                                            uint32_t gpu)
{
    struct moe_finding_rank rank = {
        .gpu = gpu,
        .node = gpu / study->scenario->cluster.gpus_per_node,
    };
    const struct moe_hardware_options *hardware = &study->scenario->hardware;
    for (uint32_t i = 0; i < study->seed_count; i++) {
        const struct moe_run_result *run = &study->policies[policy].runs[i];
        const struct moe_gpu_factor *f = &run->gpu_factor[gpu];
        rank.last += run->gpu_last[gpu];
        rank.lead_ns += run->gpu_lead_ns[gpu];
        rank.low = i == 0 ? *f : factor_of(&rank.low, f, false);
        rank.high = i == 0 ? *f : factor_of(&rank.high, f, true);
    }
    for (uint32_t i = 0; i < hardware->event_count; i++) {
        if (hardware->event[i].gpu == gpu) {
            apply_event(&hardware->event[i], &rank);
        }
    }
    return rank;
}

struct moe_finding_layer moe_finding_layer_of(const struct moe_study *study, uint32_t policy,
                                              uint32_t layer)
{
    struct moe_finding_layer found = { .layer = layer };
    double max = 0.0;
    double mean = 0.0;
    for (uint32_t i = 0; i < study->seed_count; i++) {
        const struct moe_run_result *run = &study->policies[policy].runs[i];
        found.idle_ns += run->layer_idle_ns[layer];
        max += run->layer_max_load[layer];
        mean += run->layer_mean_load[layer];
    }
    found.imbalance = mean > 0.0 ? max / mean : 1.0;
    return found;
}

struct moe_finding_expert moe_finding_expert_of(const struct moe_study *study, uint32_t policy,
                                                uint32_t layer, uint32_t expert)
{
    struct moe_finding_expert found = { .layer = layer, .expert = expert };
    const struct moe_run_result *first = study->policies[policy].runs;
    const size_t row = (size_t) layer * first->expert_count;
    uint64_t all = 0;
    for (uint32_t i = 0; i < study->seed_count; i++) {
        const struct moe_run_result *run = &study->policies[policy].runs[i];
        found.tokens += run->expert_tokens[row + expert];
        found.lead_ns += run->expert_lead_ns[row + expert];
        for (uint32_t other = 0; other < first->expert_count; other++) {
            all += run->expert_tokens[row + other];
        }
    }
    found.share = all > 0 ? (double) found.tokens / (double) all : 0.0;
    const uint16_t *slots = first->expert_of_slot + (size_t) layer * first->slot_count;
    for (uint32_t slot = 0; slot < first->slot_count; slot++) {
        found.copies += slots[slot] == expert;
    }
    return found;
}

/* Places of the limit largest of count values, largest first, the lower index first among
 * equals; zeros are left out. value(context, index) >= 0. */
struct ranking {
    const struct moe_study *study;
    uint32_t policy;
};

enum { WORST_LIMIT = 64 };

static uint32_t rank_largest(const struct ranking *ranking,
                             int64_t (*value)(const struct ranking *, uint32_t), uint32_t count,
                             uint32_t *place, uint32_t limit)
{
    int64_t held[WORST_LIMIT] = { 0 };
    uint32_t found = 0;
    assert(limit > 0);
    assert(limit <= WORST_LIMIT);
    for (uint32_t i = 0; i < count; i++) {
        const int64_t v = value(ranking, i);
        if (v <= 0 || (found == limit && v <= held[found - 1])) {
            continue;
        }
        uint32_t at = found < limit ? found++ : found - 1;
        for (; at > 0 && held[at - 1] < v; at--) {
            held[at] = held[at - 1];
            place[at] = place[at - 1];
        }
        held[at] = v;
        place[at] = i;
    }
    return found;
}

static int64_t rank_value(const struct ranking *r, uint32_t gpu)
{
    int64_t last = 0;
    for (uint32_t i = 0; i < r->study->seed_count; i++) {
        last += (int64_t) r->study->policies[r->policy].runs[i].gpu_last[gpu];
    }
    return last;
}

static int64_t layer_value(const struct ranking *r, uint32_t layer)
{
    int64_t idle = 0;
    for (uint32_t i = 0; i < r->study->seed_count; i++) {
        idle += r->study->policies[r->policy].runs[i].layer_idle_ns[layer];
    }
    return idle;
}

static int64_t expert_value(const struct ranking *r, uint32_t cell)
{
    int64_t lead = 0;
    for (uint32_t i = 0; i < r->study->seed_count; i++) {
        lead += r->study->policies[r->policy].runs[i].expert_lead_ns[cell];
    }
    return lead;
}

uint32_t moe_finding_worst_ranks(const struct moe_study *study, uint32_t policy,
                                 struct moe_finding_rank *worst, uint32_t limit)
{
    const struct ranking ranking = { study, policy };
    uint32_t place[WORST_LIMIT];
    const uint32_t found =
        rank_largest(&ranking, rank_value, study->policies[policy].runs->gpu_count, place, limit);
    for (uint32_t i = 0; i < found; i++) {
        worst[i] = moe_finding_rank_of(study, policy, place[i]);
    }
    return found;
}

uint32_t moe_finding_worst_layers(const struct moe_study *study, uint32_t policy,
                                  struct moe_finding_layer *worst, uint32_t limit)
{
    const struct ranking ranking = { study, policy };
    uint32_t place[WORST_LIMIT];
    const uint32_t found = rank_largest(&ranking, layer_value,
                                        study->policies[policy].runs->layer_count, place, limit);
    for (uint32_t i = 0; i < found; i++) {
        worst[i] = moe_finding_layer_of(study, policy, place[i]);
    }
    return found;
}

uint32_t moe_finding_worst_experts(const struct moe_study *study, uint32_t policy,
                                   struct moe_finding_expert *worst, uint32_t limit)
{
    const struct ranking ranking = { study, policy };
    const struct moe_run_result *first = study->policies[policy].runs;
    uint32_t place[WORST_LIMIT];
    const uint32_t found = rank_largest(&ranking, expert_value,
                                        first->layer_count * first->expert_count, place, limit);
    for (uint32_t i = 0; i < found; i++) {
        worst[i] = moe_finding_expert_of(study, policy, place[i] / first->expert_count,
                                         place[i] % first->expert_count);
    }
    return found;
}
