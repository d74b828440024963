/* The timeline event by event: what `--detail` shows, and what the fast path is held to. */
#include <assert.h>
#include <inttypes.h>

#include "sim/engine/timeline.h"

#include "sim/base/no_malloc.h"

/* What an event's detail says; the kind says only its rank within an instant. */
enum phase { PHASE_BEFORE, PHASE_SHARED, PHASE_DISPATCH, PHASE_EXPERT, PHASE_COMBINE, PHASE_AFTER };

static const char *const phase_name[] = { "before", "shared",  "dispatch",
                                          "expert", "combine", "after" };

/* The step being played. */
struct stage {
    const struct moe_step_times *times;
    struct moe_event_player *player;
    moe_time_ns origin_ns; /* the queue's clock at the step's start */
    struct moe_barrier *barriers;
    uint32_t arrived; /* ranks at the barrier now filling */
    struct moe_barrier filling;
    moe_time_ns sum_ns;
    moe_time_ns second_ns;
};

enum moe_status moe_event_player_init(struct moe_event_player *player, uint32_t gpu_count,
                                      FILE *log, struct moe_arena *arena, struct moe_error *err)
{
    *player = (struct moe_event_player){ .rank = MOE_NEW(arena, struct moe_event_rank, gpu_count),
                                         .log = log };
    if (player->rank == NULL) {
        return moe_fail(err, MOE_LIMIT, "no room for the events of %u GPUs", gpu_count);
    }
    /* A rank has one transfer or computation under way, and a shared expert beside it. */
    return moe_event_queue_init(&player->queue, arena, (size_t) 2 * gpu_count, err);
}

static enum moe_status begin(struct stage *p, uint32_t gpu, uint32_t layer, enum phase phase,
                             moe_time_ns now, moe_time_ns duration, struct moe_error *err)
{
    const enum moe_event_kind kind = phase == PHASE_DISPATCH || phase == PHASE_COMBINE
                                         ? MOE_EVENT_TRANSFER_DONE
                                         : MOE_EVENT_COMPUTE_DONE;
    if (p->player->log != NULL &&
        fprintf(p->player->log, "%" PRIu64 ",%" PRId64 ",%u,%u,%s,%" PRId64 "\n", p->player->step,
                p->player->start_ns + now, gpu, layer, phase_name[phase], duration) < 0) {
        return moe_fail(err, MOE_IO, "cannot write the event log");
    }
    return moe_event_queue_push(&p->player->queue, p->origin_ns + now + duration, kind, gpu,
                                (uint64_t) layer << 8 | (uint64_t) phase, err);
}

/* One rank reaches the barrier. True when it was the last; the barrier is then written. */
static bool arrive(struct stage *p, uint32_t gpu, moe_time_ns now, struct moe_barrier *barrier)
{
    if (p->arrived == 0 || now > p->filling.open_ns) {
        p->second_ns = p->arrived == 0 ? INT64_MIN : p->filling.open_ns;
        p->filling = (struct moe_barrier){ .open_ns = now, .last_rank = gpu };
    } else {
        p->second_ns = now; /* events come in order of time: a tie with the last */
        p->filling.last_rank = gpu < p->filling.last_rank ? gpu : p->filling.last_rank;
    }
    p->sum_ns += now;
    if (++p->arrived < p->times->gpu_count) {
        return false;
    }
    p->filling.idle_ns = p->filling.open_ns * p->times->gpu_count - p->sum_ns;
    p->filling.lead_ns = p->times->gpu_count == 1 ? 0 : p->filling.open_ns - p->second_ns;
    *barrier = p->filling;
    p->arrived = 0;
    p->sum_ns = 0;
    return true;
}

/* All ranks begin a collective; with a common exit all take as long as the longest. */
static enum moe_status exchange(struct stage *p, uint32_t layer, enum phase phase, moe_time_ns now,
                                struct moe_error *err)
{
    const uint32_t gpus = p->times->gpu_count;
    const moe_time_ns *duration =
        (phase == PHASE_DISPATCH ? p->times->dispatch : p->times->combine) + (size_t) layer * gpus;
    moe_time_ns common = 0;
    for (uint32_t gpu = 0; gpu < gpus; gpu++) {
        common = duration[gpu] > common ? duration[gpu] : common;
    }
    for (uint32_t gpu = 0; gpu < gpus; gpu++) {
        MOE_TRY(
            begin(p, gpu, layer, phase, now, p->times->common_exit ? common : duration[gpu], err));
    }
    return MOE_OK;
}

