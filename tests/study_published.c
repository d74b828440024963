/* Published outcomes that recorded routes can show: sign and size, beside what was published.
 *
 *   study_published TRACE...   Markdown on stdout
 *
 * Of every trace the policies plan on the first half of the requests and are scored on the second;
 * online balancers plan again after every WINDOW requests and are scored on those that follow. */
#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "policies/policy.h"
#include "tests/study_window.h"
#include "tests/trace_window.h"

enum { GPUS = 8, NODES = 2, BATCHES = 8, WINDOW = 400, ROUNDS = 12, DOMAINS = 2 };

struct study {
    struct moe_arena plans;
    struct moe_arena scratch;
    struct moe_trace *trace;
    struct moe_placement_shape shape; /* one spare slot per GPU */
    double time_ns[GPUS * 2];
    struct moe_policy_speed speed;
    struct moe_placement contiguous;
};

struct part {
    struct trace_window routes;
    struct study_window window;
};

static const double tokens_axis[2] = { 0.0, 1.0 };

static void read_part(struct study *study, uint32_t first, uint32_t count, uint32_t domain,
                      struct part *part)
{
    if (!trace_window_read(&part->routes, study->trace, first, count, domain)) {
        exit(EXIT_FAILURE);
    }
    part->window = study_window_make(&study->shape, BATCHES);
    trace_window_count(&part->routes, BATCHES, part->window.batches);
    study_window_sum(&part->window);
}

static void drop_part(struct part *part)
{
    study_window_drop(&part->window);
    trace_window_finish(&part->routes);
}

static struct moe_placement plan_of(struct study *study, const char *name, const struct part *part,
                                    const struct moe_placement *previous)
{
    static const struct moe_policy_topology topology = { 1.0, 9.0 };
    /* DeepSeek-V3's expert in bfloat16, which is what a move is charged with. */
    static const struct moe_policy_memory memory = { 88080384.0, 60e9, 70e3 };
    const struct moe_policy *policy = NULL;
    struct moe_placement plan;
    struct moe_error err = { 0 };
    const struct moe_place_view view = { .shape = study->shape,
                                         .seed = 1,
                                         .load = part->window.load,
                                         .batch_count = BATCHES,
                                         .batches = part->window.batches,
                                         .routes = &part->routes.routes,
                                         .speed = &study->speed,
                                         .previous = previous,
                                         .memory = &memory,
                                         .topology = &topology };
    moe_arena_reset(&study->scratch);
    if (moe_policy_find(MOE_POLICY_PLACE, name, &policy, &err) != MOE_OK ||
        moe_placement_init(&plan, &study->plans, &study->shape, &err) != MOE_OK ||
        moe_policy_place(policy, &view, &study->scratch, &plan, &err) != MOE_OK) {
        (void) fprintf(stderr, "%s\n", err.text);
        exit(EXIT_FAILURE);
    }
    return plan;
}

/* Share of the steps from layer to layer, first choices, that change the GPU. First copies. */
static double hops(const struct moe_placement *plan, const struct part *part)
{
    const struct moe_placement_shape *shape = &plan->shape;
    const struct moe_policy_routes *routes = &part->routes.routes;
    const uint32_t per_gpu = moe_placement_slots_per_gpu(shape);
    const size_t cells = (size_t) shape->layer_count * shape->expert_count;
    uint32_t *gpu_of = calloc(cells, sizeof *gpu_of);
    uint64_t changed = 0;
    uint64_t all = 0;
    for (uint32_t slot = shape->layer_count * shape->slot_count; gpu_of != NULL && slot-- > 0;) {
        if (plan->expert_of_slot[slot] != MOE_SLOT_EMPTY) {
            gpu_of[(size_t) (slot / shape->slot_count) * shape->expert_count +
                   plan->expert_of_slot[slot]] = slot % shape->slot_count / per_gpu;
        }
    }
    for (uint64_t token = 0; gpu_of != NULL && token < routes->token_count; token++) {
        const uint16_t *row =
            routes->expert + token * ((size_t) shape->layer_count * routes->top_k);
        for (uint32_t layer = 1; layer < shape->layer_count; layer++) {
            const uint16_t from = row[(size_t) (layer - 1) * routes->top_k];
            const uint16_t to = row[(size_t) layer * routes->top_k];
            if (from != MOE_EXPERT_UNKNOWN && to != MOE_EXPERT_UNKNOWN) {
                all++;
                changed += gpu_of[(layer - 1) * shape->expert_count + from] !=
                           gpu_of[layer * shape->expert_count + to];
            }
        }
    }
    free(gpu_of);
    return (double) changed / (double) all;
}

