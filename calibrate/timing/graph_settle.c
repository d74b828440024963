#include "calibrate/timing/graph_settle.h"

#include "sim/base/wall_clock.h"

enum moe_status moe_graph_settle(struct moe_graph_timer *timer, struct moe_graph_work *work,
                                 double boost_mhz, bool light, double seconds_most, bool *settled,
                                 struct moe_error *err)
{
    const double end_s = moe_wall_clock_s() + seconds_most;
    const double window_s = light ? MOE_SETTLE_WINDOW_S / 2.0 : MOE_SETTLE_WINDOW_S;
    double mhz[MOE_SETTLE_WINDOW_LIMIT];
    uint32_t count = 0;
    *settled = !(seconds_most > 0.0);
    while (!*settled && count < MOE_SETTLE_WINDOW_LIMIT && moe_wall_clock_s() < end_s) {
        MOE_TRY(moe_graph_window(timer, work, window_s, &mhz[count], err));
        if (!(mhz[count] > 0.0)) { /* no clock to go by */
            return MOE_OK;
        }
        count++;
        *settled = moe_settle_done(mhz, count, boost_mhz);
    }
    return MOE_OK;
}
