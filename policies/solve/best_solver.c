/* An exchange is tried by its first-order effect (a product and a sum per column), since there
 * are thousands of candidates; only the best one of a GPU is measured exactly. */
#include "policies/solve/best_solver.h"

#include <assert.h>
#include <math.h>
#include <stdbool.h>
#include <string.h>

#include "sim/base/no_malloc.h"

enum {
    LANES = 8,
    RELIEVED_GPUS = 6, /* more took several times as long and gained nothing on held-out loads */
};

/* 64^16 * 2^16 GPUs stay finite in float32; no placement of interest is that lopsided. */
#define LOAD_LIMIT 64.0f
/* Below, the power would be a denormal number, which processors are slow at. */
#define LOAD_LEAST 0.01f

enum moe_status moe_best_init(struct moe_best *best, struct moe_arena *arena,
                              const struct moe_placement_shape *shape, uint32_t column_count,
                              float risk, struct moe_error *err)
{
    assert(column_count >= 1 && column_count <= MOE_BEST_COLUMN_LIMIT);
    const uint32_t columns = (column_count + LANES - 1) / LANES * LANES;
    *best = (struct moe_best){
        .expert_count = shape->expert_count,
        .slot_count = shape->slot_count,
        .gpu_count = shape->gpu_count,
        .column_count = columns,
        .risk = risk,
        .load = MOE_NEW(arena, float, (size_t) shape->expert_count *columns),
        .share = MOE_NEW(arena, float, (size_t) shape->expert_count *columns),
        .gpu_load = MOE_NEW(arena, float, (size_t) shape->gpu_count *columns),
        .power = MOE_NEW(arena, float, (size_t) shape->gpu_count *columns),
        .copies = MOE_NEW(arena, uint32_t, shape->expert_count),
        .order = MOE_NEW(arena, uint32_t, shape->gpu_count),
        .part = MOE_NEW(arena, float, shape->gpu_count),
        .here = MOE_NEW(arena, uint8_t, shape->expert_count),
    };
    if (best->load == NULL || best->share == NULL || best->gpu_load == NULL ||
        best->power == NULL || best->copies == NULL || best->order == NULL || best->part == NULL ||
        best->here == NULL) {
        return moe_fail(err, MOE_LIMIT, "no room to balance %u experts over %u slots",
                        shape->expert_count, shape->slot_count);
    }
    return MOE_OK;
}

static inline float power_of(float load) /* load^16 */
{
    const float bounded = load < LOAD_LIMIT ? (load > LOAD_LEAST ? load : 0.0f) : LOAD_LIMIT;
    const float two = bounded * bounded;
    const float four = two * two;
    const float eight = four * four;
    return eight * eight;
}

static inline float root_of(float power) /* power^(1/16) */
{
    return sqrtf(sqrtf(sqrtf(sqrtf(power))));
}

/* Loads of the GPUs from nothing; with them the total of every column. */
static void measure(struct moe_best *best, const uint16_t *slots)
{
    const uint32_t columns = best->column_count;
    const uint32_t per_gpu = best->slot_count / best->gpu_count;
    memset(best->gpu_load, 0, (size_t) best->gpu_count * columns * sizeof(float));
    memset(best->total, 0, sizeof best->total);
    for (uint32_t slot = 0; slot < best->slot_count; slot++) {
        if (slots[slot] != MOE_SLOT_EMPTY) {
            float *restrict gpu = best->gpu_load + (size_t) (slot / per_gpu) * columns;
            const float *restrict share = best->share + (size_t) slots[slot] * columns;
            for (uint32_t c = 0; c < columns; c++) {
                gpu[c] += share[c];
            }
        }
    }
    for (uint32_t gpu = 0; gpu < best->gpu_count; gpu++) {
        for (uint32_t c = 0; c < columns; c++) {
            const size_t at = (size_t) gpu * columns + c;
            best->power[at] = power_of(best->gpu_load[at]);
            best->total[c] += best->power[at];
        }
    }
}

static void count_shares(struct moe_best *best, const uint16_t *slots)
{
    memset(best->copies, 0, best->expert_count * sizeof *best->copies);
    for (uint32_t slot = 0; slot < best->slot_count; slot++) {
        if (slots[slot] != MOE_SLOT_EMPTY) {
            best->copies[slots[slot]]++;
        }
    }
    for (uint32_t expert = 0; expert < best->expert_count; expert++) {
        assert(best->copies[expert] > 0);
        const float part = 1.0f / (float) best->copies[expert];
        for (uint32_t c = 0; c < best->column_count; c++) {
            const size_t at = (size_t) expert * best->column_count + c;
            const float x = best->load[at] * part;
            best->share[at] = x + best->risk * x * x;
        }
    }
}

static double score(const struct moe_best *best)
{
    double sum = 0.0;
    double weight = 0.0;
    for (uint32_t c = 0; c < best->column_count; c++) {
        if (best->total[c] > 0.0f) {
            sum += (double) best->weight[c] / (double) root_of(best->total[c]);
            weight += (double) best->weight[c];
        }
    }
    return weight > 0.0 ? sum / weight : 1.0;
}

