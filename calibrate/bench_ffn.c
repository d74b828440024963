#include "calibrate/bench_ffn.h"

#include <cuda_runtime_api.h>
#include <stdio.h>

#include "calibrate/bench_plan.h"
#include "calibrate/device.h"
#include "calibrate/expert_reference.h"
#include "sim/base/random.h"

/* One backend while its point is measured. */
struct contender {
    const struct moe_expert_backend *backend;
    struct moe_bench_cell *cell;
    void *state;
    struct moe_graph_work work;
};

struct point {
    struct moe_expert_case kase;
    struct moe_expert_reference
        *references[2]; /* by enum moe_expert_scaling; made when asked for */
    struct contender contenders[MOE_BENCH_CELL_LIMIT];
    uint32_t count;
};

static enum moe_status ready_data(struct moe_bench_ffn *bench, int32_t row_capacity,
                                  const struct moe_bench_row *row, struct moe_error *err)
{
    if (bench->data != NULL && moe_bench_same_shape(&bench->data->shape, &row->shape) &&
        bench->data->row_capacity >= row_capacity) {
        return MOE_OK;
    }
    moe_expert_data_destroy(bench->data);
    bench->data = NULL;
    /* Half of the experts is the least that a histogram leaves active with enough rows. */
    return moe_expert_data_create(&row->shape, row_capacity, bench->cache_bytes, 0.5, &bench->data,
                                  err);
}

/* An error that is the backend's own business ends up in its cell; one that leaves the GPU
 * unable to go on ends the run. */
static enum moe_status keep_refusal(enum moe_status status, struct moe_bench_cell *cell,
                                    const struct moe_error *own, struct moe_error *err)
{
    (void) cudaGetLastError();
    if (status != MOE_DEVICE || cudaDeviceSynchronize() == cudaSuccess) {
        if (status != MOE_OK) {
            (void) snprintf(cell->refusal, sizeof cell->refusal, "%.190s", own->text);
        }
        return MOE_OK;
    }
    if (err != NULL) {
        *err = *own;
        (void) snprintf(err->text, sizeof err->text, "%s: %.400s", cell->backend, own->text);
    }
    return status;
}

static enum moe_status reference_of(struct point *point, enum moe_expert_scaling scaling,
                                    struct moe_expert_reference **out, struct moe_error *err)
{
    if (point->references[scaling] == NULL) {
        MOE_TRY(
            moe_expert_reference_create(&point->kase, scaling, &point->references[scaling], err));
    }
    *out = point->references[scaling];
    return MOE_OK;
}

/* One run outside of any graph, on a poisoned output. */
static enum moe_status check(struct point *point, struct contender *contender, void *stream,
                             struct moe_error *err)
{
    const struct moe_expert_backend *backend = contender->backend;
    struct moe_bench_cell *cell = contender->cell;
    struct moe_expert_reference *reference = NULL;
    struct moe_expert_verdict verdict;
    MOE_TRY(reference_of(point, backend->scaling, &reference, err));
    MOE_TRY(moe_expert_data_poison(point->kase.data, err));
    MOE_TRY(backend->run(contender->state, 0, stream, err));
    if (backend->collect != NULL) {
        MOE_TRY(backend->collect(contender->state, stream, err));
    }
    MOE_TRY(moe_device_check((int) cudaStreamSynchronize(stream), "first run", err));
    MOE_TRY(moe_expert_reference_judge(reference, &point->kase, &verdict, err));
    cell->error = verdict.error;
    const double limit = moe_expert_error_limit(point->kase.data->shape.dtype);
    if (verdict.unwritten != 0) {
        (void) snprintf(cell->refusal, sizeof cell->refusal,
                        "WRONG: %llu cells of the output are no number (error %.2e on 8 rows)",
                        (unsigned long long) verdict.unwritten, verdict.error);
    } else if (!(verdict.error <= limit)) {
        (void) snprintf(cell->refusal, sizeof cell->refusal,
                        "WRONG: relative error %.2e, at most %.1e is right", verdict.error, limit);
    }
    return MOE_OK;
}

static enum moe_status enter(struct moe_bench_ffn *bench, struct point *point,
                             struct contender *contender, struct moe_error *err)
{
    const struct moe_expert_backend *backend = contender->backend;
    struct moe_bench_cell *cell = contender->cell;
    struct moe_error own = { 0 };
    const char *refusal = backend->refuse == NULL ? NULL : backend->refuse(&point->kase);
    if (refusal != NULL) {
        (void) snprintf(cell->refusal, sizeof cell->refusal, "%s", refusal);
        return MOE_OK;
    }
    enum moe_status status = backend->create(&bench->tools, &point->kase, &contender->state, &own);
    if (status != MOE_OK) {
        contender->state = NULL;
        return keep_refusal(status, cell, &own, err);
    }
    (void) snprintf(cell->detail, sizeof cell->detail, "%s", backend->describe(contender->state));
    status = check(point, contender, moe_graph_timer_stream(bench->tools.timer), &own);
    if (status == MOE_OK && cell->refusal[0] == '\0') {
        status = moe_graph_capture(bench->tools.timer, backend->run, contender->state,
                                   point->kase.data->set_count, &contender->work, &own);
    }
    return keep_refusal(status, cell, &own, err);
}

