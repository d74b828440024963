/*
 * Scenario: everything that one study is made of. Read from a strict YAML file, from
 * `--set a.b=c`, or made by `moesim compare` from its options; a run is a pure function
 * of its scenario and the files that it names.
 *
 * The YAML keys are the paths in the comments. Every key has a default but trace and
 * model; an unknown key, a wrong type or a value out of range is refused with file,
 * line, key and what is allowed.
 */
#ifndef MOE_SIM_SCENARIO_SCENARIO_H
#define MOE_SIM_SCENARIO_SCENARIO_H

#include <stdbool.h>
#include <stdint.h>
#include <stdio.h>

#include "policies/composition.h"
#include "policies/placement.h"
#include "sim/base/error.h"
#include "sim/model/model.h"
#include "sim/scenario/arrival_options.h"
#include "sim/scenario/fetch_options.h"
#include "sim/scenario/hardware_options.h"
#include "sim/scenario/online_options.h"
#include "sim/scenario/pools_options.h"

enum {
    MOE_SCENARIO_POLICY_LIMIT = 32,
    MOE_SCENARIO_PATH_BYTES = 1024,
    MOE_SCENARIO_GPU_LIMIT = 4096,
    MOE_SCENARIO_GRAPH_LIMIT = 40,
    MOE_SCENARIO_DRAFT_LIMIT = 16,
};

enum moe_exchange_mode {
    MOE_EXCHANGE_EXACT,        /* "exact": one copy per (token, destination GPU), exact counts */
    MOE_EXCHANGE_PADDED,       /* "padded": every rank as long as the longest */
    MOE_EXCHANGE_HIERARCHICAL, /* "hierarchical": between nodes one copy per (token, node), to
                                  the GPU of the sender's place there, which passes it on over
                                  the node's own links (DeepEP's normal mode); exact counts */
    MOE_EXCHANGE_LOW_LATENCY,  /* "low_latency": a message for every (token, expert), straight to
                                  its GPU, not de-duplicated (DeepEP's low-latency mode) */
    MOE_EXCHANGE_ALL_GATHER,   /* "all_gather": every GPU gets all tokens, and the sums of what
                                  they made are scattered: what moves does not depend on routing */
};

enum moe_shared_mode {
    MOE_SHARED_OVERLAPPED, /* "overlapped": beside the dispatch, which it may outlast */
    MOE_SHARED_SERIAL,     /* "serial": after the dispatch, before the routed experts */
};

enum moe_kv_mode {
    MOE_KV_RESERVE, /* "reserve": of the whole length, when a request is admitted */
    MOE_KV_PAGES,   /* "pages": page by page; who runs may be preempted */
};

enum moe_batch_order {
    MOE_BATCH_DECODE_FIRST,  /* "decode_first": chunks of prompts beside who decodes (vLLM) */
    MOE_BATCH_PREFILL_FIRST, /* "prefill_first": prompts alone, before who decodes (SGLang) */
};

enum moe_preempt {
    MOE_PREEMPT_LAST_ADMITTED, /* "last_admitted" (vLLM) */
    MOE_PREEMPT_LEAST_OUTPUT,  /* "least_output" (SGLang's retraction) */
};

enum moe_overlap_mode {
    MOE_OVERLAP_NONE,      /* "none": a step's tokens run in one piece */
    MOE_OVERLAP_TWO_BATCH, /* "two_batch": in two halves, each exchanging while the other computes
                            * (sim/engine/overlap/halves.h) */
};

struct moe_cluster {        /* cluster: */
    uint32_t node_count;    /*   nodes: 4 */
    uint32_t gpus_per_node; /*   gpus_per_node: 8 */
    char gpu[32];           /*   gpu: H200 (a kind of the calibration) */
    double memory_bytes;    /*   memory_gb: 141 (10^9 bytes); 0 = as the calibration says */
    double near_bytes_s;    /*   near_gb_s: 0 (one way, per GPU, in its node; 0 = as calibrated) */
    double far_bytes_s;     /*   far_gb_s: 0 (the same between nodes) */
    double reserve_bytes;   /*   reserve_gb: 8 (workspace, graphs, communication buffers) */
    uint32_t first_gpu;     /*   no key: of the deployment; not 0 for the decode pool */
};

struct moe_serving {                 /* serving: */
    uint32_t running_per_gpu;        /*   running_per_gpu: 32 (closed loop) */
    uint32_t step_tokens;            /*   step_tokens: 8192 (token budget per GPU and step) */
    double plan_share;               /*   plan_share: 0.2 (share of requests planned on) */
    uint32_t passes;                 /*   passes: 1 (times the scored requests are replayed) */
    enum moe_exchange_mode exchange; /* exchange: hierarchical (on one node the same as exact) */
    bool common_exit;            /*   common_exit: false (all ranks leave a collective together) */
    enum moe_shared_mode shared; /*   shared_expert: overlapped */
    enum moe_kv_mode kv;         /*   kv: reserve */
    uint32_t page_tokens;        /*   page_tokens: 16 (kv: pages) */
    enum moe_batch_order order;  /*   order: decode_first */
    enum moe_preempt preempt;    /*   preempt: last_admitted (kv: pages) */
    double output_reserve;       /*   output_reserve: 0 (kv: pages; share of the output) */
    char graph_sizes_text[128];  /*   graph_sizes: "" (tokens, parted by spaces) */
    uint32_t graph_size_count;   /*   settled when the scenario is loaded */
    uint32_t graph_sizes[MOE_SCENARIO_GRAPH_LIMIT]; /* ascending */
    enum moe_overlap_mode overlap;                  /* overlap: none */
    uint32_t overlap_tokens;    /*   overlap_tokens: 2 (rows that every rank must have for it) */
    double overlap_compute;     /*   overlap_compute: 0 (factor of arithmetic beside an exchange;
                               *   0 = as calibrated, 1 where that was not measured) */
    double overlap_comm;        /*   overlap_comm: 0 (factor of an exchange beside arithmetic) */
    uint32_t attention_ranks;   /*   attention_ranks: 1 (GPUs that share an attention;
                               *   running_per_gpu and step_tokens are then theirs together) */
    uint32_t drafts;            /*   drafts: 0 (tokens predicted beyond the next) */
    double acceptance;          /*   acceptance: 0.8 (of each draft after an accepted one) */
    char acceptances_text[128]; /* acceptances: "" (by position, parted by spaces; positions
                                 * beyond them as the last; "" = acceptance at every one) */
    uint32_t acceptance_count;  /* settled when the scenario is loaded */
    double acceptance_at[MOE_SCENARIO_DRAFT_LIMIT];
    uint32_t draft_layers; /*   draft_layers: 1 (MoE layers of a draft, sim/engine/drafts.h; 0:
                               *   drafts cost nothing) */
};

