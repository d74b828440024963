/* Balance on what follows: every place policy plans on one window and is scored on another.
 *
 *   study_placement [--development] [--sure] [--policies A,B:x=1] DATA_FOLDER TRACE...
 *     Markdown on stdout; - for DATA_FOLDER leaves all out that is not of a trace
 *
 * Cases: all ordered pairs of different DeepSeek-V3 expert loads, the next windows of recorded
 * iterations of two models, and of routing traces the next windows and other domains. Score of a
 * case: balancedness (mean / max GPU load, even split) averaged over layers and scored batches.
 * Policies that need the future, GPU speeds or what a case cannot give are left out of it.
 *
 * --sure prints another table: the lead of `best` with its standard error over cases, as if they
 * were independent, and policies that look at no load also under RENAMINGS other numberings of the
 * experts, since which experts are neighbours is luck where routers have no groups.
 *
 * --development scores other recordings instead, on which constants may be chosen: pairs of
 * Qwen3-30B's activation rates, the next iteration of Qwen1.5-MoE and Switch models, and requests
 * of the traces that are not scored otherwise. */
#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "policies/composition.h"
#include "policies/policy.h"
#include "sim/base/random.h"
#include "tests/study_window.h"
#include "tests/trace_window.h"

enum { POLICY_LIMIT = 64, CASE_LIMIT = 512, PLAN_BYTES = 4 << 20 };
enum { RENAMINGS = 32, RENAMED_EXPERTS = 256 };

#define SCRATCH_BYTES ((size_t) 1 << 30)

struct study {
    struct moe_arena plans;
    struct moe_arena scratch;
    struct moe_composition policy[POLICY_LIMIT];
    uint32_t policy_count;
    uint32_t best; /* which of them is ours */
    double score[POLICY_LIMIT][CASE_LIMIT];
    bool scored[POLICY_LIMIT];
    bool sure;                               /* print_sure's table */
    double renamed[POLICY_LIMIT][RENAMINGS]; /* scores summed over cases */
    uint32_t case_count;                     /* of the table being made */
};

static const struct moe_composition_part *place_part(const struct study *study, uint32_t i)
{
    return &study->policy[i].part[MOE_POLICY_PLACE];
}

static double score_plan(const struct moe_placement *plan, const struct study_window *window,
                         struct moe_arena *scratch)
{
    const size_t cells = (size_t) plan->shape.layer_count * plan->shape.expert_count;
    double *load = MOE_NEW(scratch, double, cells);
    double sum = 0.0;
    for (uint32_t batch = 0; batch < window->batch_count; batch++) {
        for (size_t i = 0; i < cells; i++) {
            load[i] = (double) window->batches[batch * cells + i];
        }
        sum += moe_placement_balancedness(plan, load, scratch);
    }
    return sum / window->batch_count;
}

/* The plan with other numbers for the experts of every layer. */
static void rename_experts(const struct moe_placement *plan, uint64_t renaming,
                           struct moe_placement *renamed)
{
    const uint64_t key = moe_random_key(renaming, MOE_RANDOM_TEST);
    uint16_t to[RENAMED_EXPERTS];
    for (uint32_t layer = 0; layer < plan->shape.layer_count; layer++) {
        const uint16_t *from = plan->expert_of_slot + (size_t) layer * plan->shape.slot_count;
        uint16_t *slots = moe_placement_layer(renamed, layer);
        for (uint32_t i = 0; i < plan->shape.expert_count; i++) {
            const uint64_t j = moe_random_below(key, (uint64_t) layer << 32 | i, i + 1);
            to[i] = (uint16_t) i;
            to[i] = to[j];
            to[j] = (uint16_t) i;
        }
        for (uint32_t slot = 0; slot < plan->shape.slot_count; slot++) {
            slots[slot] = from[slot] == MOE_SLOT_EMPTY ? MOE_SLOT_EMPTY : to[from[slot]];
        }
    }
}