/* The experts start when both the tokens and the GPU are there. */
static enum moe_status begin_expert(struct stage *p, uint32_t gpu, uint32_t layer, moe_time_ns now,
                                    struct moe_error *err)
{
    struct moe_event_rank *rank = &p->player->rank[gpu];
    if (rank->data_ns < 0 || rank->shared_ns < 0) {
        return MOE_OK;
    }
    rank->data_ns = -1;
    rank->shared_ns = -1;
    return begin(p, gpu, layer, PHASE_EXPERT, now,
                 p->times->expert[(size_t) layer * p->times->gpu_count + gpu], err);
}

static enum moe_status after_before(struct stage *p, uint32_t gpu, uint32_t layer, moe_time_ns now,
                                    struct moe_error *err)
{
    const size_t at = (size_t) layer * p->times->gpu_count + gpu;
    struct moe_event_rank *rank = &p->player->rank[gpu];
    rank->data_ns = -1;
    rank->shared_ns = -1;
    if (p->times->shared_mode == MOE_SHARED_OVERLAPPED) {
        MOE_TRY(begin(p, gpu, layer, PHASE_SHARED, now, p->times->shared[at], err));
    }
    return arrive(p, gpu, now, &p->barriers[(size_t) 2 * layer])
               ? exchange(p, layer, PHASE_DISPATCH, now, err)
               : MOE_OK;
}

static enum moe_status after_dispatch(struct stage *p, uint32_t gpu, uint32_t layer,
                                      moe_time_ns now, struct moe_error *err)
{
    p->player->rank[gpu].data_ns = now;
    if (p->times->shared_mode == MOE_SHARED_SERIAL) {
        return begin(p, gpu, layer, PHASE_SHARED, now,
                     p->times->shared[(size_t) layer * p->times->gpu_count + gpu], err);
    }
    return begin_expert(p, gpu, layer, now, err);
}

static enum moe_status after_combine(struct stage *p, uint32_t gpu, uint32_t layer, moe_time_ns now,
                                     struct moe_error *err)
{
    const struct moe_step_times *times = p->times;
    if (layer + 1 == times->layer_count) {
        return begin(p, gpu, layer + 1, PHASE_AFTER, now, times->after[gpu], err);
    }
    return begin(p, gpu, layer + 1, PHASE_BEFORE, now,
                 times->before[(size_t) (layer + 1) * times->gpu_count + gpu], err);
}

static enum moe_status handle(struct stage *p, const struct moe_event *event, struct moe_error *err)
{
    const moe_time_ns now = event->time_ns - p->origin_ns;
    const uint32_t gpu = event->subject;
    const uint32_t layer = (uint32_t) (event->detail >> 8);
    switch ((enum phase)(event->detail & 0xff)) {
    case PHASE_BEFORE:
        return after_before(p, gpu, layer, now, err);
    case PHASE_SHARED:
        p->player->rank[gpu].shared_ns = now;
        return begin_expert(p, gpu, layer, now, err);
    case PHASE_DISPATCH:
        return after_dispatch(p, gpu, layer, now, err);
    case PHASE_EXPERT:
        return arrive(p, gpu, now, &p->barriers[(size_t) 2 * layer + 1])
                   ? exchange(p, layer, PHASE_COMBINE, now, err)
                   : MOE_OK;
    case PHASE_COMBINE:
        return after_combine(p, gpu, layer, now, err);
    case PHASE_AFTER:
        (void) arrive(p, gpu, now, &p->barriers[(size_t) 2 * p->times->layer_count]);
        return MOE_OK;
    }
    assert(0);
    return MOE_OK;
}

enum moe_status moe_timeline_events(const struct moe_step_times *times,
                                    struct moe_event_player *player, struct moe_barrier *barriers,
                                    moe_time_ns *step_ns, struct moe_error *err)
{
    struct stage stage = {
        .times = times,
        .player = player,
        .origin_ns = player->queue.now_ns,
        .barriers = barriers,
    };
    struct moe_event event;
    for (uint32_t gpu = 0; gpu < times->gpu_count; gpu++) {
        MOE_TRY(begin(&stage, gpu, 0, PHASE_BEFORE, 0, times->before[gpu], err));
    }
    while (moe_event_queue_pop(&player->queue, &event)) {
        MOE_TRY(handle(&stage, &event, err));
    }
    *step_ns = player->queue.now_ns - stage.origin_ns;
    return MOE_OK;
}
