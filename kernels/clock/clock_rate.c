#include "kernels/clock/clock.h"

static void insert(double *sorted, int32_t count, double value)
{
    int32_t i = count;
    for (; i > 0 && sorted[i - 1] > value; i--) {
        sorted[i] = sorted[i - 1];
    }
    sorted[i] = value;
}

double moe_clock_mhz(const struct moe_clock_reading *before, const struct moe_clock_reading *after,
                     int32_t sm_count)
{
    double rates[MOE_CLOCK_SM_LIMIT];
    int32_t count = 0;
    for (int32_t sm = 0; sm < sm_count && sm < MOE_CLOCK_SM_LIMIT; sm++) {
        const int64_t cycles = after[sm].cycles - before[sm].cycles;
        const int64_t time_ns = after[sm].time_ns - before[sm].time_ns;
        if (before[sm].time_ns > 0 && after[sm].time_ns > 0 && cycles > 0 && time_ns > 0) {
            insert(rates, count, (double) cycles / (double) time_ns * 1e3);
            count++;
        }
    }
    if (count == 0) {
        return 0.0;
    }
    return (rates[(count - 1) / 2] + rates[count / 2]) / 2.0;
}
