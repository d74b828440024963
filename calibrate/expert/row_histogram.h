/*
 * Row histograms: how the rows of one call fall upon the local experts, as tests and benches
 * make them. All of one size have the same number of rows, expert_count * rows_per_expert, so
 * that the cost of skew is not mixed with the cost of more work.
 */
#ifndef MOE_CALIBRATE_ROW_HISTOGRAM_H
#define MOE_CALIBRATE_ROW_HISTOGRAM_H

#include <stdint.h>

enum moe_row_histogram {
    MOE_ROW_UNIFORM,
    MOE_ROW_HOT8X,      /* one expert gets 8 times what each other one gets */
    MOE_ROW_ZIPF,       /* the r-th hottest of a shuffled order gets a share of r^-1.2 */
    MOE_ROW_HALF_EMPTY, /* every second expert gets nothing, the others double */
    MOE_ROW_HISTOGRAM_COUNT
};

/* "uniform", "hot8x", "zipf1.2", "half-empty". */
const char *moe_row_histogram_name(enum moe_row_histogram kind);

/* Fills row_offset[expert_count + 1]; expert e has rows row_offset[e] up to row_offset[e + 1].
 * Shares are rounded by largest remainder, ties to the lower expert.
 * expert_count in 1 .. 1024; expert_count * rows_per_expert < 2^31. */
void moe_row_histogram_make(enum moe_row_histogram kind, int32_t expert_count,
                            int32_t rows_per_expert, int32_t *row_offset);

/* shares[expert_count], not normalised: r^-exponent of the r-th hottest expert in an order that is
 * the same in every run. expert_count in 1 .. 1024. */
void moe_row_zipf_shares(int32_t expert_count, double exponent, double *shares);

/* rows[expert_count] that add up to total, in proportion to shares, which are at least 0 and not
 * all 0; by largest remainder, ties to the lower expert. expert_count in 1 .. 1024. */
void moe_row_share_round(const double *shares, int32_t expert_count, int32_t total, int32_t *rows);

/* What decides the time of a call besides its number of rows. */
struct moe_row_load {
    int32_t row_count;
    int32_t active_count; /* experts with rows */
    int32_t row_max;      /* rows of the fullest expert */
    int64_t tiles64;      /* sum over experts of ceil(rows / 64) */
    int64_t tiles128;
};
struct moe_row_load moe_row_load_read(const int32_t *row_offset, int32_t expert_count);

#endif
