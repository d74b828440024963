#include "sim/engine/serving/waiting_room.h"

#include <string.h>

#include "sim/engine/serving/serving.h"

#include "sim/base/no_malloc.h"

/* Rows for the signatures of those who wait, and to count them. */
static enum moe_status make_signatures(struct moe_waiting_room *room, struct moe_arena *arena,
                                       struct moe_error *err)
{
    const struct moe_trace_model *model = moe_trace_model(room->trace);
    const size_t cells = (size_t) room->shape.layer_count * room->shape.expert_count;
    const size_t trace_cells = (size_t) model->layer_count * model->expert_count;
    const size_t row_items = (size_t) model->layer_count * model->top_k;
    float *all = MOE_NEW(arena, float, room->lookahead *cells);
    room->signature = MOE_NEW(arena, float *, room->lookahead);
    room->trace_counts = MOE_NEW(arena, uint64_t, trace_cells);
    room->expanded = MOE_NEW(arena, double, cells);
    room->rows = MOE_NEW(arena, uint16_t, MOE_REPLAY_BLOCK_ROWS * row_items);
    if (all == NULL || room->signature == NULL || room->trace_counts == NULL ||
        room->expanded == NULL || room->rows == NULL) {
        return moe_fail(err, MOE_LIMIT, "no room for the signatures of %u waiting requests",
                        room->lookahead);
    }
    for (uint32_t i = 0; i < room->lookahead; i++) {
        room->signature[i] = all + i * cells;
    }
    return MOE_OK;
}

static enum moe_status start_policy(struct moe_waiting_room *room,
                                    const struct moe_waiting_room_setup *setup,
                                    struct moe_error *err)
{
    const struct moe_policy *policy = setup->part->policy;
    struct moe_place_view shown;
    double unused[MOE_POLICY_PARAMETER_LIMIT];
    struct moe_error reason = { 0 };
    struct moe_place_view planning = *setup->planning;
    planning.parameters = setup->part->values;
    enum moe_status status = moe_policy_show(policy, &planning, &shown, unused, &reason);
    room->seed = shown.seed;
    if (status == MOE_OK && policy->group->init != NULL) {
        status = policy->group->init(&shown, setup->placement, setup->state_arena, &room->state,
                                     &room->lookahead, &reason);
    }
    if (status == MOE_OK && (room->lookahead < 1 || room->lookahead > MOE_GROUP_LOOKAHEAD_LIMIT)) {
        status = moe_fail(&reason, MOE_POLICY, "a lookahead of %u; allowed: 1 to %d",
                          room->lookahead, MOE_GROUP_LOOKAHEAD_LIMIT);
    }
    return status == MOE_OK
               ? MOE_OK
               : moe_fail(err, status, "group policy %s: %s", policy->name, reason.text);
}

enum moe_status moe_waiting_room_init(struct moe_waiting_room *room,
                                      const struct moe_waiting_room_setup *setup,
                                      struct moe_error *err)
{
    const uint32_t gpus = setup->placement->shape.gpu_count;
    *room = (struct moe_waiting_room){
        .part = setup->part,
        .shape = setup->placement->shape,
        .map = setup->map,
        .trace = setup->trace,
        .intake = setup->intake,
        .options = setup->options,
        .lookahead = 1,
    };
    MOE_TRY(start_policy(room, setup, err));
    room->waiting = MOE_NEW(setup->state_arena, struct moe_waiting_request, room->lookahead);
    room->incoming = MOE_NEW(setup->state_arena, struct moe_arrival, room->lookahead);
    room->running = MOE_NEW(setup->state_arena, uint32_t, gpus);
    room->free_seats = MOE_NEW(setup->state_arena, uint32_t, gpus);
    room->kv_free = MOE_NEW(setup->state_arena, uint64_t, gpus);
    if (room->waiting == NULL || room->incoming == NULL || room->running == NULL ||
        room->free_seats == NULL || room->kv_free == NULL) {
        return moe_fail(err, MOE_LIMIT, "no room for %u waiting requests", room->lookahead);
    }
    return (setup->part->policy->needs & MOE_POLICY_NEEDS_ROUTES) != 0
               ? make_signatures(room, setup->state_arena, err)
               : MOE_OK;
}

