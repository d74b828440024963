/*
 * Figure: one number as a person reads it.
 *
 * Every function returns its text by value, always terminated. Thousands are parted by
 * commas, a share is given in percent, bytes in 10^9 (GB), as memory is sold and priced.
 * A value that is not known (NAN) reads "-". UTF-8 throughout.
 */
#ifndef MOE_SIM_REPORT_FIGURE_H
#define MOE_SIM_REPORT_FIGURE_H

#include <stddef.h>
#include <stdint.h>

#include "sim/engine/study.h"

struct moe_figure {
    char text[48];
};

/* 1234567 -> "1,234,567" */
struct moe_figure moe_figure_count(uint64_t value);
struct moe_figure moe_figure_signed(int64_t value);

/* With that many places behind the point: 1234.56, 1 -> "1,234.6" */
struct moe_figure moe_figure_fixed(double value, int places);

/* Four digits that count, never fewer than all before the point: 0.01234, 12.34, 1,234. */
struct moe_figure moe_figure_real(double value);

/* Half of an interval in the places of its mean: "± 12"; "" when it is not known. */
struct moe_figure moe_figure_half(struct moe_estimate estimate, int places);

/* Places that moe_figure_real shows of value. */
int moe_figure_places(double value);

/* 0.1234 -> "12.3 %"; a share above 0 that would read 0.0 is "<0.1 %". */
struct moe_figure moe_figure_share(double share);

/* A change of a ratio: 1.0623 -> "+6.2 %" */
struct moe_figure moe_figure_change(double ratio);

struct moe_figure moe_figure_gigabytes(double bytes); /* "12.3", in 10^9 bytes */

struct moe_figure moe_figure_hash(uint64_t hash); /* 16 hexadecimal digits */

/* Columns that UTF-8 text takes on a terminal (one per code point; ours are all narrow). */
size_t moe_figure_width(const char *text);

#endif
