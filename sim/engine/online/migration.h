/*
 * Migration: what must move in a layer for one placement to become another, and what that gains.
 */
#ifndef MOE_SIM_ENGINE_ONLINE_MIGRATION_H
#define MOE_SIM_ENGINE_ONLINE_MIGRATION_H

#include <stdbool.h>
#include <stdint.h>

#include "policies/placement.h"
#include "sim/cost/cost.h"

/* Copies, in one layer. */
struct moe_migration {
    uint64_t copies; /* fetched by all GPUs */
    uint64_t near_copies;
    uint64_t far_copies;
    uint64_t host_copies;
    double most_host; /* fetched by one GPU from host memory */
};

/* Copies that each GPU sends and receives, by class of link: each [gpu]; has[expert] is scratch. */
struct moe_migration_room {
    double *in_near;
    double *in_far;
    double *out_near;
    double *out_far;
    bool *has;
};

/* Fills room and *migration for one layer; online.h says who fetches what from whom. */
void moe_migration_find(const struct moe_placement *from, const struct moe_placement *to,
                        uint32_t layer, bool from_host, struct moe_migration_room *room,
                        struct moe_migration *migration);

/* The slowest GPU's transfers between GPUs. */
struct moe_duration moe_migration_price(const struct moe_cost *cost,
                                        const struct moe_migration_room *room, uint32_t gpu_count,
                                        double expert_bytes);

/* ns by which a step's experts are done sooner under `to`, at load[layer][expert] tokens in
 * `steps` steps; negative when they are later. */
double moe_migration_gain(const struct moe_cost *cost, const struct moe_placement *from,
                          const struct moe_placement *to, const double *load, uint32_t steps);

#endif
