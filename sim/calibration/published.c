#include "sim/calibration/published.h"

#include <errno.h>
#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "sim/base/text_file.h"
#include "sim/calibration/segment_fit.h"
#include "sim/calibration/shape_fit.h"
#include "sim/calibration/table_builder.h"

enum { TEXT_BYTES_MAX = 64 << 20, DIGITS = 7, SERIES_POINTS_MAX = 512 };

#define MOE_PUBLISHED_FORMAT(name) extern const struct moe_published_format moe_published_##name;
#include "sim/calibration/published_format.def"
#undef MOE_PUBLISHED_FORMAT

const struct moe_published_format *const *moe_published_formats(size_t *count)
{
    static const struct moe_published_format *const formats[] = {
#define MOE_PUBLISHED_FORMAT(name) &moe_published_##name,
#include "sim/calibration/published_format.def"
#undef MOE_PUBLISHED_FORMAT
    };
    *count = sizeof formats / sizeof formats[0];
    return formats;
}

enum moe_status moe_published_find(const struct moe_published_format **out, const char *text,
                                   const char *name, const char *format, struct moe_error *err)
{
    size_t count = 0;
    const struct moe_published_format *const *formats = moe_published_formats(&count);
    const bool by_content = format == NULL || strcmp(format, "auto") == 0;
    char names[160] = "";
    size_t used = 0;
    for (size_t i = 0; i < count; i++) {
        if (by_content ? formats[i]->probe(text) : strcmp(format, formats[i]->name) == 0) {
            *out = formats[i];
            return MOE_OK;
        }
        used += (size_t) snprintf(names + used, sizeof names - used, " %s", formats[i]->name);
    }
    return by_content
               ? moe_fail(err, MOE_RANGE, "%s: looks like none of: csv%s; give --format", name,
                          names)
               : moe_fail(err, MOE_RANGE, "--format: '%s'; allowed: auto csv%s", format, names);
}

static void *grow(void *items, uint32_t count, uint32_t *room, size_t item_bytes,
                  struct moe_arena *arena)
{
    if (count < *room) {
        return items;
    }
    const uint32_t larger = *room == 0 ? 64 : 2 * *room;
    void *copy = moe_arena_alloc(arena, larger, item_bytes);
    if (copy != NULL && count > 0) {
        memcpy(copy, items, count * item_bytes);
    }
    *room = copy == NULL ? *room : larger;
    return copy;
}

enum moe_status moe_published_add_exchange(struct moe_published *published,
                                           const struct moe_published_exchange *exchange,
                                           struct moe_error *err)
{
    if (!(exchange->bytes >= 1.0 && exchange->bytes <= 1e15 && exchange->ns > 0.0 &&
          exchange->ns <= 1e12)) {
        return moe_fail(err, MOE_RANGE, "an exchange of %g bytes in %g ns; 1 to 1e15 and above 0",
                        exchange->bytes, exchange->ns);
    }
    struct moe_published_exchange *items =
        grow(published->exchanges, published->exchange_count, &published->exchange_room,
             sizeof *items, published->arena);
    if (items == NULL) {
        return moe_fail(err, MOE_LIMIT, "no memory for more than %u exchanges",
                        published->exchange_count);
    }
    published->exchanges = items;
    items[published->exchange_count++] = *exchange;
    return MOE_OK;
}

enum moe_status moe_published_add_shape(struct moe_published *published,
                                        const struct moe_published_shape *shape,
                                        struct moe_error *err)
{
    if (shape->hidden == 0 || shape->expert_size == 0 || !(shape->ns > 0.0)) {
        return moe_fail(err, MOE_RANGE, "a shape of %ux%u in %g ns; all are above 0", shape->hidden,
                        shape->expert_size, shape->ns);
    }
    struct moe_published_shape *items =
        grow(published->shapes, published->shape_count, &published->shape_room, sizeof *items,
             published->arena);
    if (items == NULL) {
        return moe_fail(err, MOE_LIMIT, "no memory for more than %u points",
                        published->shape_count);
    }
    published->shapes = items;
    items[published->shape_count++] = *shape;
    return MOE_OK;
}

/* What the tables are made with. */
struct maker {
    struct moe_published *published;
    struct moe_table_builder builder;
    const struct moe_calibration *base;
    const struct moe_calibration_gpu_kind *kind;
    const char *source;
    struct moe_published_result result;
    struct moe_error *err;
};

static int compare_exchanges(const void *left, const void *right)
{
    const struct moe_published_exchange *a = left;
    const struct moe_published_exchange *b = right;
    const uint32_t of_a[] = { a->op, a->link, a->ranks };
    const uint32_t of_b[] = { b->op, b->link, b->ranks };
    for (int i = 0; i < 3; i++) {
        if (of_a[i] != of_b[i]) {
            return of_a[i] < of_b[i] ? -1 : 1;
        }
    }
    if (a->bytes != b->bytes) {
        return a->bytes < b->bytes ? -1 : 1;
    }
    return (a->ns > b->ns) - (a->ns < b->ns);
}

