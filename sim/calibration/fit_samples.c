#include "sim/calibration/fit_samples.h"

#include <assert.h>
#include <errno.h>
#include <math.h>
#include <stdio.h>
#include <string.h>
#include <unistd.h>

#include "sim/calibration/assembly.h"
#include "sim/cost/calibration_check.h"

/* Levels and shapes depend on each other; after so many rounds nothing moves any more. */
enum { ROUND_COUNT = 2 };

size_t moe_sample_fit_bytes(const struct moe_evidence *evidence)
{
    const size_t shapes = (size_t) evidence->series_count * (evidence->point_count + 64);
    return ((size_t) 64 << 20) + (size_t) evidence->sample_count * 4096 + shapes * 512 +
           (size_t) evidence->gpu_count * evidence->run_count * 8192;
}

static enum moe_status one_kind(const struct moe_evidence *evidence, struct moe_error *err)
{
    for (uint32_t i = 1; i < evidence->gpu_count; i++) {
        if (strcmp(evidence->gpus[i].kind, evidence->gpus[0].kind) != 0) {
            return moe_fail(err, MOE_RANGE,
                            "%s: holds samples of a %s and of a %s; one kind of GPU a file is "
                            "allowed",
                            evidence->name, evidence->gpus[0].kind, evidence->gpus[i].kind);
        }
    }
    return MOE_OK;
}

/* FLOP ceilings: the greater of measured and published, as a GEMM of one shape under a power
 * cap is not the fastest that the hardware could be. */
static enum moe_status find_ceilings(struct moe_fitter *fitter, const struct moe_calibration *base,
                                     struct moe_error *err)
{
    const struct moe_evidence *evidence = fitter->evidence;
    const struct moe_calibration_gpu_kind *kind = moe_calibration_find_kind(base, fitter->gpu_kind);
    fitter->read_bytes_s = moe_evidence_ceiling(evidence, fitter->gpu_kind, "read_bytes_s");
    fitter->copy_bytes_s = moe_evidence_ceiling(evidence, fitter->gpu_kind, "copy_bytes_s");
    fitter->bf16_flop_s = moe_evidence_ceiling(evidence, fitter->gpu_kind, "bf16_flop_s");
    fitter->fp8_flop_s = moe_evidence_ceiling(evidence, fitter->gpu_kind, "fp8_flop_s");
    if (kind != NULL) {
        fitter->read_bytes_s =
            fitter->read_bytes_s > 0.0 ? fitter->read_bytes_s : kind->read_bytes_s;
        fitter->bf16_flop_s = fmax(fitter->bf16_flop_s, kind->bf16_flop_s);
        fitter->fp8_flop_s = fmax(fitter->fp8_flop_s, kind->fp8_flop_s);
    }
    if (fitter->fp8_flop_s <= 0.0) {
        fitter->fp8_flop_s = fitter->bf16_flop_s; /* no fp8 units: weights are widened */
    }
    if (fitter->read_bytes_s <= 0.0 || fitter->bf16_flop_s <= 0.0) {
        return moe_fail(err, MOE_RANGE,
                        "%s: table sample_ceiling has no %s of a %s, and the base calibration does "
                        "not know that kind",
                        evidence->name,
                        fitter->read_bytes_s <= 0.0 ? "read_bytes_s" : "bf16_flop_s",
                        fitter->gpu_kind);
    }
    return MOE_OK;
}

