/* Who joins which rank, and when. */
#include "sim/engine/serving/batch.h"

#include <assert.h>

#include "sim/base/no_malloc.h"

uint64_t moe_serving_admission_tokens(const struct moe_serving *options,
                                      const struct moe_arrival *incoming)
{
    const uint64_t prompt = incoming->prompt_tokens;
    const uint64_t output = incoming->output_tokens;
    if (options->kv == MOE_KV_RESERVE) {
        return prompt + output;
    }
    const uint64_t unread = prompt - incoming->hit_tokens;
    uint64_t tokens = incoming->hit_tokens +
                      (unread < options->step_tokens ? unread : (uint64_t) options->step_tokens);
    if (options->output_reserve > 0.0) {
        tokens = prompt + (uint64_t) (options->output_reserve * (double) output);
    }
    return (tokens + options->page_tokens - 1) / options->page_tokens * options->page_tokens;
}

static enum moe_status refuse_long(const struct moe_serving_state *s, uint32_t request,
                                   uint64_t tokens, struct moe_error *err)
{
    return moe_fail(err, MOE_LIMIT,
                    "request %u has %llu tokens; the KV cache of a GPU holds %llu: "
                    "more GPUs, fewer slots or a smaller reserve would make room",
                    request, (unsigned long long) tokens, (unsigned long long) s->kv_tokens);
}

/* Whether an empty rank holds all of it. */
static enum moe_status check_length(const struct moe_serving_state *s,
                                    const struct moe_arrival *incoming, struct moe_error *err)
{
    const uint64_t whole = (uint64_t) incoming->prompt_tokens + incoming->output_tokens;
    return moe_batch_round(s, whole) <= s->kv_tokens
               ? MOE_OK
               : refuse_long(s, incoming->request, whole, err);
}

static uint32_t beyond(uint32_t rows, uint32_t recorded)
{
    return rows > recorded ? rows - recorded : 0;
}

static struct moe_sequence *seat(struct moe_serving_state *s, uint32_t rank,
                                 const struct moe_arrival *incoming, moe_time_ns now_ns)
{
    const struct moe_trace_request *from = moe_trace_requests(s->setup.trace) + incoming->request;
    struct moe_sequence *to = moe_batch_sequences(s, rank);
    uint32_t slot = 0;
    while (to->running || to->preempted) {
        to++;
        slot++;
    }
    uint16_t *buffer = to->buffer;
    *to = (struct moe_sequence){
        .running = true,
        .arrival = *incoming,
        .from = from,
        .prompt_tokens = incoming->prompt_tokens,
        .output_tokens = incoming->output_tokens,
        .hit_tokens = incoming->hit_tokens,
        .known_rows = incoming->prompt_tokens,
        .done_rows = incoming->hit_tokens,
        .admission = s->admissions,
        .since_ns = moe_intake_is_open(s->setup.intake) ? incoming->arrival_ns : now_ns,
        .admitted_ns = now_ns,
        .buffer = buffer,
    };
    if (moe_batch_pages(s)) {
        moe_batch_order(s, rank)[moe_batch_active(s, rank)] = slot;
    } else {
        to->kv_held = (uint64_t) incoming->prompt_tokens + incoming->output_tokens;
        s->kv_used[rank] += to->kv_held;
    }
    s->running[rank]++;
    s->admissions++;
    s->repeated_rows += beyond(to->output_tokens, from->output_tokens);
    if (s->setup.moved != NULL) {
        moe_moved_seat(s, rank, to, now_ns);
        return to;
    }
    s->hit_rows += incoming->hit_tokens;
    s->repeated_rows += beyond(to->prompt_tokens, from->prompt_tokens);
    return to;
}

/* With pages who has just joined runs its first chunk at once. */
static void begin_prompt(struct moe_serving_state *s, uint32_t rank, struct moe_sequence *q,
                         struct moe_token_work *work)
{
    if (!moe_batch_pages(s) || q->arriving) {
        return;
    }
    const uint32_t rows = moe_batch_chunk(s, rank, q);
    if (rows > 0 && moe_batch_grow(s, rank, q, rows)) {
        moe_batch_take(s, rank, q, rows, work);
    }
}

/* What the running ones may still take of their output, by the share that is kept for them. */
static uint64_t promised(const struct moe_serving_state *s, uint32_t rank)
{
    uint64_t left = 0;
    if (!moe_batch_pages(s) || s->setup.options->output_reserve <= 0.0) {
        return 0;
    }
    for (uint32_t i = 0; i < moe_batch_active(s, rank); i++) {
        const struct moe_sequence *q = moe_batch_sequences(s, rank) + moe_batch_order(s, rank)[i];
        const uint64_t unread =
            q->known_rows > q->kv_held ? q->known_rows - q->kv_held : UINT64_C(0);
        left += unread + (uint64_t) (s->setup.options->output_reserve *
                                     (double) (moe_batch_row_count(q) - q->known_rows));
    }
    return left;
}

/* Free cache that newcomers may count on. */
static uint64_t free_tokens(const struct moe_serving_state *s, uint32_t rank)
{
    const uint64_t taken = s->kv_used[rank] + promised(s, rank);
    return taken < s->kv_tokens ? s->kv_tokens - taken : 0;
}

static bool joinable(const struct moe_serving_state *s, uint32_t rank)
{
    return !s->closed[rank] && s->running[rank] < s->running_per_gpu && !s->blocked[rank] &&
           s->preempted[rank] == 0 && (!moe_batch_pages(s) || s->budget[rank] > 0);
}

/* Nobody runs here, and no cache is still to be moved on. */
static bool is_empty(const struct moe_serving_state *s, uint32_t rank)
{
    return s->running[rank] == 0 && s->leaving[rank] == 0;
}