static void score_renamed(struct study *study, uint32_t policy, const struct moe_placement *plan,
                          const struct study_window *const *to, uint32_t to_count)
{
    struct moe_placement renamed;
    if (plan->shape.expert_count > RENAMED_EXPERTS ||
        moe_placement_init(&renamed, &study->plans, &plan->shape, NULL) != MOE_OK) {
        (void) fprintf(stderr, "too many experts to rename\n");
        exit(EXIT_FAILURE);
    }
    for (uint32_t renaming = 0; renaming < RENAMINGS; renaming++) {
        rename_experts(plan, renaming, &renamed);
        for (uint32_t j = 0; j < to_count; j++) {
            moe_arena_reset(&study->scratch);
            study->renamed[policy][renaming] += score_plan(&renamed, to[j], &study->scratch);
        }
    }
}

/* Every policy plans on from and is scored on to[to_count], a case each. */
static void add_cases(struct study *study, const struct study_window *from,
                      const struct study_window *const *to, uint32_t to_count)
{
    static const struct moe_policy_topology topology = { 1.0, 9.0 };
    const struct moe_placement_shape *shape = &from->shape;
    struct moe_error err = { 0 };
    struct moe_placement previous;
    const struct moe_policy *contiguous = NULL;
    struct moe_place_view view = { .shape = *shape,
                                   .seed = 1,
                                   .load = from->load,
                                   .batch_count = from->batch_count,
                                   .batches = from->batches,
                                   .routes = from->routes,
                                   .topology = &topology };
    moe_arena_reset(&study->plans);
    moe_arena_reset(&study->scratch);
    if (moe_placement_init(&previous, &study->plans, shape, &err) != MOE_OK ||
        moe_policy_find(MOE_POLICY_PLACE, "contiguous", &contiguous, &err) != MOE_OK ||
        moe_policy_place(contiguous, &view, &study->scratch, &previous, &err) != MOE_OK) {
        (void) fprintf(stderr, "%s\n", err.text);
        exit(EXIT_FAILURE);
    }
    view.previous = &previous;
    for (uint32_t i = 0; i < study->policy_count; i++) {
        const struct moe_composition_part *part = place_part(study, i);
        struct moe_placement plan;
        moe_arena_reset(&study->scratch);
        if ((part->policy->needs & MOE_POLICY_NEEDS_ROUTES) != 0 && from->routes == NULL) {
            continue;
        }
        view.parameters = part->values;
        if (moe_placement_init(&plan, &study->plans, shape, &err) != MOE_OK ||
            moe_policy_place(part->policy, &view, &study->scratch, &plan, &err) != MOE_OK) {
            (void) fprintf(stderr, "left out: %s\n", err.text);
            continue;
        }
        study->scored[i] = true;
        for (uint32_t j = 0; j < to_count; j++) {
            moe_arena_reset(&study->scratch);
            study->score[i][study->case_count + j] = score_plan(&plan, to[j], &study->scratch);
        }
        if (study->sure && part->policy->needs == MOE_POLICY_NEEDS_NOTHING) {
            score_renamed(study, i, &plan, to, to_count);
        }
    }
    study->case_count += to_count;
}

/* From every window to all others. */
static void add_pairs(struct study *study, struct study_window *window, uint32_t count)
{
    const struct study_window *others[STUDY_SERIES_WINDOWS];
    for (uint32_t i = 0; i < count; i++) {
        uint32_t other_count = 0;
        for (uint32_t j = 0; j < count; j++) {
            if (j != i) {
                others[other_count++] = &window[j];
            }
        }
        add_cases(study, &window[i], others, other_count);
    }
}

/* Mean and standard deviation of count numbers. */
struct moments {
    double mean;
    double deviation;
};
static struct moments moments_of(const double *x, uint32_t count)
{
    struct moments m = { 0 };
    for (uint32_t i = 0; i < count; i++) {
        m.mean += x[i] / count;
    }
    for (uint32_t i = 0; i < count; i++) {
        m.deviation += (x[i] - m.mean) * (x[i] - m.mean);
    }
    m.deviation = count > 1 ? sqrt(m.deviation / (count - 1)) : 0.0;
    return m;
}

