#include "sim/engine/latency.h"

#include <assert.h>

#include "sim/base/no_malloc.h"

enum { SUB_BITS = 9, SUB_COUNT = 1 << SUB_BITS };

enum moe_status moe_latency_init(struct moe_latency *latency, struct moe_arena *arena,
                                 struct moe_error *err)
{
    *latency = (struct moe_latency){ .count = MOE_NEW(arena, uint64_t, MOE_LATENCY_BUCKETS),
                                     .min_ns = INT64_MAX };
    return latency->count != NULL ? MOE_OK : moe_fail(err, MOE_LIMIT, "no room for latencies");
}

/* Octave 0 holds 0 .. 1023 one by one; octave o > 0 holds [512 << o, 1024 << o). */
static uint32_t bucket_of(moe_time_ns ns)
{
    const uint64_t value = (uint64_t) ns;
    if (value < UINT64_C(2) * SUB_COUNT) {
        return (uint32_t) value;
    }
    const uint32_t top = 63 - (uint32_t) __builtin_clzll(value);
    const uint32_t octave = top - SUB_BITS;
    return octave * SUB_COUNT + (uint32_t) (value >> octave);
}

static double bucket_begin(uint32_t bucket)
{
    if (bucket < 2 * SUB_COUNT) {
        return bucket;
    }
    const uint32_t octave = bucket / SUB_COUNT - 1;
    return (double) ((uint64_t) (bucket - octave * SUB_COUNT) << octave);
}

void moe_latency_add(struct moe_latency *latency, moe_time_ns ns, uint64_t weight)
{
    assert(ns >= 0);
    if (weight == 0) {
        return;
    }
    const uint32_t bucket = bucket_of(ns);
    assert(bucket < MOE_LATENCY_BUCKETS);
    latency->count[bucket] += weight;
    latency->total += weight;
    latency->sum_ns += (double) ns * (double) weight;
    latency->min_ns = ns < latency->min_ns ? ns : latency->min_ns;
    latency->max_ns = ns > latency->max_ns ? ns : latency->max_ns;
}

double moe_latency_quantile(const struct moe_latency *latency, double q)
{
    assert(q >= 0.0);
    assert(q <= 1.0);
    const double wanted = q * (double) latency->total;
    double before = 0.0;
    if (latency->total == 0) {
        return 0.0;
    }
    for (uint32_t i = 0; i < MOE_LATENCY_BUCKETS; i++) {
        const double here = (double) latency->count[i];
        if (here > 0.0 && before + here >= wanted) {
            const double begin = bucket_begin(i);
            const double width = bucket_begin(i + 1) - begin;
            const double value =
                i < 2 * SUB_COUNT ? begin : begin + width * ((wanted - before) / here);
            const double low = (double) latency->min_ns;
            const double high = (double) latency->max_ns;
            return value < low ? low : value > high ? high : value;
        }
        before += here;
    }
    return (double) latency->max_ns;
}

double moe_latency_mean(const struct moe_latency *latency)
{
    return latency->total == 0 ? 0.0 : latency->sum_ns / (double) latency->total;
}
