/* The replay is what costs: 3,000 batches x 58 layers x 8 options x 300 copies are 4e8
 * additions. They run over columns of BLOCK batches laid side by side, so that one
 * copy's share is added to BLOCK GPU loads at once and the block stays in the cache. */
#include "policies/solve/craft_solver.h"

#include <assert.h>
#include <stdbool.h>
#include <string.h>

#include "policies/policy.h"
#include "policies/solve/winner_tree.h"
#include "sim/base/no_malloc.h"

enum { BLOCK = 128 };

/* One option's plan of a layer, GPU by GPU. */
struct moe_craft_trial {
    uint32_t *first;  /* [gpu_count + 1] into expert and scale */
    uint16_t *expert; /* [item_limit] */
    float *scale;     /* [item_limit] 1 / copies */
    double sum;       /* of the balancedness of the batches so far */
};

static void list_options(struct moe_craft *craft)
{
    const struct moe_placement_shape *shape = &craft->shape;
    const uint32_t room = shape->slot_count - shape->expert_count;
    craft->option_count = 1; /* option[0] = 0 */
    for (uint32_t copies = 1; copies <= shape->gpu_count && copies <= room; copies *= 2) {
        craft->option[craft->option_count++] = copies;
    }
    assert(craft->option_count <= MOE_CRAFT_OPTION_LIMIT);
    craft->item_limit = shape->slot_count;
}

enum moe_status moe_craft_init(struct moe_craft *craft, struct moe_arena *arena,
                               const struct moe_placement_shape *shape, struct moe_error *err)
{
    *craft = (struct moe_craft){ .shape = *shape };
    list_options(craft);
    const uint32_t experts = shape->expert_count;
    craft->weight = MOE_NEW(arena, float, experts);
    craft->copies = MOE_NEW(arena, uint32_t, experts);
    craft->share = MOE_NEW(arena, float, craft->item_limit);
    craft->expert_of_item = MOE_NEW(arena, uint16_t, craft->item_limit);
    craft->slot_of_item = MOE_NEW(arena, uint32_t, craft->item_limit);
    craft->limit = MOE_NEW(arena, uint32_t, shape->gpu_count);
    craft->tree = MOE_NEW(arena, uint64_t, 2 * (size_t) moe_winner_leaf_count(experts));
    craft->block = MOE_NEW(arena, float, (size_t) experts *BLOCK);
    craft->trial = MOE_NEW(arena, struct moe_craft_trial, craft->option_count);
    bool full = craft->weight == NULL || craft->copies == NULL || craft->share == NULL ||
                craft->expert_of_item == NULL || craft->slot_of_item == NULL ||
                craft->limit == NULL || craft->tree == NULL || craft->block == NULL ||
                craft->trial == NULL;
    for (uint32_t i = 0; !full && i < craft->option_count; i++) {
        struct moe_craft_trial *trial = &craft->trial[i];
        trial->first = MOE_NEW(arena, uint32_t, (size_t) shape->gpu_count + 1);
        trial->expert = MOE_NEW(arena, uint16_t, craft->item_limit);
        trial->scale = MOE_NEW(arena, float, craft->item_limit);
        full = trial->first == NULL || trial->expert == NULL || trial->scale == NULL;
    }
    if (full) {
        return moe_fail(err, MOE_LIMIT, "no room to weigh copies of %u experts on %u GPUs", experts,
                        shape->gpu_count);
    }
    return moe_packer_init(&craft->packer, arena, craft->item_limit, shape->gpu_count, err);
}

static void copy_weights(struct moe_craft *craft, const double *load)
{
    for (uint32_t expert = 0; expert < craft->shape.expert_count; expert++) {
        assert(load[expert] >= 0.0);
        assert(load[expert] <= MOE_POLICY_LOAD_LIMIT);
        craft->weight[expert] = (float) load[expert] + 0.0f; /* + 0 turns -0 into 0 */
    }
}

static uint64_t offer_of(const struct moe_craft *craft, uint32_t expert, uint32_t most)
{
    const float share = craft->weight[expert] / (float) craft->copies[expert];
    return craft->copies[expert] >= most
               ? MOE_WINNER_NEVER
               : moe_winner_key(moe_winner_rank_descending(share), expert);
}