struct moe_scenario {
    char name[64];                                  /* name: */
    char trace_path[MOE_SCENARIO_PATH_BYTES];       /* trace: relative to the YAML file */
    char model_ref[MOE_SCENARIO_PATH_BYTES];        /* model: card name, .yaml or .json */
    char calibration_path[MOE_SCENARIO_PATH_BYTES]; /* calibration: "" = the built-in table */
    struct moe_model model;                         /* loaded from model_ref; not a key */
    struct moe_cluster cluster;
    /* slots: 288 (physical slots per layer); 0 = experts rounded up to a multiple of the
     * GPUs, and one redundant slot per GPU: settled when the scenario is loaded. */
    uint32_t slot_count;
    /* replicas: 0 (most copies beyond the first of each expert, over all layers; 0 = as many as
     * the slots hold). Policies that keep no budget are refused with one. */
    uint32_t replica_budget;
    struct moe_serving serving;
    struct moe_arrival_options arrivals; /* arrivals: */
    struct moe_slo slo;                  /* slo: */
    struct moe_hardware_options hardware;
    struct moe_online_options online;
    struct moe_pools_options pools; /* pools: */
    struct moe_fetch_options fetch;
    uint32_t policy_count;
    /* policies: [contiguous, "craft:R=8+dispatch=lp"]: compositions, canonical once loaded */
    char policies[MOE_SCENARIO_POLICY_LIMIT][MOE_COMPOSITION_BYTES];
    char baseline[MOE_COMPOSITION_BYTES]; /* baseline: contiguous (policy compared against) */
    uint32_t seed_count;                  /* seeds: 5 (runs per policy) */
    uint64_t first_seed;                  /* first_seed: 1 */
    bool attribution;                     /* attribution: true (straggler split, +-20 %) */
    bool noise;                           /* noise: true (hardware factors and jitter) */
    uint32_t counted_layers;              /* counted_layers: 0 (layer_sample.h; 0: all) */
};

/* Whether some layers are not counted in each step. */
static inline bool moe_scenario_samples_layers(const struct moe_scenario *scenario)
{
    return scenario->counted_layers > 0 &&
           scenario->counted_layers < scenario->model.moe_layer_count;
}

static inline uint32_t moe_cluster_gpu_count(const struct moe_cluster *cluster)
{
    return cluster->node_count * cluster->gpus_per_node;
}

/* Of the draft at position 0, 1, ... of a step, those before it being accepted. */
static inline double moe_serving_acceptance(const struct moe_serving *serving, uint32_t position)
{
    const uint32_t last = serving->acceptance_count - 1;
    return serving->acceptance_count == 0
               ? serving->acceptance
               : serving->acceptance_at[position < last ? position : last];
}

/* The placement that every policy of the scenario is asked for. */
struct moe_placement_shape moe_scenario_shape(const struct moe_scenario *scenario);

/* Every default; trace and model are empty. */
void moe_scenario_defaults(struct moe_scenario *scenario);

/* Reads a YAML file over the defaults, then the overrides "path.key=value" in order,
 * loads the model, checks everything that needs no trace.
 * path NULL: overrides only (moesim compare). Paths in the file (plug-ins too) are relative to
 * it, paths in overrides to the working directory; a list is given as "policies=lpt,eplb".
 * *scenario is written on success only. Errors: MOE_IO, MOE_LIMIT from the files;
 * MOE_PARSE, MOE_RANGE, MOE_UNSUPPORTED from what they say. */
enum moe_status moe_scenario_load(struct moe_scenario *scenario, const char *path,
                                  const char *const *overrides, uint32_t override_count,
                                  struct moe_error *err) MOE_MUST_CHECK;

/* The scenario as canonical YAML, every key written; reading it back gives the same
 * scenario. text_bytes is the capacity; asserted large enough (64 KiB is). */
void moe_scenario_write(const struct moe_scenario *scenario, char *text, uint32_t text_bytes);

/* The same from text instead of a file (run.db keeps it so). name stands in errors; paths
 * are relative to the working directory. */
enum moe_status moe_scenario_parse(struct moe_scenario *scenario, const char *text,
                                   const char *name, struct moe_error *err) MOE_MUST_CHECK;

/* One line per key: what it accepts, what it means, its default. */
void moe_scenario_print_keys(FILE *out);

/* A trace may be replayed with the sizes of another model of the same experts and top-k.
 * Errors: MOE_RANGE naming both. */
enum moe_status moe_scenario_check_trace(const struct moe_scenario *scenario,
                                         uint32_t trace_experts, uint32_t trace_top_k,
                                         struct moe_error *err) MOE_MUST_CHECK;

#endif
