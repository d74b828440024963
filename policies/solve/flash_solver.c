#include "policies/solve/flash_solver.h"

#include <assert.h>
#include <math.h>
#include <string.h>

#include "sim/base/no_malloc.h"

enum { PAIR = 2, TILE = 4 };

/* gcc and clang know this type by themselves; every 64-bit processor has it. */
typedef double pair __attribute__((vector_size(PAIR * sizeof(double))));

enum moe_status moe_flash_init(struct moe_flash *flash, struct moe_arena *arena,
                               const struct moe_placement_shape *shape,
                               const struct moe_flash_rule *rule, uint32_t step_limit,
                               struct moe_error *err)
{
    const size_t experts = shape->expert_count;
    const size_t padded = (experts + TILE - 1) / TILE * TILE;
    struct moe_flash *f = flash;
    *f = (struct moe_flash){
        .rule = *rule,
        .expert_count = shape->expert_count,
        .gpu_count = shape->gpu_count,
        .capacity = moe_placement_slots_per_gpu(shape),
    };
    f->x = MOE_NEW(arena, double, step_limit *experts);
    f->off = MOE_NEW(arena, double, step_limit *padded);
    f->scaled = MOE_NEW(arena, double, step_limit *padded);
    f->mean = MOE_NEW(arena, double, experts);
    f->covariance = MOE_NEW(arena, double, experts *experts);
    f->least_covariance = MOE_NEW(arena, double, experts);
    f->risk = MOE_NEW(arena, double, experts);
    f->by_risk = MOE_NEW(arena, uint32_t, experts);
    f->decided = MOE_NEW(arena, uint32_t, experts);
    f->copies = MOE_NEW(arena, uint32_t, experts);
    f->unit = MOE_NEW(arena, double, experts);
    f->part = MOE_NEW(arena, uint32_t, experts);
    f->by_mean = MOE_NEW(arena, uint32_t, shape->gpu_count);
    f->fill = MOE_NEW(arena, uint32_t, shape->gpu_count);
    f->gpu_mean = MOE_NEW(arena, double, shape->gpu_count);
    f->gpu_var = MOE_NEW(arena, double, shape->gpu_count);
    f->slots = MOE_NEW(arena, uint16_t, shape->slot_count);
    if (f->x == NULL || f->off == NULL || f->scaled == NULL || f->mean == NULL ||
        f->covariance == NULL || f->least_covariance == NULL || f->risk == NULL ||
        f->by_risk == NULL || f->decided == NULL || f->copies == NULL || f->unit == NULL ||
        f->part == NULL || f->by_mean == NULL || f->fill == NULL || f->gpu_mean == NULL ||
        f->gpu_var == NULL || f->slots == NULL) {
        return moe_fail(err, MOE_LIMIT, "no room for the covariances of %u experts in %u steps",
                        shape->expert_count, step_limit);
    }
    return moe_greedy_init(&f->greedy, arena, shape->slot_count, err);
}

/* Covariances of four experts with four, from their rows of off and scaled: [step][TILE]. */
static void fill_tile(struct moe_flash *f, size_t a, size_t b)
{
    const size_t experts = f->expert_count;
    const double *mine = f->scaled + a * f->step_count;
    const double *theirs = f->off + b * f->step_count;
    pair sum[TILE][TILE / PAIR] = { { { 0 } } };
    for (uint32_t step = 0; step < f->step_count; step++, mine += TILE, theirs += TILE) {
        pair off[TILE / PAIR];
        memcpy(off, theirs, sizeof off);
        for (size_t i = 0; i < TILE; i++) {
            const pair both = { mine[i], mine[i] };
            sum[i][0] += both * off[0];
            sum[i][1] += both * off[1];
        }
    }
    for (size_t i = 0; i < TILE && a + i < experts; i++) {
        const size_t width = experts - b < TILE ? experts - b : TILE;
        memcpy(f->covariance + (a + i) * experts + b, sum[i], width * sizeof(double));
    }
}

