#include "calibrate/measure/measure_run.h"

#include <cuda_runtime_api.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>

#include "calibrate/blas/blas.h"
#include "sim/base/wall_clock.h"

enum { REFINED_PER_SERIES = 4 };

static const double END_S = 3.0; /* sentinels, giving memory back, the store's last page */

double moe_measure_run_left_s(const struct moe_measure_run *run)
{
    return run->limit_s - run->reserve_s - END_S - (moe_wall_clock_s() - run->begin_s);
}

void moe_measure_run_note(struct moe_measure_run *run, uint32_t point, const char *what)
{
    const struct moe_measure_point *at = &run->plan->points[point];
    (void) pthread_mutex_lock(&run->lock);
    run->note_count++;
    if (run->note[0] == '\0') {
        (void) snprintf(run->note, sizeof run->note, "%s at %g: %.250s",
                        run->plan->series[at->series].name, at->tokens, what);
    }
    (void) pthread_mutex_unlock(&run->lock);
}

bool moe_measure_run_meet(struct moe_measure_run *run)
{
    (void) pthread_mutex_lock(&run->lock);
    const uint32_t generation = run->generation;
    run->waiting++;
    while (generation == run->generation) {
        if (run->waiting >= run->present) { /* also when the one waited for has left */
            run->waiting = 0;
            run->generation++;
            (void) pthread_cond_broadcast(&run->arrived);
        } else {
            (void) pthread_cond_wait(&run->arrived, &run->lock);
        }
    }
    (void) pthread_mutex_unlock(&run->lock);
    return !atomic_load(&run->stop);
}

/* "NVIDIA H200" is an H200. */
static const char *kind_of(const char *name)
{
    static const char maker[] = "NVIDIA ";
    return strncmp(name, maker, sizeof maker - 1) == 0 ? name + sizeof maker - 1 : name;
}

static enum moe_status store_gpu(struct moe_measure_run *run, uint32_t rank, struct moe_error *err)
{
    const struct moe_device *device = &run->gpus[rank];
    struct moe_nvml_sample sample = { 0 };
    int cache_bytes = 0;
    int khz = 0;
    const int number = (int) run->devices[rank];
    MOE_TRY(
        moe_device_check((int) cudaDeviceGetAttribute(&cache_bytes, cudaDevAttrL2CacheSize, number),
                         "cudaDeviceGetAttribute", err));
    MOE_TRY(moe_device_check((int) cudaDeviceGetAttribute(&khz, cudaDevAttrClockRate, number),
                             "cudaDeviceGetAttribute", err));
    if (run->nvml != NULL) {
        MOE_TRY(moe_nvml_read(run->nvml, device->pci_bus_id, &sample, err));
    }
    const struct moe_sample_gpu gpu = { .uuid = device->uuid,
                                        .name = device->name,
                                        .kind = kind_of(device->name),
                                        .sm_count = (int64_t) device->sm_count,
                                        .l2_bytes = cache_bytes,
                                        .memory_bytes = (int64_t) device->memory_bytes,
                                        .boost_mhz = (double) khz / 1e3,
                                        .power_limit_w = (double) sample.power_limit_mw / 1e3 };
    return moe_sample_add_gpu(run->store, &gpu, &run->gpu_ids[rank], err);
}

/* ["GPU-..","GPU-.."], as settings hold it. */
static void write_gpus(const struct moe_measure_run *run, char *out, size_t size)
{
    size_t used = (size_t) snprintf(out, size, "[");
    for (uint32_t i = 0; i < run->gpu_count && used < size; i++) {
        used += (size_t) snprintf(out + used, size - used, "%s\"%s\"", i == 0 ? "" : ",",
                                  run->gpus[i].uuid);
    }
    if (used < size) {
        (void) snprintf(out + used, size - used, "]");
    }
}

/* First column of the first row in *id (0: none), second as text. */
static enum moe_status look_up(struct moe_measure_run *run, const char *sql, int64_t *id,
                               char *text, size_t text_size, struct moe_error *err)
{
    struct moe_database *db = moe_sample_store_database(run->store);
    sqlite3_stmt *stmt = NULL;
    int row = 0;
    *id = 0;
    MOE_TRY(moe_database_prepare(db, sql, &stmt, err));
    const enum moe_status status = moe_database_step(db, stmt, &row, err);
    if (status == MOE_OK && row) {
        const unsigned char *found = sqlite3_column_text(stmt, 1);
        *id = sqlite3_column_int64(stmt, 0);
        (void) snprintf(text, text_size, "%s", found == NULL ? "" : (const char *) found);
    }
    (void) sqlite3_finalize(stmt);
    return status;
}