/* The tree's leaves: load per copy of the experts that have fewer than most copies. */
static void offer(struct moe_craft *craft, uint32_t most)
{
    const uint32_t experts = craft->shape.expert_count;
    const uint32_t leaf_count = moe_winner_leaf_count(experts);
    for (uint32_t i = 0; i < leaf_count; i++) {
        craft->tree[leaf_count + i] = i < experts ? offer_of(craft, i, most) : MOE_WINNER_NEVER;
    }
    moe_winner_build(craft->tree, leaf_count);
}

/* copies[]: one each, then up to extra times one more for the largest load per copy of those
 * with fewer than most; once none is above enough, first a second one for those that have but
 * one. Returns how many were given. */
static uint32_t replicate(struct moe_craft *craft, uint32_t extra, float enough, uint32_t most)
{
    const uint32_t leaf_count = moe_winner_leaf_count(craft->shape.expert_count);
    uint32_t limit = most;
    for (uint32_t i = 0; i < craft->shape.expert_count; i++) {
        craft->copies[i] = 1;
    }
    offer(craft, limit);
    for (uint32_t given = 0; given < extra; given++) {
        uint64_t top = moe_winner_top(craft->tree);
        if (enough > 0.0f && top != MOE_WINNER_NEVER &&
            craft->weight[(uint32_t) top] / (float) craft->copies[(uint32_t) top] < enough) {
            limit = most < 2 ? most : 2;
            enough = 0.0f;
            offer(craft, limit);
            top = moe_winner_top(craft->tree);
        }
        if (top == MOE_WINNER_NEVER && limit < most) {
            limit = most;
            offer(craft, limit);
            top = moe_winner_top(craft->tree);
        }
        if (top == MOE_WINNER_NEVER) {
            return given;
        }
        craft->copies[(uint32_t) top]++;
        moe_winner_set(craft->tree, leaf_count, (uint32_t) top,
                       offer_of(craft, (uint32_t) top, limit));
    }
    return extra;
}

/* Copies onto GPUs: slot_of_item is pack * capacity + rank, packs in the order of
 * limit[], which descends, so that of equally loaded GPUs the roomier comes first. */
static uint32_t pack(struct moe_craft *craft)
{
    uint32_t item = 0;
    for (uint32_t expert = 0; expert < craft->shape.expert_count; expert++) {
        for (uint32_t copy = 0; copy < craft->copies[expert]; copy++) {
            craft->share[item] = craft->weight[expert] / (float) craft->copies[expert];
            craft->expert_of_item[item++] = (uint16_t) expert;
        }
    }
    const struct moe_packing_shape packing = {
        .item_count = item,
        .pack_count = craft->shape.gpu_count,
        .capacity = craft->limit[0],
        .set_count = 1,
        .limit = craft->limit,
    };
    moe_packer_pack(&craft->packer, &packing, craft->share, craft->slot_of_item);
    return item;
}

static void plan_trial(struct moe_craft *craft, uint32_t extra, struct moe_craft_trial *trial)
{
    const uint32_t gpus = craft->shape.gpu_count;
    const uint32_t slots = craft->shape.expert_count + extra;
    for (uint32_t gpu = 0; gpu < gpus; gpu++) {
        craft->limit[gpu] = slots / gpus + (gpu < slots % gpus);
    }
    (void) replicate(craft, extra, 0.0f, UINT32_MAX);
    const uint32_t items = pack(craft);
    for (uint32_t gpu = 0, first = 0; gpu <= gpus; gpu++) {
        trial->first[gpu] = first;
        first += gpu < gpus ? craft->limit[gpu] : 0;
    }
    for (uint32_t item = 0; item < items; item++) {
        const uint32_t gpu = craft->slot_of_item[item] / craft->limit[0];
        const uint32_t at = trial->first[gpu] + craft->slot_of_item[item] % craft->limit[0];
        trial->expert[at] = craft->expert_of_item[item];
        trial->scale[at] = 1.0f / (float) craft->copies[craft->expert_of_item[item]];
    }
    trial->sum = 0.0;
}