/* Tile by tile, so that sums stay in registers while the steps pass by. */
static void fill_covariance(struct moe_flash *f)
{
    const size_t experts = f->expert_count;
    for (size_t first = 0; first < experts; first += TILE) {
        for (size_t i = 0; i < TILE * (size_t) f->step_count; i++) {
            const size_t expert = first + i % TILE;
            const double x =
                expert < experts ? f->x[i / TILE * experts + expert] - f->mean[expert] : 0.0;
            f->off[first * f->step_count + i] = x;
            f->scaled[first * f->step_count + i] =
                f->step_count > 1 ? x / (f->step_count - 1) : 0.0;
        }
    }
    for (size_t a = 0; a < experts; a += TILE) {
        for (size_t b = 0; b < experts; b += TILE) {
            fill_tile(f, a, b);
        }
    }
}

void moe_flash_read(struct moe_flash *f, uint32_t step_count)
{
    const size_t experts = f->expert_count;
    f->step_count = step_count;
    memset(f->mean, 0, experts * sizeof *f->mean);
    for (uint32_t step = 0; step < step_count; step++) {
        for (size_t expert = 0; expert < experts; expert++) {
            f->mean[expert] += f->x[step * experts + expert] / step_count;
        }
    }
    fill_covariance(f);
    for (size_t expert = 0; expert < experts; expert++) {
        const double *row = f->covariance + expert * experts;
        double least = 0.0;
        for (size_t b = 0; b < experts; b++) {
            least = row[b] < least * f->mean[b] ? row[b] / f->mean[b] : least;
        }
        f->least_covariance[expert] = least * (1.0 + 1e-9);
        f->risk[expert] =
            f->mean[expert] + f->rule.z * sqrt(f->covariance[expert * experts + expert]);
    }
    moe_greedy_sort(f->risk, f->expert_count, f->by_risk, f->greedy.spare);
}

/* copies[experts of the interval] with extra copies beyond the first, in proportion to risk. */
static void replicate_proportionally(struct moe_flash *f, const uint32_t *experts, uint32_t count,
                                     uint32_t extra)
{
    double total = 0.0;
    uint32_t given = 0;
    for (uint32_t i = 0; i < count; i++) {
        total += f->risk[experts[i]];
    }
    for (uint32_t i = 0; i < count; i++) {
        const double quota =
            total > 0.0 ? f->risk[experts[i]] / total * extra : (double) extra / count;
        const uint32_t whole = (uint32_t) quota;
        f->copies[experts[i]] = 1 + whole;
        given += whole;
        f->unit[i] = quota - whole;
    }
    moe_greedy_sort(f->unit, count, f->part, f->greedy.spare);
    for (uint32_t i = 0; given < extra; i++, given++) {
        f->copies[experts[f->part[i % count]]]++;
    }
}

static void replicate(struct moe_flash *f, const uint32_t *experts, uint32_t count, uint32_t extra)
{
    if (f->rule.proportional) {
        replicate_proportionally(f, experts, count, extra);
        return;
    }
    for (uint32_t i = 0; i < count; i++) {
        f->unit[i] = f->risk[experts[i]];
        f->part[i] = 1;
    }
    moe_greedy_replicate(&f->greedy, f->unit, count, extra, false, f->part, NULL);
    for (uint32_t i = 0; i < count; i++) {
        f->copies[experts[i]] = f->part[i];
    }
}

/* Variance of a GPU's load with one more copy. *held says whether it has one already. */
static double variance_with(const struct moe_flash *f, uint32_t gpu, uint32_t expert, bool *held)
{
    const double *row = f->covariance + (size_t) expert * f->expert_count;
    const uint16_t *slots = f->slots + (size_t) gpu * f->capacity;
    const double share = 1.0 / f->copies[expert];
    double variance = f->gpu_var[gpu] + row[expert] * share * share;
    *held = false;
    for (uint32_t i = 0; i < f->fill[gpu]; i++) {
        *held |= slots[i] == expert;
        variance += 2.0 * row[slots[i]] * share / f->copies[slots[i]];
    }
    return variance > 0.0 ? variance : 0.0; /* rounding */
}

