/* `moesim plan`: one policy's plan for recorded loads, in a form that an engine loads. */
#include <stdio.h>
#include <string.h>

#include "policies/bounds.h"
#include "policies/composition.h"
#include "policies/plan/plan.h"
#include "policies/policy.h"
#include "sim/base/options.h"
#include "sim/command/command.h"
#include "sim/command/plan_command.h"
#include "traces/dump_loads.h"
#include "traces/load_matrix.h"

struct plan_request {
    const char *policy_name;
    struct moe_composition composition; /* what policy_name says */
    const char *loads_path;
    struct moe_plan_output output;
    uint32_t first_layer; /* hidden layer of the file's first row, */
    uint32_t layer_step;  /* and from one row to the next */
    uint32_t slot_count;
    uint32_t gpu_count;
    uint32_t node_count;
    uint32_t group_count;
    uint64_t seed;
    uint32_t expert_count; /* where a dump does not state it; 0: not said */
};

/* What the rows with load got: the MoE layers. */
struct plan_result {
    struct moe_plan plan;            /* what is written; when no row has load, all of them */
    struct moe_placement moe;        /* as the policy planned it */
    struct moe_placement contiguous; /* the same rows, before */
    double *load;                    /* [moe.shape.layer_count][expert_count] */
    float *batch;                    /* the same */
    uint32_t dense_count;
    uint64_t filled_count; /* slots that the policy left empty and the engine needs filled */
};

static enum moe_status parse(struct plan_request *request, int argc, char **argv, bool help,
                             struct moe_error *err)
{
    const struct moe_option options[] = {
        { "policy", MOE_OPTION_TEXT, &request->policy_name, "NAME[:x=1]",
          "who plans, with parameters; `moesim policies` lists them", 0, 0 },
        { "loads", MOE_OPTION_TEXT, &request->loads_path, "FILE",
          "SGLang's JSON {\"logical_count\": [layer][expert]}, a trace store, or any dump; "
          "all-zero "
          "rows are dense layers",
          0, 0 },
        { "experts", MOE_OPTION_COUNT, &request->expert_count, "N",
          "experts of a layer, where a dump does not say", 0, MOE_SLOT_EMPTY - 1 },
        { "slots", MOE_OPTION_COUNT, &request->slot_count, "N", "physical slots of a layer", 1,
          MOE_SLOT_EMPTY - 1 },
        { "gpus", MOE_OPTION_COUNT, &request->gpu_count, "N", "GPUs that share a layer's experts",
          1, MOE_SLOT_EMPTY - 1 },
        { "nodes", MOE_OPTION_COUNT, &request->node_count, "N", "nodes that hold these GPUs", 1,
          MOE_SLOT_EMPTY - 1 },
        { "groups", MOE_OPTION_COUNT, &request->group_count, "N",
          "routing groups; eplb keeps a group on one node when the nodes divide them", 1,
          MOE_SLOT_EMPTY - 1 },
        { "seed", MOE_OPTION_SEED, &request->seed, "S", "for randomised policies", 0, 0 },
        { "first-layer", MOE_OPTION_COUNT, &request->first_layer, "N",
          "the model's layer that the file's first row is, for engines that number them", 0,
          MOE_TRACE_LAYER_LIMIT - 1 },
        { "layer-step", MOE_OPTION_COUNT, &request->layer_step, "N",
          "from one row's layer to the next one's", 1, MOE_TRACE_LAYER_LIMIT - 1 },
        MOE_PLAN_OUTPUT_OPTIONS(request->output),
    };
    const size_t count = sizeof options / sizeof options[0];
    struct moe_positionals none = { 0 };
    if (help) {
        (void) puts(
            "usage: moesim plan --policy NAME --loads FILE --slots N --gpus N [OPTION ...]\n"
            "       moesim plan export --run RUN.db [OPTION ...]   (what a run planned)\n"
            "       moesim plan import FILE [OPTION ...]           (look at one, convert it)");
        moe_options_print(stdout, options, count);
        moe_plan_output_print_formats();
        return MOE_OK;
    }
    MOE_TRY(moe_options_parse(options, count, &none, argc, argv, err));
    const char *missing = request->policy_name == NULL  ? "--policy"
                          : request->loads_path == NULL ? "--loads"
                          : request->slot_count == 0    ? "--slots"
                          : request->gpu_count == 0     ? "--gpus"
                                                        : NULL;
    if (missing != NULL) {
        return moe_fail(err, MOE_RANGE, "%s is needed; `moesim plan --help` says what it is",
                        missing);
    }
    return moe_plan_output_settle(&request->output, err);
}

