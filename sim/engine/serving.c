#include "sim/engine/serving.h"

#include <assert.h>

#include "sim/base/no_malloc.h"

enum moe_status moe_serving_init(struct moe_serving_state *s, const struct moe_serving_setup *setup,
                                 struct moe_arena *arena, struct moe_error *err)
{
    const struct moe_trace_model *model = moe_trace_model(setup->trace);
    const uint32_t row_items = model->layer_count * model->top_k;
    const uint32_t fitting = MOE_SERVING_BUFFER_BYTES / (row_items * (uint32_t) sizeof(uint16_t));
    const size_t slots = (size_t) setup->gpu_count * setup->options->running_per_gpu;
    *s = (struct moe_serving_state){
        .setup = *setup,
        .running_per_gpu = setup->options->running_per_gpu,
        .row_items = row_items,
        .buffer_rows = fitting < 8 ? 8 : fitting,
        .kv_used = MOE_NEW(arena, uint64_t, setup->gpu_count),
        .running = MOE_NEW(arena, uint32_t, setup->gpu_count),
        .sequence = MOE_NEW(arena, struct moe_sequence, slots),
        .block = MOE_NEW(arena, const uint16_t *, MOE_SERVING_BLOCK_TOKENS),
    };
    uint16_t *buffers = MOE_NEW(arena, uint16_t, slots * s->buffer_rows * row_items);
    if (s->kv_used == NULL || s->running == NULL || s->sequence == NULL || s->block == NULL ||
        buffers == NULL) {
        return moe_fail(err, MOE_LIMIT, "no room for %zu running requests", slots);
    }
    for (size_t i = 0; i < slots; i++) {
        s->sequence[i].buffer = buffers + i * s->buffer_rows * row_items;
    }
    return MOE_OK;
}

static struct moe_sequence *sequences_of(const struct moe_serving_state *s, uint32_t gpu)
{
    return s->sequence + (size_t) gpu * s->running_per_gpu;
}

static void seat(struct moe_serving_state *s, uint32_t gpu, uint32_t request, moe_time_ns now_ns)
{
    const struct moe_trace_request *from = &s->setup.workload->requests[request];
    struct moe_sequence *to = sequences_of(s, gpu);
    while (to->running) {
        to++;
    }
    uint16_t *buffer = to->buffer;
    *to = (struct moe_sequence){
        .running = true,
        .prompt_tokens = from->prompt_tokens,
        .output_tokens = from->output_tokens,
        .first_row = from->first_row,
        .admitted_ns = now_ns,
        .buffer = buffer,
    };
    s->kv_used[gpu] += (uint64_t) from->prompt_tokens + from->output_tokens;
    s->running[gpu]++;
}

static uint64_t kv_of(const struct moe_serving_state *s, uint32_t request)
{
    const struct moe_trace_request *r = &s->setup.workload->requests[request];
    return (uint64_t) r->prompt_tokens + r->output_tokens;
}

static enum moe_status refuse_long(const struct moe_serving_state *s, uint32_t request,
                                   struct moe_error *err)
{
    return moe_fail(err, MOE_LIMIT,
                    "request %u has %llu tokens; the KV cache of a GPU holds %llu: "
                    "more GPUs, fewer slots or a smaller reserve would make room",
                    request, (unsigned long long) kv_of(s, request),
                    (unsigned long long) s->setup.kv_tokens);
}

static enum moe_status admit_in_turn(struct moe_serving_state *s, moe_time_ns now_ns,
                                     struct moe_error *err)
{
    bool admitted = true;
    while (admitted) {
        admitted = false;
        for (uint32_t gpu = 0; gpu < s->setup.gpu_count; gpu++) {
            uint32_t request = 0;
            if (s->running[gpu] == s->running_per_gpu ||
                !moe_workload_peek(s->setup.workload, &request)) {
                continue;
            }
            const uint64_t kv = kv_of(s, request);
            if (kv > s->setup.kv_tokens) {
                return refuse_long(s, request, err);
            }
            if (s->kv_used[gpu] + kv <= s->setup.kv_tokens) {
                moe_workload_take(s->setup.workload);
                seat(s, gpu, request, now_ns);
                admitted = true;
            }
        }
    }
    return MOE_OK;
}

