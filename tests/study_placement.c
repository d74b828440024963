/* Balance on what follows: every place policy plans on one window and is scored on another.
 *
 *   study_placement DATA_FOLDER TRACE...   Markdown on stdout
 *
 * Cases: all ordered pairs of different DeepSeek-V3 expert loads, the next windows of recorded
 * iterations of two models, and of routing traces the next windows and other domains. Score of a
 * case: balancedness (mean / max GPU load, even split) averaged over layers and scored batches.
 * Policies that need the future, GPU speeds or what a case cannot give are left out of it. */
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "policies/policy.h"
#include "tests/trace_window.h"
#include "traces/load_matrix.h"

enum { POLICY_LIMIT = 64, CASE_LIMIT = 512, PLAN_BYTES = 4 << 20 };

#define SCRATCH_BYTES ((size_t) 1 << 30)

struct window {
    uint32_t batch_count;
    float *batches;                         /* [batch][layer][expert] */
    double *load;                           /* [layer][expert] */
    const struct moe_policy_routes *routes; /* NULL: counts only */
};

struct study {
    struct moe_arena plans;
    struct moe_arena scratch;
    const struct moe_policy *policy[POLICY_LIMIT];
    uint32_t policy_count;
    uint32_t best; /* which of them is ours */
    double score[POLICY_LIMIT][CASE_LIMIT];
    bool scored[POLICY_LIMIT];
    uint32_t case_count; /* of the table being made */
};

static void sum_window(const struct moe_placement_shape *shape, struct window *window)
{
    const size_t cells = (size_t) shape->layer_count * shape->expert_count;
    memset(window->load, 0, cells * sizeof *window->load);
    for (size_t i = 0; i < window->batch_count * cells; i++) {
        window->load[i % cells] += (double) window->batches[i];
    }
}

static struct window make_window(const struct moe_placement_shape *shape, uint32_t batch_count)
{
    const size_t cells = (size_t) shape->layer_count * shape->expert_count;
    struct window window = { .batch_count = batch_count,
                             .batches = calloc(batch_count * cells, sizeof(float)),
                             .load = calloc(cells, sizeof(double)) };
    if (window.batches == NULL || window.load == NULL) {
        (void) fprintf(stderr, "no memory for %u batches\n", batch_count);
        exit(EXIT_FAILURE);
    }
    return window;
}

static void drop_window(struct window *window)
{
    free(window->batches);
    free(window->load);
}

static double score_plan(const struct moe_placement *plan, const struct window *window,
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

/* Every policy plans on from and is scored on to[to_count], a case each. */
static void add_cases(struct study *study, const struct moe_placement_shape *shape,
                      const struct window *from, const struct window *const *to, uint32_t to_count)
{
    static const struct moe_policy_topology topology = { 1.0, 9.0 };
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
        struct moe_placement plan;
        moe_arena_reset(&study->scratch);
        if ((study->policy[i]->needs & MOE_POLICY_NEEDS_ROUTES) != 0 && from->routes == NULL) {
            continue;
        }
        if (moe_placement_init(&plan, &study->plans, shape, &err) != MOE_OK ||
            moe_policy_place(study->policy[i], &view, &study->scratch, &plan, &err) != MOE_OK) {
            (void) fprintf(stderr, "left out: %s\n", err.text);
            continue;
        }
        study->scored[i] = true;
        for (uint32_t j = 0; j < to_count; j++) {
            moe_arena_reset(&study->scratch);
            study->score[i][study->case_count + j] = score_plan(&plan, to[j], &study->scratch);
        }
    }
    study->case_count += to_count;
}

static void print_table(struct study *study, const char *title)
{
    const double *best = study->score[study->best];
    (void) printf("\n## %s\n\n%u cases.\n\n", title, study->case_count);
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
        (void) printf("| %s | %.4f | %+.4f | %u of %u | %+.4f |\n", study->policy[i]->name,
                      sum / study->case_count, (ours - sum) / study->case_count, equal,
                      study->case_count, worst);
    }
    (void) fflush(stdout);
    study->case_count = 0;
    memset(study->scored, 0, sizeof study->scored);
}

static const char *const dsv3_files[] = {
    "decode_in1000out1000", "decode_in2000out100", "prefill_in1000out1000", "prefill_in1024",
    "prefill_in1800out100", "prefill_in2048",      "prefill_in4096",        "prefill_in500out1500",
};

