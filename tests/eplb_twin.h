/*
 * The slow obvious twin of policies/eplb_solver: the published function line by line,
 * with quadratic sorts and searches and no shared code. For tests only.
 */
#ifndef MOE_TESTS_EPLB_TWIN_H
#define MOE_TESTS_EPLB_TWIN_H

#include <stdbool.h>
#include <stdint.h>

#include "policies/placement.h"

enum { TWIN_LIMIT = 1024 }; /* experts, slots, GPUs */

/* balanced_packing of one row: pack_of[i], rank_of[i] of items weight[count]. */
static void twin_pack(const float *weight, uint32_t count, uint32_t pack_count, uint32_t *pack_of,
                      uint32_t *rank_of)
{
    const uint32_t per_pack = count / pack_count;
    bool taken[TWIN_LIMIT] = { false };
    float pack_weight[TWIN_LIMIT] = { 0.0f };
    uint32_t pack_items[TWIN_LIMIT] = { 0 };
    if (per_pack == 1) {
        for (uint32_t i = 0; i < count; i++) {
            pack_of[i] = i;
            rank_of[i] = 0;
        }
        return;
    }
    for (uint32_t round = 0; round < count; round++) {
        uint32_t item = count;
        for (uint32_t i = 0; i < count; i++) {
            if (!taken[i] && (item == count || weight[i] > weight[item])) {
                item = i;
            }
        }
        uint32_t pack = pack_count;
        for (uint32_t i = 0; i < pack_count; i++) {
            if (pack_items[i] < per_pack &&
                (pack == pack_count || pack_weight[i] < pack_weight[pack])) {
                pack = i;
            }
        }
        taken[item] = true;
        pack_of[item] = pack;
        rank_of[item] = pack_items[pack]++;
        pack_weight[pack] += weight[item];
    }
}

/* replicate_experts of one row: phy[slot_count], rank[slot_count], copies[expert_count]. */
static void twin_replicate(const float *weight, uint32_t expert_count, uint32_t slot_count,
                           uint32_t *phy, uint32_t *rank, uint32_t *copies)
{
    for (uint32_t i = 0; i < expert_count; i++) {
        phy[i] = i;
        rank[i] = 0;
        copies[i] = 1;
    }
    for (uint32_t i = expert_count; i < slot_count; i++) {
        uint32_t best = 0;
        for (uint32_t e = 1; e < expert_count; e++) {
            if (weight[e] / (float) copies[e] > weight[best] / (float) copies[best]) {
                best = e;
            }
        }
        phy[i] = best;
        rank[i] = copies[best];
        copies[best]++;
    }
}

/* rebalance_experts of one layer: phy2log[slot_count], phyrank[slot_count],
 * logcnt[expert_count]. */
static void twin_eplb(const struct moe_placement_shape *shape, const double *load,
                      uint16_t *phy2log, uint16_t *phyrank, uint16_t *logcnt)
{
    const bool global = shape->group_count % shape->node_count != 0;
    const uint32_t groups = global ? 1 : shape->group_count;
    const uint32_t nodes = global ? 1 : shape->node_count;
    const uint32_t group_size = shape->expert_count / groups;
    const uint32_t node_experts = shape->expert_count / nodes;
    const uint32_t node_slots = shape->slot_count / nodes;
    const uint32_t node_gpus = shape->gpu_count / nodes;
    float group_weight[TWIN_LIMIT];
    uint32_t group_pack[TWIN_LIMIT] = { 0 };
    uint32_t group_rank[TWIN_LIMIT] = { 0 };
    uint32_t log_of[TWIN_LIMIT] = { 0 }; /* mlog2log */
    for (uint32_t g = 0; g < groups; g++) {
        group_weight[g] = 0.0f;
        for (uint32_t i = 0; i < group_size; i++) {
            group_weight[g] += (float) load[g * group_size + i];
        }
    }
    twin_pack(group_weight, groups, nodes, group_pack, group_rank);
    for (uint32_t e = 0; e < shape->expert_count; e++) {
        const uint32_t g = e / group_size;
        log_of[(group_pack[g] * (groups / nodes) + group_rank[g]) * group_size + e % group_size] =
            e;
    }
    for (uint32_t n = 0; n < nodes; n++) {
        float weight[TWIN_LIMIT] = { 0.0f };
        float copy_weight[TWIN_LIMIT];
        uint32_t phy[TWIN_LIMIT] = { 0 };
        uint32_t rank[TWIN_LIMIT] = { 0 };
        uint32_t copies[TWIN_LIMIT] = { 0 };
        uint32_t pack[TWIN_LIMIT] = { 0 };
        uint32_t rank_in_pack[TWIN_LIMIT] = { 0 };
        for (uint32_t i = 0; i < node_experts; i++) {
            weight[i] = (float) load[log_of[n * node_experts + i]];
        }
        twin_replicate(weight, node_experts, node_slots, phy, rank, copies);
        for (uint32_t i = 0; i < node_slots; i++) {
            copy_weight[i] = weight[phy[i]] / (float) copies[phy[i]];
        }
        twin_pack(copy_weight, node_slots, node_gpus, pack, rank_in_pack);
        for (uint32_t i = 0; i < node_slots; i++) {
            const uint32_t slot =
                n * node_slots + pack[i] * (node_slots / node_gpus) + rank_in_pack[i];
            phy2log[slot] = (uint16_t) log_of[n * node_experts + phy[i]];
            phyrank[slot] = (uint16_t) rank[i];
        }
        for (uint32_t i = 0; i < node_experts; i++) {
            logcnt[log_of[n * node_experts + i]] = (uint16_t) copies[i];
        }
    }
}

#endif