/* An empty rank takes whatever fits it, else what may never be promised would wait forever. */
static bool fits(const struct moe_serving_state *s, uint32_t rank, uint64_t tokens)
{
    return free_tokens(s, rank) >= tokens || is_empty(s, rank);
}

static void come_back(struct moe_serving_state *s, uint32_t rank, struct moe_token_work *work)
{
    while (s->preempted[rank] > 0 && !s->blocked[rank] && s->budget[rank] > 0) {
        const uint32_t slot = moe_batch_stack(s, rank)[s->preempted[rank] - 1];
        struct moe_sequence *q = moe_batch_sequences(s, rank) + slot;
        const uint32_t unread = q->known_rows - q->done_rows;
        const uint64_t first = unread < s->budget[rank] ? unread : s->budget[rank];
        const uint64_t tokens = moe_batch_round(s, q->done_rows + first);
        if (tokens > free_tokens(s, rank) && moe_batch_active(s, rank) > 0) {
            return;
        }
        moe_batch_order(s, rank)[moe_batch_active(s, rank)] = slot;
        s->preempted[rank]--;
        q->preempted = false;
        q->running = true;
        begin_prompt(s, rank, q, work);
    }
}

/* One sweep over the ranks from the first on; *last: who took one last. */
static enum moe_status sweep(struct moe_serving_state *s, moe_time_ns now_ns, uint32_t first,
                             struct moe_token_work *work, bool *admitted, uint32_t *last,
                             struct moe_error *err)
{
    const uint32_t ranks = s->setup.rank_count;
    *admitted = false;
    for (uint32_t i = 0; i < ranks; i++) {
        const uint32_t rank = first + i < ranks ? first + i : first + i - ranks;
        const struct moe_arrival *incoming = moe_intake_peek(s->setup.intake, now_ns);
        if (incoming == NULL || !joinable(s, rank)) {
            continue;
        }
        MOE_TRY(check_length(s, incoming, err));
        if (fits(s, rank, moe_serving_admission_tokens(s->setup.options, incoming))) {
            begin_prompt(s, rank, seat(s, rank, incoming, now_ns), work);
            moe_intake_take(s->setup.intake);
            *admitted = true;
            *last = rank;
        }
    }
    return MOE_OK;
}

static enum moe_status admit_in_turn(struct moe_serving_state *s, moe_time_ns now_ns,
                                     struct moe_token_work *work, struct moe_error *err)
{
    for (bool admitted = true; admitted;) {
        uint32_t last = 0;
        MOE_TRY(
            sweep(s, now_ns, moe_batch_pages(s) ? s->next_rank : 0, work, &admitted, &last, err));
        if (admitted) {
            s->next_rank = last + 1 < s->setup.rank_count ? last + 1 : 0;
        }
    }
    return MOE_OK;
}

/* What is free, into the waiting room, at the first GPU of each rank. Returns who runs. */
static uint64_t open_seats(struct moe_serving_state *s)
{
    struct moe_waiting_room *room = s->setup.room;
    assert(s->setup.rank_count > 0);
    const uint32_t gpus = room->shape.gpu_count / s->setup.rank_count;
    uint64_t running = 0;
    for (uint32_t gpu = 0; gpu < room->shape.gpu_count; gpu++) {
        const uint32_t rank = gpu / gpus;
        const bool open = gpu % gpus == 0 && joinable(s, rank);
        const uint64_t room_left = free_tokens(s, rank);
        room->free_seats[gpu] = open ? s->running_per_gpu - s->running[rank] : 0;
        room->kv_free[gpu] = is_empty(s, rank) ? s->kv_tokens : room_left;
        room->running[gpu] = s->running[rank];
        running += gpu % gpus == 0 ? s->running[rank] + (s->leaving[rank] > 0) : 0;
    }
    return running;
}

static enum moe_status admit_chosen(struct moe_serving_state *s, moe_time_ns now_ns,
                                    struct moe_token_work *work, struct moe_error *err)
{
    struct moe_waiting_room *room = s->setup.room;
    assert(s->setup.rank_count > 0);
    const uint32_t gpus = room->shape.gpu_count / s->setup.rank_count;
    uint64_t running = open_seats(s);
    for (;;) {
        struct moe_group_choice choice;
        struct moe_arrival chosen;
        MOE_TRY(moe_waiting_room_fill(room, now_ns, err));
        for (uint32_t i = 0; i < room->count; i++) {
            MOE_TRY(check_length(s, &room->incoming[i], err));
        }
        MOE_TRY(moe_waiting_room_choose(room, room->running, &choice, err));
        if (choice.gpu == room->shape.gpu_count) {
            return running > 0 || room->count == 0
                       ? MOE_OK
                       : moe_fail(err, MOE_POLICY,
                                  "group policy %s: lets none of %u waiting requests in, and all "
                                  "GPUs are idle",
                                  room->part->policy->name, room->count);
        }
        moe_waiting_room_leave(room, choice.waiting, &chosen);
        begin_prompt(s, choice.gpu / gpus, seat(s, choice.gpu / gpus, &chosen, now_ns), work);
        running = open_seats(s);
    }
}

enum moe_status moe_admission_run(struct moe_serving_state *s, moe_time_ns now_ns,
                                  struct moe_token_work *work, struct moe_error *err)
{
    moe_intake_sort(s->setup.intake, now_ns);
    for (uint32_t rank = 0; rank < s->setup.rank_count; rank++) {
        come_back(s, rank, work);
    }
    return s->setup.room != NULL ? admit_chosen(s, now_ns, work, err)
                                 : admit_in_turn(s, now_ns, work, err);
}
