#include "calibrate/measure/measure_series.h"

#include <math.h>
#include <stdio.h>
#include <string.h>

#include "calibrate/measure/measure_backend.h"
#include "calibrate/measure/measure_model.h"

/* No point has more rows than this, nor takes longer than about this: what a serving step of that
 * size costs can be said from smaller ones, and the run has minutes. */
enum { ROWS_MAX = 1 << 17, LARGEST_ANCHOR = 1024 };
static const double POINT_FLOPS_MAX = 1.4e13; /* some 20 ms of an H200 in bf16 */

int32_t moe_measure_row_limit(const struct moe_measure_series *series)
{
    const double matrices = series->activation == MOE_EXPERT_SWIGLU ? 3.0 : 2.0;
    const double row_flops = 2.0 * matrices * (double) series->hidden * (double) series->inter;
    const double rows = POINT_FLOPS_MAX / row_flops;
    return rows < ROWS_MAX ? (int32_t) rows : ROWS_MAX;
}

static enum moe_status add(struct moe_measure_plan *plan, const struct moe_measure_series *series,
                           uint32_t *index, struct moe_error *err)
{
    for (uint32_t i = 0; i < plan->series_count; i++) {
        if (strcmp(plan->series[i].name, series->name) == 0) {
            *index = i;
            return MOE_OK;
        }
    }
    if (plan->series_count == MOE_MEASURE_SERIES_LIMIT) {
        return moe_fail(err, MOE_RANGE,
                        "more than %d series; ask for fewer --models, --ep or --kinds",
                        MOE_MEASURE_SERIES_LIMIT);
    }
    *index = plan->series_count;
    plan->series[plan->series_count++] = *series;
    return MOE_OK;
}

/* Appends a model's name, once. */
static void add_name(char *names, size_t size, const char *name)
{
    const size_t used = strlen(names);
    (void) snprintf(names + used, size - used, "%s%s", used == 0 ? "" : " ", name);
}

/* Every model that has such experts on one of so many GPUs, whoever asked: the same in each run. */
static void name_expert_models(struct moe_measure_series *series)
{
    for (size_t i = 0; i < moe_measure_model_count; i++) {
        const struct moe_measure_model *model = &moe_measure_models[i];
        const enum moe_expert_activation activation =
            model->gated ? MOE_EXPERT_SWIGLU : MOE_EXPERT_RELU;
        if (moe_measure_expert_width(model) == series->hidden &&
            model->expert_size == series->inter && activation == series->activation) {
            add_name(series->models, sizeof series->models, model->name);
        }
    }
}

/* Weights are kept in as many copies as it takes that none is found in the cache when a quarter of
 * the experts is used (timing/graph_timer.h, the rule of five caches; at most 64 copies). */
static double expert_memory(const struct moe_measure_series *series, double cache_bytes)
{
    const struct moe_expert_ffn_shape shape = { series->hidden, series->inter, series->units,
                                                series->dtype, series->activation };
    const double weights = moe_expert_weight_bytes(&shape) * (double) series->units;
    const double rows =
        fmin((double) moe_measure_row_limit(series), LARGEST_ANCHOR * (double) series->units);
    const double cell = series->dtype == MOE_EXPERT_BF16 ? 2.0 : 1.0;
    const double matrices = series->activation == MOE_EXPERT_SWIGLU ? 2.0 : 1.0;
    const double copies = fmin(64.0, ceil(5.0 * cache_bytes / (weights * 0.25)) + 1.0);
    return weights * (5.0 * cache_bytes <= weights * 0.25 ? 1.0 : copies) +
           rows * ((double) series->hidden * (2.0 + cell) +
                   (double) series->inter * (cell + 2.0 * matrices));
}

