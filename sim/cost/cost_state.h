/* struct moe_cost, for the files of sim/cost only. */
#ifndef MOE_SIM_COST_COST_STATE_H
#define MOE_SIM_COST_COST_STATE_H

#include "sim/cost/calibration.h"
#include "sim/cost/cost.h"
#include "sim/cost/curve.h"
#include "sim/cost/decode.h"
#include "sim/cost/norm.h"

enum {
    MOE_COST_MATRIX_LIMIT = 6,
    MOE_COST_SEGMENT_LIMIT = 6,
    MOE_COST_QUANTILE_COUNT = 7,
};

/* One weight matrix, read once a call: rows of tokens times its weights. */
struct moe_cost_matrix {
    struct moe_curve curve;
    double memory_ns; /* reading it */
    double row_ns;    /* computing one row */
};

/* Matrices one after the other, with what happens around them. */
struct moe_cost_block {
    struct moe_cost_matrix matrices[MOE_COST_MATRIX_LIMIT];
    uint32_t matrix_count;
    double token_ns;                /* copying and element-wise work per row */
    double launch_ns;               /* kernels besides the GEMMs */
    enum moe_provenance provenance; /* of those two */
};

/* The exchange over one class of links. */
struct moe_cost_link {
    const struct moe_calibration_segment *first; /* of the calibration */
    uint32_t segment_count;                      /* 0: the cluster has no such links */
    double to_bytes[MOE_COST_SEGMENT_LIMIT];
    double alpha_ns[MOE_COST_SEGMENT_LIMIT];
    double ns_per_byte[MOE_COST_SEGMENT_LIMIT];
    enum moe_provenance provenance[MOE_COST_SEGMENT_LIMIT];
};

/* A stored quantile and the line from it to the next; after the last one the line is flat. */
struct moe_cost_quantile {
    double at; /* share of the draws below */
    double value;
    double slope;
};

struct moe_cost {
    struct moe_curve expert;
    struct moe_norm_table expert_norm; /* of expert.p */
    double expert_memory_ns;           /* reading one expert */
    double expert_tile_ns;             /* computing one tile of one expert */
    double fullest_row_ns;             /* what a row of the fullest one adds */
    double permutation_ns;             /* to expert order and back, per assignment; 0: inside */

    struct moe_cost_block attention; /* of layers with KV */
    struct moe_cost_block linear;    /* of layers with linear attention */
    struct moe_cost_block index;     /* of an indexer's projections */
    struct moe_cost_block squeeze;   /* of making compressed entries in sparse layers, */
    struct moe_cost_block pool;      /* and in pooled ones */
    struct moe_cost_block dense;
    struct moe_cost_block shared;
    struct moe_cost_block gate;
    struct moe_cost_block head;
    double sample_ns;        /* per sampled row: logits read by softmax and sampling */
    double kv_token_ns;      /* attention's core: reading the KV of one token, one layer */
    double pair_ns;          /* scores and weighted sum of one pair */
    double expanded_pair_ns; /* MLA: the same with K and V expanded from the latent, */
    double expand_token_ns;  /* and expanding one token of context; 0: not MLA */
    double core_t0_ns;       /* fixed time of the core's kernels */
    double core_p;
    double core_inverse_p;
    struct moe_decode decode; /* of sequences with one row; without a series: as above */
    double index_read_ns;     /* reading the index key of one token, one layer */
    double index_pair_ns;     /* its score */
    double index_score_ns;    /* writing the score, and choosing */
    double index_core_p;
    double index_t0_ns;
    double sparse_ratio; /* tokens of an entry; 1 without sparse layers */
    double pooled_ratio;
    double sparse_share; /* of all layers: those that choose, */
    double index_share;  /* those that score for it, */
    double pooled_share; /* those that see everything compressed */
    double full_share;   /* of all layers: those that see the whole context */
    double window_share; /* those that see a window */
    double linear_share; /* and those that keep no KV */
    enum moe_provenance core_provenance;
    enum moe_parameter core_rate; /* which of them it reads by */
    const char *gpu_kind;