/* Counts of the prompt's routes into the signature row of place `at`. */
static enum moe_status sign(struct moe_waiting_room *room, uint32_t at,
                            const struct moe_trace_request *request, struct moe_error *err)
{
    const struct moe_trace_model *model = moe_trace_model(room->trace);
    const size_t cells = (size_t) room->shape.layer_count * room->shape.expert_count;
    uint64_t unknown = 0;
    memset(room->trace_counts, 0,
           (size_t) model->layer_count * model->expert_count * sizeof *room->trace_counts);
    MOE_TRY(moe_replay_count(room->trace, request->first_row, request->prompt_tokens, room->rows,
                             room->trace_counts, &unknown, err));
    moe_replay_expand(room->map, room->trace_counts, room->expanded);
    for (size_t i = 0; i < cells; i++) {
        room->signature[at][i] = (float) room->expanded[i];
    }
    room->waiting[at].signature = room->signature[at];
    return MOE_OK;
}

enum moe_status moe_waiting_room_fill(struct moe_waiting_room *room, moe_time_ns now_ns,
                                      struct moe_error *err)
{
    const struct moe_arrival *incoming = NULL;
    while (room->count < room->lookahead &&
           (incoming = moe_intake_peek(room->intake, now_ns)) != NULL) {
        if (room->count > 0 && incoming->scored != room->scored) {
            return MOE_OK;
        }
        room->scored = incoming->scored;
        room->incoming[room->count] = *incoming;
        room->waiting[room->count] = (struct moe_waiting_request){
            .request = incoming->request,
            .prompt_tokens = incoming->prompt_tokens,
            .domain = incoming->domain,
            .kv_tokens = moe_serving_admission_tokens(room->options, incoming),
        };
        if (room->signature != NULL) {
            MOE_TRY(
                sign(room, room->count, moe_trace_requests(room->trace) + incoming->request, err));
        }
        room->count++;
        moe_intake_take(room->intake);
    }
    return MOE_OK;
}

/* Whether anybody fits anywhere: only then is the policy asked. */
static bool somebody_fits(const struct moe_waiting_room *room)
{
    uint64_t least = UINT64_MAX;
    for (uint32_t i = 0; i < room->count; i++) {
        least = room->waiting[i].kv_tokens < least ? room->waiting[i].kv_tokens : least;
    }
    for (uint32_t gpu = 0; gpu < room->shape.gpu_count && room->count > 0; gpu++) {
        if (room->free_seats[gpu] > 0 && room->kv_free[gpu] >= least) {
            return true;
        }
    }
    return false;
}

enum moe_status moe_waiting_room_choose(struct moe_waiting_room *room, const uint32_t *running,
                                        struct moe_group_choice *choice, struct moe_error *err)
{
    const struct moe_group_view view = {
        .shape = room->shape,
        .waiting_count = room->count,
        .waiting = room->waiting,
        .free_seats = room->free_seats,
        .running = running,
        .kv_free_tokens = room->kv_free,
        .parameters = room->part->values,
        .seed = room->seed,
    };
    *choice = (struct moe_group_choice){ .gpu = room->shape.gpu_count };
    return somebody_fits(room)
               ? moe_policy_choose(room->part->policy, room->state, &view, choice, err)
               : MOE_OK;
}

void moe_waiting_room_leave(struct moe_waiting_room *room, uint32_t waiting,
                            struct moe_arrival *chosen)
{
    *chosen = room->incoming[waiting];
    for (uint32_t i = 0; i < waiting; i++) {
        room->waiting[i].passed_over++;
    }
    /* Those behind move up, and their signatures with them; the free row goes to the end. */
    const uint32_t behind = room->count - 1 - waiting;
    memmove(&room->waiting[waiting], &room->waiting[waiting + 1], behind * sizeof *room->waiting);
    memmove(&room->incoming[waiting], &room->incoming[waiting + 1],
            behind * sizeof *room->incoming);
    if (room->signature != NULL) {
        float *row = room->signature[waiting];
        memmove(&room->signature[waiting], &room->signature[waiting + 1],
                behind * sizeof *room->signature);
        room->signature[room->count - 1] = row;
    }
    room->count--;
}
