#include "sim/command/compare_loads.h"

#include <inttypes.h>
#include <stdio.h>
#include <string.h>

#include "policies/bounds.h"
#include "policies/policy.h"
#include "sim/base/options.h"
#include "sim/command/command.h"
#include "traces/dump_loads.h"

enum { INPUT_LIMIT = 1024 };

struct request {
    struct moe_import_request import;
    const char *inputs[INPUT_LIMIT + 1];
    const char *policies; /* NULL: all */
    uint32_t gpu_count;
    uint32_t node_count;
    uint32_t slot_count; /* 0: chosen */
    uint32_t group_count;
    double share;
    uint64_t seed;
};

/* What one placement does. */
struct row {
    const char *name;
    double scored;  /* balancedness on what follows the plan */
    double planned; /* on what it was planned on */
    double excess;  /* mean over layers of max/mean GPU load on what follows */
    double copies;  /* redundant ones, mean over layers */
    bool is_baseline;
};

static enum moe_status parse(struct request *request, int argc, char **argv, bool help,
                             struct moe_error *err)
{
    struct moe_positionals more = { .items = request->inputs + 1, .min = 0, .max = INPUT_LIMIT };
    const struct moe_option options[] = {
        { "loads", MOE_OPTION_TEXT, &request->inputs[0], "DUMP",
          "an engine's files, their folder, or a trace store; needed", 0, 0 },
        { "gpus", MOE_OPTION_COUNT, &request->gpu_count, "N",
          "GPUs that share a layer's experts; needed", 1, MOE_SLOT_EMPTY - 1 },
        { "nodes", MOE_OPTION_COUNT, &request->node_count, "N", "nodes that hold these GPUs", 1,
          MOE_SLOT_EMPTY - 1 },
        { "slots", MOE_OPTION_COUNT, &request->slot_count, "N",
          "physical slots of a layer; 0 = as recorded, else one redundant slot per GPU", 0,
          MOE_SLOT_EMPTY - 1 },
        { "groups", MOE_OPTION_COUNT, &request->group_count, "N", "routing groups", 1,
          MOE_SLOT_EMPTY - 1 },
        { "policies", MOE_OPTION_TEXT, &request->policies, "A,B,...",
          "policies to compare; all when not given", 0, 0 },
        { "plan-share", MOE_OPTION_REAL, &request->share, "X",
          "first part of the recording to plan on; the rest is scored", 0.001, 0.999 },
        { "seed", MOE_OPTION_SEED, &request->seed, "S", "for randomised policies", 0, 0 },
        { "format", MOE_OPTION_TEXT, &request->import.format, "FORMAT",
          "what the dump is (`moesim trace import --help`)", 0, 0 },
        { "layers", MOE_OPTION_TEXT, &request->import.options.layers, "LAYERS",
          "recorded layers to keep: all, moe, or a list", 0, 0 },
        { "experts", MOE_OPTION_COUNT, &request->import.options.expert_count, "N",
          "experts of a layer, where the dump does not say", 0, MOE_TRACE_EXPERT_LIMIT },
        { "top-k", MOE_OPTION_COUNT, &request->import.options.top_k, "N",
          "choices of a token, where the dump does not say", 0, MOE_TRACE_TOP_K_LIMIT },
        { "skip-warmup", MOE_OPTION_FLAG, &request->import.options.skip_warmup, NULL,
          "leave out identical leading rows", 0, 0 },
    };
    const size_t count = sizeof options / sizeof options[0];
    if (help) {
        (void) puts("usage: moesim compare --loads DUMP [FILE ...] --gpus N [OPTION ...]");
        moe_options_print(stdout, options, count);
        return MOE_OK;
    }
    MOE_TRY(moe_options_parse(options, count, &more, argc, argv, err));
    if (request->inputs[0] == NULL || request->gpu_count == 0) {
        return moe_fail(err, MOE_RANGE, "%s is needed",
                        request->inputs[0] == NULL ? "--loads" : "--gpus");
    }
    request->import.inputs = request->inputs;
    request->import.input_count = 1 + more.count;
    return MOE_OK;
}

static void print_row(const struct row *row)
{
    (void) printf("  %-16s %8.4f %9.3f %10.4f %8.1f  %s\n", row->name, row->scored, row->excess,
                  row->planned, row->copies, row->is_baseline ? "baseline" : "");
}

