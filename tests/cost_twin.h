/*
 * Cost twin: the prices of sim/cost/cost.h once more, written from its words, slow and
 * plain, without any header of the program but random numbers. Every call looks its
 * figures up in the rows of the CSV table again.
 */
#ifndef MOE_TESTS_COST_TWIN_H
#define MOE_TESTS_COST_TWIN_H

#include <stdbool.h>
#include <stdint.h>

#include "tests/calibration_twin.h"

/* In the order of enum moe_cost_part and enum moe_provenance; the test asserts it. */
enum twin_part {
    TWIN_ATTENTION,
    TWIN_DENSE,
    TWIN_GATE,
    TWIN_SHARED,
    TWIN_DISPATCH,
    TWIN_EXPERT,
    TWIN_COMBINE,
    TWIN_HEAD,
    TWIN_HOST,
    TWIN_PARTS
};

struct twin_model {
    uint32_t layers; /* hidden layers, dense ones included */
    uint32_t moe_layers;
    uint32_t hidden;
    uint32_t vocabulary;
    bool tied;
    uint32_t experts;
    uint32_t groups;
    uint32_t top_k;
    uint32_t expert_size;
    uint32_t expert_hidden; /* 0 = hidden */
    uint32_t shared_size;
    uint32_t dense_size;
    bool gated;
    bool mla;
    bool shared; /* one vector is K and V of all heads */
    uint32_t heads;
    uint32_t kv_heads;
    uint32_t head_size;
    uint32_t q_lora;
    uint32_t kv_lora;
    uint32_t rope;
    uint32_t value_size;
    bool gated_attention;
    uint32_t kv_layers;
    uint32_t window_layers;
    uint32_t window;
    double linear_weights;
    uint32_t output_rank;
    uint32_t output_groups;
    uint32_t streams;
    uint32_t sparse_layers; /* of kv_layers */
    uint32_t sparse_entries;
    uint32_t sparse_ratio; /* 1 or more in sparse layers */
    uint32_t pooled_layers;
    uint32_t pooled_ratio;
    uint32_t index_layers;
    uint32_t index_heads;
    uint32_t index_size;
    uint32_t index_block;
    double index_bytes;  /* per value */
    double expert_bytes; /* per weight */
    double dense_bytes;
    double kv_bytes; /* per value */
};

struct twin_duration {
    double ns;
    enum twin_source source;
};

/* One rank's own tokens in a step. */
struct twin_tokens {
    double tokens;
    double sampled;
    double read; /* of a layer that sees everything */
    double pairs;
    double decode_read;
    double decode_sequences;
    double window_read;
    double window_pairs;
    double sparse_read; /* in tokens, before compression */
    double sparse_pairs;
    double sparse_decode;
};

struct twin_exchange {
    double near_out;
    double near_in;
    double far_out;
    double far_in;
    double near_own;
};

struct cost_twin {
    struct calibration_twin table;
    struct twin_model model;
    uint32_t nodes;
    uint32_t gpus_per_node;
};

/* Whether the model's decode attention has a series of its own, and so many sequences of so much
 * context by that. */
bool cost_twin_has_decode(const struct cost_twin *twin);
double cost_twin_decode_t0(const struct cost_twin *twin);
struct twin_duration cost_twin_decode(const struct cost_twin *twin, double sequences,
                                      double context, struct twin_factor factor);

uint32_t cost_twin_tile(const struct cost_twin *twin);
double cost_twin_memory_bytes(const struct cost_twin *twin);
double cost_twin_copy_bytes(const struct cost_twin *twin, enum twin_part part);

struct twin_duration cost_twin_expert(const struct cost_twin *twin, double tokens, double active,
                                      double tiles, double fullest, struct twin_factor factor);
struct twin_duration cost_twin_exchange(const struct cost_twin *twin, enum twin_part part,
                                        struct twin_exchange work, struct twin_factor factor);
/* So many bytes over the links of either class at once; nominal. */
struct twin_duration cost_twin_bulk(const struct cost_twin *twin, enum twin_part part, double near,
                                    double far);
/* ATTENTION, DENSE, GATE, SHARED, HEAD and HOST. */
struct twin_duration cost_twin_own(const struct cost_twin *twin, enum twin_part part,
                                   const struct twin_tokens *work, struct twin_factor factor);

/* Values of one entry of KV in one layer. */
double cost_twin_entry_values(const struct twin_model *model);

/* Bytes of a GPU's weights that are no routed experts, of one expert, of a token's KV, of the
 * windows that a running request keeps beside that. */
double cost_twin_window_bytes(const struct twin_model *model);
double cost_twin_nonexpert_bytes(const struct twin_model *model);
double cost_twin_expert_bytes(const struct twin_model *model);
double cost_twin_kv_bytes(const struct twin_model *model);

#endif