enum moe_status moe_measure_series_expert(struct moe_measure_plan *plan,
                                          const struct moe_bench_shape *shape,
                                          enum moe_expert_dtype dtype, const char *backend,
                                          const struct moe_measure_request *request,
                                          uint32_t *index, struct moe_error *err)
{
    struct moe_measure_series series = { .kind = MOE_MEASURE_EXPERT,
                                         .hidden = shape->hidden,
                                         .inter = shape->inter,
                                         .units = shape->expert_count,
                                         .dtype = dtype,
                                         .activation = shape->activation,
                                         .is_library =
                                             moe_measure_backend_find(backend)->is_library };
    const bool usual = shape->activation == MOE_EXPERT_SWIGLU;
    (void) snprintf(series.backend, sizeof series.backend, "%s", backend);
    (void) snprintf(series.name, sizeof series.name, "expert-%dx%dx%d-%s%s%s-%s",
                    (int) shape->hidden, (int) shape->inter, (int) shape->expert_count,
                    moe_expert_dtype_name(dtype), usual ? "" : "-",
                    usual ? "" : moe_expert_activation_name(shape->activation), backend);
    name_expert_models(&series);
    series.memory_bytes = expert_memory(&series, request->cache_bytes);
    return add(plan, &series, index, err);
}

enum moe_status moe_measure_series_plain(struct moe_measure_plan *plan, enum moe_measure_kind kind,
                                         const char *name, const char *backend, uint32_t *index,
                                         struct moe_error *err)
{
    struct moe_measure_series series = { .kind = kind, .units = 1 };
    (void) snprintf(series.name, sizeof series.name, "%s", name);
    (void) snprintf(series.backend, sizeof series.backend, "%s", backend);
    return add(plan, &series, index, err);
}

/* Expert shapes of the request, each once, in the order asked for. */
struct shape_list {
    struct moe_bench_shape items[MOE_MEASURE_SERIES_LIMIT];
    bool is_own[MOE_MEASURE_SERIES_LIMIT]; /* of --shape: must fit */
    uint32_t count;
};

static bool same(const struct moe_bench_shape *a, const struct moe_bench_shape *b)
{
    return a->hidden == b->hidden && a->inter == b->inter && a->expert_count == b->expert_count &&
           a->activation == b->activation;
}

static enum moe_status add_shape(struct shape_list *list, const struct moe_bench_shape *shape,
                                 bool is_own, struct moe_error *err)
{
    for (uint32_t i = 0; i < list->count; i++) {
        if (same(&list->items[i], shape)) {
            return MOE_OK;
        }
    }
    if (list->count == MOE_MEASURE_SERIES_LIMIT) {
        return moe_fail(err, MOE_RANGE, "more than %d expert shapes", MOE_MEASURE_SERIES_LIMIT);
    }
    list->is_own[list->count] = is_own;
    list->items[list->count++] = *shape;
    return MOE_OK;
}

/* Degrees beyond a model's experts are no deployments of it: among several models they are left to
 * the others, and one that is beyond all of them is a mistake. */
static enum moe_status check_degrees(const struct moe_measure_request *request,
                                     struct moe_error *err)
{
    for (uint32_t i = 0; i < request->ep_count; i++) {
        const struct moe_measure_model *most = NULL;
        for (uint32_t m = 0; m < request->model_count; m++) {
            const struct moe_measure_model *model = &moe_measure_models[request->models[m]];
            most = most == NULL || model->expert_count > most->expert_count ? model : most;
        }
        if (most != NULL && request->ep[i] > most->expert_count) {
            return moe_fail(err, MOE_RANGE,
                            "--ep: %d GPUs for the %d experts of %s; 1 to %d are "
                            "allowed",
                            request->ep[i], most->expert_count, most->name, most->expert_count);
        }
    }
    return MOE_OK;
}

static enum moe_status list_shapes(const struct moe_measure_request *request,
                                   struct shape_list *list, struct moe_error *err)
{
    for (uint32_t i = 0; i < request->shape_count; i++) {
        MOE_TRY(add_shape(list, &request->shapes[i], true, err));
    }
    for (uint32_t m = 0; m < request->model_count; m++) {
        const struct moe_measure_model *model = &moe_measure_models[request->models[m]];
        for (uint32_t i = 0; i < request->ep_count; i++) {
            const int32_t ep = request->ep[i];
            const struct moe_bench_shape shape = {
                .hidden = moe_measure_expert_width(model),
                .inter = model->expert_size,
                .expert_count = (model->expert_count + ep - 1) / ep, /* of the fullest GPU */
                .activation = model->gated ? MOE_EXPERT_SWIGLU : MOE_EXPERT_RELU,
            };
            if (ep <= model->expert_count) {
                MOE_TRY(add_shape(list, &shape, false, err));
            }
        }
    }
    return MOE_OK;
}

/* Which of the shapes the libraries get: smallest, middle and largest by weights; ties to the one
 * asked for first. */