/* Requests that run, and what is free, into the waiting room. */
static uint64_t open_seats(struct moe_serving_state *s)
{
    struct moe_waiting_room *room = s->setup.room;
    uint64_t running = 0;
    for (uint32_t gpu = 0; gpu < s->setup.gpu_count; gpu++) {
        room->free_seats[gpu] = s->running_per_gpu - s->running[gpu];
        room->kv_free[gpu] = s->setup.kv_tokens - s->kv_used[gpu];
        running += s->running[gpu];
    }
    return running;
}

static enum moe_status admit_chosen(struct moe_serving_state *s, moe_time_ns now_ns,
                                    struct moe_error *err)
{
    struct moe_waiting_room *room = s->setup.room;
    uint64_t running = open_seats(s);
    for (;;) {
        struct moe_group_choice choice;
        MOE_TRY(moe_waiting_room_fill(room, err));
        for (uint32_t i = 0; i < room->count; i++) {
            if (room->waiting[i].kv_tokens > s->setup.kv_tokens) {
                return refuse_long(s, room->waiting[i].request, err);
            }
        }
        MOE_TRY(moe_waiting_room_choose(room, s->running, &choice, err));
        if (choice.gpu == s->setup.gpu_count) {
            return running > 0 || room->count == 0
                       ? MOE_OK
                       : moe_fail(err, MOE_POLICY,
                                  "group policy %s: lets none of %u waiting requests in, and all "
                                  "GPUs are idle",
                                  room->part->policy->name, room->count);
        }
        room->kv_free[choice.gpu] -= room->waiting[choice.waiting].kv_tokens;
        room->free_seats[choice.gpu]--;
        seat(s, choice.gpu, moe_waiting_room_leave(room, choice.waiting), now_ns);
        running++;
    }
}

bool moe_serving_scores_next(const struct moe_serving_state *s)
{
    return s->setup.room != NULL ? moe_waiting_room_scores_next(s->setup.room)
                                 : moe_workload_scores_next(s->setup.workload);
}

/* n rows of a sequence whose first attends to `context` tokens before it. */
static void add_work(const struct moe_serving_state *s, struct moe_token_work *work,
                     uint32_t context, uint32_t rows, bool sampled)
{
    const double n = rows;
    const double last = (double) context + n;
    work->tokens += n;
    work->sampled += sampled;
    work->kv_read += last;
    work->score_pairs += n * context + n * (n + 1.0) / 2.0;
    work->decode_read += rows == 1 ? last : 0.0;
    if (s->setup.window_size > 0) {
        const double window = s->setup.window_size;
        const double growing = context < s->setup.window_size
                                   ? (n < window - context ? n : window - context)
                                   : 0.0; /* rows that still see everything */
        work->window_read += last < window + n - 1.0 ? last : window + n - 1.0;
        work->window_pairs +=
            growing * context + growing * (growing + 1.0) / 2.0 + (n - growing) * window;
    }
}

enum moe_status moe_serving_plan_step(struct moe_serving_state *s, moe_time_ns now_ns,
                                      struct moe_token_work *work, uint64_t *token_count,
                                      struct moe_error *err)
{
    *token_count = 0;
    MOE_TRY(s->setup.room != NULL ? admit_chosen(s, now_ns, err) : admit_in_turn(s, now_ns, err));
    for (uint32_t gpu = 0; gpu < s->setup.gpu_count; gpu++) {
        struct moe_sequence *sequence = sequences_of(s, gpu);
        uint32_t budget = s->setup.options->step_tokens;
        work[gpu] = (struct moe_token_work){ 0 };
        for (uint32_t i = 0; i < s->running_per_gpu; i++) {
            struct moe_sequence *q = &sequence[i];
            q->step_rows = q->running && q->done_rows >= q->prompt_tokens && budget > 0;
            if (q->step_rows > 0) {
                add_work(s, &work[gpu], q->done_rows, 1, true);
                budget--;
            }
        }
        for (uint32_t i = 0; i < s->running_per_gpu; i++) {
            struct moe_sequence *q = &sequence[i];
            if (!q->running || q->done_rows >= q->prompt_tokens || budget == 0) {
                continue;
            }
            const uint32_t unread = q->prompt_tokens - q->done_rows;
            q->step_rows = unread < budget ? unread : budget;
            budget -= q->step_rows;
            add_work(s, &work[gpu], q->done_rows, q->step_rows, q->step_rows == unread);
        }
        *token_count += (uint64_t) work[gpu].tokens;
    }
    return MOE_OK;
}