/* block[expert][batch] of count batches; the rest of a column is 0. */
static void turn_block(struct moe_craft *craft, const float *batches, size_t stride, uint32_t count,
                       float *restrict mean)
{
    const uint32_t experts = craft->shape.expert_count;
    if (count < BLOCK) {
        memset(craft->block, 0, (size_t) experts * BLOCK * sizeof *craft->block);
    }
    for (uint32_t batch = 0; batch < count; batch++) {
        const float *row = batches + batch * stride;
        for (uint32_t expert = 0; expert < experts; expert++) {
            craft->block[(size_t) expert * BLOCK + batch] = row[expert];
        }
    }
    memset(mean, 0, BLOCK * sizeof *mean);
    for (uint32_t expert = 0; expert < experts; expert++) {
        const float *restrict column = craft->block + (size_t) expert * BLOCK;
        for (uint32_t i = 0; i < BLOCK; i++) {
            mean[i] += column[i];
        }
    }
    const float share = 1.0f / (float) craft->shape.gpu_count;
    for (uint32_t i = 0; i < BLOCK; i++) {
        mean[i] *= share;
    }
}

static void replay_block(const struct moe_craft *craft, struct moe_craft_trial *trial,
                         const float *restrict mean, uint32_t count)
{
    float fullest[BLOCK] = { 0 };
    for (uint32_t gpu = 0; gpu < craft->shape.gpu_count; gpu++) {
        float load[BLOCK] = { 0 };
        for (uint32_t at = trial->first[gpu]; at < trial->first[gpu + 1]; at++) {
            const float *restrict column = craft->block + (size_t) trial->expert[at] * BLOCK;
            const float scale = trial->scale[at];
            for (uint32_t i = 0; i < BLOCK; i++) {
                load[i] += scale * column[i];
            }
        }
        for (uint32_t i = 0; i < BLOCK; i++) {
            fullest[i] = load[i] > fullest[i] ? load[i] : fullest[i];
        }
    }
    for (uint32_t i = 0; i < count; i++) {
        trial->sum += fullest[i] > 0.0f ? (double) (mean[i] / fullest[i]) : 1.0;
    }
}

void moe_craft_estimate(struct moe_craft *craft, const double *load, const float *batches,
                        size_t stride, uint32_t batch_count, double *balance)
{
    float mean[BLOCK];
    assert(batch_count >= 1);
    copy_weights(craft, load);
    for (uint32_t i = 0; i < craft->option_count; i++) {
        plan_trial(craft, craft->option[i], &craft->trial[i]);
    }
    for (uint32_t first = 0; first < batch_count; first += BLOCK) {
        const uint32_t left = batch_count - first;
        const uint32_t count = left < BLOCK ? left : BLOCK;
        turn_block(craft, batches + first * stride, stride, count, mean);
        for (uint32_t i = 0; i < craft->option_count; i++) {
            replay_block(craft, &craft->trial[i], mean, count);
        }
    }
    for (uint32_t i = 0; i < craft->option_count; i++) {
        balance[i] = craft->trial[i].sum / batch_count;
    }
}

void moe_craft_allocate(const struct moe_craft *craft, const double *balance, uint32_t budget,
                        double *gain, uint8_t *choice)
{
    const size_t columns = (size_t) budget + 1;
    memset(gain, 0, columns * sizeof *gain);
    for (uint32_t layer = 0; layer < craft->shape.layer_count; layer++) {
        const double *row = balance + (size_t) layer * craft->option_count;
        uint8_t *chosen = choice + layer * columns;
        /* From the large budgets down: what it reads of the layers before is not yet
         * overwritten. */
        for (size_t used = columns; used-- > 0;) {
            double best = gain[used];
            uint8_t option = 0;
            for (uint8_t i = 1; i < craft->option_count && craft->option[i] <= used; i++) {
                const double sum = gain[used - craft->option[i]] + (row[i] - row[0]);
                if (sum > best) {
                    best = sum;
                    option = i;
                }
            }
            gain[used] = best;
            chosen[used] = option;
        }
    }
}

