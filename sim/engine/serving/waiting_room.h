/*
 * Waiting room: the next requests that have come in, from which a group policy chooses.
 *
 * It holds up to lookahead requests in order of arrival, filled up before every choice. Requests
 * that are scored and those of the planning set never wait together, so that no pass is begun
 * before the other is admitted. A policy that works in turn has no room: serving.h does that.
 */
#ifndef MOE_SIM_ENGINE_WAITING_ROOM_H
#define MOE_SIM_ENGINE_WAITING_ROOM_H

#include <stdbool.h>
#include <stdint.h>

#include "policies/composition.h"
#include "sim/base/arena.h"
#include "sim/base/time.h"
#include "sim/engine/replay_map.h"
#include "sim/engine/serving/intake.h"
#include "sim/scenario/scenario.h"
#include "traces/trace_store.h"

struct moe_waiting_room {
    const struct moe_composition_part *part;
    void *state;
    struct moe_placement_shape shape;
    uint64_t seed;
    const struct moe_replay_map *map;
    struct moe_trace *trace;
    struct moe_intake *intake;
    const struct moe_serving *options;
    uint32_t lookahead;
    bool scored;                         /* what waits is scored */
    uint32_t count;                      /* that wait */
    struct moe_waiting_request *waiting; /* [lookahead] */
    struct moe_arrival *incoming;        /* [lookahead] the same, as they came in */
    float **signature;                   /* [lookahead] rows of [layer][expert]; NULL: not asked */
    uint64_t *trace_counts;              /* [trace layer][expert] of one request */
    double *expanded;                    /* [layer][expert] */
    uint16_t *rows;                      /* [MOE_REPLAY_BLOCK_ROWS][trace layer][k] */
    uint32_t *free_seats;                /* [gpu] scratch of one sweep */
    uint64_t *kv_free;                   /* [gpu] */
    uint32_t *running;                   /* [gpu] */
};

struct moe_waiting_room_setup {
    const struct moe_composition_part *part; /* group; outlives the room */
    const struct moe_place_view *planning;   /* everything there is; outlives the room */
    const struct moe_placement *placement;
    const struct moe_replay_map *map;
    struct moe_trace *trace;
    struct moe_intake *intake;
    const struct moe_serving *options;
    struct moe_arena *state_arena; /* of the policy's own memory and of the room */
};

/* Errors: MOE_LIMIT when memory is short; what the policy's init returns. */
enum moe_status moe_waiting_room_init(struct moe_waiting_room *room,
                                      const struct moe_waiting_room_setup *setup,
                                      struct moe_error *err) MOE_MUST_CHECK;

/* Takes requests that have arrived until the room is full or none may join those in it.
 * Errors: as moe_trace_read (signatures). */
enum moe_status moe_waiting_room_fill(struct moe_waiting_room *room, moe_time_ns now_ns,
                                      struct moe_error *err) MOE_MUST_CHECK;

/* Who joins which GPU, with room->free_seats and kv_free as they are; choice->gpu =
 * shape.gpu_count when none fits or the policy takes none. Errors: MOE_POLICY when the choice
 * does not fit. */
enum moe_status moe_waiting_room_choose(struct moe_waiting_room *room, const uint32_t *running,
                                        struct moe_group_choice *choice,
                                        struct moe_error *err) MOE_MUST_CHECK;

/* The chosen one leaves the room, into *chosen; those before it were passed over. */
void moe_waiting_room_leave(struct moe_waiting_room *room, uint32_t waiting,
                            struct moe_arrival *chosen);

/* Whether the next request to admit is one to score. */
static inline bool moe_waiting_room_scores_next(const struct moe_waiting_room *room)
{
    return room->count > 0 ? room->scored : moe_intake_scores_next(room->intake);
}

#endif
