/*
 * Settle rule: when a piece of work that runs over and over has the clock that it keeps.
 *
 * A GPU at its power limit lowers its clock within some 50 ms, keeps it there for some 100 ms after
 * the load has gone, and takes as long again to raise it (H200: 1725 MHz for 60 ms, then 1965 after
 * as many, with kernels of 8 us). So windows of MOE_SETTLE_WINDOW_S must agree: three of them at
 * the highest clock, which nothing holds down; five (100 ms) below it, where a plateau may be due
 * to the work before.
 */
#ifndef MOE_CALIBRATE_SETTLE_RULE_H
#define MOE_CALIBRATE_SETTLE_RULE_H

#include <stdbool.h>
#include <stdint.h>

#define MOE_SETTLE_WINDOW_S    0.02
#define MOE_SETTLE_WITHIN      0.007 /* of each other, the clocks of windows that agree */
#define MOE_SETTLE_STEP        0.011 /* below the highest: one step of 15 MHz, between which it swings */
#define MOE_SETTLE_BOOST_SHARE 0.985 /* an H200 says 1965 or 1980 of 1980 MHz, by its mood */

/* Whether windows of these clocks, in order, end it. boost_mhz 0: not known. */
bool moe_settle_done(const double *mhz, uint32_t count, double boost_mhz);

#endif
