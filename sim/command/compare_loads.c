#include "sim/command/compare_loads.h"

#include <inttypes.h>
#include <stdio.h>
#include <string.h>

#include "policies/bounds.h"
#include "policies/composition.h"
#include "policies/policy.h"
#include "sim/base/options.h"
#include "sim/command/command.h"
#include "traces/dump_loads.h"

enum { INPUT_LIMIT = 1024, CHOICE_LIMIT = 64 };

struct request {
    struct moe_import_request import;
    const char *inputs[INPUT_LIMIT + 1];
    const char *policies; /* as given; NULL: all that plan on loads */
    struct moe_composition choices[CHOICE_LIMIT];
    uint32_t choice_count;
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
          "policies to compare, with parameters (craft:R=8), or plan files (./F); all when not "
          "given",
          0, 0 },
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

/* A policy that decides while serving has nothing to do here, and one that plans on more than
 * loads has nothing to plan on. */
static enum moe_status check_choice(const struct moe_composition *choice, struct moe_error *err)
{
    const struct moe_policy *policy = choice->part[MOE_POLICY_PLACE].policy;
    const uint32_t given = MOE_POLICY_NEEDS_LOAD | MOE_POLICY_NEEDS_BATCHES |
                           MOE_POLICY_NEEDS_FUTURE | MOE_POLICY_NEEDS_SEED |
                           MOE_POLICY_NEEDS_PREVIOUS;
    struct moe_composition alone;
    moe_composition_of(&alone, policy);
    for (int kind = MOE_POLICY_DISPATCH; kind < MOE_POLICY_KIND_COUNT; kind++) {
        if (choice->part[kind].policy != alone.part[kind].policy) {
            return moe_fail(err, MOE_RANGE,
                            "%s: loads are compared under placements; %s is decided while serving, "
                            "which `moesim run` simulates",
                            choice->label, moe_policy_kind_name((enum moe_policy_kind) kind));
        }
    }
    for (unsigned bit = 0; bit < MOE_POLICY_NEED_COUNT; bit++) {
        const enum moe_policy_need need = (enum moe_policy_need)(1u << bit);
        if ((policy->needs & ~given & need) != 0) {
            return moe_fail(err, MOE_POLICY,
                            "%s needs %s, which sums of loads cannot give; `moesim run` plans on a "
                            "trace",
                            choice->label, moe_policy_need_text(need));
        }
    }
    return MOE_OK;
}

/* What --policies names, or every placement policy that loads are enough for. */
static enum moe_status choose(struct request *request, struct moe_error *err)
{
    size_t count = 0;
    const struct moe_policy *const *policies = moe_policy_list(&count);
    for (size_t i = 0; request->policies == NULL && i < count; i++) {
        struct moe_composition *choice = &request->choices[request->choice_count];
        struct moe_error reason;
        if (!moe_policy_is(policies[i], MOE_POLICY_PLACE)) {
            continue;
        }
        if (request->choice_count == CHOICE_LIMIT) {
            return moe_fail(err, MOE_LIMIT, "more than %d policies", CHOICE_LIMIT);
        }
        moe_composition_of(choice, policies[i]);
        request->choice_count += check_choice(choice, &reason) == MOE_OK;
    }
    for (const char *p = request->policies; p != NULL; p = strchr(p, ',')) {
        char text[MOE_COMPOSITION_BYTES];
        p += strspn(p, ", ");
        const size_t length = strcspn(p, ", ");
        if (request->choice_count == CHOICE_LIMIT || length >= sizeof text) {
            return moe_fail(err, MOE_RANGE, "--policies: at most %d of at most %zu characters",
                            CHOICE_LIMIT, sizeof text - 1);
        }
        (void) snprintf(text, sizeof text, "%.*s", (int) length, p);
        struct moe_composition *choice = &request->choices[request->choice_count++];
        MOE_TRY(moe_composition_parse(choice, text, err));
        MOE_TRY(check_choice(choice, err));
    }
    return MOE_OK;
}

/* Memory of a comparison: what is planned, what it is planned against, and scratch. */
struct workspace {
    struct moe_arena kept;
    struct moe_arena arena;
    struct moe_arena scratch;
};