/* Loads of a trace store or of a dump, all of it; *found is false for what is neither, and for
 * SGLang's own JSON, which is read by itself, since it may hold more than a trace can. */
static enum moe_status read_dump(struct moe_load_matrix *out, const struct plan_request *plan,
                                 bool *found, struct moe_error *err)
{
    /* All layers: a plan has a row for each that the engine has, dense ones too. */
    const char *path = plan->loads_path;
    const struct moe_import_request request = {
        .format = "auto",
        .inputs = &path,
        .input_count = 1,
        .options = { .layers = "all", .expert_count = plan->expert_count },
    };
    struct moe_import_input input = { 0 };
    const struct moe_import_format *format = NULL;
    struct moe_dump_loads loads = { 0 };
    MOE_TRY(moe_import_input_open(&input, &path, 1, err));
    const bool is_store =
        input.file_count == 1 && moe_import_file_begins(&input.files[0], "SQLite format 3");
    *found = is_store || (moe_import_find("auto", &input, &format, NULL) == MOE_OK &&
                          strcmp(format->name, "sglang_json") != 0);
    moe_import_input_finish(&input);
    if (!*found) {
        return MOE_OK;
    }
    MOE_TRY(moe_dump_loads_read(&loads, &request, 1.0, err));
    *out = (struct moe_load_matrix){ loads.model.layer_count, loads.model.expert_count,
                                     loads.planned };
    loads.planned = NULL; /* out's now */
    moe_dump_loads_finish(&loads);
    return MOE_OK;
}

static enum moe_status read_loads(struct moe_load_matrix *out, const struct plan_request *plan,
                                  struct moe_error *err)
{
    bool found = false;
    MOE_TRY(read_dump(out, plan, &found, err));
    return found ? MOE_OK : moe_load_matrix_read_sglang(out, plan->loads_path, err);
}

/* Here, where the place in the file is still known. */
static enum moe_status check_loads(const struct moe_load_matrix *loads, const char *path,
                                   struct moe_error *err)
{
    for (uint32_t layer = 0; layer < loads->layer_count; layer++) {
        for (uint32_t expert = 0; expert < loads->expert_count; expert++) {
            const double load = loads->load[(size_t) layer * loads->expert_count + expert];
            if (load > MOE_POLICY_LOAD_LIMIT) {
                return moe_fail(err, MOE_RANGE, "%s: logical_count[%u][%u] is %g; at most %g", path,
                                layer, expert, load, MOE_POLICY_LOAD_LIMIT);
            }
        }
    }
    return MOE_OK;
}

static bool is_dense(const double *row, uint32_t expert_count)
{
    for (uint32_t expert = 0; expert < expert_count; expert++) {
        if (row[expert] != 0.0) {
            return false;
        }
    }
    return true;
}

static struct moe_placement_shape shape_of(const struct plan_request *request,
                                           const struct moe_load_matrix *loads)
{
    return (struct moe_placement_shape){
        .layer_count = loads->layer_count,
        .expert_count = loads->expert_count,
        .slot_count = request->slot_count,
        .gpu_count = request->gpu_count,
        .node_count = request->node_count,
        .group_count = request->group_count,
    };
}

/* The rows with load, in order; their number goes into the shape of the result. */
static enum moe_status gather_layers(struct plan_result *result,
                                     const struct moe_load_matrix *loads,
                                     const struct moe_placement_shape *shape,
                                     struct moe_arena *arena, struct moe_error *err)
{
    struct moe_placement_shape moe = *shape;
    moe.layer_count = 0;
    result->load = MOE_NEW(arena, double, (size_t) loads->layer_count * loads->expert_count);
    if (result->load == NULL) {
        return moe_fail(err, MOE_LIMIT, "no room for %u layers of %u experts", loads->layer_count,
                        loads->expert_count);
    }
    for (uint32_t layer = 0; layer < loads->layer_count; layer++) {
        const double *row = loads->load + (size_t) layer * loads->expert_count;
        if (!is_dense(row, loads->expert_count)) {
            memcpy(result->load + (size_t) moe.layer_count * loads->expert_count, row,
                   loads->expert_count * sizeof *row);
            moe.layer_count++;
        }
    }
    result->dense_count = loads->layer_count - moe.layer_count;
    result->batch =
        moe_place_view_one_batch(result->load, (size_t) moe.layer_count * moe.expert_count, arena);
    if (result->batch == NULL) {
        return moe_fail(err, MOE_LIMIT, "no room for %u layers of %u experts", loads->layer_count,
                        loads->expert_count);
    }
    MOE_TRY(moe_placement_init(&result->moe, arena, &moe, err));
    return moe_placement_init(&result->contiguous, arena, &moe, err);
}