void moe_craft_backtrack(const struct moe_craft *craft, const uint8_t *choice,
                         uint32_t choice_budget, uint32_t budget, uint32_t *copies_of_layer)
{
    assert(budget <= choice_budget);
    for (uint32_t layer = craft->shape.layer_count; layer-- > 0;) {
        copies_of_layer[layer] =
            craft->option[choice[(size_t) layer * ((size_t) choice_budget + 1) + budget]];
        budget -= copies_of_layer[layer];
    }
}

uint32_t moe_craft_knee(const double *gain, uint32_t gpu_count, uint32_t limit, double bend)
{
    const double slope = bend * gain[(size_t) limit * gpu_count] / limit;
    double best = 0.0;
    uint32_t knee = 0;
    for (uint32_t slots = 1; slots <= limit; slots++) {
        const double above = gain[(size_t) slots * gpu_count] - slope * slots;
        if (above > best) {
            best = above;
            knee = slots;
        }
    }
    return knee;
}

/* The GPU that gets the next slot of a layer. */
static uint32_t poorest(const struct moe_placement_shape *shape, const uint32_t *slots,
                        const uint32_t *total)
{
    const uint32_t per_node = shape->gpu_count / shape->node_count;
    const uint32_t room = moe_placement_slots_per_gpu(shape);
    uint32_t found = UINT32_MAX;
    for (uint32_t turn = 0; turn < shape->gpu_count; turn++) {
        const uint32_t gpu = turn % shape->node_count * per_node + turn / shape->node_count;
        if (slots[gpu] < room && (found == UINT32_MAX || total[gpu] < total[found] ||
                                  (total[gpu] == total[found] && slots[gpu] < slots[found]))) {
            found = gpu;
        }
    }
    assert(found != UINT32_MAX);
    return found;
}

void moe_craft_deal_slots(const struct moe_placement_shape *shape, const uint32_t *copies_of_layer,
                          uint32_t *slots, uint32_t *order, uint32_t *total)
{
    const uint32_t gpus = shape->gpu_count;
    const uint32_t base = shape->expert_count / gpus;
    memset(total, 0, gpus * sizeof *total);
    for (uint32_t layer = 0; layer < shape->layer_count; layer++) {
        uint32_t *mine = slots + (size_t) layer * gpus;
        uint32_t *sorted = order + (size_t) layer * gpus;
        for (uint32_t gpu = 0; gpu < gpus; gpu++) {
            mine[gpu] = base;
        }
        for (uint32_t left = shape->expert_count % gpus + copies_of_layer[layer]; left > 0;
             left--) {
            const uint32_t gpu = poorest(shape, mine, total);
            mine[gpu]++;
            total[gpu]++;
        }
        uint32_t count = 0;
        for (uint32_t most = moe_placement_slots_per_gpu(shape) + 1; most-- > 0;) {
            for (uint32_t gpu = 0; gpu < gpus; gpu++) {
                if (mine[gpu] == most) {
                    sorted[count++] = gpu;
                }
            }
        }
        assert(count == gpus);
    }
}

void moe_craft_place_layer(struct moe_craft *craft, const double *load, uint32_t copies,
                           double enough, uint32_t most, const uint32_t *slots,
                           const uint32_t *order, uint16_t *expert_of_slot)
{
    const uint32_t gpus = craft->shape.gpu_count;
    const uint32_t per_gpu = moe_placement_slots_per_gpu(&craft->shape);
    for (uint32_t i = 0; i < gpus; i++) {
        craft->limit[i] = slots[order[i]];
    }
    for (uint32_t slot = 0; slot < craft->shape.slot_count; slot++) {
        expert_of_slot[slot] = MOE_SLOT_EMPTY;
    }
    copy_weights(craft, load);
    (void) replicate(craft, copies, (float) enough, most);
    const uint32_t items = pack(craft);
    for (uint32_t item = 0; item < items; item++) {
        const uint32_t gpu = order[craft->slot_of_item[item] / craft->limit[0]];
        const uint32_t rank = craft->slot_of_item[item] % craft->limit[0];
        expert_of_slot[gpu * per_gpu + rank] = craft->expert_of_item[item];
    }
}