static void print_sure(const struct study *study)
{
    (void) printf("| policy | mean balancedness | best is ahead by | under other numberings | best "
                  "is ahead by |\n|---|---|---|---|---|\n");
    for (uint32_t i = 0; i < study->policy_count; i++) {
        double lead[CASE_LIMIT];
        double renamed[RENAMINGS];
        for (uint32_t j = 0; j < study->case_count; j++) {
            lead[j] = study->score[study->best][j] - study->score[i][j];
        }
        for (uint32_t j = 0; j < RENAMINGS; j++) {
            renamed[j] = study->renamed[i][j] / study->case_count;
        }
        const struct moments score = moments_of(study->score[i], study->case_count);
        const struct moments ahead = moments_of(lead, study->case_count);
        const struct moments other = moments_of(renamed, RENAMINGS);
        if (!study->scored[i]) {
            continue;
        }
        (void) printf("| %s | %.4f | %+.4f +- %.4f |", study->policy[i].label, score.mean,
                      ahead.mean, ahead.deviation / sqrt(study->case_count));
        if (place_part(study, i)->policy->needs == MOE_POLICY_NEEDS_NOTHING) {
            (void) printf(" %.4f, deviation %.4f | %+.4f |\n", other.mean, other.deviation,
                          score.mean + ahead.mean - other.mean);
        } else {
            (void) printf(" | |\n");
        }
    }
}

static void print_leads(const struct study *study)
{
    const double *best = study->score[study->best];
    (void) printf(
        "| policy | mean balancedness | best is ahead by | best at least equal in | worst "
        "for best |\n|---|---|---|---|---|\n");
    for (uint32_t i = 0; i < study->policy_count; i++) {
        double sum = 0.0;
        double ours = 0.0;
        double worst = 1.0;
        uint32_t equal = 0;
        if (!study->scored[i]) {
            continue;
        }
        for (uint32_t j = 0; j < study->case_count; j++) {
            const double ahead = best[j] - study->score[i][j];
            sum += study->score[i][j];
            ours += best[j];
            equal += ahead >= 0.0;
            worst = ahead < worst ? ahead : worst;
        }
        (void) printf("| %s | %.4f | %+.4f | %u of %u | %+.4f |\n", study->policy[i].label,
                      sum / study->case_count, (ours - sum) / study->case_count, equal,
                      study->case_count, worst);
    }
}

static void print_table(struct study *study, const char *title)
{
    (void) printf("\n## %s\n\n%u cases.\n\n", title, study->case_count);
    if (study->sure) {
        print_sure(study);
    } else {
        print_leads(study);
    }
    (void) fflush(stdout);
    study->case_count = 0;
    memset(study->scored, 0, sizeof study->scored);
    memset(study->renamed, 0, sizeof study->renamed);
}

static void study_dsv3(struct study *study, const char *folder, uint32_t node_count)
{
    struct study_window window[STUDY_DSV3_FILES];
    char title[128];
    study_window_read_dsv3(folder, node_count, window);
    add_pairs(study, window, STUDY_DSV3_FILES);
    (void) snprintf(title, sizeof title,
                    "DeepSeek-V3, one workload to another (288 slots, 32 GPUs, %s)",
                    node_count == 1 ? "one node" : "four nodes");
    print_table(study, title);
    for (uint32_t i = 0; i < STUDY_DSV3_FILES; i++) {
        study_window_drop(&window[i]);
    }
}

static void study_series(struct study *study, const char *folder, const struct study_series *series)
{
    const uint32_t spans = series->iterations / STUDY_SERIES_SPAN;
    struct study_window window[STUDY_SERIES_WINDOWS];
    char title[128];
    study_window_read_series(folder, series, window);
    for (uint32_t i = 0; i < STUDY_SERIES_DATASETS * spans; i++) {
        const struct study_window *next[1] = { &window[i + 1] };
        if ((i + 1) % spans != 0) {
            add_cases(study, &window[i], next, 1);
        }
    }
    (void) snprintf(title, sizeof title, "%s, next five iterations (%u slots, %u GPUs)",
                    series->title, series->slots, series->gpus);
    print_table(study, title);
    for (uint32_t i = 0; i < STUDY_SERIES_DATASETS * spans; i++) {
        study_window_drop(&window[i]);
    }
}

