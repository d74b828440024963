#include "sim/engine/bound_meter.h"

#include "policies/bounds.h"
#include "policies/solve/packing.h"

#include "sim/base/no_malloc.h"

size_t moe_bound_meter_bytes(const struct moe_placement_shape *s)
{
    const size_t layer = (size_t) s->slot_count * 6 + (size_t) s->expert_count * 8 + 512;
    return s->layer_count * (layer + sizeof(struct moe_copy_index)) +
           256 * ((size_t) s->slot_count + s->expert_count + s->gpu_count) + ((size_t) 64 << 10);
}

/* Slots in use beyond one for each expert. */
static uint32_t count_spare(const struct moe_placement *plan, uint32_t layer)
{
    const uint16_t *slots = moe_placement_layer(plan, layer);
    uint32_t used = 0;
    for (uint32_t slot = 0; slot < plan->shape.slot_count; slot++) {
        used += slots[slot] != MOE_SLOT_EMPTY;
    }
    return used - plan->shape.expert_count;
}

/* Lists of one layer's copies while the hindsight plan is made. */
struct copy_list {
    struct moe_packer packer;
    uint16_t *expert; /* [slot_count] */
    float *weight;    /* [slot_count] */
    uint32_t *slot;   /* [slot_count] */
};

/* Copies to whatever is hottest per copy; then packed. */
static void plan_layer(struct moe_bound_meter *m, uint32_t layer, uint32_t spare,
                       const double *load, struct copy_list *list)
{
    const uint32_t experts = m->shape.expert_count;
    uint32_t *copies = m->hindsight_copies + (size_t) layer * experts;
    uint16_t *slots = moe_placement_layer(&m->hindsight, layer);
    uint32_t count = 0;
    for (uint32_t expert = 0; expert < experts; expert++) {
        copies[expert] = 1;
    }
    for (uint32_t i = 0; i < spare; i++) {
        uint32_t hottest = 0;
        for (uint32_t expert = 1; expert < experts; expert++) {
            if (load[expert] / copies[expert] > load[hottest] / copies[hottest]) {
                hottest = expert;
            }
        }
        copies[hottest]++;
    }
    for (uint32_t expert = 0; expert < experts; expert++) {
        for (uint32_t i = 0; i < copies[expert]; i++) {
            list->expert[count] = (uint16_t) expert;
            list->weight[count++] = (float) (load[expert] / copies[expert]) + 0.0f;
        }
    }
    const struct moe_packing_shape packing = {
        .item_count = count,
        .pack_count = m->shape.gpu_count,
        .capacity = moe_placement_slots_per_gpu(&m->shape),
        .set_count = 1,
    };
    moe_packer_pack(&list->packer, &packing, list->weight, list->slot);
    for (uint32_t i = 0; i < count; i++) {
        slots[list->slot[i]] = list->expert[i];
    }
}

static enum moe_status plan_hindsight(struct moe_bound_meter *m, const struct moe_placement *plan,
                                      const double *load, struct moe_arena *arena,
                                      struct moe_error *err)
{
    const uint32_t slots = m->shape.slot_count;
    struct copy_list list = {
        .expert = MOE_NEW(arena, uint16_t, slots),
        .weight = MOE_NEW(arena, float, slots),
        .slot = MOE_NEW(arena, uint32_t, slots),
    };
    m->hindsight_copies =
        MOE_NEW(arena, uint32_t, (size_t) m->shape.layer_count * m->shape.expert_count);
    if (list.expert == NULL || list.weight == NULL || list.slot == NULL ||
        m->hindsight_copies == NULL) {
        return moe_fail(err, MOE_LIMIT, "no room for the hindsight of %u slots", slots);
    }
    MOE_TRY(moe_packer_init(&list.packer, arena, slots, m->shape.gpu_count, err));
    MOE_TRY(moe_placement_init(&m->hindsight, arena, &m->shape, err));
    for (uint32_t layer = 0; layer < m->shape.layer_count; layer++) {
        plan_layer(m, layer, count_spare(plan, layer),
                   load + (size_t) layer * m->shape.expert_count, &list);
    }
    return MOE_OK;
}

enum moe_status moe_bound_meter_init(struct moe_bound_meter *m, const struct moe_placement *plan,
                                     const double *scored_load, struct moe_arena *arena,
                                     struct moe_error *err)
{
    const struct moe_placement_shape *shape = &plan->shape;
    *m = (struct moe_bound_meter){
        .shape = *shape,
        .index = MOE_NEW(arena, struct moe_copy_index, shape->layer_count),
        .load = MOE_NEW(arena, double, shape->expert_count),
        .scaled = MOE_NEW(arena, int64_t, shape->expert_count),
        .gpu_load = MOE_NEW(arena, double, shape->gpu_count),
    };
    if (m->index == NULL || m->load == NULL || m->scaled == NULL || m->gpu_load == NULL) {
        return moe_fail(err, MOE_LIMIT, "no room for the bounds of %u layers", shape->layer_count);
    }
    MOE_TRY(moe_hosts_init(&m->hosts, arena, shape, err));
    MOE_TRY(moe_split_init(&m->split, arena, shape, err));
    for (uint32_t layer = 0; layer < shape->layer_count; layer++) {
        MOE_TRY(moe_copy_index_init(&m->index[layer], plan, layer, arena, err));
    }
    return scored_load == NULL ? MOE_OK : plan_hindsight(m, plan, scored_load, arena, err);
}

void moe_bound_meter_replan(struct moe_bound_meter *m, const struct moe_placement *plan,
                            uint32_t layer)
{
    moe_copy_index_fill(&m->index[layer], plan, layer);
}

/* The fullest GPU under the hindsight plan. */
static double hindsight_max(struct moe_bound_meter *m, uint32_t layer)
{
    const uint32_t slots_per_gpu = moe_placement_slots_per_gpu(&m->shape);
    const uint32_t *copies = m->hindsight_copies + (size_t) layer * m->shape.expert_count;
    const uint16_t *expert = moe_placement_layer(&m->hindsight, layer);
    double max = 0.0;
    for (uint32_t gpu = 0; gpu < m->shape.gpu_count; gpu++) {
        double sum = 0.0;
        for (uint32_t i = 0; i < slots_per_gpu; i++, expert++) {
            if (*expert != MOE_SLOT_EMPTY) {
                sum += m->load[*expert] / copies[*expert];
            }
        }
        max = sum > max ? sum : max;
    }
    return max;
}

void moe_bound_meter_add(struct moe_bound_meter *m, uint32_t layer, const uint32_t *tokens,
                         double own_max, struct moe_bound_sums *sums)
{
    const struct moe_copy_index *index = &m->index[layer];
    const uint32_t experts = m->shape.expert_count;
    for (uint32_t expert = 0; expert < experts; expert++) {
        m->load[expert] = tokens[expert];
    }
    moe_hosts_build(&m->hosts, index->first_copy, index->gpu_of_copy);
    sums->layer_steps++;
    sums->own += own_max;
    sums->perfect += moe_bound_perfect(m->load, experts, m->shape.gpu_count);
    sums->no_copy += moe_bound_no_copy(m->load, experts, m->shape.gpu_count);
    sums->split += moe_split_bound(&m->split, &m->hosts, m->load, m->scaled);
    if (m->hindsight.expert_of_slot != NULL) {
        sums->hindsight += hindsight_max(m, layer);
    }
}