/* The planned layers with the numbers of their rows; when there is none, all rows as engines
 * begin. */
static enum moe_status number_layers(struct plan_result *result, const struct plan_request *request,
                                     const struct moe_load_matrix *loads, struct moe_error *err)
{
    struct moe_placement_shape shape = result->moe.shape;
    struct moe_plan *plan = &result->plan;
    uint32_t next = 0;
    const bool is_dense_only = shape.layer_count == 0;
    shape.layer_count = loads->layer_count;
    MOE_TRY(moe_plan_init(plan, &shape, request->loads_path, err));
    MOE_TRY(moe_plan_number(plan, request->first_layer, request->layer_step, err));
    for (uint32_t layer = 0; layer < loads->layer_count; layer++) {
        const double *row = loads->load + (size_t) layer * shape.expert_count;
        uint16_t *slots = moe_placement_layer(&plan->placement, next);
        if (is_dense_only) {
            for (uint32_t slot = 0; slot < shape.slot_count; slot++) {
                slots[slot] = (uint16_t) (slot % shape.expert_count);
            }
            next++;
        } else if (!is_dense(row, shape.expert_count)) {
            memcpy(slots, moe_placement_layer(&result->moe, next),
                   shape.slot_count * sizeof *slots);
            plan->layer_number[next++] = plan->layer_number[layer];
        }
    }
    plan->placement.shape.layer_count = next;
    return MOE_OK;
}

static enum moe_status solve(struct plan_result *result, const struct plan_request *request,
                             const struct moe_load_matrix *loads, struct moe_arena *arena,
                             struct moe_arena *scratch, struct moe_error *err)
{
    const struct moe_composition_part *place = &request->composition.part[MOE_POLICY_PLACE];
    const struct moe_policy *contiguous = NULL;
    const struct moe_placement_shape shape = shape_of(request, loads);
    MOE_TRY(moe_placement_shape_check(&shape, err));
    MOE_TRY(gather_layers(result, loads, &shape, arena, err));
    if (result->moe.shape.layer_count > 0) {
        struct moe_place_view view = {
            .shape = result->moe.shape,
            .load = result->load,
            .batch_count = 1, /* sums are a window of one batch */
            .batches = result->batch,
            .seed = request->seed,
        };
        MOE_TRY(moe_policy_find(MOE_POLICY_PLACE, "contiguous", &contiguous, err));
        MOE_TRY(moe_policy_place(contiguous, &view, scratch, &result->contiguous, err));
        moe_arena_reset(scratch);
        view.previous = &result->contiguous;
        view.parameters = place->values;
        MOE_TRY(moe_policy_place(place->policy, &view, scratch, &result->moe, err));
        moe_arena_reset(scratch);
    }
    MOE_TRY(number_layers(result, request, loads, err));
    return request->output.format->takes_empty
               ? MOE_OK
               : moe_plan_fill(&result->plan.placement, &result->filled_count, err);
}

/* On standard error: how even the plan is on the loads it was made from. */
static void summarise(const struct plan_result *result, const struct plan_request *request,
                      struct moe_arena *scratch)
{
    const struct moe_placement_shape *shape = &result->moe.shape;
    const char *label = request->composition.label;
    (void) fprintf(stderr,
                   "%u MoE layers of %u experts in %u slots on %u GPUs of %u node(s); %u all-zero "
                   "(dense) layer(s) as slot modulo experts\n",
                   shape->layer_count, shape->expert_count, shape->slot_count, shape->gpu_count,
                   shape->node_count, result->dense_count);
    if (result->filled_count > 0) {
        (void) fprintf(stderr,
                       "%llu slot(s) that %s left empty repeat an expert of the same GPU, because "
                       "%s needs one in every slot; no GPU's load changes\n",
                       (unsigned long long) result->filled_count, label,
                       request->output.format->name);
    }
    if (shape->layer_count == 0) {
        return;
    }
    uint64_t used = 0;
    for (size_t i = 0; i < (size_t) shape->layer_count * shape->slot_count; i++) {
        used += result->moe.expert_of_slot[i] != MOE_SLOT_EMPTY;
    }
    const double copies = (double) used / shape->layer_count - shape->expert_count;
    moe_arena_reset(scratch);
    (void) fprintf(stderr,
                   "balancedness = mean GPU load / max GPU load per layer, averaged; in-sample: "
                   "scored on the loads it was planned on\n");
    (void) fprintf(stderr, "  %-28s %6.4f\n", "before (contiguous)",
                   moe_placement_balancedness(&result->contiguous, result->load, scratch));
    (void) fprintf(stderr, "  %-28s %6.4f  in-sample, %.1f redundant copies per layer\n", label,
                   moe_placement_balancedness(&result->moe, result->load, scratch), copies);
    (void) fprintf(stderr, "  %-28s %6.4f  no placement without copies is more even\n",
                   "bound without copies", moe_bound_no_copy_balancedness(shape, result->load));
    (void) fprintf(stderr, "  %-28s %6.4f\n", "bound (perfect balance)", 1.0);
}