/* Whether a GPU's risk with one more copy is above risk for certain: its covariances with what
 * lies there are at least least_covariance times the sum of those means. */
static inline bool is_above(const struct moe_flash *f, uint32_t gpu, double mean, double variance,
                            double least_covariance, double risk)
{
    const double margin = 1.0 - 1e-9; /* far above what rounding takes away */
    const double room = risk - (f->gpu_mean[gpu] + mean);
    const double least =
        (f->gpu_var[gpu] + variance) * margin + least_covariance * f->gpu_mean[gpu];
    return least > 0.0 && room * room < f->rule.z * f->rule.z * least * margin;
}

/* Puts the GPU at place where its mean, which has grown, belongs; a full one leaves. */
static void move_up(struct moe_flash *f, uint32_t place, uint32_t gpu)
{
    uint32_t begin = place + 1;
    uint32_t end = f->open_count;
    const bool full = f->fill[gpu] == f->capacity;
    while (begin < end && !full) { /* the first GPU with at least its mean */
        const uint32_t middle = begin + (end - begin) / 2;
        if (f->gpu_mean[f->by_mean[middle]] < f->gpu_mean[gpu]) {
            begin = middle + 1;
        } else {
            end = middle;
        }
    }
    memmove(f->by_mean + place, f->by_mean + place + 1, (end - place - 1) * sizeof *f->by_mean);
    f->by_mean[end - 1] = gpu; /* the last, when it is full */
    f->open_count -= full;
}

/* GPUs with room are looked at in the order of their means, so that the search ends where the
 * mean alone is above the best risk. Empty GPUs are alike, and the first of them stands first:
 * the others are passed over. */
static void place_copy(struct moe_flash *f, uint32_t expert)
{
    const double share = 1.0 / f->copies[expert];
    const double mean = f->mean[expert] / f->copies[expert];
    const double own = f->covariance[(size_t) expert * f->expert_count + expert] * share * share;
    const double least_covariance = 2.0 * share * f->least_covariance[expert];
    uint32_t best = UINT32_MAX; /* place in by_mean */
    bool best_held = true;
    double best_risk = INFINITY;
    double best_variance = 0.0;
    for (uint32_t i = 0; i < f->open_count; i++) {
        const uint32_t gpu = f->by_mean[i];
        bool held = false;
        if (!best_held && f->gpu_mean[gpu] + mean > best_risk) {
            break;
        }
        if (!best_held && is_above(f, gpu, mean, own, least_covariance, best_risk)) {
            continue;
        }
        const double variance = variance_with(f, gpu, expert, &held);
        const double risk = f->gpu_mean[gpu] + mean + f->rule.z * sqrt(variance);
        if (best == UINT32_MAX || (best_held && !held) ||
            (best_held == held &&
             (risk < best_risk || (risk == best_risk && gpu < f->by_mean[best])))) {
            best = i;
            best_held = held;
            best_risk = risk;
            best_variance = variance;
        }
        if (f->fill[gpu] == 0) {
            i += f->empty_count - 1;
        }
    }
    assert(best != UINT32_MAX);
    const uint32_t gpu = f->by_mean[best];
    f->empty_count -= f->fill[gpu] == 0;
    f->gpu_mean[gpu] += mean;
    f->gpu_var[gpu] = best_variance;
    f->slots[(size_t) gpu * f->capacity + f->fill[gpu]++] = (uint16_t) expert;
    move_up(f, best, gpu);
}

double moe_flash_worth(const struct moe_flash *f, const uint16_t *slots, const uint32_t *copies)
{
    double sum = 0.0;
    for (uint32_t step = 0; step < f->step_count; step++) {
        const double *x = f->x + (size_t) step * f->expert_count;
        double total = 0.0;
        double max = 0.0;
        for (uint32_t expert = 0; expert < f->expert_count; expert++) {
            f->unit[expert] = x[expert] / copies[expert];
        }
        for (uint32_t gpu = 0; gpu < f->gpu_count; gpu++) {
            double load = 0.0;
            for (uint32_t i = 0; i < f->capacity; i++) {
                const uint16_t expert = slots[gpu * f->capacity + i];
                load += expert == MOE_SLOT_EMPTY ? 0.0 : f->unit[expert];
            }
            total += load;
            max = load > max ? load : max;
        }
        sum += total > 0.0 ? max * f->gpu_count / total : 1.0;
    }
    return sum / f->step_count;
}

