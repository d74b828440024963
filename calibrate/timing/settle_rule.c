#include "calibrate/timing/settle_rule.h"

#include <math.h>

enum { AT_BOOST = 3, BELOW_BOOST = 5 };

bool moe_settle_done(const double *mhz, uint32_t count, double boost_mhz)
{
    if (count == 0) {
        return false;
    }
    const bool boosts = boost_mhz > 0.0 && mhz[count - 1] >= MOE_SETTLE_BOOST_SHARE * boost_mhz;
    const uint32_t needed = boosts ? AT_BOOST : BELOW_BOOST;
    double low = INFINITY;
    double high = 0.0;
    if (count < needed) {
        return false;
    }
    for (uint32_t i = count - needed; i < count; i++) {
        low = fmin(low, mhz[i]);
        high = fmax(high, mhz[i]);
    }
    return high <= low * (1.0 + (boosts ? MOE_SETTLE_WITHIN : MOE_SETTLE_STEP));
}