static bool all_enough(const struct point *point)
{
    for (uint32_t i = 0; i < point->count; i++) {
        if (!moe_graph_enough(&point->contenders[i].work, MOE_TIMING_BUDGET_S)) {
            return false;
        }
    }
    return true;
}

/* Rounds: each backend in need gets one batch, in a new order each time. */
static enum moe_status take_turns(struct moe_bench_ffn *bench, struct point *point,
                                  struct moe_error *err)
{
    const uint64_t key = moe_random_key(bench->seed, MOE_RANDOM_TEST);
    uint64_t draw = 0;
    uint32_t order[MOE_BENCH_CELL_LIMIT];
    for (uint32_t i = 0; i < point->count; i++) {
        order[i] = i;
    }
    while (!all_enough(point)) {
        for (uint32_t i = point->count; i > 1; i--) {
            const uint32_t j = (uint32_t) moe_random_below(key, draw++, i);
            const uint32_t moved = order[i - 1];
            order[i - 1] = order[j];
            order[j] = moved;
        }
        for (uint32_t i = 0; i < point->count; i++) {
            struct contender *contender = &point->contenders[order[i]];
            if (!moe_graph_enough(&contender->work, MOE_TIMING_BUDGET_S)) {
                struct moe_error own = { 0 };
                const enum moe_status status =
                    moe_graph_batch(bench->tools.timer, &contender->work, &own);
                contender->work.given_up = status != MOE_OK;
                MOE_TRY(keep_refusal(status, contender->cell, &own, err));
            }
        }
    }
    return MOE_OK;
}

static void fill_cell(const struct contender *contender)
{
    struct moe_bench_cell *cell = contender->cell;
    const struct moe_graph_work *work = &contender->work;
    if (cell->refusal[0] != '\0' || work->count == 0) {
        return;
    }
    cell->measured = true;
    moe_timing_summarise(work->us, work->count, &cell->timing);
    cell->mhz = moe_graph_mhz(work);
    if (work->reading_count > 0) {
        cell->watts = work->watts_sum / (double) work->reading_count;
        cell->celsius = work->celsius_sum / (double) work->reading_count;
    }
    cell->throttle = work->throttle;
}

static void leave(struct point *point)
{
    for (uint32_t i = 0; i < point->count; i++) {
        struct contender *contender = &point->contenders[i];
        moe_graph_release(&contender->work);
        if (contender->state != NULL) {
            contender->backend->destroy(contender->state);
        }
    }
    for (int i = 0; i < 2; i++) {
        moe_expert_reference_destroy(point->references[i]);
    }
}

enum moe_status moe_bench_ffn_measure(struct moe_bench_ffn *bench, int32_t row_capacity,
                                      struct moe_bench_row *row, struct moe_error *err)
{
    struct point point = { 0 };
    MOE_TRY(ready_data(bench, row_capacity, row, err));
    MOE_TRY(
        moe_expert_case_set(bench->data, row->histogram, row->rows_per_expert, &point.kase, err));
    row->load = point.kase.load;
    row->work = moe_expert_work_count(&row->shape, &row->load);
    row->cell_count = 0;
    enum moe_status status = MOE_OK;
    for (uint32_t i = 0; status == MOE_OK && i < bench->backend_count; i++) {
        const struct moe_expert_backend *backend = bench->backends[i];
        if (backend->dtype != MOE_EXPERT_DTYPE_COUNT && backend->dtype != row->shape.dtype) {
            continue;
        }
        struct moe_bench_cell *cell = &row->cells[row->cell_count++];
        *cell = (struct moe_bench_cell){ .backend = backend->name, .library = backend->library };
        struct contender *contender = &point.contenders[point.count++];
        *contender = (struct contender){ .backend = backend, .cell = cell };
        status = enter(bench, &point, contender, err);
        contender->work.given_up = contender->work.set_count == 0;
    }
    if (status == MOE_OK) {
        status = take_turns(bench, &point, err);
    }
    if (status == MOE_OK) {
        for (uint32_t i = 0; i < point.count; i++) {
            fill_cell(&point.contenders[i]);
        }
    }
    leave(&point);
    return status;
}