/* Places f->copies and says what the plan in f->slots is worth; less is better. */
static double simulate(struct moe_flash *f)
{
    uint32_t *order = f->greedy.order;
    memset(f->slots, 0xff, (size_t) f->gpu_count * f->capacity * sizeof *f->slots);
    f->open_count = f->gpu_count;
    f->empty_count = f->gpu_count;
    for (uint32_t gpu = 0; gpu < f->gpu_count; gpu++) {
        f->by_mean[gpu] = gpu;
    }
    memset(f->fill, 0, f->gpu_count * sizeof *f->fill);
    memset(f->gpu_mean, 0, f->gpu_count * sizeof *f->gpu_mean);
    memset(f->gpu_var, 0, f->gpu_count * sizeof *f->gpu_var);
    for (uint32_t expert = 0; expert < f->expert_count; expert++) {
        f->unit[expert] = f->mean[expert] / f->copies[expert];
    }
    moe_greedy_sort(f->unit, f->expert_count, order, f->greedy.spare);
    for (uint32_t i = 0; i < f->expert_count; i++) {
        for (uint32_t copy = 0; copy < f->copies[order[i]]; copy++) {
            place_copy(f, order[i]);
        }
    }
    return moe_flash_worth(f, f->slots, f->copies);
}

/* The same when the interval [begin, end) gets given of the left copies. */
static double try_split(struct moe_flash *f, uint32_t begin, uint32_t end, uint32_t given,
                        uint32_t left)
{
    for (uint32_t i = 0; i < begin; i++) {
        f->copies[f->by_risk[i]] = f->decided[f->by_risk[i]];
    }
    replicate(f, f->by_risk + begin, end - begin, given);
    if (end < f->expert_count) {
        replicate(f, f->by_risk + end, f->expert_count - end, left - given);
    }
    return simulate(f);
}

/* How many of the left copies the interval gets: the nearest best to what plain replication
 * gives, fewer before more. */
static uint32_t split(struct moe_flash *f, uint32_t begin, uint32_t end, uint32_t left)
{
    const uint32_t width = f->rule.width;
    uint32_t plain = 0;
    replicate(f, f->by_risk + begin, f->expert_count - begin, left);
    for (uint32_t i = begin; i < end; i++) {
        plain += f->copies[f->by_risk[i]] - 1;
    }
    uint32_t best = plain;
    double best_score = try_split(f, begin, end, plain, left);
    for (uint32_t step = 1; step <= width; step++) {
        const uint32_t tried[] = { plain >= step ? plain - step : plain,
                                   plain + step <= left ? plain + step : plain };
        for (int i = 0; i < 2; i++) {
            if (tried[i] == plain) {
                continue;
            }
            const double worth = try_split(f, begin, end, tried[i], left);
            if (worth < best_score) {
                best_score = worth;
                best = tried[i];
            }
        }
    }
    return best;
}

double moe_flash_search(struct moe_flash *f, uint32_t left)
{
    const uint32_t depth = f->rule.depth;
    const uint32_t interval = (f->expert_count + depth - 1) / depth;
    uint32_t begin = 0;
    for (uint32_t node = 0; node + 1 < depth && left > 0 && begin + interval < f->expert_count;
         node++) {
        const uint32_t end = begin + interval;
        const uint32_t given = split(f, begin, end, left);
        replicate(f, f->by_risk + begin, interval, given);
        for (uint32_t i = begin; i < end; i++) {
            f->decided[f->by_risk[i]] = f->copies[f->by_risk[i]];
        }
        left -= given;
        begin = end;
    }
    return try_split(f, begin, f->expert_count, left, left);
}