static void choose_library_shapes(const struct shape_list *list, bool *chosen)
{
    uint32_t order[MOE_MEASURE_SERIES_LIMIT];
    for (uint32_t i = 0; i < list->count; i++) {
        uint32_t at = i;
        const struct moe_bench_shape *shape = &list->items[i];
        const int64_t cells = (int64_t) shape->hidden * shape->inter * shape->expert_count;
        while (at > 0) {
            const struct moe_bench_shape *other = &list->items[order[at - 1]];
            if ((int64_t) other->hidden * other->inter * other->expert_count <= cells) {
                break;
            }
            order[at] = order[at - 1];
            at--;
        }
        order[at] = i;
    }
    memset(chosen, 0, MOE_MEASURE_SERIES_LIMIT * sizeof *chosen);
    for (uint32_t i = 0; list->count > 0 && i < MOE_MEASURE_LIBRARY_SHAPES; i++) {
        chosen[order[i * (list->count - 1) / (MOE_MEASURE_LIBRARY_SHAPES - 1)]] = true;
    }
}

static void leave_out(struct moe_measure_plan *plan, const struct moe_measure_series *series)
{
    const size_t used = strlen(plan->left_out);
    if (used + strlen(series->name) + 40 < sizeof plan->left_out) {
        (void) snprintf(plan->left_out + used, sizeof plan->left_out - used, "%s%s (%.1f GiB)",
                        used == 0 ? "" : ", ", series->name, series->memory_bytes / 0x1p30);
    }
}

/* The series just added goes again when the GPU has no room for it. */
static enum moe_status hold_to_memory(const struct moe_measure_request *request, bool is_own,
                                      struct moe_measure_plan *plan, struct moe_error *err)
{
    const struct moe_measure_series *series = &plan->series[plan->series_count - 1];
    if (request->memory_bytes <= 0.0 ||
        series->memory_bytes + request->reserve_bytes <= request->memory_bytes) {
        return MOE_OK;
    }
    if (is_own) {
        return moe_fail(err, MOE_RANGE,
                        "%s needs %.1f GiB of GPU memory and %.1f GiB beside; %.1f GiB are free",
                        series->name, series->memory_bytes / 0x1p30,
                        request->reserve_bytes / 0x1p30, request->memory_bytes / 0x1p30);
    }
    leave_out(plan, series);
    plan->series_count--;
    return MOE_OK;
}

static enum moe_status make_expert_series(const struct moe_measure_request *request,
                                          struct moe_measure_plan *plan, struct moe_error *err)
{
    static _Thread_local struct shape_list list; /* too large for the stack */
    bool library_shapes[MOE_MEASURE_SERIES_LIMIT];
    list.count = 0;
    MOE_TRY(check_degrees(request, err));
    MOE_TRY(list_shapes(request, &list, err));
    choose_library_shapes(&list, library_shapes);
    for (uint32_t b = 0; b < request->backend_count; b++) {
        const struct moe_measure_backend *backend = moe_measure_backend_find(request->backends[b]);
        for (uint32_t i = 0; i < list.count; i++) {
            for (int dtype = 0; dtype < MOE_EXPERT_DTYPE_COUNT; dtype++) {
                const bool takes =
                    backend->dtype == MOE_EXPERT_DTYPE_COUNT || (int) backend->dtype == dtype;
                uint32_t index = 0;
                if (!request->dtypes[dtype] || !takes ||
                    (backend->is_library && !library_shapes[i])) {
                    continue;
                }
                const uint32_t before = plan->series_count;
                MOE_TRY(moe_measure_series_expert(plan, &list.items[i],
                                                  (enum moe_expert_dtype) dtype, backend->name,
                                                  request, &index, err));
                if (plan->series_count > before) {
                    MOE_TRY(hold_to_memory(request, list.is_own[i], plan, err));
                }
            }
        }
    }
    if (plan->series_count > MOE_MEASURE_EXPERT_SERIES_LIMIT) {
        return moe_fail(err, MOE_RANGE,
                        "%u expert series (shape x local experts x dtype x backend); one run "
                        "measures at most %d: ask for fewer --models, --ep, --dtype or --backend "
                        "and merge the runs",
                        plan->series_count, MOE_MEASURE_EXPERT_SERIES_LIMIT);
    }
    return MOE_OK;
}