/* Requests before SCORED are scored; those behind are for development. */
enum {
    BATCHES = 16,
    SPANS = 6,
    SPAN_LIMIT = 12,
    SPAN_REQUESTS = 800,
    SCORED = SPANS * SPAN_REQUESTS
};

static bool read_span(struct moe_trace *trace, const struct moe_placement_shape *shape,
                      uint32_t first, uint32_t count, uint32_t domain, struct study_window *window,
                      struct trace_window *routes)
{
    if (!trace_window_read(routes, trace, first, count, domain)) {
        return false;
    }
    *window = study_window_make(shape, BATCHES);
    trace_window_count(routes, BATCHES, window->batches);
    study_window_sum(window);
    window->routes = &routes->routes;
    return true;
}

static void study_trace(struct study *study, const char *path, bool development)
{
    struct moe_trace *trace = NULL;
    struct moe_error err = { 0 };
    char title[256];
    if (moe_trace_open(&trace, path, &err) != MOE_OK) {
        (void) fprintf(stderr, "%s\n", err.text);
        exit(EXIT_FAILURE);
    }
    const struct moe_trace_model *model = moe_trace_model(trace);
    const uint32_t gpus = model->expert_count / 8;
    const char *label = development ? "Development: later requests of " : "";
    const struct moe_placement_shape shape = { .layer_count = model->layer_count,
                                               .expert_count = model->expert_count,
                                               .slot_count = model->expert_count + gpus,
                                               .gpu_count = gpus,
                                               .node_count = 1,
                                               .group_count = model->group_count };
    const uint32_t begin = development ? SCORED : 0;
    const uint64_t left = (moe_trace_request_count(trace) - begin) / SPAN_REQUESTS;
    const uint32_t limit = development ? SPAN_LIMIT : SPANS;
    const uint32_t spans = left < limit ? (uint32_t) left : limit;
    struct study_window window[SPAN_LIMIT];
    struct trace_window routes[SPAN_LIMIT];
    for (uint32_t i = 0; i < spans; i++) {
        if (!read_span(trace, &shape, begin + i * SPAN_REQUESTS, SPAN_REQUESTS, UINT32_MAX,
                       &window[i], &routes[i])) {
            exit(EXIT_FAILURE);
        }
    }
    for (uint32_t i = 0; i + 1 < spans; i++) {
        const struct study_window *next[1] = { &window[i + 1] };
        add_cases(study, &window[i], next, 1);
    }
    (void) snprintf(title, sizeof title, "%s%s, next window of %d requests (%u slots, %u GPUs)",
                    label, model->name, SPAN_REQUESTS, shape.slot_count, gpus);
    print_table(study, title);
    for (uint32_t i = 0; i < spans; i++) {
        study_window_drop(&window[i]);
        trace_window_finish(&routes[i]);
    }
    const uint32_t domains = model->domain_count < SPANS ? model->domain_count : SPANS;
    for (uint32_t i = 0; i < domains; i++) {
        if (!read_span(trace, &shape, begin, spans * SPAN_REQUESTS, i, &window[i], &routes[i])) {
            exit(EXIT_FAILURE);
        }
    }
    add_pairs(study, window, domains);
    (void) snprintf(title, sizeof title, "%s%s, one domain to another (%u slots, %u GPUs)", label,
                    model->name, shape.slot_count, gpus);
    print_table(study, title);
    for (uint32_t i = 0; i < domains; i++) {
        study_window_drop(&window[i]);
        trace_window_finish(&routes[i]);
    }
    moe_trace_close(trace);
}

