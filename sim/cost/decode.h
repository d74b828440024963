/*
 * Decode: attention of decoding, one series of the calibration made ready for the hot path.
 *
 * Sequences of one context each (of a batch: the mean) give blocks * sequences pieces of work,
 * which sim/base/split_plan.h divides over `splits` blocks each, of `each` tiles of the context.
 * The GPU runs `slots` blocks at once, so they go in rounds, the last of which may be nearly empty
 * and still takes its time:
 *   t = ratio * (t0 + full * (round + each * tile(slots)) + (rest > 0) * (round + each * tile(rest))
 *                + (splits > 1) * (join + splits * split + rows * row) + bytes / bandwidth)
 *   tile(n) = (tile_ns^p + (n * tile_bytes / bandwidth)^p)^(1/p)
 * full and rest: blocks / slots and what remains; tile_ns is a tile's time when nothing else asks
 * for memory; rows = sequences * q_heads are joined; bytes are those of q, the output and, with
 * splits, their parts, written and read. The last tile of a context counts in full. memory
 * multiplies what goes over the bandwidth, compute multiplies tile_ns. ratio is measured / fitted,
 * as in curve.h, with context for tokens and sequences for active: exact at points, held at the
 * border, and extrapolated there.
 * Source: the kernel's own plan; that rounds foretell left-out anchors better than smooth curves
 * do: results/calibrations/README.md.
 */
#ifndef MOE_SIM_COST_DECODE_H
#define MOE_SIM_COST_DECODE_H

#include <stdbool.h>

#include "sim/base/arena.h"
#include "sim/base/error.h"
#include "sim/cost/calibration.h"
#include "sim/cost/curve.h"

/* How a batch is launched. */
struct moe_decode_plan {
    double splits;
    double each;  /* tiles of a block */
    double full;  /* rounds of all slots */
    double rest;  /* blocks of the round after those */
    double rows;  /* of q heads */
    double bytes; /* of q, output and parts */
};

/* A row of the calibration without points. */
struct moe_decode_fit {
    double tokens; /* of a tile */
    double blocks; /* of a sequence */
    double slots;
    double q_heads;
    double row_bytes;  /* q and output of a sequence */
    double part_bytes; /* of a q head and split: written and read */
    double tile_bytes; /* read by a block */
    double t0_ns;
    double round_ns;
    double tile_ns;
    double ns_per_byte;
    double p;
    double inverse_p;
    double join_ns;
    double split_ns;
    double row_ns;
};

struct moe_decode {
    const struct moe_calibration_decode *series; /* of the calibration; NULL: there is none */
    struct moe_decode_fit fit;
    struct moe_curve ratio; /* of it only the rows of points and what lies between or beyond */
};

/* What is looked for. */
struct moe_decode_key {
    const char *gpu_kind;
    enum moe_decode_kind kind;
    uint32_t q_heads;
    uint32_t kv_heads; /* mla: 1 */
    uint32_t head_size;
    uint32_t value_size;
};

/* decode->series is NULL when the calibration has no such shape. Errors: MOE_LIMIT when the arena
 * is full. */
enum moe_status moe_decode_init(struct moe_decode *decode,
                                const struct moe_calibration *calibration,
                                const struct moe_decode_key *key, struct moe_arena *arena,
                                struct moe_error *err) MOE_MUST_CHECK;

/* The fit of a row of table decode. */
void moe_decode_from_row(struct moe_decode_fit *fit, const struct moe_calibration_decode *row);

/* sequences and context are positive; parts of one count as a whole one. */
void moe_decode_plan_make(struct moe_decode_plan *plan, const struct moe_decode_fit *fit,
                          double sequences, double context);

/* Without the correction by points. */
double moe_decode_fitted_ns(const struct moe_decode_fit *fit, const struct moe_decode_plan *plan,
                            double memory, double compute);

/* With it, and where it comes from. memory and compute are factors of time. */
double moe_decode_ns(const struct moe_decode *decode, double sequences, double context,
                     double memory, double compute, enum moe_provenance *provenance);

/* Adds the correction at points[count] of one series, in any order, no two alike. Errors:
 * MOE_LIMIT. */
enum moe_status moe_decode_correct(struct moe_decode *decode,
                                   const struct moe_calibration_decode_point *points,
                                   uint32_t count, struct moe_arena *arena,
                                   struct moe_error *err) MOE_MUST_CHECK;

#endif