/* The first three of a file's 61 layers are dense and have no load. */
static bool study_dsv3(struct study *study, const char *folder, uint32_t node_count)
{
    enum { FILES = 8, LAYERS = 58, EXPERTS = 256, DENSE = 3 };
    const struct moe_placement_shape shape = { LAYERS, EXPERTS, 288, 32, node_count, 8 };
    struct window window[FILES];
    for (uint32_t i = 0; i < FILES; i++) {
        char path[1024];
        struct moe_load_matrix matrix = { 0 };
        struct moe_error err = { 0 };
        (void) snprintf(path, sizeof path, "%s/dsv3_expert_loads/%s.json", folder, dsv3_files[i]);
        if (moe_load_matrix_read_sglang(&matrix, path, &err) != MOE_OK) {
            (void) fprintf(stderr, "%s\n", err.text);
            exit(EXIT_FAILURE);
        }
        window[i] = make_window(&shape, 1);
        for (size_t cell = 0; cell < (size_t) LAYERS * EXPERTS; cell++) {
            window[i].batches[cell] = (float) matrix.load[(size_t) DENSE * EXPERTS + cell];
        }
        sum_window(&shape, &window[i]);
        moe_load_matrix_finish(&matrix);
    }
    for (uint32_t i = 0; i < FILES; i++) {
        const struct window *others[FILES];
        uint32_t count = 0;
        for (uint32_t j = 0; j < FILES; j++) {
            if (j != i) {
                others[count++] = &window[j];
            }
        }
        add_cases(study, &shape, &window[i], others, count);
    }
    for (uint32_t i = 0; i < FILES; i++) {
        drop_window(&window[i]);
    }
    return true;
}

struct series {
    const char *file;
    uint32_t experts;
    uint32_t iterations; /* of each of the four data sets */
    uint32_t slots;
    uint32_t gpus;
};

/* Rows "number,dataset,iteration,layer,counts", data set after data set. */
static bool study_series(struct study *study, const char *folder, const struct series *series)
{
    enum { DATASETS = 4, LAYERS = 12, SPAN = 5 };
    const struct moe_placement_shape shape = {
        LAYERS, series->experts, series->slots, series->gpus, 1, 1
    };
    const uint32_t spans = series->iterations / SPAN;
    char path[1024];
    char line[8192];
    (void) snprintf(path, sizeof path, "%s/harmoeny_expert_freq/%s", folder, series->file);
    FILE *file = fopen(path, "r");
    if (file == NULL || fgets(line, sizeof line, file) == NULL) {
        (void) fprintf(stderr, "cannot read %s\n", path);
        return false;
    }
    struct window window[DATASETS * 8];
    for (uint32_t i = 0; i < DATASETS * spans; i++) {
        window[i] = make_window(&shape, SPAN);
    }
    for (uint32_t row = 0; row < DATASETS * series->iterations * LAYERS; row++) {
        if (fgets(line, sizeof line, file) == NULL) {
            (void) fprintf(stderr, "%s ends after %u rows\n", path, row);
            return false;
        }
        const char *text = strchr(strchr(line, ',') + 1, ',') + 1; /* behind the data set */
        char *end = NULL;
        const uint32_t iteration = (uint32_t) strtoul(text, &end, 10);
        const uint32_t layer = (uint32_t) strtoul(end + 1, &end, 10);
        const uint32_t at = row / (LAYERS * series->iterations) * series->iterations + iteration;
        if (iteration >= series->iterations || layer >= LAYERS) {
            (void) fprintf(stderr, "%s: row %u is not expected\n", path, row);
            return false;
        }
        float *counts =
            window[at / SPAN].batches + ((size_t) (at % SPAN) * LAYERS + layer) * series->experts;
        for (uint32_t expert = 0; expert < series->experts; expert++) {
            counts[expert] = strtof(end + 1, &end);
        }
    }
    (void) fclose(file);
    for (uint32_t i = 0; i < DATASETS * spans; i++) {
        sum_window(&shape, &window[i]);
    }
    for (uint32_t i = 0; i < DATASETS * spans; i++) {
        const struct window *next[1] = { &window[i + 1] };
        if ((i + 1) % spans != 0) {
            add_cases(study, &shape, &window[i], next, 1);
        }
    }
    for (uint32_t i = 0; i < DATASETS * spans; i++) {
        drop_window(&window[i]);
    }
    return true;
}

enum { BATCHES = 16, SPANS = 6, SPAN_REQUESTS = 800 };

static bool read_span(struct moe_trace *trace, const struct moe_placement_shape *shape,
                      uint32_t first, uint32_t count, uint32_t domain, struct window *window,
                      struct trace_window *routes)
{
    if (!trace_window_read(routes, trace, first, count, domain)) {
        return false;
    }
    *window = make_window(shape, BATCHES);
    trace_window_count(routes, BATCHES, window->batches);
    sum_window(shape, window);
    window->routes = &routes->routes;
    return true;
}

