/* A change is tried by its first-order effect (a product and a sum per column), since there are
 * thousands of candidates; only the best ones of a GPU are measured exactly. */
#include "policies/solve/best_solver.h"

#include <assert.h>
#include <math.h>
#include <stdbool.h>
#include <string.h>

#include "sim/base/no_malloc.h"

enum {
    LANES = 4, /* two vectors of four at a time: what every 64-bit processor has */
    STRIDE = 2 * LANES,
    RELIEVED_GPUS = 6,   /* more took several times as long and gained nothing on held-out loads */
    GIVING_EXPERTS = 32, /* whose spare copies are looked at */
};

/* 64^16 * 2^16 GPUs stay finite in float32; no placement of interest is that lopsided. */
#define LOAD_LIMIT 64.0f
/* Below, the power would be a denormal number, which processors are slow at. */
#define LOAD_LEAST 0.01f

enum moe_status moe_best_init(struct moe_best *best, struct moe_arena *arena,
                              const struct moe_placement_shape *shape, uint32_t column_count,
                              struct moe_error *err)
{
    assert(column_count >= 1 && column_count <= MOE_BEST_COLUMN_LIMIT);
    const uint32_t columns = (column_count + STRIDE - 1) / STRIDE * STRIDE;
    *best = (struct moe_best){
        .expert_count = shape->expert_count,
        .slot_count = shape->slot_count,
        .gpu_count = shape->gpu_count,
        .column_count = columns,
        .load = MOE_NEW(arena, float, (size_t) shape->expert_count *columns),
        .risk = MOE_NEW(arena, float, shape->expert_count),
        .share = MOE_NEW(arena, float, (size_t) shape->expert_count *columns),
        .gpu_load = MOE_NEW(arena, float, (size_t) shape->gpu_count *columns),
        .power = MOE_NEW(arena, float, (size_t) shape->gpu_count *columns),
        .copies = MOE_NEW(arena, uint32_t, shape->expert_count),
        .order = MOE_NEW(arena, uint32_t, shape->gpu_count),
        .part = MOE_NEW(arena, float, shape->gpu_count),
        .here = MOE_NEW(arena, uint8_t, shape->expert_count),
        .recopy = true,
        .first_host = MOE_NEW(arena, uint32_t, shape->expert_count),
        .host_gpu = MOE_NEW(arena, uint32_t, shape->slot_count),
        .twice = MOE_NEW(arena, uint8_t, shape->expert_count),
        .gives = MOE_NEW(arena, uint8_t, shape->expert_count),
        .marked = MOE_NEW(arena, uint8_t, shape->gpu_count),
        .giving_slot = MOE_NEW(arena, uint32_t, shape->slot_count),
    };
    if (best->load == NULL || best->risk == NULL || best->share == NULL || best->gpu_load == NULL ||
        best->power == NULL || best->copies == NULL || best->order == NULL || best->part == NULL ||
        best->here == NULL || best->first_host == NULL || best->host_gpu == NULL ||
        best->twice == NULL || best->gives == NULL || best->marked == NULL ||
        best->giving_slot == NULL) {
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

/* The same operations on each of four columns; gcc and clang know these types by themselves. */
typedef float lanes __attribute__((vector_size(LANES * sizeof(float))));
typedef int32_t lane_mask __attribute__((vector_size(LANES * sizeof(int32_t))));

static inline lanes lanes_of(const float *from)
{
    lanes vector;
    memcpy(&vector, from, sizeof vector);
    return vector;
}

static inline lanes powers_of(lanes load)
{
    const lanes limit = { LOAD_LIMIT, LOAD_LIMIT, LOAD_LIMIT, LOAD_LIMIT };
    const lanes least = { LOAD_LEAST, LOAD_LEAST, LOAD_LEAST, LOAD_LEAST };
    const lane_mask below = load < limit;
    const lane_mask kept = load > least;
    const lanes bounded =
        (lanes) (((lane_mask) load & kept & below) | ((lane_mask) limit & ~below));
    const lanes two = bounded * bounded;
    const lanes four = two * two;
    const lanes eight = four * four;
    return eight * eight;
}

static inline float sum_of(lanes even, lanes odd)
{
    return ((even[0] + even[1]) + (even[2] + even[3])) + ((odd[0] + odd[1]) + (odd[2] + odd[3]));
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
            best->share[at] = x + best->risk[expert] * x * x;
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
    lanes relief[2] = { { 0 }, { 0 } };
    for (size_t first = 0; first < columns; first += STRIDE) {
        for (size_t half = 0; half < 2; half++) {
            const size_t c = first + half * LANES;
            const lanes moved = lanes_of(share_mine + c) - lanes_of(share_theirs + c);
            const lanes change = powers_of(lanes_of(load_a + c) - moved) +
                                 powers_of(lanes_of(load_b + c) + moved) - lanes_of(power_a + c) -
                                 lanes_of(power_b + c);
            relief[half] -= change * lanes_of(best->urgency + c);
        }
    }
    return sum_of(relief[0], relief[1]);
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

/* Who hosts what; twice marks experts that no recopying looks at. */
static void list_hosts(struct moe_best *best, const uint16_t *slots)
{
    const uint32_t per_gpu = best->slot_count / best->gpu_count;
    uint32_t sum = 0;
    memset(best->twice, 0, best->expert_count);
    for (uint32_t expert = 0; expert < best->expert_count; expert++) {
        sum += best->copies[expert];
        best->first_host[expert] = sum;
    }
    for (uint32_t slot = best->slot_count, held = 0; slot-- > 0;) {
        const uint16_t expert = slots[slot];
        if (expert != MOE_SLOT_EMPTY) {
            const uint32_t at = --best->first_host[expert];
            best->host_gpu[at] = slot / per_gpu;
            held = best->here[expert];
            best->twice[expert] |= held != 0 && best->host_gpu[at + 1] == slot / per_gpu;
            best->here[expert] = 1;
        }
    }
    memset(best->here, 0, best->expert_count);
}

/* What a copy weighs over all columns if its expert has so many. */
static float weight_of(const struct moe_best *best, uint32_t expert, uint32_t copies)
{
    const float *load = best->load + (size_t) expert * best->column_count;
    float sum = 0.0f;
    for (uint32_t c = 0; c < best->column_count; c++) {
        sum += load[c] * best->weight[c];
    }
    return sum / (float) copies;
}

/* Slots of the experts whose copies would weigh least with one copy fewer. */
static void list_giving(struct moe_best *best, const uint16_t *slots)
{
    uint32_t expert_of[GIVING_EXPERTS];
    float weight[GIVING_EXPERTS];
    uint32_t count = 0;
    memset(best->gives, 0, best->expert_count);
    for (uint32_t expert = 0; expert < best->expert_count; expert++) {
        if (best->copies[expert] < 2 || best->twice[expert] != 0) {
            continue;
        }
        const float mine = weight_of(best, expert, best->copies[expert] - 1);
        uint32_t hole = count < GIVING_EXPERTS ? count++ : GIVING_EXPERTS;
        for (; hole > 0 && weight[hole - 1] > mine; hole--) {
            if (hole < GIVING_EXPERTS) {
                weight[hole] = weight[hole - 1];
                expert_of[hole] = expert_of[hole - 1];
            }
        }
        if (hole < GIVING_EXPERTS) {
            weight[hole] = mine;
            expert_of[hole] = expert;
        }
    }
    for (uint32_t i = 0; i < count; i++) {
        best->gives[expert_of[i]] = 1;
    }
    best->giving_count = 0;
    for (uint32_t slot = 0; slot < best->slot_count; slot++) {
        if (slots[slot] != MOE_SLOT_EMPTY && best->gives[slots[slot]] != 0) {
            best->giving_slot[best->giving_count++] = slot;
        }
    }
}

/* Adds what a GPU's part in the smoothed maxima falls by when its load rises by delta. */
static inline void add_relief(const struct moe_best *best, uint32_t gpu, const float *delta,
                              lanes relief[2])
{
    const float *load = best->gpu_load + (size_t) gpu * best->column_count;
    const float *power = best->power + (size_t) gpu * best->column_count;
    for (size_t first = 0; first < best->column_count; first += STRIDE) {
        for (size_t half = 0; half < 2; half++) {
            const size_t c = first + half * LANES;
            const lanes change =
                powers_of(lanes_of(load + c) + lanes_of(delta + c)) - lanes_of(power + c);
            relief[half] -= change * lanes_of(best->urgency + c);
        }
    }
}

/* First-order gain of giving the slot, which another expert has, to expert. */
static float gain_of_copy(const struct moe_best *best, const uint16_t *slots, uint32_t slot,
                          uint32_t expert)
{
    const uint32_t other = slots[slot];
    const uint32_t gpu = slot / (best->slot_count / best->gpu_count);
    const uint32_t *theirs = best->host_gpu + best->first_host[other];
    const uint32_t *ours = best->host_gpu + best->first_host[expert];
    const float *load_e = best->load + (size_t) expert * best->column_count;
    const float *load_o = best->load + (size_t) other * best->column_count;
    const float part_e = 1.0f / (float) (best->copies[expert] + 1);
    const float part_o = 1.0f / (float) (best->copies[other] - 1);
    float delta[4][MOE_BEST_COLUMN_LIMIT]; /* hosts of expert, of other, of both; the slot's GPU */
    lanes relief[2] = { { 0 }, { 0 } };
    for (uint32_t c = 0; c < best->column_count; c++) {
        const float share_e = best->share[(size_t) expert * best->column_count + c];
        const float share_o = best->share[(size_t) other * best->column_count + c];
        const float x_e = load_e[c] * part_e;
        const float x_o = load_o[c] * part_o;
        const float then_e = x_e + best->risk[expert] * x_e * x_e;
        delta[0][c] = then_e - share_e;
        delta[1][c] = x_o + best->risk[other] * x_o * x_o - share_o;
        delta[2][c] = delta[0][c] + delta[1][c];
        delta[3][c] = then_e - share_o;
    }
    for (uint32_t i = 0; i < best->copies[expert]; i++) {
        best->marked[ours[i]] = 1;
    }
    for (uint32_t i = 0; i < best->copies[other]; i++) {
        const uint32_t both = best->marked[theirs[i]];
        add_relief(best, theirs[i], theirs[i] == gpu ? delta[3] : delta[1 + both], relief);
        best->marked[theirs[i]] = 0;
    }
    for (uint32_t i = 0; i < best->copies[expert]; i++) {
        if (best->marked[ours[i]] != 0) {
            add_relief(best, ours[i], delta[0], relief);
            best->marked[ours[i]] = 0;
        }
    }
    return sum_of(relief[0], relief[1]);
}

struct recopy {
    uint32_t slot;
    uint32_t expert; /* gets it */
    float gain;
};

static void try_recopy(const struct moe_best *best, const uint16_t *slots, uint32_t slot,
                       uint32_t expert, struct recopy *found)
{
    const uint32_t per_gpu = best->slot_count / best->gpu_count;
    if (best->twice[expert] == 0 && slots[slot] != expert &&
        !hosts(best, slots, slot / per_gpu, (uint16_t) expert)) {
        const float gain = gain_of_copy(best, slots, slot, expert);
        if (gain > found->gain) {
            *found = (struct recopy){ slot, expert, gain };
        }
    }
}

/* The most promising slot for one more copy of an expert of GPU a, or for another expert instead
 * of a spare copy on a; gain 0 when there is none. */
static struct recopy search_copy(const struct moe_best *best, const uint16_t *slots, uint32_t a)
{
    const uint32_t per_gpu = best->slot_count / best->gpu_count;
    struct recopy found = { 0 };
    for (uint32_t mine = a * per_gpu; mine < (a + 1) * per_gpu; mine++) {
        for (uint32_t i = 0; slots[mine] != MOE_SLOT_EMPTY && i < best->giving_count; i++) {
            try_recopy(best, slots, best->giving_slot[i], slots[mine], &found);
        }
    }
    for (uint32_t mine = a * per_gpu; mine < (a + 1) * per_gpu; mine++) {
        if (slots[mine] == MOE_SLOT_EMPTY || best->gives[slots[mine]] == 0) {
            continue;
        }
        for (uint32_t expert = 0; expert < best->expert_count; expert++) {
            try_recopy(best, slots, mine, expert, &found);
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

/* Whether the score, measured anew, is above *now, which it then becomes. */
static bool is_better(struct moe_best *best, const uint16_t *slots, bool recopied, double *now)
{
    if (recopied) {
        count_shares(best, slots);
    }
    measure(best, slots);
    const double then = score(best);
    const bool better = then > *now * (1.0 + 1e-6);
    *now = better ? then : *now;
    return better;
}

/* The better looking of the two kinds of change of a GPU first. */
static bool relieve(struct moe_best *best, uint16_t *slots, uint32_t gpu, double *now)
{
    const struct exchange exchange = search(best, slots, gpu);
    const struct recopy recopy =
        best->recopy ? search_copy(best, slots, gpu) : (struct recopy){ 0 };
    for (int turn = 0; turn < 2; turn++) {
        if ((recopy.gain > exchange.gain) == (turn == 0)) {
            const uint16_t kept = slots[recopy.slot];
            if (!(recopy.gain > 0.0f)) {
                continue;
            }
            slots[recopy.slot] = (uint16_t) recopy.expert;
            if (is_better(best, slots, true, now)) {
                return true;
            }
            slots[recopy.slot] = kept;
            count_shares(best, slots);
        } else {
            if (!(exchange.gain > 0.0f)) {
                continue;
            }
            swap(slots, &exchange);
            if (is_better(best, slots, false, now)) {
                return true;
            }
            swap(slots, &exchange);
        }
        measure(best, slots);
    }
    return false;
}

uint32_t moe_best_improve(struct moe_best *best, uint32_t limit, uint16_t *slots)
{
    uint32_t made = 0;
    double now = moe_best_score(best, slots);
    for (bool improved = true; improved && made < limit;) {
        improved = false;
        order_gpus(best);
        memset(best->here, 0, best->expert_count);
        list_hosts(best, slots);
        list_giving(best, slots);
        for (uint32_t i = 0; i < best->gpu_count && i < RELIEVED_GPUS && !improved; i++) {
            improved = relieve(best, slots, best->order[i], &now);
            made += improved;
        }
    }
    return made;
}
