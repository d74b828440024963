/*
 * FlashLB's solver: one layer's copies and places by the mean and the spread of its loads.
 *
 * A GPU's risk is mean + z * standard deviation of its load over the steps of a window, the
 * covariances of its experts included. The experts stand in descending order of risk and are cut
 * into `depth` intervals. Going down them, the search decides how many of the copies that are
 * left an interval gets: it starts from what plain replication would give and tries up to `width`
 * more and fewer, simulating for each the rest of the plan. A plan is worth the mean over steps
 * of the largest GPU load over the mean one. Copies go, by mean load, to the GPU of least risk;
 * two copies of an expert only share a GPU when no other has room.
 * Source: vllm-ascend policy_flashlb (FlashTree).
 * Ties: of equal risks the first expert, of equal GPUs the first, of equally good searches the one
 * nearest to plain replication, fewer copies before more.
 */
#ifndef MOE_POLICIES_FLASH_SOLVER_H
#define MOE_POLICIES_FLASH_SOLVER_H

#include <stdbool.h>
#include <stdint.h>

#include "policies/placement.h"
#include "policies/solve/greedy.h"
#include "sim/base/arena.h"
#include "sim/base/error.h"

struct moe_flash_rule {
    bool proportional; /* copies of an interval: to the largest risk per copy, or in proportion */
    double z;          /* >= 0 */
    uint32_t depth;    /* >= 1; 1 = no search */
    uint32_t width;
};

struct moe_flash {
    struct moe_flash_rule rule;
    uint32_t expert_count;
    uint32_t gpu_count;
    uint32_t capacity;
    uint32_t step_count;
    struct moe_greedy greedy;
    double *x;                /* [step][expert], the caller's */
    double *off;              /* x - mean: experts by fours, [tile][step][4] */
    double *scaled;           /* off / (steps - 1), likewise */
    double *mean;             /* [expert] */
    double *covariance;       /* [expert][expert] */
    double *least_covariance; /* [expert] least covariance / mean of the other one, at most 0 */
    double *risk;             /* [expert] mean + z * deviation */
    uint32_t *by_risk;        /* [expert] descending */
    uint32_t *decided;        /* [expert] copies of the intervals that are behind */
    uint32_t *copies;         /* [expert] of the simulated plan */
    double *unit;             /* [expert] scratch: mean per copy; risks of an interval */
    uint32_t *part;           /* [expert] scratch: copies of an interval */
    uint32_t open_count;      /* GPUs with room */
    uint32_t empty_count;     /* of them those without a copy, which stand first */
    uint32_t *by_mean;        /* [gpu] those with room, in ascending order of gpu_mean */
    uint32_t *fill;           /* [gpu] */
    double *gpu_mean;         /* [gpu] */
    double *gpu_var;          /* [gpu] */
    uint16_t *slots;          /* [slot] the simulated plan */
};

/* For windows of 1 .. step_limit steps. Takes 8 bytes per pair of experts from the arena, and 24
 * per step and expert. Errors: MOE_LIMIT when it is full. */
enum moe_status moe_flash_init(struct moe_flash *flash, struct moe_arena *arena,
                               const struct moe_placement_shape *shape,
                               const struct moe_flash_rule *rule, uint32_t step_limit,
                               struct moe_error *err) MOE_MUST_CHECK;

/* Means, covariances and risks of x[step_count][expert_count], which the caller has filled in
 * with loads > 0. */
void moe_flash_read(struct moe_flash *flash, uint32_t step_count);

/* The plan with extra copies beyond one each comes to stand in slots, its copies in copies.
 * Returns what it is worth: the mean over steps of max / mean GPU load. extra fits the slots. */
double moe_flash_search(struct moe_flash *flash, uint32_t extra);

/* What any plan is worth that has copies[expert_count]. Destroys unit. */
double moe_flash_worth(const struct moe_flash *flash, const uint16_t *slots,
                       const uint32_t *copies);

#endif
