/*
 * Wall clock: seconds since some moment before the program began, never going back
 * (CLOCK_MONOTONIC). For limits, patience and what a person is told; in the simulator no result
 * may depend on it.
 */
#ifndef MOE_SIM_BASE_WALL_CLOCK_H
#define MOE_SIM_BASE_WALL_CLOCK_H

double moe_wall_clock_s(void);

#endif
