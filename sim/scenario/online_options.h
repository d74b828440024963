/*
 * Online options: the keys under `online:` of a scenario: when placements are made anew while
 * serving, how weights move, and what that takes.
 */
#ifndef MOE_SIM_SCENARIO_ONLINE_OPTIONS_H
#define MOE_SIM_SCENARIO_ONLINE_OPTIONS_H

#include <stdint.h>

enum moe_online_mode {
    MOE_ONLINE_STALL,    /* "stall": serving stops while it is planned and weights move */
    MOE_ONLINE_LAYERS,   /* "layers": weights move while steps run, over links that tokens need */
    MOE_ONLINE_PREFETCH, /* "prefetch": they move while the step before runs; what does not fit
                          * into it stalls */
};

enum moe_online_source {
    MOE_ONLINE_PEERS, /* "peers": from GPUs that hold the expert */
    MOE_ONLINE_HOST,  /* "host": from host memory, each GPU over its own link */
};

struct moe_online_options {        /* online: */
    uint32_t every_steps;          /*   every_steps: 0 (0 = placements stay) */
    double max_balance;            /*   max_balance: 1 (plans anew only when mean/max GPU load of
                                    *   the steps since the last time is below it) */
    enum moe_online_mode mode;     /*   mode: stall */
    enum moe_online_source source; /*   source: peers */
    double planner_ms;             /*   planner_ms: 50 (of one plan; a parameter, not measured) */
    double layer_ms;               /*   layer_ms: 5 (fixed, per layer moved; likewise) */
    uint32_t layers_per_step;      /*   layers_per_step: 1 (mode layers: most that change places) */
    double link_share;             /*   link_share: 0.5 (mode layers: of the links, for weights) */
    double host_bytes_s;           /*   host_gb_s: 0 (source host; 0 = as calibrated) */
};

#endif
