/*
 * Routing classes: kinds of tokens by the experts that they take, found by expectation
 * maximisation of a mixture of multinomials (a class's choices in a layer are drawn from its
 * popularity there, layers independent given the class).
 */
#ifndef MOE_TRACES_GENERATE_ROUTING_CLASSES_H
#define MOE_TRACES_GENERATE_ROUTING_CLASSES_H

#include <stdint.h>
#include <stdio.h>

#include "sim/base/error.h"

struct moe_routing_sample {
    uint32_t layer_count;
    uint32_t expert_count;
    uint32_t top_k;
    uint64_t token_count;
    const uint16_t *experts; /* [token][layer][k], MOE_EXPERT_UNKNOWN counts nowhere */
};

/* Finds class_count classes: popularity[class][layer][expert], each layer's summing to 1; and each
 * token's class, the likeliest: class_of[token]. progress is a stream for
 * how far the search is, or NULL. overall[layer][expert] is the popularity over
 * the whole trace, towards which a class with few tokens is drawn. Equal samples and seeds give
 * equal classes. Errors: MOE_LIMIT. */
enum moe_status moe_routing_classes_find(const struct moe_routing_sample *sample,
                                         const double *overall, uint32_t class_count, uint64_t seed,
                                         double *popularity, uint16_t *class_of, FILE *progress,
                                         struct moe_error *err) MOE_MUST_CHECK;

#endif
