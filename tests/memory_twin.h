/*
 * Memory twin: what is left for KV on the fullest GPU, once more from the words of memory.h.
 */
#ifndef MOE_TESTS_MEMORY_TWIN_H
#define MOE_TESTS_MEMORY_TWIN_H

#include "tests/engine_twin.h"

/* Sets r->weights_fit, fits and kv_tokens: KV tokens that fit beside the weights of the fullest
 * GPU, and whether they are enough for the longest request. */
void memory_twin_find(const struct twin_case *c, struct twin_result *r);

#endif
