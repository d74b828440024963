/*
 * Assembly: the rows of the fitted tables, from a fitter's results and a base calibration.
 * Internal to sim/calibration; fit_samples.h is the door.
 */
#ifndef MOE_SIM_CALIBRATION_ASSEMBLY_H
#define MOE_SIM_CALIBRATION_ASSEMBLY_H

#include "sim/calibration/fitter.h"
#include "sim/calibration/quality.h"
#include "sim/calibration/table_builder.h"

struct moe_assembly {
    struct moe_fitter *fitter;
    struct moe_table_builder *builder;
    const struct moe_calibration *base;
    const char *base_kind;             /* the kind of the base whose rows fill the gaps */
    const char *source;                /* of what was measured */
    const char *backend;               /* of the options */
    const struct moe_quality *quality; /* [quality_count] */
    uint32_t quality_count;
    bool foreign; /* the base is of another kind: its rows become assumed */
};

/* The provenance and source of a base row in the new file. */
enum moe_provenance moe_assembly_provenance(const struct moe_assembly *assembly,
                                            enum moe_provenance provenance);
const char *moe_assembly_source(struct moe_assembly *assembly, const char *source);

/* Each adds rows to its tables. Errors: MOE_LIMIT. */
enum moe_status moe_assembly_kind(struct moe_assembly *assembly,
                                  struct moe_error *err) MOE_MUST_CHECK;
enum moe_status moe_assembly_series(struct moe_assembly *assembly,
                                    struct moe_error *err) MOE_MUST_CHECK;
enum moe_status moe_assembly_decodes(struct moe_assembly *assembly,
                                     struct moe_error *err) MOE_MUST_CHECK;
enum moe_status moe_assembly_segments(struct moe_assembly *assembly,
                                      struct moe_error *err) MOE_MUST_CHECK;
enum moe_status moe_assembly_parameters(struct moe_assembly *assembly,
                                        struct moe_error *err) MOE_MUST_CHECK;
enum moe_status moe_assembly_noise(struct moe_assembly *assembly,
                                   struct moe_error *err) MOE_MUST_CHECK;
enum moe_status moe_assembly_quality(struct moe_assembly *assembly,
                                     struct moe_error *err) MOE_MUST_CHECK;

/* The fitter as if no shape of decode attention had a table of its own: what the rates of its kind
 * say, which prompts and shapes without a table go by. */
struct moe_fitter moe_assembly_lines_alone(const struct moe_fitter *fitter);

/* Whether one of the series that the line is made of misses its gate by the line alone.
 * Errors: MOE_LIMIT. */
enum moe_status moe_assembly_line_missed(bool *missed, const struct moe_assembly *assembly,
                                         const struct moe_fitter_line *line,
                                         struct moe_error *err) MOE_MUST_CHECK;

/* Declares variable, a new row of the table; a declared name cannot stand in parentheses. */
/* NOLINTBEGIN(bugprone-macro-parentheses) */
#define MOE_ASSEMBLY_ROW(assembly, table, variable)                                                \
    struct moe_calibration_##table *variable = moe_table_builder_row((assembly)->builder, #table); \
    if (variable == NULL) {                                                                        \
        return moe_fail(err, MOE_LIMIT, "%s: no memory for table " #table,                         \
                        (assembly)->fitter->evidence->name);                                       \
    }
/* NOLINTEND(bugprone-macro-parentheses) */

#endif