static bool same_curve(const struct moe_published_exchange *a,
                       const struct moe_published_exchange *b)
{
    return a->op == b->op && a->link == b->link && a->ranks == b->ranks;
}

/* The curve of exchanges[0..count), which are sorted by bytes. */
static enum moe_status add_curve(struct maker *maker,
                                 const struct moe_published_exchange *exchanges, uint32_t count)
{
    struct moe_error *err = maker->err;
    struct moe_arena *arena = maker->builder.arena;
    struct moe_segment_fit fit;
    struct moe_segment_point *points = MOE_NEW(arena, struct moe_segment_point, count);
    uint32_t kept = 0;
    if (points == NULL) {
        return moe_fail(err, MOE_LIMIT, "no memory for a curve of %u points", count);
    }
    for (uint32_t begin = 0; begin < count;) { /* of the same size: the median */
        uint32_t end = begin + 1;
        while (end < count && exchanges[end].bytes == exchanges[begin].bytes) {
            end++;
        }
        const struct moe_published_exchange *middle = &exchanges[begin + (end - begin - 1) / 2];
        points[kept++] = (struct moe_segment_point){ middle->bytes, middle->ns, false };
        begin = end;
    }
    MOE_TRY(moe_segment_fit(&fit, points, kept, MOE_SEGMENT_FIT_LIMIT, 0.0, arena, err));
    for (uint32_t i = 0; i < fit.count; i++) {
        struct moe_calibration_segment *row = moe_table_builder_row(&maker->builder, "segment");
        if (row == NULL) {
            return moe_fail(err, MOE_LIMIT, "no memory for table segment");
        }
        *row = (struct moe_calibration_segment){
            .gpu_kind = maker->kind->name,
            .op = exchanges->op,
            .link = exchanges->link,
            .ranks = exchanges->ranks,
            .from_bytes = fit.lines[i].from_bytes,
            .to_bytes = fit.lines[i].to_bytes,
            .alpha_ns = moe_round_digits(fit.lines[i].alpha_ns, DIGITS),
            .bandwidth_bytes_s = moe_round_digits(1e9 / fit.lines[i].ns_per_byte, DIGITS),
            .provenance = MOE_PROVENANCE_PUBLISHED,
            .source = maker->source,
        };
    }
    maker->result.exchanges++;
    maker->result.points += kept;
    return MOE_OK;
}

static enum moe_status add_curves(struct maker *maker)
{
    struct moe_published_exchange *items = maker->published->exchanges;
    const uint32_t count = maker->published->exchange_count;
    if (count > 0) {
        qsort(items, count, sizeof items[0], compare_exchanges);
    }
    for (uint32_t begin = 0; begin < count;) {
        uint32_t end = begin + 1;
        while (end < count && same_curve(&items[begin], &items[end])) {
            end++;
        }
        MOE_TRY(add_curve(maker, &items[begin], end - begin));
        begin = end;
    }
    for (uint32_t i = 0; i < maker->base->segment_count; i++) {
        const struct moe_calibration_segment *base = &maker->base->segment_rows[i];
        const struct moe_published_exchange key = { .op = (enum moe_segment_op) base->op,
                                                    .link = (enum moe_link) base->link,
                                                    .ranks = base->ranks };
        bool replaced = false;
        for (uint32_t k = 0; k < count; k++) {
            replaced = replaced || (same_curve(&key, &items[k]) &&
                                    strcmp(base->gpu_kind, maker->kind->name) == 0);
        }
        struct moe_calibration_segment *row =
            replaced ? NULL : moe_table_builder_row(&maker->builder, "segment");
        if (!replaced && row == NULL) {
            return moe_fail(maker->err, MOE_LIMIT, "no memory for table segment");
        }
        if (!replaced) {
            *row = *base;
        }
    }
    return MOE_OK;
}

static bool same_series(const struct moe_published_shape *a, const struct moe_published_shape *b)
{
    return a->op == b->op && a->hidden == b->hidden && a->expert_size == b->expert_size &&
           a->gated == b->gated && a->dtype == b->dtype && strcmp(a->backend, b->backend) == 0;
}

static int compare_points(const void *left, const void *right)
{
    const struct moe_shape_point *a = left;
    const struct moe_shape_point *b = right;
    if (a->active != b->active) {
        return a->active < b->active ? -1 : 1;
    }
    if (a->tokens != b->tokens) {
        return a->tokens < b->tokens ? -1 : 1;
    }
    return (a->ns > b->ns) - (a->ns < b->ns);
}