/* Mean over layers and batches of what the slowest GPU takes over the mean load: speed NULL: max /
 * mean load (PAR). */
static double slowest(struct study *study, const struct moe_placement *plan,
                      const struct part *part, const double *ns_per_token)
{
    const struct moe_placement_shape *shape = &plan->shape;
    double load[GPUS];
    double row[1024];
    double sum = 0.0;
    (void) study;
    for (uint32_t i = 0; i < BATCHES * shape->layer_count; i++) {
        double most = 0.0;
        double all = 0.0;
        for (uint32_t expert = 0; expert < shape->expert_count; expert++) {
            row[expert] = (double) part->window.batches[(size_t) i * shape->expert_count + expert];
        }
        moe_placement_gpu_load(plan, i % shape->layer_count, row, load);
        for (uint32_t gpu = 0; gpu < GPUS; gpu++) {
            all += load[gpu];
            most = fmax(most, load[gpu] * (ns_per_token == NULL ? 1.0 : ns_per_token[gpu]));
        }
        sum += all > 0.0 ? most * GPUS / all : 1.0;
    }
    return sum / (BATCHES * shape->layer_count);
}

static void say(const char *policy, const char *what, double before, double after,
                const char *published)
{
    (void) printf("| %s | %s | %.4f | %.4f | %+.1f %% | %s |\n", policy, what, before, after,
                  100.0 * (after / before - 1.0), published);
}

static void study_static(struct study *study, uint32_t requests)
{
    struct part before;
    struct part after;
    double ns[GPUS];
    read_part(study, 0, requests / 2, UINT32_MAX, &before);
    read_part(study, requests / 2, requests / 2, UINT32_MAX, &after);
    for (uint32_t gpu = 0; gpu < GPUS; gpu++) {
        ns[gpu] = study->time_ns[gpu * 2 + 1];
    }
    study->contiguous = plan_of(study, "contiguous", &before, NULL);
    const struct moe_placement lpt = plan_of(study, "lpt", &before, NULL);
    const struct moe_placement exflow = plan_of(study, "exflow", &before, NULL);
    const struct moe_placement moetuner = plan_of(study, "moetuner", &before, NULL);
    const struct moe_placement gem = plan_of(study, "gem", &before, NULL);
    const struct moe_placement megascale = plan_of(study, "megascale", &before, NULL);
    say("exflow", "steps between layers that change the GPU, against contiguous",
        hops(&study->contiguous, &after), hops(&exflow, &after),
        "routing latency up to -67 % (GPT-MoE, 8-64 experts)");
    say("moetuner", "the same", hops(&study->contiguous, &after), hops(&moetuner, &after),
        "all-to-all mean -35.4 / -24.7 % (Mixtral, EP4)");
    say("moetuner", "max / mean GPU load, against contiguous",
        slowest(study, &study->contiguous, &after, NULL), slowest(study, &moetuner, &after, NULL),
        "token tail -36 / -27 %");
    say("gem", "slowest GPU's time, GPUs 14 % apart, against contiguous",
        slowest(study, &study->contiguous, &after, ns), slowest(study, &gem, &after, ns),
        "end to end -7.9 % on average, -16.5 % at most");
    say("gem", "the same against lpt, which knows no speeds", slowest(study, &lpt, &after, ns),
        slowest(study, &gem, &after, ns), "not stated");
    say("megascale", "max / mean GPU load, against lpt without copies",
        slowest(study, &lpt, &after, NULL), slowest(study, &megascale, &after, NULL),
        "part of up to 1.90 times the throughput; not stated alone");
    drop_part(&before);
    drop_part(&after);
}

static void study_grace(struct study *study, uint32_t requests)
{
    struct part part[DOMAINS];
    double own = 0.0;
    double other = 0.0;
    double linear = 0.0;
    for (uint32_t i = 0; i < DOMAINS; i++) {
        read_part(study, 0, requests, i, &part[i]);
    }
    for (uint32_t i = 0; i < DOMAINS; i++) {
        const struct moe_placement plan = plan_of(study, "grace", &part[i], NULL);
        own += hops(&plan, &part[i]) / DOMAINS;
        other += hops(&plan, &part[1 - i]) / DOMAINS;
        linear += hops(&study->contiguous, &part[i]) / DOMAINS;
    }
    (void) linear;
    say("grace", "steps that change the GPU: planned on the other domain, against on the same", own,
        other, "loss across data sets at most 4.52 % (latency)");
    for (uint32_t i = 0; i < DOMAINS; i++) {
        drop_part(&part[i]);
    }
}