static void score(struct row *row, const struct moe_placement *plan,
                  const struct moe_dump_loads *loads, struct moe_arena *scratch)
{
    const struct moe_placement_shape *shape = &plan->shape;
    uint64_t used = 0;
    for (size_t i = 0; i < (size_t) shape->layer_count * shape->slot_count; i++) {
        used += plan->expert_of_slot[i] != MOE_SLOT_EMPTY;
    }
    row->copies = (double) used / shape->layer_count - shape->expert_count;
    row->excess = 0.0;
    moe_arena_reset(scratch);
    double *gpu_load = MOE_NEW(scratch, double, shape->gpu_count);
    for (uint32_t layer = 0; layer < shape->layer_count; layer++) {
        double max = 0.0;
        double sum = 0.0;
        moe_placement_gpu_load(plan, layer, loads->scored + (size_t) layer * shape->expert_count,
                               gpu_load);
        for (uint32_t gpu = 0; gpu < shape->gpu_count; gpu++) {
            max = gpu_load[gpu] > max ? gpu_load[gpu] : max;
            sum += gpu_load[gpu];
        }
        row->excess += (sum > 0.0 ? max * shape->gpu_count / sum : 1.0) / shape->layer_count;
    }
    moe_arena_reset(scratch);
    row->scored = moe_placement_balancedness(plan, loads->scored, scratch);
    moe_arena_reset(scratch);
    row->planned = moe_placement_balancedness(plan, loads->planned, scratch);
}

static struct moe_placement_shape shape_of(const struct request *request,
                                           const struct moe_dump_loads *loads, uint32_t slot_count)
{
    return (struct moe_placement_shape){
        .layer_count = loads->model.layer_count,
        .expert_count = loads->model.expert_count,
        .slot_count = slot_count,
        .gpu_count = request->gpu_count,
        .node_count = request->node_count,
        .group_count = request->group_count,
    };
}

/* The recorded placement, on these GPUs; false when its slots do not divide over them. */
static bool score_recorded(struct row *row, const struct request *request,
                           const struct moe_dump_loads *loads, struct moe_arena *scratch)
{
    const struct moe_placement plan = { shape_of(request, loads, loads->slot_count),
                                        loads->placement };
    struct moe_error err;
    if (loads->slot_count == 0) {
        return false;
    }
    if (moe_placement_shape_check(&plan.shape, &err) != MOE_OK ||
        moe_placement_check(&plan, &err) != MOE_OK) {
        (void) printf("the recorded placement cannot be laid on these GPUs: %s\n", err.text);
        return false;
    }
    *row = (struct row){ .name = "recorded", .is_baseline = true };
    score(row, &plan, loads, scratch);
    return true;
}

/* Whether list, parted by commas, names item; NULL names all. */
static bool is_named(const char *list, const char *item)
{
    const size_t length = strlen(item);
    for (const char *p = list; p != NULL; p = strchr(p, ',')) {
        p += strspn(p, ", ");
        if (strncmp(p, item, length) == 0 && strchr(", ", p[length]) != NULL) {
            return true;
        }
    }
    return list == NULL;
}

/* Names in the list that no policy has. */
static enum moe_status check_names(const char *list, struct moe_error *err)
{
    for (const char *p = list; p != NULL; p = strchr(p, ',')) {
        const struct moe_policy *policy = NULL;
        char name[64];
        p += strspn(p, ", ");
        (void) snprintf(name, sizeof name, "%.*s", (int) strcspn(p, ", "), p);
        MOE_TRY(moe_policy_find(name, &policy, err));
    }
    return MOE_OK;
}

static enum moe_status score_policy(struct row *row, const struct moe_policy *policy,
                                    const struct moe_place_view *view,
                                    const struct moe_dump_loads *loads, struct moe_arena *arena,
                                    struct moe_arena *scratch, struct moe_error *err)
{
    struct moe_placement plan;
    moe_arena_reset(arena);
    moe_arena_reset(scratch);
    MOE_TRY(moe_placement_init(&plan, arena, &view->shape, err));
    MOE_TRY(moe_policy_place(policy, view, scratch, &plan, err));
    *row = (struct row){ .name = policy->name };
    score(row, &plan, loads, scratch);
    return MOE_OK;
}

