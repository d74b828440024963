/*
 * The clock that the SMs really had while some work ran. The same stream is stamped before and
 * after the work: each SM's own cycle counter, which also counts between kernels, beside the time
 * in nanoseconds. Cycles over nanoseconds of one SM is its mean clock in between, throttling
 * included, which no reading of a sensor beside the work tells for less than about a second.
 *
 * Stretches of a millisecond and more are measured to better than 0.1 %: the time's ticks, which
 * may be a microsecond apart, are waited for, and what is stamped is the moment of a tick.
 */
#ifndef MOE_KERNELS_CLOCK_H
#define MOE_KERNELS_CLOCK_H

#include <stdint.h>

#ifdef __cplusplus
extern "C" {
#endif

struct moe_clock_reading {
    int64_t cycles;  /* of this SM's counter; both are 0 where the SM was not reached */
    int64_t time_ns; /* of the GPU's clock, the same for all its SMs */
};

/* stamps_dev[sm_count], indexed by SM: filled when the stream gets there, in a few microseconds.
 * Returns 0 or a cudaError_t; cudaErrorInvalidValue for sm_count < 1 or no stamps. */
int moe_clock_stamp(struct moe_clock_reading *stamps_dev, int32_t sm_count, void *stream);

/* Median over the SMs that have both stamps, in MHz; 0 when none has. Host memory; at most
 * MOE_CLOCK_SM_LIMIT SMs are looked at. */
enum { MOE_CLOCK_SM_LIMIT = 1024 };
double moe_clock_mhz(const struct moe_clock_reading *before, const struct moe_clock_reading *after,
                     int32_t sm_count);

#ifdef __cplusplus
}
#endif
#endif
