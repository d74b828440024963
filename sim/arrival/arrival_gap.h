/*
 * Arrival gap: times between arrivals in units of their mean, and lengths of requests, as pure
 * functions of (key, number): draw n of a stream is the same whatever was drawn before.
 *
 * Only additions, multiplications, divisions, roots and logarithm.h, so that every machine
 * draws the same bits. Counters of draw n: n * MOE_GAP_DRAWS and the following.
 *
 * Gamma: G. Marsaglia and W. W. Tsang, "A simple method for generating gamma variables", ACM
 * TOMS 26 (2000), with U^(1/a) for shapes below 1. Normals: Marsaglia's polar method (1964).
 */
#ifndef MOE_SIM_ARRIVAL_ARRIVAL_GAP_H
#define MOE_SIM_ARRIVAL_ARRIVAL_GAP_H

#include <stdint.h>

#include "sim/scenario/arrival_options.h"

enum { MOE_GAP_DRAWS = 256 };

/* A family of gaps of mean 1. */
struct moe_gap_family {
    enum moe_arrival_kind kind; /* GAMMA, WEIBULL; anything else: exponential */
    double shape;
    double scale;
};

/* The family whose gaps have that coefficient of variation, 0.05 .. 20. */
struct moe_gap_family moe_gap_family_of(enum moe_arrival_kind kind, double cv);

/* Gap number n, > 0. */
double moe_gap_draw(const struct moe_gap_family *family, uint64_t key, uint64_t n);

/* Exponential of mean 1; one counter. */
double moe_gap_exponential(uint64_t key, uint64_t counter);

/* Standard normal number n. */
double moe_gap_normal(uint64_t key, uint64_t n);

/* A length of that mean and coefficient of variation, lognormal, rounded to the nearest whole
 * number in 1 .. longest; cv 0: the mean itself. */
uint32_t moe_length_draw(double mean, double cv, uint32_t longest, uint64_t key, uint64_t n);

#endif