static void study_trace(struct study *study, const char *path)
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
    const struct moe_placement_shape shape = { .layer_count = model->layer_count,
                                               .expert_count = model->expert_count,
                                               .slot_count = model->expert_count + gpus,
                                               .gpu_count = gpus,
                                               .node_count = 1,
                                               .group_count = model->group_count };
    struct window window[SPANS];
    struct trace_window routes[SPANS];
    for (uint32_t i = 0; i < SPANS; i++) {
        if (!read_span(trace, &shape, i * SPAN_REQUESTS, SPAN_REQUESTS, UINT32_MAX, &window[i],
                       &routes[i])) {
            exit(EXIT_FAILURE);
        }
    }
    for (uint32_t i = 0; i + 1 < SPANS; i++) {
        const struct window *next[1] = { &window[i + 1] };
        add_cases(study, &shape, &window[i], next, 1);
    }
    (void) snprintf(title, sizeof title, "%s, next window of %d requests (%u slots, %u GPUs)",
                    model->name, SPAN_REQUESTS, shape.slot_count, gpus);
    print_table(study, title);
    for (uint32_t i = 0; i < SPANS; i++) {
        drop_window(&window[i]);
        trace_window_finish(&routes[i]);
    }
    for (uint32_t i = 0; i < model->domain_count && i < SPANS; i++) {
        if (!read_span(trace, &shape, 0, SPANS * SPAN_REQUESTS, i, &window[i], &routes[i])) {
            exit(EXIT_FAILURE);
        }
    }
    for (uint32_t i = 0; i < model->domain_count && i < SPANS; i++) {
        const struct window *others[SPANS];
        uint32_t count = 0;
        for (uint32_t j = 0; j < model->domain_count && j < SPANS; j++) {
            if (j != i) {
                others[count++] = &window[j];
            }
        }
        add_cases(study, &shape, &window[i], others, count);
    }
    (void) snprintf(title, sizeof title, "%s, one domain to another (%u slots, %u GPUs)",
                    model->name, shape.slot_count, gpus);
    print_table(study, title);
    for (uint32_t i = 0; i < model->domain_count && i < SPANS; i++) {
        drop_window(&window[i]);
        trace_window_finish(&routes[i]);
    }
    moe_trace_close(trace);
}

int main(int argc, char **argv)
{
    static struct study study;
    static const struct series series[] = {
        { "expert_freq_qwen_policy_datasets.csv", 60, 20, 72, 8 },
        { "expert_freq_switch128_datasets.csv", 128, 30, 144, 16 },
    };
    size_t count = 0;
    const struct moe_policy *const *all = moe_policy_list(&count);
    const uint32_t refused =
        MOE_POLICY_NEEDS_FUTURE | MOE_POLICY_NEEDS_GPU_SPEED | MOE_POLICY_NEEDS_MEMORY;
    if (argc < 2 || moe_arena_init(&study.plans, PLAN_BYTES, NULL) != MOE_OK ||
        moe_arena_init(&study.scratch, SCRATCH_BYTES, NULL) != MOE_OK) {
        (void) fprintf(stderr, "usage: study_placement DATA_FOLDER TRACE...\n");
        return 2;
    }
    for (size_t i = 0; i < count && study.policy_count < POLICY_LIMIT; i++) {
        if (all[i]->place != NULL && (all[i]->needs & refused) == 0) {
            study.best = strcmp(all[i]->name, "best") == 0 ? study.policy_count : study.best;
            study.policy[study.policy_count++] = all[i];
        }
    }
    (void) printf("# Balance of placements on what follows\n");
    bool fine = study_dsv3(&study, argv[1], 1);
    print_table(&study, "DeepSeek-V3, one workload to another (288 slots, 32 GPUs, one node)");
    fine = fine && study_dsv3(&study, argv[1], 4);
    print_table(&study, "DeepSeek-V3, one workload to another (288 slots, 32 GPUs, four nodes)");
    for (size_t i = 0; i < sizeof series / sizeof series[0]; i++) {
        char title[256];
        fine = fine && study_series(&study, argv[1], &series[i]);
        (void) snprintf(title, sizeof title, "%s, next five iterations (%u slots, %u GPUs)",
                        i == 0 ? "Qwen1.5-MoE" : "Switch-base-128", series[i].slots,
                        series[i].gpus);
        print_table(&study, title);
    }
    for (int i = 2; i < argc && fine; i++) {
        study_trace(&study, argv[i]);
    }
    return fine ? EXIT_SUCCESS : EXIT_FAILURE;
}
