/*
 * Random numbers as a pure function of (seed, purpose, counters).
 *
 * There is no generator state: the draw for "jitter of rank 7 in layer 3 of step
 * 912" is the same number whoever asks, in whatever order and on whatever thread.
 * So two policies under one seed meet the same hardware and the same jitter
 * (common random numbers), and adding a draw somewhere moves no other draw.
 *
 * Source: B. Widynski, "Squares: A Fast Counter-Based RNG", arXiv 2004.06278
 * (five rounds, 64 bits); keys are spread with SplitMix64 (G. Steele, D. Lea,
 * C. Flood, OOPSLA 2014).
 */
#ifndef MOE_SIM_BASE_RANDOM_H
#define MOE_SIM_BASE_RANDOM_H

#include <stdint.h>

/* One independent stream for each use. Append only: the number is part of a run. */
enum moe_random_purpose {
    MOE_RANDOM_REQUEST_ORDER,     /* shuffles of the workload */
    MOE_RANDOM_LAYER_PERMUTATION, /* expert relabelling of repeated layers */
    MOE_RANDOM_GPU_FACTOR,        /* which hardware factors a simulated GPU gets */
    MOE_RANDOM_JITTER,            /* per step, layer and rank */
    MOE_RANDOM_DRIFT,             /* slow part of the noise */
    MOE_RANDOM_POLICY,            /* decisions of randomised policies */
    MOE_RANDOM_TEST,
    MOE_RANDOM_ARRIVALS,     /* requests of arrival files that state distributions */
    MOE_RANDOM_GENERATE,     /* synthetic traces */
    MOE_RANDOM_BOOTSTRAP,    /* which points a replicate of a fit is made of */
    MOE_RANDOM_DRAFTS,       /* which draft tokens are accepted */
    MOE_RANDOM_LAYER_SAMPLE, /* which layers are counted in a step */
};

/* SplitMix64's finaliser: a bijection that spreads every bit. */
static inline uint64_t moe_random_mix(uint64_t x)
{
    x += UINT64_C(0x9e3779b97f4a7c15);
    x = (x ^ (x >> 30)) * UINT64_C(0xbf58476d1ce4e5b9);
    x = (x ^ (x >> 27)) * UINT64_C(0x94d049bb133111eb);
    return x ^ (x >> 31);
}

/* The key of a stream; compute once, draw often. Always odd. */
static inline uint64_t moe_random_key(uint64_t seed, enum moe_random_purpose purpose)
{
    return moe_random_mix(moe_random_mix(seed) ^ (uint64_t) purpose) | 1;
}

/* 64 uniform bits for one counter value. */
static inline uint64_t moe_random_bits(uint64_t key, uint64_t counter)
{
    uint64_t x = counter * key;
    const uint64_t y = x;
    const uint64_t z = y + key;
    x = x * x + y;
    x = (x >> 32) | (x << 32);
    x = x * x + z;
    x = (x >> 32) | (x << 32);
    x = x * x + y;
    x = (x >> 32) | (x << 32);
    x = x * x + z;
    const uint64_t t = x;
    x = (x >> 32) | (x << 32);
    return t ^ ((x * x + y) >> 32);
}

/* Uniform in [0, 1), a multiple of 2^-53. */
static inline double moe_random_uniform(uint64_t key, uint64_t counter)
{
    return (double) (moe_random_bits(key, counter) >> 11) * 0x1p-53;
}

/* The same half a step further inside: in (0, 1), so that a quantile function of it is finite.
 * (The largest draw would round to 1 and stays where it is.) */
static inline double moe_random_inside(uint64_t key, uint64_t counter)
{
    const double u = moe_random_uniform(key, counter);
    return u < 1.0 - 0x1p-53 ? u + 0x1p-54 : u;
}

/* Uniform in 0 .. bound-1, bound >= 1; bias below bound / 2^64. */
static inline uint64_t moe_random_below(uint64_t key, uint64_t counter, uint64_t bound)
{
    __extension__ typedef unsigned __int128 wide;
    return (uint64_t) (((wide) moe_random_bits(key, counter) * bound) >> 64);
}

#endif
