/*
 * Hardware: the simulated GPUs of one run, nominally equal and really not.
 *
 * Three sources of difference, each drawn by counter so that every policy of a seed meets
 * the same cluster in the same mood:
 *   factor  fixed per GPU, by what bounds the work (compute, memory, communication)
 *   drift   slow, per GPU and step: AR(1) in log time, on everything but communication
 *   jitter  per GPU, layer and step, from the calibration's residual quantiles
 * With noise off all three are 1. What-ifs of the scenario (hardware_options.h) multiply the
 * factor while they last, noise or not; an event holds for the steps that begin within it. A
 * clock under load that lasts slows the arithmetic of all GPUs alike: it is in nominal too.
 *
 * The draws (sim/base/random.h), with L layers and G GPUs:
 *   drift   counter step * G + gpu of MOE_RANDOM_DRIFT, through the normal quantile on a grid of
 *           2^-40; step 0 draws from the stationary distribution (x = sigma * normal)
 *   jitter  counter ((step * (L + 1) + layer) * G + gpu) * MOE_STRETCH_COUNT + stretch of
 *           MOE_RANDOM_JITTER, through moe_cost_jitter of the stretch's kind: before COMPUTE,
 *           expert EXPERT, dispatch and combine COMM
 * The stretches shared and after have no draw of their own: shared takes that of before,
 * after that of before in layer L.
 */
#ifndef MOE_SIM_ENGINE_HARDWARE_H
#define MOE_SIM_ENGINE_HARDWARE_H

#include <stdbool.h>
#include <stdint.h>

#include "sim/base/arena.h"
#include "sim/base/time.h"
#include "sim/cost/cost.h"

/* The jitters of one layer; each stands for one stretch of work between two barriers. */
enum moe_stretch {
    MOE_STRETCH_BEFORE, /* own tokens: attention, dense, gate, shared experts */
    MOE_STRETCH_DISPATCH,
    MOE_STRETCH_EXPERT,
    MOE_STRETCH_COMBINE,
    MOE_STRETCH_COUNT
};

struct moe_hardware {
    const struct moe_cost *cost;
    uint32_t gpu_count;
    uint32_t layer_count;
    bool noise;
    uint64_t jitter_key;
    uint64_t drift_key;
    uint64_t step;
    struct moe_drift drift;
    const struct moe_hardware_options *options; /* NULL: nothing is asked */
    double comm_load;              /* how much longer tokens take on links that weights share; 1 */
    struct moe_gpu_factor nominal; /* of a GPU without any difference */
    struct moe_gpu_factor *own;    /* [gpu] fixed */
    struct moe_gpu_factor *factor; /* [gpu] with what-ifs, this step */
    double *drift_log;             /* [gpu] */
    double *drift_factor;          /* [gpu], this step */
};

struct moe_hardware_size {
    uint32_t gpu_count;
    uint32_t layer_count;
    uint32_t first_gpu; /* of the deployment: whose factors GPU 0 has. The noise of pools differs:
                         * their keys are of seed ^ first_gpu << 40 */
};

/* Errors: MOE_LIMIT when the arena is full; MOE_RANGE when a sustained clock is asked for and
 * neither scenario nor calibration say what it does. */
enum moe_status moe_hardware_init(struct moe_hardware *hardware, const struct moe_cost *cost,
                                  struct moe_hardware_size size, uint64_t seed, bool noise,
                                  const struct moe_hardware_options *options,
                                  struct moe_arena *arena, struct moe_error *err) MOE_MUST_CHECK;

/* Multiplies a GPU's factors by what the what-ifs say of the whole run: what was there to be
 * measured before it. */
void moe_hardware_apply_standing(const struct moe_hardware_options *options, uint32_t gpu,
                                 struct moe_gpu_factor *factor);

/* Moves the drift on to step number step (0, 1, 2, ... in order), which begins at now_ns. */
void moe_hardware_begin_step(struct moe_hardware *hardware, uint64_t step, moe_time_ns now_ns);

/* Time factors of one layer, jitter and drift together, into out[stretch][gpu].
 * layer == layer_count stands for the end of the step. */
void moe_hardware_jitter(const struct moe_hardware *hardware, uint32_t layer, double *out);

#endif