static enum moe_status add_gemm(struct moe_measure_plan *plan, const char *model, int32_t depth,
                                int32_t columns, enum moe_expert_dtype dtype, struct moe_error *err)
{
    uint32_t index = 0;
    struct moe_measure_series series = { .kind = MOE_MEASURE_GEMM,
                                         .hidden = depth,
                                         .inter = columns,
                                         .units = 1,
                                         .dtype = dtype,
                                         .backend = "cublaslt",
                                         .is_library = true };
    if (depth <= 0 || columns <= 0) {
        return MOE_OK;
    }
    (void) snprintf(series.name, sizeof series.name, "gemm-%dx%d-%s-cublaslt", (int) depth,
                    (int) columns, moe_expert_dtype_name(dtype));
    MOE_TRY(add(plan, &series, &index, err));
    if (strstr(plan->series[index].models, model) == NULL) {
        add_name(plan->series[index].models, sizeof plan->series[index].models, model);
    }
    return MOE_OK;
}

/* Every matrix of a layer that is no routed expert; router and LM head are never in fp8. */
static enum moe_status add_gemms(struct moe_measure_plan *plan, const struct moe_measure_model *m,
                                 enum moe_expert_dtype dtype, struct moe_error *err)
{
    const bool mla = m->attention == MOE_MEASURE_MLA;
    const int32_t both = m->gated ? 2 : 1;
    const int32_t q = m->heads * (m->head_size + m->rope);
    const int32_t latent = m->kv_lora + m->rope;
    const bool low_rank = mla && m->q_lora > 0;
    const int32_t value = mla ? m->value_head : m->head_size;
    const struct {
        int32_t depth;
        int32_t columns;
    } matrices[] = {
        { m->hidden,
          mla ? (low_rank ? m->q_lora : q) + latent : (m->heads + 2 * m->kv_heads) * m->head_size },
        { low_rank ? m->q_lora : 0, q },
        { mla ? m->kv_lora : 0, m->heads * (m->head_size + m->value_head) },
        { m->heads * value, m->hidden },
        { m->dense_size > 0 ? m->hidden : 0, both * m->dense_size },
        { m->dense_size, m->hidden },
        { m->shared_size > 0 ? m->hidden : 0, both * m->shared_size },
        { m->shared_size, m->hidden },
        { m->expert_hidden > 0 ? m->hidden : 0, m->expert_hidden },
        { m->expert_hidden, m->hidden },
    };
    for (size_t i = 0; i < sizeof matrices / sizeof matrices[0]; i++) {
        MOE_TRY(add_gemm(plan, m->name, matrices[i].depth, matrices[i].columns, dtype, err));
    }
    if (dtype != MOE_EXPERT_BF16) {
        return MOE_OK;
    }
    MOE_TRY(add_gemm(plan, m->name, m->hidden, m->expert_count, dtype, err));
    return add_gemm(plan, m->name, m->hidden, m->vocabulary, dtype, err);
}

static enum moe_status add_route(struct moe_measure_plan *plan, enum moe_measure_kind kind,
                                 const struct moe_measure_model *model, enum moe_expert_dtype dtype,
                                 struct moe_error *err)
{
    uint32_t index = 0;
    const int32_t width = moe_measure_expert_width(model);
    struct moe_measure_series series = { .kind = kind,
                                         .hidden = kind == MOE_MEASURE_GATE ? 0 : width,
                                         .units = model->expert_count,
                                         .top_k = model->top_k,
                                         .groups = model->group_count,
                                         .group_limit = model->group_limit,
                                         .dtype = dtype,
                                         .backend = "own" };
    if (kind == MOE_MEASURE_GATE) {
        (void) snprintf(series.name, sizeof series.name, "gate-%dx%d-%d-of-%d-own",
                        (int) series.units, (int) series.top_k, (int) series.group_limit,
                        (int) series.groups);
    } else {
        (void) snprintf(series.name, sizeof series.name, "%s-%dx%dx%d-%s-own",
                        moe_measure_kind_name(kind), (int) series.hidden, (int) series.units,
                        (int) series.top_k, moe_expert_dtype_name(dtype));
    }
    MOE_TRY(add(plan, &series, &index, err));
    add_name(plan->series[index].models, sizeof plan->series[index].models, model->name);
    return MOE_OK;
}