static enum moe_status fit_all(struct moe_fitter *fitter, struct moe_error *err)
{
    MOE_TRY(moe_fitter_observe(fitter, err));
    MOE_TRY(moe_fitter_find_shapes(fitter, err));
    moe_fitter_centre(fitter);
    MOE_TRY(moe_fitter_fit_shapes(fitter, err));
    MOE_TRY(moe_fitter_fit_lines(fitter, err));
    for (int round = 0; round < ROUND_COUNT;
         round++) { /* each class takes off the other's effect */
        MOE_TRY(moe_fitter_fit_levels(fitter, fitter->gpus, err));
    }
    MOE_TRY(moe_fitter_fit_clock(fitter, err));
    MOE_TRY(moe_fitter_fit_drift(fitter, err));
    for (int round = 0; round < ROUND_COUNT; round++) {
        MOE_TRY(moe_fitter_fit_levels(fitter, fitter->gpus_at_clock, err));
        moe_fitter_centre(fitter);
        fitter->held_back = 0;
        MOE_TRY(moe_fitter_fit_shapes(fitter, err));
        MOE_TRY(moe_fitter_fit_lines(fitter, err));
    }
    MOE_TRY(moe_fitter_fit_decodes(fitter, err));
    return moe_fitter_fit_exchanges(fitter, err);
}

static const char *describe(struct moe_table_builder *builder, const struct moe_evidence *evidence)
{
    const struct moe_evidence_run *run = &evidence->runs[0];
    const char *first = run->started_at;
    const char *last = run->started_at;
    for (uint32_t i = 1; i < evidence->run_count; i++) {
        const char *at = evidence->runs[i].started_at;
        first = strcmp(at, first) < 0 ? at : first;
        last = strcmp(at, last) > 0 ? at : last;
    }
    return moe_table_builder_text(builder, "moecal, %u run%s on %u GPU%s, %.30s%s%.30s",
                                  evidence->run_count, evidence->run_count == 1 ? "" : "s",
                                  evidence->gpu_count, evidence->gpu_count == 1 ? "" : "s", first,
                                  first == last ? "" : " to ", first == last ? "" : last);
}

/* A backend that runs are to use is one that was measured. */
static enum moe_status check_backend(const struct moe_fitter *fitter, const char *backend,
                                     struct moe_error *err)
{
    char names[160] = "";
    size_t length = 0;
    for (uint32_t i = 0; i < fitter->shape_count; i++) {
        const char *name = fitter->shapes[i].shape.backend;
        if (strcmp(name, backend) == 0) {
            return MOE_OK;
        }
        if (strstr(names, name) == NULL && length + strlen(name) + 1 < sizeof names) {
            length += (size_t) snprintf(names + length, sizeof names - length, " %s", name);
        }
    }
    return moe_fail(err, MOE_RANGE, "%s: no series was measured with backend '%s'; there is:%s",
                    fitter->evidence->name, backend, length == 0 ? " none" : names);
}

static enum moe_status assemble(struct moe_sample_fit *fit, const struct moe_calibration *base,
                                const struct moe_sample_fit_options *options, struct moe_error *err)
{
    const bool known = moe_calibration_find_kind(base, fit->fitter.gpu_kind) != NULL;
    struct moe_assembly assembly = {
        .fitter = &fit->fitter,
        .builder = &fit->builder,
        .base = base,
        .base_kind = known ? fit->fitter.gpu_kind : base->gpu_kind_rows[0].name,
        .foreign = !known,
        .backend = options->backend,
        .quality = fit->quality,
        .quality_count = fit->quality_count,
        .source = describe(&fit->builder, fit->fitter.evidence),
    };
    if (options->backend != NULL) {
        MOE_TRY(check_backend(&fit->fitter, options->backend, err));
    }
    MOE_TRY(moe_assembly_kind(&assembly, err));
    MOE_TRY(moe_assembly_series(&assembly, err));
    MOE_TRY(moe_assembly_decodes(&assembly, err));
    MOE_TRY(moe_assembly_segments(&assembly, err));
    MOE_TRY(moe_assembly_parameters(&assembly, err));
    MOE_TRY(moe_assembly_noise(&assembly, err));
    MOE_TRY(moe_assembly_quality(&assembly, err));
    return moe_calibration_check(&fit->builder.calibration, MOE_CALIBRATION_FITTED, err);
}