static void study_development(struct study *study, const char *folder)
{
    static const struct study_raw raws[] = {
        { "qwen", 24, 60, 6, 66 },
        { "switch-exp16", 12, 16, 8, 24 },
        { "switch-exp32", 12, 32, 8, 40 },
        { "switch-exp64", 12, 64, 8, 72 },
        { "switch-exp128", 12, 128, 8, 136 },
    };
    struct study_window window[STUDY_QWEN3_WINDOWS];
    study_window_read_qwen3(folder, window);
    add_pairs(study, window, STUDY_QWEN3_WINDOWS);
    print_table(study, "Development: Qwen3-30B, one data set and language to another (144 slots, "
                       "16 GPUs)");
    for (uint32_t i = 0; i < STUDY_QWEN3_WINDOWS; i++) {
        study_window_drop(&window[i]);
    }
    for (size_t i = 0; i < sizeof raws / sizeof raws[0]; i++) {
        char title[128];
        study_window_read_raw(folder, &raws[i], window);
        add_pairs(study, window, 2);
        (void) snprintf(title, sizeof title,
                        "Development: %s, the other iteration (%u slots, %u GPUs)", raws[i].model,
                        raws[i].slots, raws[i].ranks);
        print_table(study, title);
        study_window_drop(&window[0]);
        study_window_drop(&window[1]);
    }
}

/* All that can be asked without more than a case gives, or those of list, separated by commas. */
static void choose_policies(struct study *study, const char *list)
{
    const uint32_t refused =
        MOE_POLICY_NEEDS_FUTURE | MOE_POLICY_NEEDS_GPU_SPEED | MOE_POLICY_NEEDS_MEMORY;
    size_t count = 0;
    const struct moe_policy *const *all = moe_policy_list(&count);
    for (size_t i = 0; list == NULL && i < count && study->policy_count < POLICY_LIMIT; i++) {
        if (all[i]->place != NULL && (all[i]->needs & refused) == 0) {
            moe_composition_of(&study->policy[study->policy_count++], all[i]);
        }
    }
    while (list != NULL && study->policy_count < POLICY_LIMIT) {
        char term[MOE_COMPOSITION_BYTES];
        struct moe_error err = { 0 };
        (void) snprintf(term, sizeof term, "%.*s", (int) strcspn(list, ","), list);
        if (moe_composition_parse(&study->policy[study->policy_count++], term, &err) != MOE_OK) {
            (void) fprintf(stderr, "%s\n", err.text);
            exit(2);
        }
        list += strcspn(list, ",");
        list = *list == ',' ? list + 1 : NULL;
    }
    for (uint32_t i = 0; i < study->policy_count; i++) {
        study->best = strcmp(study->policy[i].label, "best") == 0 ? i : study->best;
    }
}

int main(int argc, char **argv)
{
    static struct study study;
    static const struct study_series series[] = {
        { "expert_freq_qwen_policy_datasets.csv", "Qwen1.5-MoE", 60, 20, 72, 8 },
        { "expert_freq_switch128_datasets.csv", "Switch-base-128", 128, 30, 144, 16 },
    };
    bool development = false;
    const char *list = NULL;
    int at = 1;
    for (; at < argc && strncmp(argv[at], "--", 2) == 0; at++) {
        if (strcmp(argv[at], "--policies") == 0 && at + 1 < argc) {
            list = argv[++at];
        } else {
            development |= strcmp(argv[at], "--development") == 0;
            study.sure |= strcmp(argv[at], "--sure") == 0;
        }
    }
    if (at >= argc || moe_arena_init(&study.plans, PLAN_BYTES, NULL) != MOE_OK ||
        moe_arena_init(&study.scratch, SCRATCH_BYTES, NULL) != MOE_OK) {
        (void) fprintf(stderr, "usage: study_placement [--development] [--sure] [--policies A,B] "
                               "DATA_FOLDER TRACE...\n");
        return 2;
    }
    const char *folder = argv[at++];
    choose_policies(&study, list);
    (void) printf("# Balance of placements on what follows\n");
    const bool has_data = strcmp(folder, "-") != 0;
    if (has_data && development) {
        study_development(&study, folder);
    } else if (has_data) {
        study_dsv3(&study, folder, 1);
        study_dsv3(&study, folder, 4);
    }
    for (size_t i = 0; has_data && i < sizeof series / sizeof series[0] && !development; i++) {
        study_series(&study, folder, &series[i]);
    }
    for (; at < argc; at++) {
        study_trace(&study, argv[at], development);
    }
    return EXIT_SUCCESS;
}