    struct moe_duration host_step;
    struct moe_cost_link links[2][MOE_LINK_COUNT]; /* dispatch, combine */
    double one_way_saving;  /* of the near links' time per byte; 0: not known */
    double own_ns_per_byte; /* 0: not known */
    enum moe_provenance own_provenance;
    double copy_bytes[2];
    double memory_bytes;

    /* Of how it is served (cost_deployment.c). */
    uint32_t attention_ranks;           /* GPUs that share an attention */
    struct moe_cost_link reduce;        /* what they move to sum a layer's output, */
    double reduce_row_bytes;            /* each of them, there and back, per row and half of it */
    struct moe_cost_link host;          /* host memory to the GPU */
    double sustained_factor;            /* time of arithmetic under load that lasts; 0: not known */
    struct moe_overlap_factors overlap; /* 1 where not known */

    uint32_t gpu_count; /* measured GPUs of this kind */
    const struct moe_gpu_factor *gpus;
    struct moe_calibration_factor factors[MOE_FACTOR_COUNT];
    struct moe_cost_quantile jitter[MOE_JITTER_COUNT][MOE_COST_QUANTILE_COUNT];
    struct moe_drift drift;
};

/* What the parts' initialisers work from. */
struct moe_cost_setup {
    struct moe_cost *cost;
    const struct moe_calibration *calibration;
    const struct moe_model *model;
    const struct moe_cluster *cluster;
    const char *kind;
    double parameters[MOE_PARAMETER_COUNT]; /* 0 where one that may be left out is */
    enum moe_provenance provenance[MOE_PARAMETER_COUNT];
    struct moe_arena *arena;
};

/* Appends a matrix of rows x columns to the block.
 * bytes_per_weight is the model's; it also chooses the series' dtype. */
enum moe_status moe_cost_block_add(struct moe_cost_block *block, const struct moe_cost_setup *setup,
                                   double rows, double columns, double bytes_per_weight,
                                   struct moe_error *err) MOE_MUST_CHECK;

/* launches kernels, and bytes read and written per row. */
void moe_cost_block_surround(struct moe_cost_block *block, const struct moe_cost_setup *setup,
                             double launches, double bytes_per_row);

/* The block over rows of tokens (0 tokens cost 0). */
struct moe_duration moe_cost_block_price(const struct moe_cost_block *block, double tokens,
                                         const struct moe_gpu_factor *factor);

/* bf16 from 1.5 bytes a weight on, fp8 from 0.75 on, else fp4. */
enum moe_dtype moe_cost_dtype(double bytes_per_weight);

enum moe_status moe_cost_init_expert(struct moe_cost_setup *setup,
                                     struct moe_error *err) MOE_MUST_CHECK;
enum moe_status moe_cost_init_attention(struct moe_cost_setup *setup,
                                        struct moe_error *err) MOE_MUST_CHECK;
enum moe_status moe_cost_init_layers(struct moe_cost_setup *setup,
                                     struct moe_error *err) MOE_MUST_CHECK;
enum moe_status moe_cost_init_exchange(struct moe_cost_setup *setup,
                                       struct moe_error *err) MOE_MUST_CHECK;
enum moe_status moe_cost_init_noise(struct moe_cost_setup *setup,
                                    struct moe_error *err) MOE_MUST_CHECK;

/* A curve over links of one class, of op or, where the calibration has none, of fallback. Errors:
 * MOE_RANGE when it has neither. */
enum moe_status moe_cost_link_init(struct moe_cost_link *out, const struct moe_cost_setup *setup,
                                   uint32_t op, uint32_t fallback, uint32_t link, uint32_t ranks,
                                   struct moe_error *err) MOE_MUST_CHECK;

/* So many bytes that one rank sends or receives. */
struct moe_duration moe_cost_link_duration(const struct moe_cost_link *link, double bytes);

/* What depends on how the model is served; NULL: as it is by default. */
enum moe_status moe_cost_init_deployment(struct moe_cost_setup *setup,
                                         const struct moe_serving *serving,
                                         struct moe_error *err) MOE_MUST_CHECK;

#endif