enum moe_status moe_sample_fit_make(struct moe_sample_fit *out, const struct moe_evidence *evidence,
                                    const struct moe_calibration *base,
                                    const struct moe_sample_fit_options *options,
                                    struct moe_arena *arena, struct moe_error *err)
{
    *out = (struct moe_sample_fit){
        .fitter = { .evidence = evidence, .arena = arena, .gpu_kind = evidence->gpus[0].kind },
    };
    MOE_TRY(one_kind(evidence, err));
    MOE_TRY(find_ceilings(&out->fitter, base, err));
    MOE_TRY(fit_all(&out->fitter, err));
    out->quality = MOE_NEW(arena, struct moe_quality, 2 * (size_t) evidence->series_count);
    if (out->quality == NULL) {
        return moe_fail(err, MOE_LIMIT, "%s: no memory for its errors", evidence->name);
    }
    MOE_TRY(moe_quality_check(out->quality, &out->quality_count, &out->fitter, err));
    for (uint32_t i = 0; i < out->quality_count; i++) {
        out->missed += out->quality[i].status == MOE_FIT_MISSED ? 1 : 0;
        out->unchecked += out->quality[i].status == MOE_FIT_UNCHECKED ? 1 : 0;
    }
    moe_table_builder_init(&out->builder, evidence->name, arena);
    return assemble(out, base, options, err);
}

/* A copy without free pages: the same content gives the same bytes. */
static enum moe_status copy_file(const char *path, const char *to, struct moe_error *err)
{
    struct moe_database db;
    sqlite3_stmt *vacuum = NULL;
    MOE_TRY(moe_database_open(&db, &moe_calibration_database, path, MOE_DATABASE_READ, err));
    enum moe_status status = moe_database_prepare(&db, "VACUUM INTO ?1", &vacuum, err);
    if (status == MOE_OK) {
        status = sqlite3_bind_text(vacuum, 1, to, -1, SQLITE_STATIC) == SQLITE_OK
                     ? moe_database_run(&db, vacuum, err)
                     : moe_database_error(&db, err);
        (void) sqlite3_finalize(vacuum);
    }
    moe_database_close(&db);
    return status;
}

static enum moe_status write_into(const struct moe_sample_fit *fit, const char *path,
                                  struct moe_error *err)
{
    struct moe_database db;
    MOE_TRY(moe_database_open(&db, &moe_calibration_database, path, MOE_DATABASE_RESUME, err));
    const enum moe_status status = moe_table_builder_write(&fit->builder, &db, err);
    moe_database_close(&db);
    return status;
}

enum moe_status moe_sample_fit_write(const struct moe_sample_fit *fit, const char *path,
                                     const char *out_path, bool overwrite, struct moe_error *err)
{
    char partial[4096];
    MOE_TRY(moe_table_builder_try(&fit->builder, fit->fitter.arena, err));
    if (out_path == NULL) {
        return write_into(fit, path, err);
    }
    const int bytes = snprintf(partial, sizeof partial, "%s.partial", out_path);
    if (bytes < 0 || (size_t) bytes >= sizeof partial) {
        return moe_fail(err, MOE_RANGE, "a path of %zu bytes; at most %zu are allowed",
                        strlen(out_path), sizeof partial - sizeof ".partial");
    }
    if (!overwrite && access(out_path, F_OK) == 0) {
        return moe_fail(err, MOE_RANGE, "%s: exists already; give --overwrite to replace it",
                        out_path);
    }
    (void) unlink(partial); /* of a fit that was killed */
    enum moe_status status = copy_file(path, partial, err);
    if (status == MOE_OK) {
        status = write_into(fit, partial, err);
    }
    if (status == MOE_OK && rename(partial, out_path) != 0) {
        status = moe_fail(err, MOE_IO, "%s: %s", out_path, strerror(errno));
    }
    if (status != MOE_OK) {
        (void) unlink(partial);
    }
    return status;
}
