#include "sim/cost/calibration_hash.h"

#include <string.h>

#include "sim/base/hash.h"
#include "sim/cost/calibration_schema.h"

static void add_cell(struct moe_hash *hash, const char *row, const struct moe_column *column)
{
    const void *at = row + column->offset;
    uint64_t bits = 0;
    switch (column->kind) {
    case MOE_COLUMN_TEXT:
        moe_hash_add_text(hash, *(const char *const *) at);
        break;
    case MOE_COLUMN_REAL:
    case MOE_COLUMN_MAYBE:
        memcpy(&bits, at, sizeof(double)); /* the bits: no two values read alike */
        moe_hash_add_u64(hash, bits);
        break;
    case MOE_COLUMN_COUNT:
    case MOE_COLUMN_CHOICE:
        moe_hash_add_u64(hash, *(const uint32_t *) at);
        break;
    }
}

uint64_t moe_calibration_hash(const struct moe_calibration *calibration)
{
    const char *base = (const char *) calibration;
    struct moe_hash hash;
    moe_hash_init(&hash, 0);
    for (uint32_t i = 0; i < MOE_TABLE_COUNT; i++) {
        const struct moe_table *table = moe_calibration_table(i);
        const char *row = *(const char *const *) (const void *) (base + table->rows_offset);
        const uint32_t count = *(const uint32_t *) (const void *) (base + table->count_offset);
        if (count == 0 && i >= MOE_TABLE_COUNT_1) {
            continue; /* a file that has not heard of the table says the same */
        }
        moe_hash_add_text(&hash, table->name);
        moe_hash_add_u64(&hash, count);
        for (uint32_t r = 0; r < count; r++, row += table->row_bytes) {
            for (uint32_t c = 0; c < table->column_count; c++) {
                add_cell(&hash, row, &table->columns[c]);
            }
        }
    }
    return moe_hash_value(&hash);
}
