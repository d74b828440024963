/*
 * Collectives as a table to read, one block per series, sizes ascending; points without a time are
 * left out.
 */
#ifndef MOE_CALIBRATE_COLLECTIVE_TABLE_H
#define MOE_CALIBRATE_COLLECTIVE_TABLE_H

#include <stdio.h>

#include "calibrate/collective/collective_plan.h"

/* Times are those of the slowest rank; GB/s: bytes that the busiest rank sends over the median, in
 * 10^9 per second. */
void moe_collective_table_print(FILE *out, const struct moe_collective_plan *plan);

/* What is planned: series, points by role, a guess of the seconds, memory. */
void moe_collective_table_plan(FILE *out, const struct moe_collective_plan *plan, double budget_s);

#endif
