/*
 * Property: something that holds of every instance, tried on many random ones; a failing one
 * is shrunk before it is shown.
 *
 * An instance is built from a list of whole numbers, drawn one after another. Shrinking knows
 * nothing of what they mean: it drops pieces of the list, and makes numbers smaller, as long as
 * the property still fails. A list that is used up goes on with zeros, so that every shorter
 * list is an instance too; generators therefore make 0 the simplest choice.
 * The idea is that of Hypothesis (D. MacIver, A. Donaldson, ECOOP 2020).
 */
#ifndef MOE_TESTS_PROPERTY_H
#define MOE_TESTS_PROPERTY_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

enum { PROPERTY_DRAW_LIMIT = 8192, PROPERTY_TEXT_LIMIT = 1024 };

struct draws {
    uint64_t key; /* of fresh numbers; 0: the list alone, then zeros */
    size_t count; /* numbers of the list */
    size_t used;
    uint32_t value[PROPERTY_DRAW_LIMIT];
};

/* 0 .. bound-1; bound >= 1. Beyond PROPERTY_DRAW_LIMIT always 0. */
uint32_t draw_below(struct draws *draws, uint32_t bound);

/* Whether the property holds of the instance that draws gives; if not, why, in why[]. */
typedef bool property(struct draws *draws, void *context, char why[PROPERTY_TEXT_LIMIT]);

/* Tries so many instances. NULL when all hold; else what to say of the smallest failing one that
 * was found (static memory): the reason and its numbers. */
const char *property_fails(property *holds, void *context, uint64_t seed, uint32_t cases);

#endif