static enum moe_status add_kv(struct moe_measure_plan *plan, const struct moe_measure_model *model,
                              struct moe_error *err)
{
    uint32_t index = 0;
    const bool mla = model->attention == MOE_MEASURE_MLA;
    struct moe_measure_series series = { .kind = mla ? MOE_MEASURE_KV_MLA : MOE_MEASURE_KV_GQA,
                                         .hidden =
                                             mla ? model->kv_lora + model->rope : model->head_size,
                                         .inter = mla ? 1 : model->kv_heads,
                                         .units = model->heads,
                                         .dtype = MOE_EXPERT_BF16,
                                         .backend = "own" };
    (void) snprintf(series.name, sizeof series.name, "%s-%dx%dx%d-bf16-own",
                    moe_measure_kind_name(series.kind), (int) series.units, (int) series.inter,
                    (int) series.hidden);
    MOE_TRY(add(plan, &series, &index, err));
    add_name(plan->series[index].models, sizeof plan->series[index].models, model->name);
    return MOE_OK;
}

static enum moe_status make_model_series(const struct moe_measure_request *request,
                                         const struct moe_measure_model *model,
                                         struct moe_measure_plan *plan, struct moe_error *err)
{
    for (int dtype = 0; dtype < MOE_EXPERT_DTYPE_COUNT; dtype++) {
        if (request->kinds[MOE_MEASURE_GEMM] && request->dtypes[dtype]) {
            MOE_TRY(add_gemms(plan, model, (enum moe_expert_dtype) dtype, err));
        }
        if (request->kinds[MOE_MEASURE_PERMUTE] && request->dtypes[dtype]) {
            MOE_TRY(
                add_route(plan, MOE_MEASURE_PERMUTE, model, (enum moe_expert_dtype) dtype, err));
        }
    }
    if (request->kinds[MOE_MEASURE_COMBINE]) {
        MOE_TRY(add_route(plan, MOE_MEASURE_COMBINE, model, MOE_EXPERT_BF16, err));
    }
    if (request->kinds[MOE_MEASURE_GATE]) {
        MOE_TRY(add_route(plan, MOE_MEASURE_GATE, model, MOE_EXPERT_BF16, err));
    }
    const bool mla = model->attention == MOE_MEASURE_MLA;
    if (request->kinds[mla ? MOE_MEASURE_KV_MLA : MOE_MEASURE_KV_GQA]) {
        MOE_TRY(add_kv(plan, model, err));
    }
    return MOE_OK;
}

enum moe_status moe_measure_series_make(const struct moe_measure_request *request,
                                        struct moe_measure_plan *plan, struct moe_error *err)
{
    static const char *const streams[] = { "stream-read", "stream-write", "stream-copy" };
    uint32_t index = 0;
    if (request->kinds[MOE_MEASURE_EXPERT]) {
        MOE_TRY(make_expert_series(request, plan, err));
    }
    for (uint32_t i = 0; i < request->model_count; i++) {
        MOE_TRY(make_model_series(request, &moe_measure_models[request->models[i]], plan, err));
    }
    for (size_t i = 0; request->kinds[MOE_MEASURE_STREAM] && i < 3; i++) {
        MOE_TRY(moe_measure_series_plain(plan, MOE_MEASURE_STREAM, streams[i], "own", &index, err));
    }
    if (request->kinds[MOE_MEASURE_LAUNCH]) {
        MOE_TRY(moe_measure_series_plain(plan, MOE_MEASURE_LAUNCH, "launch-graph", "graph", &index,
                                         err));
    }
    if (plan->series_count > 0) {
        return MOE_OK;
    }
    if (plan->left_out[0] != '\0') {
        return moe_fail(err, MOE_RANGE, "nothing fits into %.1f GiB of free GPU memory: %.300s",
                        request->memory_bytes / 0x1p30, plan->left_out);
    }
    if (request->kinds[MOE_MEASURE_EXPERT] &&
        (request->model_count > 0 || request->shape_count > 0)) {
        return moe_fail(
            err, MOE_RANGE,
            "nothing to measure: no --backend takes a --dtype that is named; lt-fp8-row "
            "and lt-fp8-block take fp8, own both, the others bf16");
    }
    return moe_fail(err, MOE_RANGE, "nothing to measure: name --models or --shape, and --kinds");
}
