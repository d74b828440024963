#include "sim/arrival/workload.h"

#include <assert.h>

#include "sim/base/random.h"

#include "sim/base/no_malloc.h"

static void shuffle(uint32_t *items, uint32_t count, uint64_t key, uint64_t counter)
{
    for (uint32_t i = count; i > 1; i--) {
        const uint32_t j = (uint32_t) moe_random_below(key, counter + i, i);
        const uint32_t held = items[i - 1];
        items[i - 1] = items[j];
        items[j] = held;
    }
}

/* Cuts requests begin .. end-1 into windows, writes the windows in shuffled order and the
 * requests of each shuffled. */
static void fill_order(struct moe_workload *w, uint32_t begin, uint32_t end)
{
    const uint64_t key =
        moe_random_key(moe_random_mix(w->seed) + w->pass, MOE_RANDOM_REQUEST_ORDER);
    uint32_t window_count = 0;
    uint64_t rows = 0;
    for (uint32_t i = begin; i < end; i++) {
        const uint64_t more = moe_trace_request_rows(&w->requests[i]);
        if (i == begin || rows + more > w->window_rows) {
            w->starts[window_count++] = i;
            rows = 0;
        }
        rows += more;
    }
    w->starts[window_count] = end;
    for (uint32_t i = 0; i < window_count; i++) {
        w->window_order[i] = i;
    }
    shuffle(w->window_order, window_count, key, UINT64_C(1) << 63);
    uint32_t filled = 0;
    for (uint32_t i = 0; i < window_count; i++) {
        const uint32_t window = w->window_order[i];
        const uint32_t first = filled;
        for (uint32_t request = w->starts[window]; request < w->starts[window + 1]; request++) {
            w->order[filled++] = request;
        }
        shuffle(w->order + first, filled - first, key, (uint64_t) first << 32);
    }
    assert(filled == end - begin);
    w->order_count = filled;
    w->order_next = 0;
}

uint32_t moe_workload_planned_count(uint32_t request_count, double plan_share)
{
    const uint32_t count = (uint32_t) (request_count * plan_share);
    return count < 1 ? 1 : count >= request_count ? request_count - 1 : count;
}

enum moe_status moe_workload_init(struct moe_workload *w, const struct moe_trace *trace,
                                  double plan_share, uint32_t passes, uint64_t seed,
                                  struct moe_arena *arena, struct moe_error *err)
{
    const uint64_t count = moe_trace_request_count(trace);
    const struct moe_trace_model *model = moe_trace_model(trace);
    if (count < 2 || count >= UINT32_MAX - 1) {
        return moe_fail(err, MOE_RANGE, "%s: %llu requests; a study needs 2 to %u",
                        moe_trace_path(trace), (unsigned long long) count, UINT32_MAX - 2);
    }
    const uint32_t id_bytes = model->expert_count <= 256 ? 1 : 2;
    *w = (struct moe_workload){
        .requests = moe_trace_requests(trace),
        .seed = seed,
        .request_count = (uint32_t) count,
        .planned_count = moe_workload_planned_count((uint32_t) count, plan_share),
        .passes = passes,
        .window_rows =
            MOE_WORKLOAD_WINDOW_BYTES / ((uint64_t) model->layer_count * model->top_k * id_bytes),
        .order = MOE_NEW(arena, uint32_t, count),
        .starts = MOE_NEW(arena, uint32_t, count + 1),
        .window_order = MOE_NEW(arena, uint32_t, count),
    };
    if (w->order == NULL || w->starts == NULL || w->window_order == NULL) {
        return moe_fail(err, MOE_LIMIT, "no room for the order of %u requests", w->request_count);
    }
    w->pass = 1;
    fill_order(w, w->planned_count, w->request_count);
    return MOE_OK;
}

bool moe_workload_peek(const struct moe_workload *w, uint32_t *request)
{
    if (w->order_next == w->order_count) {
        return false; /* take() opens the next pass at once, so this is the end */
    }
    *request = w->order[w->order_next];
    return true;
}

void moe_workload_take(struct moe_workload *w)
{
    assert(w->order_next < w->order_count);
    w->order_next++;
    if (w->order_next < w->order_count || w->pass == 0) {
        return;
    }
    w->pass = w->pass == w->passes ? 0 : w->pass + 1;
    if (w->pass == 0) {
        fill_order(w, 0, w->planned_count);
    } else {
        fill_order(w, w->planned_count, w->request_count);
    }
}

bool moe_workload_scores_next(const struct moe_workload *w)
{
    return w->pass != 0;
}
