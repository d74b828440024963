/*
 * Published figures: tables of other people's measurements, read as they were printed and made
 * into a calibration whose rows say so. What they do not cover comes from a base calibration.
 *
 * A format is one file published_NAME.c and one line in published_format.def.
 */
#ifndef MOE_SIM_CALIBRATION_PUBLISHED_H
#define MOE_SIM_CALIBRATION_PUBLISHED_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "sim/base/arena.h"
#include "sim/base/error.h"
#include "sim/cost/calibration.h"

/* One time of an exchange: bytes that the busiest rank sends. */
struct moe_published_exchange {
    enum moe_segment_op op;
    enum moe_link link;
    uint32_t ranks;
    double bytes;
    double ns;
};

/* One time of experts (the whole operation, balanced) or of one matrix (active 1). */
struct moe_published_shape {
    enum moe_series_op op;
    uint32_t hidden;
    uint32_t expert_size;
    bool gated;
    enum moe_dtype dtype;
    const char *backend;
    double tokens; /* per active expert; of a matrix: rows */
    uint32_t active;
    double ns;
};

/* What a reader fills; its texts live in the arena. */
struct moe_published {
    struct moe_published_exchange *exchanges;
    struct moe_published_shape *shapes;
    uint32_t exchange_count;
    uint32_t exchange_room;
    uint32_t shape_count;
    uint32_t shape_room;
    uint32_t skipped; /* rows of a kind that no table holds */
    struct moe_arena *arena;
};

/* What the file does not say. */
struct moe_published_options {
    const char *format;   /* NULL or "auto": by content */
    const char *gpu_kind; /* NULL: the base's first */
    const char *op;       /* nccl-tests before 2.17 do not print it; NULL: the file says */
    uint32_t ranks;       /* 0: the file says */
    enum moe_link link;
};

struct moe_published_format {
    const char *name;
    const char *summary;
    /* Whether text (zero-terminated) looks like it. */
    bool (*probe)(const char *text);
    /* name stands in errors, which give NAME:LINE. Errors: MOE_PARSE, MOE_RANGE, MOE_LIMIT. */
    enum moe_status (*read)(struct moe_published *out, const char *text, const char *name,
                            const struct moe_published_options *options, struct moe_error *err);
};

const struct moe_published_format *const *moe_published_formats(size_t *count);

/* The format by its name or by the text. Errors: MOE_RANGE (no such name; nothing fits), which
 * list the formats. */
enum moe_status moe_published_find(const struct moe_published_format **out, const char *text,
                                   const char *name, const char *format,
                                   struct moe_error *err) MOE_MUST_CHECK;

/* For readers. Errors: MOE_RANGE for times or sizes that are not positive; MOE_LIMIT. */
enum moe_status moe_published_add_exchange(struct moe_published *published,
                                           const struct moe_published_exchange *exchange,
                                           struct moe_error *err) MOE_MUST_CHECK;
enum moe_status moe_published_add_shape(struct moe_published *published,
                                        const struct moe_published_shape *shape,
                                        struct moe_error *err) MOE_MUST_CHECK;

struct moe_published_result {
    uint32_t exchanges; /* curves made */
    uint32_t series;
    uint32_t points;
    uint32_t skipped;
    uint32_t impossible; /* points faster than the GPU kind's ceilings, left out */
};

/* Reads path and writes the calibration db_path, all or nothing. An existing file is refused
 * unless overwrite. Errors: MOE_IO, those of the reader, MOE_RANGE when it holds nothing. */
enum moe_status moe_published_import(struct moe_published_result *out, const char *path,
                                     const char *db_path, bool overwrite,
                                     const struct moe_calibration *base,
                                     const struct moe_published_options *options,
                                     struct moe_arena *arena, struct moe_error *err) MOE_MUST_CHECK;

#endif
