#include "calibrate/bench/bench_result.h"

#include <stddef.h>
#include <string.h>

const struct moe_bench_cell *moe_bench_best(const struct moe_bench_row *row, bool library)
{
    const struct moe_bench_cell *best = NULL;
    for (uint32_t i = 0; i < row->cell_count; i++) {
        const struct moe_bench_cell *cell = &row->cells[i];
        if (!cell->measured || cell->is_library != library) {
            continue;
        }
        if (best == NULL || cell->timing.median_us < best->timing.median_us) {
            best = cell;
        }
    }
    return best;
}

double moe_bench_floor_us(const struct moe_bench_row *row, const struct moe_bench_cell *cell,
                          const struct moe_bench_ceilings *ceilings, uint32_t sm_count,
                          double fallback_mhz)
{
    return moe_expert_floor_us(&row->work, row->shape.dtype, ceilings->read_bytes_per_s, sm_count,
                               cell->mhz > 0.0 ? cell->mhz : fallback_mhz);
}

double moe_bench_move_rate(const struct moe_bench_move *move)
{
    return move->measured ? move->bytes / move->timing.median_us * 1e6 : 0.0;
}

const struct moe_bench_move *moe_bench_move_best(const struct moe_bench_moves *moves,
                                                 const char *family, const char *size, bool library)
{
    const struct moe_bench_move *best = NULL;
    for (uint32_t i = 0; i < moves->count; i++) {
        const struct moe_bench_move *move = &moves->items[i];
        if (!move->measured || move->is_library != library || strcmp(move->family, family) != 0 ||
            (size != NULL && strcmp(move->size, size) != 0)) {
            continue;
        }
        if (best == NULL || moe_bench_move_rate(move) > moe_bench_move_rate(best)) {
            best = move;
        }
    }
    return best;
}
