/* The user's measured steps: reading them, and how far the simulated ones are from them. */
#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "sim/base/hash.h"
#include "sim/base/text_file.h"
#include "sim/engine/step_profile.h"
#include "traces/csv.h"

enum { STEP_LIMIT = 1 << 24, OVERLAY_BYTES = 1 << 29 };

static enum moe_status check_header(struct moe_csv *csv, const char *path, struct moe_error *err)
{
    static const char *const names[] = { "tokens", "decode_only", "step_ms" };
    bool got = false;
    MOE_TRY(moe_csv_next(csv, &got, err));
    bool good = got && csv->field_count == 3;
    for (size_t i = 0; good && i < 3; i++) {
        good = strcmp(csv->fields[i], names[i]) == 0;
    }
    return good ? MOE_OK
                : moe_fail(err, MOE_PARSE,
                           "%s:1: the first line must be tokens,decode_only,step_ms", path);
}

static enum moe_status read_step(const struct moe_csv *csv, const char *path,
                                 struct moe_measured_step *step, struct moe_error *err)
{
    uint64_t decode = 0;
    double ms = 0.0;
    if (csv->field_count != 3) {
        return moe_fail(err, MOE_PARSE, "%s:%llu: %zu fields; tokens,decode_only,step_ms are 3",
                        path, (unsigned long long) csv->lines.number, csv->field_count);
    }
    MOE_TRY(moe_csv_whole(csv, 0, UINT32_MAX, &step->tokens, err));
    MOE_TRY(moe_csv_whole(csv, 1, 1, &decode, err));
    MOE_TRY(moe_csv_real(csv, 2, 1e-6, 1e9, &ms, err));
    if (step->tokens == 0) {
        return moe_fail(err, MOE_RANGE, "%s:%llu: tokens is 0; a step has at least 1", path,
                        (unsigned long long) csv->lines.number);
    }
    step->kind = decode == 1 ? MOE_STEP_DECODE : MOE_STEP_MIXED;
    step->ns = ms * 1e6;
    return MOE_OK;
}

static enum moe_status read_steps(struct moe_overlay *overlay, struct moe_csv *csv,
                                  struct moe_error *err)
{
    uint32_t room = 0;
    MOE_TRY(check_header(csv, overlay->path, err));
    for (bool got = true;;) {
        MOE_TRY(moe_csv_next(csv, &got, err));
        if (!got) {
            break;
        }
        if (overlay->count == room) {
            room = room == 0 ? 1024 : room * 2;
            struct moe_measured_step *more =
                room <= STEP_LIMIT ? realloc(overlay->steps, room * sizeof *more) : NULL;
            if (more == NULL) {
                return moe_fail(err, MOE_LIMIT, "%s: no memory for more than %u steps",
                                overlay->path, overlay->count);
            }
            overlay->steps = more;
        }
        MOE_TRY(read_step(csv, overlay->path, &overlay->steps[overlay->count], err));
        overlay->count++;
    }
    if (overlay->count == 0) {
        return moe_fail(err, MOE_RANGE, "%s: holds no step", overlay->path);
    }
    overlay->scratch = calloc(overlay->count, sizeof *overlay->scratch);
    return overlay->scratch != NULL ? MOE_OK
                                    : moe_fail(err, MOE_LIMIT, "%s: no memory for %u steps",
                                               overlay->path, overlay->count);
}

enum moe_status moe_overlay_parse(struct moe_overlay *overlay, const char *text, size_t bytes,
                                  const char *name, struct moe_error *err)
{
    struct moe_overlay read = { .hash = moe_hash_bytes(text, bytes, 0) };
    struct moe_csv *csv = calloc(1, sizeof *csv);
    if (csv == NULL) {
        return moe_fail(err, MOE_LIMIT, "%s: no memory to read it", name);
    }
    (void) snprintf(read.path, sizeof read.path, "%s", name);
    enum moe_status status = moe_csv_open_memory(csv, read.path, text, bytes, err);
    if (status == MOE_OK) {
        status = read_steps(&read, csv, err);
    }
    moe_csv_close(csv);
    free(csv);
    if (status != MOE_OK) {
        moe_overlay_finish(&read);
        return status;
    }
    *overlay = read;
    return MOE_OK;
}

enum moe_status moe_overlay_read(struct moe_overlay *overlay, const char *path,
                                 struct moe_error *err)
{
    char *text = NULL;
    size_t bytes = 0;
    MOE_TRY(moe_text_file_read(path, OVERLAY_BYTES, &text, &bytes, err));
    const enum moe_status status = moe_overlay_parse(overlay, text, bytes, path, err);
    free(text);
    return status;
}

void moe_overlay_finish(struct moe_overlay *overlay)
{
    free(overlay->steps);
    free(overlay->scratch);
    overlay->steps = NULL;
    overlay->scratch = NULL;
    overlay->count = 0;
}

static int ascending(const void *left, const void *right)
{
    const double a = *(const double *) left;
    const double b = *(const double *) right;
    return (a > b) - (a < b);
}

struct moe_overlay_error moe_overlay_compare(const struct moe_overlay *overlay,
                                             const struct moe_step_profile *profile, uint32_t kind,
                                             uint32_t cell)
{
    double *scratch = overlay->scratch;
    struct moe_overlay_error e = { 0 };
    for (uint32_t i = 0; i < overlay->count; i++) {
        const struct moe_measured_step *step = &overlay->steps[i];
        double ns = 0.0;
        if ((kind != MOE_STEP_KINDS && (uint32_t) step->kind != kind) ||
            (cell != MOE_STEP_CELLS && moe_step_cell_of(step->tokens) != cell)) {
            continue;
        }
        if (!moe_step_profile_at(profile, step->kind, step->tokens, &ns)) {
            e.left_out++;
            continue;
        }
        const double error = ns / step->ns - 1.0;
        scratch[e.count++] = fabs(error);
        e.bias += error;
        e.mape += fabs(error);
        e.measured_ns += step->ns;
        e.simulated_ns += ns;
    }
    if (e.count > 0) {
        const double n = (double) e.count;
        qsort(scratch, e.count, sizeof *scratch, ascending);
        e.p95 = scratch[(uint64_t) ceil(0.95 * n) - 1];
        e.bias /= n;
        e.mape /= n;
        e.measured_ns /= n;
        e.simulated_ns /= n;
    }
    return e;
}