static enum moe_status place(struct moe_placement *plan, const struct moe_composition *choice,
                             struct moe_place_view *view, struct workspace *work,
                             struct moe_error *err)
{
    const struct moe_composition_part *part = &choice->part[MOE_POLICY_PLACE];
    moe_arena_reset(&work->scratch);
    MOE_TRY(moe_placement_init(plan, &work->arena, &view->shape, err));
    view->parameters = part->values;
    return moe_policy_place(part->policy, view, &work->scratch, plan, err);
}

static enum moe_status score_policy(struct row *row, const struct moe_composition *choice,
                                    const struct moe_place_view *view,
                                    const struct moe_dump_loads *loads, struct workspace *work,
                                    struct moe_error *err)
{
    struct moe_place_view own = *view;
    struct moe_composition contiguous;
    struct moe_placement previous;
    struct moe_placement plan;
    moe_arena_reset(&work->arena);
    MOE_TRY(moe_composition_parse(&contiguous, "contiguous", err));
    MOE_TRY(place(&previous, &contiguous, &own, work, err));
    own.previous = &previous;
    MOE_TRY(place(&plan, choice, &own, work, err));
    *row = (struct row){ .name = choice->label };
    score(row, &plan, loads, &work->scratch);
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
                               struct workspace *work, struct moe_error *err)
{
    const uint32_t experts = loads->model.expert_count;
    const uint32_t gpus = request->gpu_count;
    const uint32_t chosen = loads->slot_count > 0 && loads->slot_count % gpus == 0
                                ? loads->slot_count
                                : ((experts + gpus - 1) / gpus + 1) * gpus;
    const size_t cells = (size_t) loads->model.layer_count * experts;
    const struct moe_place_view view = {
        .shape = shape_of(request, loads, request->slot_count != 0 ? request->slot_count : chosen),
        .load = loads->planned,
        .batch_count = 1,
        .batches = moe_place_view_one_batch(loads->planned, cells, &work->kept),
        .future_load = loads->scored,
        .seed = request->seed,
    };
    struct row row;
    if (view.batches == NULL) {
        return moe_fail(err, MOE_LIMIT, "no room for %u layers of %u experts",
                        loads->model.layer_count, experts);
    }
    MOE_TRY(moe_placement_shape_check(&view.shape, err));
    print_head(loads, &view.shape);
    const bool recorded = score_recorded(&row, request, loads, &work->scratch);
    if (recorded) {
        print_row(&row);
    }
    for (uint32_t i = 0; i < request->choice_count; i++) {
        const struct moe_composition *choice = &request->choices[i];
        struct moe_error reason = { 0 };
        const enum moe_status status = score_policy(&row, choice, &view, loads, work, &reason);
        if (status == MOE_POLICY && request->policies == NULL) {
            (void) printf("  %-16s %s\n", choice->label, reason.text);
            continue;
        }
        if (status != MOE_OK) {
            return moe_fail(err, status, "%s", reason.text);
        }
        row.is_baseline = !recorded && strcmp(choice->label, "contiguous") == 0;
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
    static struct request request; /* too large for a stack */
    struct moe_dump_loads loads = { 0 };
    struct workspace work = { 0 };
    const bool help = moe_command_wants_help(argc, argv);
    request = (struct request){ .node_count = 1, .group_count = 1, .seed = 1, .share = 0.5 };
    request.import.format = "auto";
    MOE_TRY(parse(&request, argc, argv, help, err));
    if (help) {
        return MOE_OK;
    }
    MOE_TRY(choose(&request, err));
    MOE_TRY(moe_dump_loads_read(&loads, &request.import, request.share, err));
    const size_t plan_bytes = (size_t) loads.model.layer_count * MOE_SLOT_EMPTY * sizeof(uint16_t);
    enum moe_status status = moe_arena_init(&work.arena, 2 * plan_bytes + (1 << 12), err);
    if (status == MOE_OK) {
        status =
            moe_arena_init(&work.scratch, ((size_t) 64 << 20) + 256 * (size_t) MOE_SLOT_EMPTY, err);
    }
    if (status == MOE_OK) {
        status = moe_arena_init(
            &work.kept,
            (size_t) loads.model.layer_count * loads.model.expert_count * sizeof(float) + (1 << 12),
            err);
    }
    if (status == MOE_OK) {
        status = compare(&request, &loads, &work, err);
    }
    moe_arena_finish(&work.scratch);
    moe_arena_finish(&work.arena);
    moe_arena_finish(&work.kept);
    moe_dump_loads_finish(&loads);
    return status;
}
