/*
 * Quality: how far the fitted tables are from points that no fit has seen, against the gates
 * of design section 8. Errors are predicted / measured - 1, over every GPU that measured the
 * point, each predicted with its own factors at the clock that it ran at (the clock is measured
 * with every sample); drift is left in.
 */
#ifndef MOE_SIM_CALIBRATION_QUALITY_H
#define MOE_SIM_CALIBRATION_QUALITY_H

#include "sim/calibration/fitter.h"
#include "sim/calibration/repeats.h"

enum { MOE_QUALITY_LEAST_POINTS = 3 };

struct moe_quality {
    uint32_t series;            /* of the evidence */
    enum moe_fit_points points; /* which: held out, or uneven loads */
    enum moe_fit_status status;
    uint32_t fitted;  /* points that the tables of the series are made of */
    uint32_t checked; /* errors below are over so many (point, GPU) */
    double mape;      /* of the sizes whose gate is nearest or most broken */
    double p95;
    double bias; /* median */
    double worst;
    int64_t worst_point; /* id */
    double gate_mape;
    double gate_p95;            /* 1: there is none */
    struct moe_repeats repeats; /* of all points of the series */
    char reason[120];           /* "-" when there is nothing to say */
};

/* The error of each (point, GPU) of one series; errors[] and points[] must have room for all
 * observations. Gives how many. */
uint32_t moe_quality_errors(const struct moe_fitter *fitter, uint32_t series,
                            enum moe_fit_points points, double *errors, uint32_t *error_points,
                            uint32_t *error_gpus);

/* One row per series and kind of points that says anything: rows[2 * series_count].
 * Errors: MOE_LIMIT. */
enum moe_status moe_quality_check(struct moe_quality *rows, uint32_t *count,
                                  const struct moe_fitter *fitter,
                                  struct moe_error *err) MOE_MUST_CHECK;

/* All series of one table together: those with member_of[series] == index (of the fitter:
 * shape_of, line_of). checked is 0 where none has such points. Errors: MOE_LIMIT. */
enum moe_status moe_quality_together(struct moe_quality *row, const struct moe_fitter *fitter,
                                     const uint32_t *member_of, uint32_t index,
                                     enum moe_fit_points points,
                                     struct moe_error *err) MOE_MUST_CHECK;

/* Whether all series of a shape together meet the gate of experts. What nobody could check does
 * not. Errors: MOE_LIMIT. */
enum moe_status moe_quality_shape_holds(bool *holds, const struct moe_fitter *fitter,
                                        uint32_t shape, struct moe_error *err) MOE_MUST_CHECK;

#endif