/* The points of the series that shapes[first] begins: possible ones, each place once. */
static uint32_t collect(struct maker *maker, uint32_t first, const struct moe_shape *shape,
                        struct moe_shape_point *points)
{
    const struct moe_published *published = maker->published;
    uint32_t count = 0;
    uint32_t kept = 0;
    for (uint32_t i = first; i < published->shape_count && count < SERIES_POINTS_MAX; i++) {
        const struct moe_published_shape *row = &published->shapes[i];
        if (!same_series(row, &published->shapes[first])) {
            continue;
        }
        if (moe_shape_is_physical(shape, row->tokens, row->active, row->ns)) {
            points[count++] = (struct moe_shape_point){ row->tokens, row->active, row->ns, 0.0 };
        } else {
            maker->result.impossible++;
        }
    }
    if (count > 0) {
        qsort(points, count, sizeof points[0], compare_points);
    }
    for (uint32_t begin = 0; begin < count;) {
        uint32_t end = begin + 1;
        while (end < count && points[end].active == points[begin].active &&
               points[end].tokens == points[begin].tokens) {
            end++;
        }
        points[kept++] = points[begin + (end - begin - 1) / 2];
        begin = end;
    }
    return kept;
}

static enum moe_status add_series(struct maker *maker, uint32_t first)
{
    struct moe_shape_point points[SERIES_POINTS_MAX];
    const struct moe_published_shape *row = &maker->published->shapes[first];
    struct moe_arena *arena = maker->builder.arena;
    struct moe_shape_fit fit;
    double errors[MOE_SHAPE_TILES];
    uint32_t tile = 0;
    bool by_rows = false;
    struct moe_shape shape = {
        .name = moe_table_builder_text(&maker->builder, "%s-%ux%u-%s-%.30s",
                                       row->op == MOE_SERIES_GEMM ? "gemm" : "expert", row->hidden,
                                       row->expert_size, moe_dtype_name(row->dtype), row->backend),
        .gpu_kind = maker->kind->name,
        .op = row->op,
        .hidden = row->hidden,
        .expert_size = row->expert_size,
        .gated = row->gated,
        .dtype = row->dtype,
        .backend = row->backend,
        .permutation_inside = true,
        .provenance = MOE_PROVENANCE_PUBLISHED,
        .read_bytes_s = maker->kind->read_bytes_s,
        .flop_s = row->dtype == MOE_DTYPE_FP8 ? maker->kind->fp8_flop_s : maker->kind->bf16_flop_s,
        .points = points,
    };
    shape.count = collect(maker, first, &shape, points);
    if (shape.count == 0) {
        return MOE_OK;
    }
    MOE_TRY(moe_shape_foretell(errors, &by_rows, &shape, arena, maker->err));
    for (uint32_t t = 1; t < MOE_SHAPE_TILES; t++) {
        tile = errors[t] < errors[tile] * (1.0 - 1e-3) ? t : tile;
    }
    MOE_TRY(
        moe_shape_fit(&fit, &shape, moe_shape_tiles[tile], MOE_ROOFLINE_STARTS, arena, maker->err));
    maker->result.series++;
    maker->result.points += shape.count;
    return moe_shape_rows(&maker->builder, &shape, &fit, MOE_PROVENANCE_PUBLISHED, maker->source,
                          maker->err);
}

/* Whether an imported series serves what a series of the base would. */
static bool is_replaced(const struct maker *maker, const struct moe_calibration_series *base)
{
    for (uint32_t i = 0; i < maker->published->shape_count; i++) {
        const struct moe_published_shape *row = &maker->published->shapes[i];
        if (strcmp(base->gpu_kind, maker->kind->name) == 0 && base->op == row->op &&
            base->hidden == row->hidden && base->expert_size == row->expert_size &&
            base->dtype == row->dtype &&
            (row->op == MOE_SERIES_GEMM || (base->gated != 0) == row->gated)) {
            return true;
        }
    }
    return false;
}

static enum moe_status add_base_series(struct maker *maker)
{
    for (uint32_t i = 0; i < maker->base->series_count; i++) {
        const struct moe_calibration_series *base = &maker->base->series_rows[i];
        if (is_replaced(maker, base)) {
            continue;
        }
        struct moe_calibration_series *series = moe_table_builder_row(&maker->builder, "series");
        struct moe_calibration_fit *fit = moe_table_builder_row(&maker->builder, "fit");
        if (series == NULL || fit == NULL) {
            return moe_fail(maker->err, MOE_LIMIT, "no memory for table series");
        }
        *series = *base;
        *fit = *moe_calibration_find_fit(maker->base, base->name);
        for (uint32_t p = 0; p < maker->base->point_count; p++) {
            if (strcmp(maker->base->point_rows[p].series, base->name) != 0) {
                continue;
            }
            struct moe_calibration_point *point = moe_table_builder_row(&maker->builder, "point");
            if (point == NULL) {
                return moe_fail(maker->err, MOE_LIMIT, "no memory for table point");
            }
            *point = maker->base->point_rows[p];
        }
    }
    return MOE_OK;
}

