/*
 * Table builder: a calibration in the making, row by row, and its way into a database.
 *
 * Rows stand in the order in which they are added: where the first of several counts, the
 * builder's caller decides. Texts must live as long as the builder; moe_table_builder_text
 * makes them do so.
 */
#ifndef MOE_SIM_CALIBRATION_TABLE_BUILDER_H
#define MOE_SIM_CALIBRATION_TABLE_BUILDER_H

#include "sim/base/arena.h"
#include "sim/base/database.h"
#include "sim/cost/calibration.h"

struct moe_table_builder {
    struct moe_calibration calibration; /* what was added so far */
    struct moe_arena *arena;
    uint32_t capacity[32]; /* rows that the arrays have room for, by table */
};

void moe_table_builder_init(struct moe_table_builder *builder, const char *name,
                            struct moe_arena *arena);

/* A new zeroed row of table TABLE (a struct moe_calibration_TABLE), or NULL when the arena is
 * full. Rows handed out before may move. */
void *moe_table_builder_row(struct moe_table_builder *builder, const char *table_name);

/* Appends all rows of one table of from; its texts are not copied. Errors: MOE_LIMIT. */
enum moe_status moe_table_builder_copy(struct moe_table_builder *builder, const char *table_name,
                                       const struct moe_calibration *from,
                                       struct moe_error *err) MOE_MUST_CHECK;

/* printf into the arena; "" when it is full. */
const char *moe_table_builder_text(struct moe_table_builder *builder, const char *format, ...)
    __attribute__((format(printf, 2, 3)));

/* Whether a run would read the tables: every cell and reference, by way of a database in memory.
 * Errors: those of moe_calibration_read. */
enum moe_status moe_table_builder_try(const struct moe_table_builder *builder,
                                      struct moe_arena *arena,
                                      struct moe_error *err) MOE_MUST_CHECK;

/* Replaces the fitted tables of an open calibration by the builder's, in one transaction, and
 * stamps the file with the version that has them. Errors: as moe_database_error. */
enum moe_status moe_table_builder_write(const struct moe_table_builder *builder,
                                        struct moe_database *db,
                                        struct moe_error *err) MOE_MUST_CHECK;

#endif