static void print_head(const struct moe_dump_loads *loads, const struct moe_placement_shape *shape)
{
    const bool routes = loads->model.content == MOE_TRACE_ROUTES;
    (void) printf("%s: %u layers of %u experts; %u slots on %u GPUs of %u node%s\n",
                  loads->model.name, shape->layer_count, shape->expert_count, shape->slot_count,
                  shape->gpu_count, shape->node_count, shape->node_count == 1 ? "" : "s");
    if (loads->in_sample) {
        (void) printf("one step only: planned and scored on the same loads (in-sample)\n");
    } else {
        (void) printf("planned on the first %" PRIu64 " of %" PRIu64
                      " %s, scored on what follows\n",
                      loads->planned_units, loads->unit_count, routes ? "tokens" : "steps");
    }
    (void) printf("  %-16s %8s %9s %10s %8s\n", "policy", "scored", "max/mean", "in-sample",
                  "copies");
}

static enum moe_status compare(const struct request *request, const struct moe_dump_loads *loads,
                               struct moe_arena *arena, struct moe_arena *scratch,
                               struct moe_error *err)
{
    const uint32_t experts = loads->model.expert_count;
    const uint32_t gpus = request->gpu_count;
    const uint32_t chosen = loads->slot_count > 0 && loads->slot_count % gpus == 0
                                ? loads->slot_count
                                : ((experts + gpus - 1) / gpus + 1) * gpus;
    const struct moe_place_view view = {
        .shape = shape_of(request, loads, request->slot_count != 0 ? request->slot_count : chosen),
        .load = loads->planned,
        .future_load = loads->scored,
        .seed = request->seed,
    };
    struct row row;
    size_t count = 0;
    const struct moe_policy *const *policies = moe_policy_list(&count);
    MOE_TRY(moe_placement_shape_check(&view.shape, err));
    print_head(loads, &view.shape);
    const bool recorded = score_recorded(&row, request, loads, scratch);
    if (recorded) {
        print_row(&row);
    }
    for (size_t i = 0; i < count; i++) {
        struct moe_error reason = { 0 };
        if (!is_named(request->policies, policies[i]->name)) {
            continue;
        }
        const enum moe_status status =
            score_policy(&row, policies[i], &view, loads, arena, scratch, &reason);
        if (status == MOE_POLICY && request->policies == NULL) {
            (void) printf("  %-16s %s\n", policies[i]->name, reason.text);
            continue;
        }
        if (status != MOE_OK) {
            return moe_fail(err, status, "%s", reason.text);
        }
        row.is_baseline = !recorded && strcmp(policies[i]->name, "contiguous") == 0;
        print_row(&row);
    }
    (void) printf("  %-16s %8.4f\n  %-16s %8.4f\n", "bound, no copies",
                  moe_bound_no_copy_balancedness(&view.shape, loads->scored), "bound, perfect",
                  1.0);
    (void) printf("scored, in-sample: mean GPU load / max GPU load per layer, averaged; copies: "
                  "redundant ones per layer\n");
    return MOE_OK;
}

bool moe_compare_loads_is_wanted(int argc, char **argv)
{
    for (int i = 0; i < argc; i++) {
        if (strcmp(argv[i], "--") == 0) {
            return false;
        }
        if (strcmp(argv[i], "--loads") == 0 || strncmp(argv[i], "--loads=", 8) == 0) {
            return true;
        }
    }
    return false;
}

enum moe_status moe_compare_loads(int argc, char **argv, struct moe_error *err)
{
    static struct request request; /* 8 KiB */
    struct moe_dump_loads loads = { 0 };
    struct moe_arena arena = { 0 };
    struct moe_arena scratch = { 0 };
    const bool help = moe_command_wants_help(argc, argv);
    request = (struct request){ .node_count = 1, .group_count = 1, .seed = 1, .share = 0.5 };
    request.import.format = "auto";
    MOE_TRY(parse(&request, argc, argv, help, err));
    if (help) {
        return MOE_OK;
    }
    MOE_TRY(check_names(request.policies, err));
    MOE_TRY(moe_dump_loads_read(&loads, &request.import, request.share, err));
    const size_t slots = MOE_SLOT_EMPTY;
    enum moe_status status =
        moe_arena_init(&arena, loads.model.layer_count * slots * sizeof(uint16_t) + (1 << 12), err);
    if (status == MOE_OK) {
        status = moe_arena_init(&scratch, 256 * slots + (16 << 20), err);
    }
    if (status == MOE_OK) {
        status = compare(&request, &loads, &arena, &scratch, err);
    }
    moe_arena_finish(&scratch);
    moe_arena_finish(&arena);
    moe_dump_loads_finish(&loads);
    return status;
}