static enum moe_status add_all(struct maker *maker)
{
    static const char *const copied[] = { "gpu_kind", "gpu",   "parameter", "factor",
                                          "jitter",   "drift", "decode",    "decode_point" };
    const struct moe_published *published = maker->published;
    for (size_t i = 0; i < sizeof copied / sizeof copied[0]; i++) {
        MOE_TRY(moe_table_builder_copy(&maker->builder, copied[i], maker->base, maker->err));
    }
    for (uint32_t i = 0; i < published->shape_count; i++) {
        bool seen = false;
        for (uint32_t k = 0; k < i && !seen; k++) {
            seen = same_series(&published->shapes[k], &published->shapes[i]);
        }
        if (!seen) {
            MOE_TRY(add_series(maker, i));
        }
    }
    MOE_TRY(add_base_series(maker));
    MOE_TRY(add_curves(maker));
    return moe_table_builder_try(&maker->builder, maker->builder.arena, maker->err);
}

static enum moe_status write_file(const struct maker *maker, const char *db_path, bool overwrite)
{
    char partial[4096];
    struct moe_database db;
    const int bytes = snprintf(partial, sizeof partial, "%s.partial", db_path);
    if (bytes < 0 || (size_t) bytes >= sizeof partial) {
        return moe_fail(maker->err, MOE_RANGE, "a path of %zu bytes; at most %zu are allowed",
                        strlen(db_path), sizeof partial - sizeof ".partial");
    }
    if (!overwrite && access(db_path, F_OK) == 0) {
        return moe_fail(maker->err, MOE_RANGE, "%s: exists already; give --overwrite to replace it",
                        db_path);
    }
    (void) unlink(partial); /* of an import that was killed */
    MOE_TRY(moe_database_open(&db, &moe_calibration_database, partial, MOE_DATABASE_CREATE,
                              maker->err));
    enum moe_status status = moe_table_builder_write(&maker->builder, &db, maker->err);
    moe_database_close(&db);
    if (status == MOE_OK && rename(partial, db_path) != 0) {
        status = moe_fail(maker->err, MOE_IO, "%s: %s", db_path, strerror(errno));
    }
    if (status != MOE_OK) {
        (void) unlink(partial);
    }
    return status;
}

static enum moe_status find_kind(struct maker *maker, const char *name)
{
    const struct moe_calibration_gpu_kind *first = maker->base->gpu_kind_rows;
    maker->kind = name == NULL ? first : moe_calibration_find_kind(maker->base, name);
    if (maker->kind == NULL) {
        return moe_fail(maker->err, MOE_RANGE, "--gpu-kind: the base has no '%s'; it has %s%s",
                        name == NULL ? "" : name, first == NULL ? "none" : first->name,
                        maker->base->gpu_kind_count > 1 ? " and others" : "");
    }
    return MOE_OK;
}

enum moe_status moe_published_import(struct moe_published_result *out, const char *path,
                                     const char *db_path, bool overwrite,
                                     const struct moe_calibration *base,
                                     const struct moe_published_options *options,
                                     struct moe_arena *arena, struct moe_error *err)
{
    const struct moe_published_format *format = NULL;
    struct moe_published published = { .arena = arena };
    struct maker maker = { .published = &published, .base = base, .err = err };
    char *text = NULL;
    size_t bytes = 0;
    moe_table_builder_init(&maker.builder, db_path, arena);
    MOE_TRY(find_kind(&maker, options->gpu_kind));
    MOE_TRY(moe_text_file_read(path, TEXT_BYTES_MAX, &text, &bytes, err));
    enum moe_status status = MOE_OK;
    if (strlen(text) != bytes) {
        status = moe_fail(err, MOE_PARSE, "%s: a zero byte at %zu", path, strlen(text));
    } else {
        status = moe_published_find(&format, text, path, options->format, err);
    }
    if (status == MOE_OK) {
        status = format->read(&published, text, path, options, err);
    }
    if (status == MOE_OK && published.exchange_count + published.shape_count == 0) {
        status = moe_fail(err, MOE_RANGE, "%s: no row of it can be used (%u skipped)", path,
                          published.skipped);
    }
    if (status == MOE_OK) {
        const char *file = strrchr(path, '/');
        maker.source = moe_table_builder_text(&maker.builder, "%s, %.200s", format->name,
                                              file == NULL ? path : file + 1);
        maker.result.skipped = published.skipped;
        status = add_all(&maker);
    }
    if (status == MOE_OK) {
        status = write_file(&maker, db_path, overwrite);
    }
    free(text);
    if (status == MOE_OK) {
        *out = maker.result;
    }
    return status;
}
