/*
 * Move contest: all ways to move the same bytes, side by side.
 */
#ifndef MOE_CALIBRATE_MOVE_CONTEST_H
#define MOE_CALIBRATE_MOVE_CONTEST_H

#include <stdbool.h>
#include <stdint.h>

#include "calibrate/bench/bench_result.h"
#include "calibrate/bench/contest.h"
#include "calibrate/timing/graph_timer.h"
#include "sim/base/error.h"

struct moe_move_variant {
    char name[32];
    bool is_library;
    void *context; /* for launch */
};

/* What the variants have in common. */
struct moe_move_family {
    const char *name;
    const char *size;
    double bytes;
    int32_t tokens;
    moe_graph_launch launch;
    bool in_stream; /* each replay launches anew, in no graph */
    const struct moe_move_variant *variants;
    uint32_t variant_count; /* at most MOE_CONTEST_LIMIT */
};

/* Measures and appends one move per variant; one that refuses is named in its move. What does
 * not fit behind MOE_BENCH_MOVE_LIMIT is left out. Errors: MOE_DEVICE when the GPU can't go on. */
enum moe_status moe_move_contest(struct moe_graph_timer *timer,
                                 const struct moe_move_family *family, double budget_s,
                                 uint64_t seed, struct moe_bench_moves *moves,
                                 struct moe_error *err) MOE_MUST_CHECK;

#endif