/* A file belongs to one set of GPUs; a run that was not ended is gone on with, or in the way. */
static enum moe_status find_unfinished(struct moe_measure_run *run, const char *settings,
                                       const char *gpus, struct moe_error *err)
{
    static char found[8192]; /* settings name up to 64 GPUs */
    struct moe_database *db = moe_sample_store_database(run->store);
    int64_t id = 0;
    MOE_TRY(look_up(run,
                    "SELECT id, settings FROM sample_run WHERE command LIKE 'measure%'"
                    " ORDER BY id DESC LIMIT 1",
                    &id, found, sizeof found, err));
    if (id != 0 && strstr(found, gpus) == NULL) {
        return moe_fail(err, MOE_RANGE,
                        "%s: holds a run on other GPUs than these (%.100s); give another file, and "
                        "merge them afterwards",
                        db->path, gpus);
    }
    MOE_TRY(look_up(run,
                    "SELECT id, settings FROM sample_run WHERE command LIKE 'measure%'"
                    " AND wall_s IS NULL ORDER BY id DESC LIMIT 1",
                    &id, found, sizeof found, err));
    if (id == 0) {
        return MOE_OK;
    }
    if (strcmp(found, settings) != 0) {
        char command[200];
        MOE_TRY(look_up(run,
                        "SELECT id, command FROM sample_run WHERE command LIKE 'measure%'"
                        " AND wall_s IS NULL ORDER BY id DESC LIMIT 1",
                        &id, command, sizeof command, err));
        return moe_fail(
            err, MOE_RANGE,
            "%s: holds an unfinished run of another plan (moecal %.180s); go on with it "
            "by the same command, or give another file",
            db->path, command);
    }
    run->id = id;
    run->resumed = true;
    return MOE_OK;
}

static enum moe_status read_earlier(struct moe_measure_run *run, struct moe_error *err)
{
    struct moe_database *db = moe_sample_store_database(run->store);
    char sql[160];
    int64_t milliseconds = 0;
    (void) snprintf(sql, sizeof sql,
                    "SELECT CAST(1000 * max(begin_s) AS INTEGER) FROM sample WHERE run = %lld",
                    (long long) run->id);
    MOE_TRY(moe_database_scalar(db, sql, 0, &milliseconds, err));
    run->earlier_s = (double) milliseconds * 1e-3;
    return MOE_OK;
}

static void write_settings(const struct moe_measure_run *run, const char *gpus, char *out,
                           size_t size)
{
    (void) snprintf(
        out, size,
        "{\"plan\":\"%016llx\",\"gpus\":%s,\"soak_s\":%g,\"settle_s\":%g,\"rows_max\":%d,"
        "\"context_max\":%d,\"product\":%u,\"sentinel\":\"%dx%dx%d\","
        "\"NCCL_NVLS_ENABLE\":\"0\"}",
        (unsigned long long) run->plan->hash, gpus, run->soak_s, run->settle_s,
        (int) run->request.rows_max, (int) run->request.context_max, run->product_size,
        (int) run->request.sentinel.hidden, (int) run->request.sentinel.inter,
        (int) run->request.sentinel.expert_count);
}

static enum moe_status begin_run(struct moe_measure_run *run, const char *settings,
                                 struct moe_error *err)
{
    char started[32];
    const time_t now = time(NULL);
    struct tm parts;
    (void) gmtime_r(&now, &parts);
    (void) strftime(started, sizeof started, "%Y-%m-%dT%H:%M:%SZ", &parts);
    const struct moe_sample_run row = {
        .started_at = started,
        .command = run->command,
        .moecal = run->version,
        .driver = run->nvml == NULL ? "" : moe_nvml_driver(run->nvml),
        .cuda = run->cuda,
        .cublas = run->cublas,
        .nccl = run->nccl,
        .seed = run->request.seed,
        .gpu_count = run->gpu_count,
        .settings = settings,
    };
    return moe_sample_begin_run(run->store, &row, &run->id, err);
}

static enum moe_status store_series(struct moe_measure_run *run, uint32_t index,
                                    struct moe_error *err)
{
    const struct moe_measure_series *series = &run->plan->series[index];
    const struct moe_sample_series row = {
        .name = series->name,
        .kind = moe_measure_kind_name(series->kind),
        .models = series->models,
        .hidden = series->hidden,
        .inter = series->inter,
        .units = series->units,
        .top_k = series->top_k,
        .dtype = moe_expert_dtype_name(series->dtype),
        .activation = series->kind == MOE_MEASURE_EXPERT
                          ? moe_expert_activation_name(series->activation)
                          : "",
        .backend = series->backend,
        .ranks = 1,
        .src = -1,
        .dst = -1,
    };
    return moe_sample_add_series(run->store, &row, &run->series_ids[index], err);
}