double moe_best_score(struct moe_best *best, const uint16_t *slots)
{
    count_shares(best, slots);
    measure(best, slots);
    return score(best);
}

/* urgency of the columns, and the GPUs by what they contribute, most first. */
static void order_gpus(struct moe_best *best)
{
    for (uint32_t c = 0; c < best->column_count; c++) {
        const float total = best->total[c];
        best->urgency[c] = total > 0.0f ? best->weight[c] / (total * root_of(total)) : 0.0f;
    }
    for (uint32_t gpu = 0; gpu < best->gpu_count; gpu++) {
        const float *power = best->power + (size_t) gpu * best->column_count;
        float sum = 0.0f;
        for (uint32_t c = 0; c < best->column_count; c++) {
            sum += power[c] * best->urgency[c];
        }
        best->part[gpu] = sum;
        uint32_t hole = gpu;
        for (; hole > 0 && best->part[best->order[hole - 1]] < sum; hole--) {
            best->order[hole] = best->order[hole - 1];
        }
        best->order[hole] = gpu;
    }
}

/* First-order gain of moving mine from GPU a to b and theirs back. */
static float gain_of(const struct moe_best *best, uint32_t a, uint32_t b, uint32_t mine,
                     uint32_t theirs)
{
    const size_t columns = best->column_count;
    const float *restrict load_a = best->gpu_load + a * columns;
    const float *restrict load_b = best->gpu_load + b * columns;
    const float *restrict power_a = best->power + a * columns;
    const float *restrict power_b = best->power + b * columns;
    const float *restrict share_mine = best->share + mine * columns;
    const float *restrict share_theirs = best->share + theirs * columns;
    const float *restrict urgency = best->urgency;
    float lane[LANES] = { 0 };
    for (size_t first = 0; first < columns; first += LANES) {
        for (size_t i = 0; i < LANES; i++) {
            const size_t c = first + i;
            const float moved = share_mine[c] - share_theirs[c];
            const float change =
                power_of(load_a[c] - moved) + power_of(load_b[c] + moved) - power_a[c] - power_b[c];
            lane[i] -= change * urgency[c];
        }
    }
    return ((lane[0] + lane[1]) + (lane[2] + lane[3])) +
           ((lane[4] + lane[5]) + (lane[6] + lane[7]));
}

static bool hosts(const struct moe_best *best, const uint16_t *slots, uint32_t gpu, uint16_t expert)
{
    const uint32_t per_gpu = best->slot_count / best->gpu_count;
    for (uint32_t slot = gpu * per_gpu; slot < (gpu + 1) * per_gpu; slot++) {
        if (slots[slot] == expert) {
            return true;
        }
    }
    return false;
}

struct exchange {
    uint32_t mine; /* slots */
    uint32_t theirs;
    float gain;
};

/* The most promising exchange of a slot of GPU a; gain 0 when there is none. */
static struct exchange search(struct moe_best *best, const uint16_t *slots, uint32_t a)
{
    const uint32_t per_gpu = best->slot_count / best->gpu_count;
    struct exchange found = { 0 };
    memset(best->here, 0, best->expert_count);
    for (uint32_t slot = a * per_gpu; slot < (a + 1) * per_gpu; slot++) {
        if (slots[slot] != MOE_SLOT_EMPTY) {
            best->here[slots[slot]] = 1;
        }
    }
    for (uint32_t b = 0; b < best->gpu_count; b++) {
        if (b == a) {
            continue;
        }
        for (uint32_t mine = a * per_gpu; mine < (a + 1) * per_gpu; mine++) {
            if (slots[mine] == MOE_SLOT_EMPTY || hosts(best, slots, b, slots[mine])) {
                continue;
            }
            for (uint32_t theirs = b * per_gpu; theirs < (b + 1) * per_gpu; theirs++) {
                if (slots[theirs] == MOE_SLOT_EMPTY || best->here[slots[theirs]] != 0) {
                    continue;
                }
                const float gain = gain_of(best, a, b, slots[mine], slots[theirs]);
                if (gain > found.gain) {
                    found = (struct exchange){ mine, theirs, gain };
                }
            }
        }
    }
    return found;
}

static void swap(uint16_t *slots, const struct exchange *exchange)
{
    const uint16_t kept = slots[exchange->mine];
    slots[exchange->mine] = slots[exchange->theirs];
    slots[exchange->theirs] = kept;
}

uint32_t moe_best_improve(struct moe_best *best, uint32_t limit, uint16_t *slots)
{
    uint32_t made = 0;
    double now = moe_best_score(best, slots);
    for (bool improved = true; improved && made < limit;) {
        improved = false;
        order_gpus(best);
        for (uint32_t i = 0; i < best->gpu_count && i < RELIEVED_GPUS && !improved; i++) {
            const struct exchange exchange = search(best, slots, best->order[i]);
            if (!(exchange.gain > 0.0f)) {
                continue;
            }
            swap(slots, &exchange);
            measure(best, slots);
            const double then = score(best);
            if (then > now * (1.0 + 1e-6)) {
                now = then;
                improved = true;
                made++;
            } else {
                swap(slots, &exchange);
                measure(best, slots);
            }
        }
    }
    return made;
}
