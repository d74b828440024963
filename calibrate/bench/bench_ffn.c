#include "calibrate/bench/bench_ffn.h"

#include <cuda_runtime_api.h>
#include <stdio.h>
#include <string.h>

#include "calibrate/bench/bench_plan.h"
#include "calibrate/bench/contest.h"
#include "calibrate/device/device.h"
#include "calibrate/expert/expert_reference.h"

/* One backend while its point is measured; its work is in point.contenders. */
struct entrant {
    const struct moe_expert_backend *backend;
    struct moe_bench_cell *cell;
    void *state;
};

struct point {
    struct moe_expert_case kase;
    struct moe_expert_reference
        *references[2]; /* by enum moe_expert_scaling; made when asked for */
    struct entrant entrants[MOE_BENCH_CELL_LIMIT];
    struct moe_contender contenders[MOE_BENCH_CELL_LIMIT];
    uint32_t count;
};

void moe_bench_ffn_finish(struct moe_bench_ffn *bench)
{
    for (uint32_t i = 0; i < bench->data_count; i++) {
        moe_expert_data_destroy(bench->data[i]);
    }
    bench->data_count = 0;
}

static void forget(struct moe_bench_ffn *bench, uint32_t index)
{
    moe_expert_data_destroy(bench->data[index]);
    bench->data_count--;
    memmove(&bench->data[index], &bench->data[index + 1],
            (bench->data_count - index) * sizeof(void *));
}