enum moe_status moe_measure_run_store_point(struct moe_measure_run *run, uint32_t index,
                                            struct moe_error *err)
{
    const struct moe_measure_point *point = &run->plan->points[index];
    const struct moe_measure_series *series = &run->plan->series[point->series];
    const bool spread = point->rows != NULL && strcmp(point->histogram, "uniform") != 0;
    const struct moe_sample_point row = {
        .series = run->series_ids[point->series],
        .role = moe_measure_role_name(point->role),
        .tokens = point->tokens,
        .active = point->active,
        .row_max = point->row_max,
        .tiles64 = point->tiles64,
        .tiles128 = point->tiles128,
        .context = point->context,
        .bytes = point->bytes,
        .flops = point->flops,
        .histogram = point->histogram,
        .rows = spread ? point->rows : NULL,
        .rows_bytes = (size_t) series->units * sizeof *point->rows,
    };
    return moe_sample_add_point(run->store, &row, &run->point_ids[index], err);
}

static enum moe_status store_plan(struct moe_measure_run *run, struct moe_error *err)
{
    run->series_ids = calloc(run->plan->series_count, sizeof *run->series_ids);
    run->point_room = run->plan->point_count + REFINED_PER_SERIES * run->plan->series_count;
    run->point_ids = calloc(run->point_room, sizeof *run->point_ids);
    if (run->series_ids == NULL || run->point_ids == NULL) {
        return moe_fail(err, MOE_LIMIT, "no memory for a run");
    }
    for (uint32_t i = 0; i < run->plan->series_count; i++) {
        MOE_TRY(store_series(run, i, err));
    }
    for (uint32_t i = 0; i < run->plan->point_count; i++) {
        MOE_TRY(moe_measure_run_store_point(run, i, err));
    }
    return moe_sample_store_commit(run->store, err);
}

static enum moe_status open_run(struct moe_measure_run *run, struct moe_error *err)
{
    static char gpus[64 * 64];
    static char settings[64 * 64 + 512];
    struct moe_cuda_version driver;
    struct moe_cuda_version runtime;
    struct moe_blas *blas = NULL;
    MOE_TRY(moe_cuda_versions(&driver, &runtime, err));
    (void) snprintf(run->cuda, sizeof run->cuda, "%u.%u", runtime.major, runtime.minor);
    for (uint32_t i = 0; i < run->gpu_count; i++) {
        MOE_TRY(moe_device_read(run->devices[i], &run->gpus[i], err));
    }
    write_gpus(run, gpus, sizeof gpus);
    write_settings(run, gpus, settings, sizeof settings);
    if (!run->is_card) {
        MOE_TRY(find_unfinished(run, settings, gpus, err));
    }
    MOE_TRY(moe_device_check((int) cudaSetDevice((int) run->devices[0]), "cudaSetDevice", err));
    MOE_TRY(moe_blas_create(&blas, err));
    moe_blas_version(blas, run->cublas, sizeof run->cublas);
    moe_blas_destroy(blas);
    for (uint32_t i = 0; i < run->gpu_count; i++) {
        MOE_TRY(store_gpu(run, i, err));
    }
    if (run->resumed) {
        MOE_TRY(read_earlier(run, err));
    } else {
        MOE_TRY(begin_run(run, settings, err));
    }
    return store_plan(run, err);
}

enum moe_status moe_measure_run_open(struct moe_measure_run *run, struct moe_error *err)
{
    struct moe_error nvml_err = { 0 };
    if (moe_nvml_create(&run->nvml, &nvml_err) != MOE_OK) {
        run->nvml = NULL;
        (void) fprintf(stderr, "moecal: going on without power and clocks of the driver: %s\n",
                       nvml_err.text);
    }
    if (pthread_mutex_init(&run->lock, NULL) != 0 || pthread_cond_init(&run->arrived, NULL) != 0) {
        moe_nvml_destroy(run->nvml);
        return moe_fail(err, MOE_LIMIT, "no memory for a run");
    }
    const enum moe_status status = open_run(run, err);
    if (status != MOE_OK) {
        moe_measure_run_close(run);
    }
    return status;
}

void moe_measure_run_close(struct moe_measure_run *run)
{
    free(run->series_ids);
    free(run->point_ids);
    run->series_ids = NULL;
    run->point_ids = NULL;
    moe_nvml_destroy(run->nvml);
    run->nvml = NULL;
    (void) pthread_mutex_destroy(&run->lock);
    (void) pthread_cond_destroy(&run->arrived);
}

enum moe_status moe_measure_run_end(struct moe_measure_run *run, struct moe_error *err)
{
    if (atomic_load(&run->stop)) {
        return moe_sample_store_commit(run->store, err);
    }
    return moe_sample_end_run(run->store, run->id,
                              moe_wall_clock_s() - run->begin_s + run->earlier_s, err);
}