/* Plans after every window; scored on the next. */
static void study_online(struct study *study, uint32_t requests)
{
    static const char *const names[] = { "eplb", "stare", "scalpelb", "swift", "flashlb" };
    enum { POLICIES = sizeof names / sizeof names[0] };
    struct moe_placement now[POLICIES];
    double imbalance[POLICIES] = { 0.0 };
    double still = 0.0;
    uint64_t moves[POLICIES] = { 0 };
    const uint32_t rounds = requests / WINDOW - 1 < ROUNDS ? requests / WINDOW - 1 : ROUNDS;
    struct part part;
    read_part(study, 0, WINDOW, UINT32_MAX, &part);
    const struct moe_placement first = plan_of(study, "block", &part, NULL);
    for (uint32_t i = 0; i < POLICIES; i++) {
        now[i] = first;
    }
    for (uint32_t round = 0; round < rounds; round++) {
        struct part next;
        read_part(study, (round + 1) * WINDOW, WINDOW, UINT32_MAX, &next);
        still += slowest(study, &first, &next, NULL) / rounds;
        for (uint32_t i = 0; i < POLICIES; i++) {
            const struct moe_placement plan = plan_of(study, names[i], &part, &now[i]);
            moves[i] += moe_placement_count_moves(&now[i], &plan);
            now[i] = plan;
            imbalance[i] += slowest(study, &plan, &next, NULL) / rounds;
        }
        drop_part(&part);
        part = next;
    }
    drop_part(&part);
    (void) printf("\nPlanned anew every %d requests, %u times (no plan: max / mean %.4f)\n\n",
                  WINDOW, rounds, still);
    (void) printf(
        "| policy | max / mean | slots changed | EPLB's over its own |\n|---|---|---|---|\n");
    for (uint32_t i = 0; i < POLICIES; i++) {
        (void) printf("| %s | %.4f | %llu | %.1f |\n", names[i], imbalance[i],
                      (unsigned long long) moves[i],
                      moves[i] > 0 ? (double) moves[0] / (double) moves[i] : INFINITY);
    }
}

static void study_trace(struct study *study, const char *path)
{
    struct moe_error err = { 0 };
    if (moe_trace_open(&study->trace, path, &err) != MOE_OK) {
        (void) fprintf(stderr, "%s\n", err.text);
        exit(EXIT_FAILURE);
    }
    const struct moe_trace_model *model = moe_trace_model(study->trace);
    const uint64_t count = moe_trace_request_count(study->trace);
    const uint32_t requests = count < 6000 ? (uint32_t) count : 6000;
    study->shape = (struct moe_placement_shape){
        model->layer_count, model->expert_count, model->expert_count + GPUS, GPUS, NODES,
        model->group_count
    };
    moe_arena_reset(&study->plans);
    (void) printf("\n## %s, %u experts on %d GPUs\n\n", model->name, model->expert_count, GPUS);
    (void) printf("| policy | quantity | before | after | change | published |\n"
                  "|---|---|---|---|---|---|\n");
    study_static(study, requests);
    study_grace(study, requests);
    study_online(study, requests);
    (void) fflush(stdout);
    moe_trace_close(study->trace);
}

int main(int argc, char **argv)
{
    static struct study study;
    if (argc < 2 || moe_arena_init(&study.plans, (size_t) 64 << 20, NULL) != MOE_OK ||
        moe_arena_init(&study.scratch, (size_t) 1 << 30, NULL) != MOE_OK) {
        (void) fprintf(stderr, "usage: study_published TRACE...\n");
        return 2;
    }
    for (uint32_t gpu = 0; gpu < GPUS; gpu++) { /* the fastest does 14 % more in the same time */
        study.time_ns[gpu * 2 + 1] = 1.0 / (1.0 + 0.14 * gpu / (GPUS - 1));
    }
    study.speed = (struct moe_policy_speed){ 2, tokens_axis, study.time_ns };
    (void) printf("# Published outcomes on recorded routes\n");
    for (int i = 1; i < argc; i++) {
        study_trace(&study, argv[i]);
    }
    return EXIT_SUCCESS;
}