static enum moe_status refill(struct moe_serving_state *s, struct moe_sequence *q, uint32_t row,
                              struct moe_error *err)
{
    const uint32_t rows = q->prompt_tokens + q->output_tokens - 1 - row;
    q->buffer_first = row;
    q->buffer_rows = rows < s->buffer_rows ? rows : s->buffer_rows;
    return moe_trace_read(s->setup.trace, q->first_row + row, q->buffer_rows, q->buffer, err);
}

enum moe_status moe_serving_route_step(struct moe_serving_state *s,
                                       struct moe_route_counter *counter, struct moe_error *err)
{
    for (uint32_t gpu = 0; gpu < s->setup.gpu_count; gpu++) {
        struct moe_sequence *q = sequences_of(s, gpu);
        uint32_t filled = 0;
        for (uint32_t i = 0; i < s->running_per_gpu; i++, q++) {
            for (uint32_t row = q->done_rows; row < q->done_rows + q->step_rows; row++) {
                if (row - q->buffer_first >= q->buffer_rows) {
                    /* Pointers into the buffer must be used before it changes. */
                    moe_route_counter_add(counter, gpu, s->block, filled);
                    filled = 0;
                    MOE_TRY(refill(s, q, row, err));
                }
                s->block[filled++] = q->buffer + (size_t) (row - q->buffer_first) * s->row_items;
                if (filled == MOE_SERVING_BLOCK_TOKENS) {
                    moe_route_counter_add(counter, gpu, s->block, filled);
                    filled = 0;
                }
            }
        }
        if (filled > 0) {
            moe_route_counter_add(counter, gpu, s->block, filled);
        }
    }
    return MOE_OK;
}

static void finish(struct moe_serving_state *s, uint32_t gpu, struct moe_sequence *q,
                   moe_time_ns end_ns, const struct moe_serving_observer *observer)
{
    const struct moe_finished finished = {
        .output_tokens = q->output_tokens,
        .admitted_ns = q->admitted_ns,
        .first_token_ns = q->first_token_ns,
        .finished_ns = end_ns,
    };
    q->running = false;
    s->running[gpu]--;
    s->kv_used[gpu] -= (uint64_t) q->prompt_tokens + q->output_tokens;
    observer->on_finish(observer->context, &finished);
}

void moe_serving_end_step(struct moe_serving_state *s, moe_time_ns end_ns, uint64_t *output_tokens,
                          const struct moe_serving_observer *observer)
{
    *output_tokens = 0;
    for (uint32_t gpu = 0; gpu < s->setup.gpu_count; gpu++) {
        struct moe_sequence *q = sequences_of(s, gpu);
        for (uint32_t i = 0; i < s->running_per_gpu; i++, q++) {
            if (q->step_rows == 0) {
                continue;
            }
            const bool was_prefill = q->done_rows < q->prompt_tokens;
            q->done_rows += q->step_rows;
            q->step_rows = 0;
            if (q->done_rows < q->prompt_tokens) {
                continue;
            }
            *output_tokens += 1;
            if (was_prefill) {
                q->first_token_ns = end_ns;
                observer->on_first_token(observer->context, end_ns - q->admitted_ns);
            }
            if (q->done_rows == q->prompt_tokens + q->output_tokens - 1) {
                finish(s, gpu, q, end_ns, observer);
            }
        }
    }
}
