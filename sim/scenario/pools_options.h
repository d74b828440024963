/*
 * Pools: prefill and decode on GPUs of their own. The `pools:` keys of a scenario, and what each
 * pool is as a scenario of its own.
 *
 * The first prefill_gpus GPUs of the cluster read prompts, the others decode. Each pool is an
 * expert-parallel group of its own, with its own slots, plan, budget of tokens and seats; all
 * other keys hold for both. Prefill GPUs are whole nodes, or part of the only node.
 */
#ifndef MOE_SIM_SCENARIO_POOLS_OPTIONS_H
#define MOE_SIM_SCENARIO_POOLS_OPTIONS_H

#include <stdint.h>

enum moe_pool { MOE_POOL_PREFILL, MOE_POOL_DECODE, MOE_POOL_COUNT };

/* When a prompt's cache goes over to the decode pool. */
enum moe_pool_transfer {
    MOE_POOL_TRANSFER_AFTER,   /* "after": when the prompt has been read */
    MOE_POOL_TRANSFER_LAYERED, /* "layered": each layer's while later ones run */
};

/* Which pool sends the first token to the user. */
enum moe_pool_first_token {
    MOE_POOL_FIRST_DECODE,  /* "decode": when the cache is there, so that TTFT holds the transfer */
    MOE_POOL_FIRST_PREFILL, /* "prefill": at once, so that the transfer delays the second token */
};

struct moe_pools_options {                 /* pools: */
    uint32_t prefill_gpus;                 /*   prefill_gpus: 0 (0 = all GPUs do both) */
    uint32_t slots[MOE_POOL_COUNT];        /*   prefill_slots, decode_slots: 0 (as `slots`) */
    uint32_t tokens[MOE_POOL_COUNT];       /*   prefill_tokens, decode_tokens: 0 (per GPU and step;
                                         *   0 = serving.step_tokens) */
    uint32_t running[MOE_POOL_COUNT];      /*   prefill_running, decode_running: 0 (per GPU; 0 =
                                         *   serving.running_per_gpu) */
    enum moe_pool_transfer transfer;       /*   transfer: after */
    enum moe_pool_first_token first_token; /* first_token: decode */
};

#endif
