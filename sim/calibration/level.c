#include "sim/calibration/level.h"

#include <assert.h>
#include <math.h>
#include <stdbool.h>

#include "sim/base/random.h"
#include "sim/calibration/observation.h"

enum { ROUND_LIMIT = 60 };
static const double settled = 1e-9;

/* What the rounds work on; picks are the rows that count, some of them more than once. */
struct polish {
    const struct moe_level_problem *problem;
    const uint32_t *first; /* cells of a row: first[row] .. first[row + 1] - 1 */
    uint32_t *picks;
    double *centres; /* of the picks */
    double *scratch; /* as long as the cells may become */
};

static enum moe_status prepare(struct polish *polish, const struct moe_level_problem *problem,
                               struct moe_arena *arena, struct moe_error *err)
{
    uint32_t *first = MOE_NEW(arena, uint32_t, problem->row_count + 1);
    uint32_t widest = 0;
    *polish = (struct polish){
        .problem = problem,
        .first = first,
        .picks = MOE_NEW(arena, uint32_t, problem->row_count),
        .centres = MOE_NEW(arena, double, problem->row_count),
    };
    if (first == NULL) {
        return moe_fail(err, MOE_LIMIT, "no memory for levels of %u cells", problem->count);
    }
    for (uint32_t row = 0, i = 0; row < problem->row_count; row++) {
        first[row] = i;
        while (i < problem->count && problem->cells[i].row == row) {
            i++;
        }
        first[row + 1] = i;
        widest = i - first[row] > widest ? i - first[row] : widest;
        polish->picks[row] = row;
    }
    assert(first[problem->row_count] == problem->count);
    polish->scratch = MOE_NEW(arena, double, (size_t) problem->row_count *widest + 1);
    if (polish->picks == NULL || polish->centres == NULL || polish->scratch == NULL) {
        return moe_fail(err, MOE_LIMIT, "no memory for levels of %u cells", problem->count);
    }
    return MOE_OK;
}

static void centre_rows(const struct polish *polish, const double *effects)
{
    for (uint32_t p = 0; p < polish->problem->row_count; p++) {
        const uint32_t row = polish->picks[p];
        uint32_t used = 0;
        for (uint32_t i = polish->first[row]; i < polish->first[row + 1]; i++) {
            const struct moe_level_cell *cell = &polish->problem->cells[i];
            polish->scratch[used++] = cell->value - cell->share * effects[cell->column];
        }
        polish->centres[p] = used == 0 ? 0.0 : moe_median(polish->scratch, used);
    }
}

/* The median of one column's cells over their centres; *found says whether there is any. */
static double column_effect(const struct polish *polish, uint32_t column, bool *found)
{
    uint32_t used = 0;
    for (uint32_t p = 0; p < polish->problem->row_count; p++) {
        const uint32_t row = polish->picks[p];
        for (uint32_t i = polish->first[row]; i < polish->first[row + 1]; i++) {
            const struct moe_level_cell *cell = &polish->problem->cells[i];
            /* A row that only one column has says nothing about the differences. */
            if (cell->column == column && polish->first[row + 1] - polish->first[row] > 1) {
                polish->scratch[used++] = (cell->value - polish->centres[p]) / cell->share;
            }
        }
    }
    *found = used > 0;
    return used == 0 ? 0.0 : moe_median(polish->scratch, used);
}

/* Takes the median of the columns that have cells off all of them. */
static void normalise(double *effects, const bool *found, uint32_t count, double *scratch)
{
    uint32_t used = 0;
    for (uint32_t i = 0; i < count; i++) {
        if (found[i]) {
            scratch[used++] = effects[i];
        }
    }
    const double middle = used == 0 ? 0.0 : moe_median(scratch, used);
    for (uint32_t i = 0; i < count; i++) {
        effects[i] = found[i] ? effects[i] - middle : 0.0;
    }
}

static void run(const struct polish *polish, double *effects, bool *found, double *columns)
{
    const uint32_t count = polish->problem->column_count;
    for (uint32_t i = 0; i < count; i++) {
        effects[i] = 0.0;
    }
    for (int round = 0; round < ROUND_LIMIT; round++) {
        double change = 0.0;
        centre_rows(polish, effects);
        for (uint32_t i = 0; i < count; i++) {
            columns[i] = column_effect(polish, i, &found[i]);
        }
        normalise(columns, found, count, columns + count);
        for (uint32_t i = 0; i < count; i++) {
            change = fmax(change, fabs(columns[i] - effects[i]));
            effects[i] = columns[i];
        }
        if (change < settled) {
            return;
        }
    }
}

enum moe_status moe_level_fit(double *effects, const struct moe_level_problem *problem,
                              struct moe_arena *arena, struct moe_error *err)
{
    struct polish polish;
    MOE_TRY(prepare(&polish, problem, arena, err));
    bool *found = MOE_NEW(arena, bool, problem->column_count);
    double *columns = MOE_NEW(arena, double, 2 * (size_t) problem->column_count);
    if (found == NULL || columns == NULL) {
        return moe_fail(err, MOE_LIMIT, "no memory for %u columns", problem->column_count);
    }
    run(&polish, effects, found, columns);
    return MOE_OK;
}

enum moe_status moe_level_bootstrap(double *effects, const struct moe_level_problem *problem,
                                    uint64_t seed, struct moe_arena *arena, struct moe_error *err)
{
    const uint64_t key = moe_random_key(seed, MOE_RANDOM_BOOTSTRAP);
    struct polish polish;
    uint64_t counter = 0;
    MOE_TRY(prepare(&polish, problem, arena, err));
    bool *found = MOE_NEW(arena, bool, problem->column_count);
    double *columns = MOE_NEW(arena, double, 2 * (size_t) problem->column_count);
    if (found == NULL || columns == NULL) {
        return moe_fail(err, MOE_LIMIT, "no memory for %u columns", problem->column_count);
    }
    for (uint32_t replicate = 0; replicate < MOE_LEVEL_REPLICATES; replicate++) {
        for (uint32_t i = 0; i < problem->row_count; i++) {
            polish.picks[i] = (uint32_t) moe_random_below(key, counter++, problem->row_count);
        }
        run(&polish, effects + (size_t) replicate * problem->column_count, found, columns);
    }
    return MOE_OK;
}