/* Sums of loads are all that there is to plan on, and only the place is decided here. */
static enum moe_status settle_policy(struct plan_request *request, struct moe_error *err)
{
    struct moe_composition *c = &request->composition;
    struct moe_composition alone;
    MOE_TRY(moe_composition_parse(c, request->policy_name, err));
    const struct moe_policy *policy = c->part[MOE_POLICY_PLACE].policy;
    moe_composition_of(&alone, policy);
    for (int kind = MOE_POLICY_DISPATCH; kind < MOE_POLICY_KIND_COUNT; kind++) {
        if (c->part[kind].policy != alone.part[kind].policy) {
            return moe_fail(err, MOE_RANGE,
                            "--policy: a plan places experts; %s is decided while serving, which "
                            "`moesim run` simulates",
                            moe_policy_kind_name((enum moe_policy_kind) kind));
        }
    }
    if ((policy->needs & MOE_POLICY_NEEDS_FUTURE) != 0) {
        return moe_fail(err, MOE_POLICY,
                        "policy %s plans on the loads that it is scored on, which exist only in a "
                        "simulation; --policy eplb plans on recorded ones",
                        policy->name);
    }
    const uint32_t given = MOE_POLICY_NEEDS_LOAD | MOE_POLICY_NEEDS_BATCHES |
                           MOE_POLICY_NEEDS_SEED | MOE_POLICY_NEEDS_PREVIOUS;
    for (unsigned bit = 0; bit < MOE_POLICY_NEED_COUNT; bit++) {
        const enum moe_policy_need need = (enum moe_policy_need)(1u << bit);
        if ((policy->needs & ~given & need) != 0) {
            return moe_fail(err, MOE_POLICY,
                            "policy %s needs %s, which a file of summed loads cannot give; "
                            "`moesim run` plans on a trace",
                            policy->name, moe_policy_need_text(need));
        }
    }
    return MOE_OK;
}

static enum moe_status plan(struct plan_request *request, struct moe_error *err)
{
    struct moe_load_matrix loads = { 0 };
    struct moe_arena arena = { 0 };
    struct moe_arena scratch = { 0 };
    struct plan_result result = { 0 };
    MOE_TRY(settle_policy(request, err));
    MOE_TRY(read_loads(&loads, request, err));
    enum moe_status status = check_loads(&loads, request->loads_path, err);
    const size_t row_bytes = 3 * sizeof(uint16_t) * (size_t) request->slot_count +
                             (sizeof(double) + sizeof(float)) * (size_t) loads.expert_count;
    if (status == MOE_OK) {
        status = moe_arena_init(&arena, loads.layer_count * row_bytes + (1 << 12), err);
    }
    if (status == MOE_OK) {
        status =
            moe_arena_init(&scratch, ((size_t) 64 << 20) + 256 * (size_t) request->slot_count, err);
    }
    if (status == MOE_OK) {
        status = solve(&result, request, &loads, &arena, &scratch, err);
    }
    if (status == MOE_OK) {
        status = moe_plan_output_write(&request->output, &result.plan, err);
    }
    if (status == MOE_OK) {
        summarise(&result, request, &scratch);
    }
    moe_plan_finish(&result.plan);
    moe_arena_finish(&scratch);
    moe_arena_finish(&arena);
    moe_load_matrix_finish(&loads);
    return status;
}

static enum moe_status run(int argc, char **argv, struct moe_error *err)
{
    struct plan_request request = { .node_count = 1, .group_count = 1, .seed = 1, .layer_step = 1 };
    const bool help = moe_command_wants_help(argc, argv);
    request.output.name = "sglang";
    if (argc > 0 && strcmp(argv[0], "export") == 0) {
        return moe_plan_command_export(argc - 1, argv + 1, err);
    }
    if (argc > 0 && strcmp(argv[0], "import") == 0) {
        return moe_plan_command_import(argc - 1, argv + 1, err);
    }
    MOE_TRY(parse(&request, argc, argv, help, err));
    return help ? MOE_OK : plan(&request, err);
}

const struct moe_command moe_command_plan = {
    .name = "plan",
    .summary = "place experts by recorded loads and write the plan for an engine",
    .run = run,
};
