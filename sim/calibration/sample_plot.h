/*
 * Plot of one series for a terminal: time over tokens (or bytes), both logarithmic.
 *
 *   o fitted   x held out   s uneven   . what the tables say in between
 */
#ifndef MOE_SIM_CALIBRATION_SAMPLE_PLOT_H
#define MOE_SIM_CALIBRATION_SAMPLE_PLOT_H

#include <stdio.h>

#include "sim/calibration/fit_samples.h"

/* active: of an expert's points only those with so many active; 0: the count with the most.
 * width and height in characters, at least 20 and 5.
 * Errors: MOE_RANGE when there is no such series (lists some) or it has no points; MOE_LIMIT. */
enum moe_status moe_sample_plot(const struct moe_sample_fit *fit, const char *series,
                                uint32_t active, uint32_t width, uint32_t height, FILE *out,
                                struct moe_error *err) MOE_MUST_CHECK;

#endif
