/*
 * Shape rows: the points of one shape with one count of active experts, and the ratios of
 * measured to fitted time along them. Internal to sim/calibration; the door is shape_fit.h.
 */
#ifndef MOE_SIM_CALIBRATION_SHAPE_ROW_H
#define MOE_SIM_CALIBRATION_SHAPE_ROW_H

#include "sim/calibration/shape_fit.h"

/* Points [begin, end) of a shape. */
struct moe_shape_row {
    uint32_t begin;
    uint32_t end;
};

enum moe_shape_place { MOE_SHAPE_HAS, MOE_SHAPE_BETWEEN, MOE_SHAPE_BEYOND };

/* The row at begin; empty when begin is the shape's count. */
struct moe_shape_row moe_shape_row_next(const struct moe_shape *shape, uint32_t begin);

/* The row with the most points, of several the one with most active experts. */
struct moe_shape_row moe_shape_row_full(const struct moe_shape *shape);

/* Whether the row has a point of so many tokens, or lies on both sides of it. */
enum moe_shape_place moe_shape_row_place(const struct moe_shape *shape, struct moe_shape_row row,
                                         double tokens);

/* The row's ratio at tokens, as the curve takes it: linear in log2, held at the ends. */
double moe_shape_row_ratio(const struct moe_shape *shape, const struct moe_roofline *roofline,
                           double tile, struct moe_shape_row row, double tokens);

/* The row's ratio at tokens, as it follows the full row's: the quotient of both is linear in log2
 * of the tokens between the row's points, held at the ends. */
double moe_shape_row_followed(const struct moe_shape *shape, const struct moe_roofline *roofline,
                              double tile, struct moe_shape_row row, struct moe_shape_row full,
                              double tokens);

/* Bytes and FLOPs of a point: of whole tiles, of the fullest expert's rows (which its weight
 * counts), and both. */
double moe_shape_point_bytes(const struct moe_shape *shape, const struct moe_shape_point *point);
double moe_shape_tile_flops(const struct moe_shape *shape, const struct moe_shape_point *point,
                            double tile);
double moe_shape_fullest_flops(const struct moe_shape *shape, double rows);
double moe_shape_point_flops(const struct moe_shape *shape, const struct moe_roofline *roofline,
                             const struct moe_shape_point *point, double tile);

/* Measured over fitted. */
double moe_shape_point_ratio(const struct moe_shape *shape, const struct moe_roofline *roofline,
                             const struct moe_shape_point *point, double tile);

/* An error's part of a sum that one odd point does not rule: beyond 5 %, the size of kernel
 * switches, it counts linearly. */
#define MOE_SHAPE_SOFT 0.05
double moe_shape_softened(double log_error);

#endif