/* Operands of the row's shape, made if need be; the oldest go when there is no room. */
static enum moe_status ready_data(struct moe_bench_ffn *bench, int32_t row_capacity,
                                  const struct moe_bench_row *row, struct moe_expert_data **out,
                                  struct moe_error *err)
{
    for (uint32_t i = 0; i < bench->data_count; i++) {
        if (!moe_bench_same_shape(&bench->data[i]->shape, &row->shape)) {
            continue;
        }
        if (bench->data[i]->row_capacity >= row_capacity) {
            *out = bench->data[i];
            return MOE_OK;
        }
        forget(bench, i);
        break;
    }
    if (bench->data_count == MOE_BENCH_DATA_LIMIT) {
        forget(bench, 0);
    }
    for (;;) {
        size_t free_bytes = 0;
        size_t all_bytes = 0;
        MOE_TRY(
            moe_device_check((int) cudaMemGetInfo(&free_bytes, &all_bytes), "cudaMemGetInfo", err));
        if (free_bytes >= all_bytes / 2 || bench->data_count == 0) {
            break; /* half of the memory is left to the backends' own buffers */
        }
        forget(bench, 0);
    }
    /* Half of the experts is the least that a histogram leaves active with enough rows. */
    MOE_TRY(moe_expert_data_create(&row->shape, row_capacity, bench->cache_bytes, 0.5, out, err));
    bench->data[bench->data_count++] = *out;
    return MOE_OK;
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

/* Judges what the stream leaves in out when it is idle; how tells what wrote it. */
static enum moe_status judge(const struct moe_bench_ffn *bench, struct point *point,
                             const struct entrant *entrant, const char *how, struct moe_error *err)
{
    const struct moe_expert_backend *backend = entrant->backend;
    struct moe_bench_cell *cell = entrant->cell;
    struct moe_expert_reference *reference = NULL;
    struct moe_expert_verdict verdict;
    if (backend->collect != NULL) {
        MOE_TRY(backend->collect(entrant->state, moe_graph_timer_stream(bench->tools.timer), err));
    }
    MOE_TRY(moe_graph_wait(bench->tools.timer, how, err));
    MOE_TRY(reference_of(point, backend->scaling, &reference, err));
    MOE_TRY(moe_expert_reference_judge(reference, &point->kase, &verdict, err));
    cell->error = verdict.error;
    const double limit = moe_expert_error_limit(point->kase.data->shape.dtype);
    if (verdict.unwritten != 0) {
        (void) snprintf(
            cell->refusal, sizeof cell->refusal,
            "WRONG: %s leaves %llu cells of the output no number (error %.2e on 8 rows)", how,
            (unsigned long long) verdict.unwritten, verdict.error);
    } else if (!(verdict.error <= limit)) {
        (void) snprintf(cell->refusal, sizeof cell->refusal,
                        "WRONG: %s has a relative error of %.2e, at most %.1e is right", how,
                        verdict.error, limit);
    }
    return MOE_OK;
}

/* Once outside of any graph and once as a replay, each on a poisoned output. */
static enum moe_status try_entrant(struct moe_bench_ffn *bench, struct point *point, uint32_t index,
                                   struct moe_error *err)
{
    struct entrant *entrant = &point->entrants[index];
    struct moe_graph_timer *timer = bench->tools.timer;
    struct moe_graph_work *work = &point->contenders[index].work;
    const struct moe_expert_backend *backend = entrant->backend;
    struct moe_bench_cell *cell = entrant->cell;
    enum moe_status status = backend->create(&bench->tools, &point->kase, &entrant->state, err);
    if (status != MOE_OK) {
        entrant->state = NULL;
        return status;
    }
    (void) snprintf(cell->detail, sizeof cell->detail, "%s", backend->describe(entrant->state));
    MOE_TRY(moe_expert_data_poison(point->kase.data, err));
    MOE_TRY(backend->run(entrant->state, 0, moe_graph_timer_stream(timer), err));
    MOE_TRY(judge(bench, point, entrant, "the first run", err));
    if (cell->refusal[0] != '\0') {
        return MOE_OK;
    }
    MOE_TRY(moe_expert_data_poison(point->kase.data, err));
    MOE_TRY(moe_graph_capture(timer, backend->run, entrant->state, point->kase.data->set_count,
                              work, err));
    MOE_TRY(moe_graph_replay(timer, work, err));
    return judge(bench, point, entrant, "a replay", err);
}

/* A backend that refuses or fails stays out, with its reason in the cell. */
static enum moe_status enter(struct moe_bench_ffn *bench, struct point *point, uint32_t index,
                             struct moe_error *err)
{
    const struct moe_expert_backend *backend = point->entrants[index].backend;
    struct moe_bench_cell *cell = point->entrants[index].cell;
    struct moe_error own = { 0 };
    const char *refusal = backend->refuse == NULL ? NULL : backend->refuse(&point->kase);
    point->contenders[index] =
        (struct moe_contender){ .failure = cell->refusal, .failure_size = sizeof cell->refusal };
    if (refusal != NULL) {
        (void) snprintf(cell->refusal, sizeof cell->refusal, "%s", refusal);
        return MOE_OK;
    }
    enum moe_status status = try_entrant(bench, point, index, &own);
    status = moe_contest_absorb(bench->tools.timer, status, &own, cell->refusal,
                                sizeof cell->refusal, err);
    if (cell->refusal[0] != '\0' && !moe_graph_timer_stuck(bench->tools.timer)) {
        moe_graph_release(&point->contenders[index].work); /* it takes no part */
    }
    if (status != MOE_OK && err != NULL) { /* which backend it was is what matters then */
        (void) snprintf(err->text, sizeof err->text, "%s: %.400s", backend->name, own.text);
    }
    return status;
}

static void fill_cell(struct moe_bench_cell *cell, const struct moe_graph_work *work)
{
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
        const struct entrant *entrant = &point->entrants[i];
        moe_graph_release(&point->contenders[i].work);
        if (entrant->state != NULL) {
            entrant->backend->destroy(entrant->state);
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
    struct moe_expert_data *data = NULL;
    MOE_TRY(ready_data(bench, row_capacity, row, &data, err));
    MOE_TRY(moe_expert_case_set(data, row->histogram, row->rows_per_expert, &point.kase, err));
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
        *cell =
            (struct moe_bench_cell){ .backend = backend->name, .is_library = backend->is_library };
        point.entrants[point.count] = (struct entrant){ .backend = backend, .cell = cell };
        status = enter(bench, &point, point.count++, err);
    }
    if (status == MOE_OK) {
        status = moe_contest_run(bench->tools.timer, point.contenders, point.count,
                                 MOE_TIMING_BUDGET_S, bench->seed, err);
    }
    if (status == MOE_OK) {
        for (uint32_t i = 0; i < point.count; i++) {
            fill_cell(point.entrants[i].cell, &point.contenders[i].work);
        }
    }
    if (!moe_graph_timer_stuck(bench->tools.timer)) {
        leave(&point);
    }
    return status;
}
