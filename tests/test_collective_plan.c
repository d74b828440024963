/* The plan of collectives, its matrices and patterns: what must hold of every size and rank
 * count. */
#include <criterion/criterion.h>
#include <math.h>
#include <stdlib.h>
#include <string.h>

#include "calibrate/collective/collective_plan.h"
#include "calibrate/collective/exchange_matrix.h"
#include "calibrate/collective/exchange_pattern.h"

enum { CELLS = 1 << 14 };

static const int64_t KNEE = 524288;

static struct moe_collective_plan plan_of(uint32_t ranks, uint64_t seed)
{
    struct moe_error err = { 0 };
    struct moe_collective_plan plan = { 0 };
    const struct moe_collective_request request = moe_collective_request_all(ranks, true, seed);
    cr_assert_eq(moe_collective_plan_make(&request, &plan, &err), MOE_OK, "%s", err.text);
    return plan;
}

static uint32_t series_named(const struct moe_collective_plan *plan, const char *name)
{
    uint32_t found = UINT32_MAX;
    for (uint32_t i = 0; i < plan->series_count; i++) {
        if (strcmp(plan->series[i].name, name) == 0) {
            cr_assert_eq(found, UINT32_MAX, "two series %s", name);
            found = i;
        }
    }
    return found;
}

static uint32_t role_count(const struct moe_collective_plan *plan, uint32_t series,
                           enum moe_collective_role role)
{
    uint32_t count = 0;
    for (uint32_t i = 0; i < plan->point_count; i++) {
        count += plan->points[i].series == series && plan->points[i].role == role;
    }
    return count;
}

static bool has_size(const struct moe_collective_plan *plan, uint32_t series, int64_t bytes)
{
    for (uint32_t i = 0; i < plan->point_count; i++) {
        if (plan->points[i].series == series && plan->points[i].bytes_per_peer == bytes) {
            return true;
        }
    }
    return false;
}

Test(collective_plan, series_of_two_ranks)
{
    static const char *const names[] = { "all_to_all-2",     "all_to_all_api-2", "all_to_all_v-2",
                                         "all_gather-2",     "reduce_scatter-2", "all_reduce-2",
                                         "p2p-0-1",          "p2p-1-0",          "p2p_both-0-1",
                                         "peer_copy-0-1",    "peer_copy-1-0",    "host_to_device-1",
                                         "host_to_device-2", "overlap-2" };
    struct moe_collective_plan plan = plan_of(2, 1);
    for (size_t i = 0; i < sizeof names / sizeof names[0]; i++) {
        cr_assert_neq(series_named(&plan, names[i]), UINT32_MAX, "no series %s", names[i]);
    }
    cr_assert_eq(plan.series_count, sizeof names / sizeof names[0]);
    /* 1 KiB to 256 MiB in powers of two; sends also on both sides of 512 KiB per peer. */
    const uint32_t exchange = series_named(&plan, "all_to_all-2");
    const uint32_t gather = series_named(&plan, "all_gather-2");
    cr_assert_eq(role_count(&plan, gather, MOE_COLLECTIVE_ANCHOR), 19);
    cr_assert_eq(role_count(&plan, exchange, MOE_COLLECTIVE_ANCHOR), 21);
    cr_assert(has_size(&plan, exchange, 512));
    cr_assert(has_size(&plan, exchange, INT64_C(128) << 20));
    cr_assert(has_size(&plan, exchange, KNEE / 16 * 15));
    cr_assert(has_size(&plan, exchange, KNEE));
    cr_assert(has_size(&plan, exchange, KNEE / 16 * 17));
    cr_assert(has_size(&plan, series_named(&plan, "p2p-0-1"), KNEE / 16 * 17));
    cr_assert_eq(role_count(&plan, exchange, MOE_COLLECTIVE_HELD_OUT), 12);
    cr_assert_eq(role_count(&plan, series_named(&plan, "all_to_all_v-2"), MOE_COLLECTIVE_SKEW), 16);
    moe_collective_plan_free(&plan);
}

Test(collective_plan, groups_are_powers_of_two_and_all)
{
    struct moe_collective_plan plan = plan_of(6, 1);
    const char *const yes[] = { "all_to_all-2", "all_to_all-4", "all_to_all-6", "p2p-5-4" };
    const char *const no[] = { "all_to_all-3", "all_to_all-5", "all_to_all-8", "p2p_both-5-4" };
    for (int i = 0; i < 4; i++) {
        cr_assert_neq(series_named(&plan, yes[i]), UINT32_MAX, "no %s", yes[i]);
        cr_assert_eq(series_named(&plan, no[i]), UINT32_MAX, "%s", no[i]);
    }
    /* 30 ordered pairs: all but those of the first two GPUs are coarse. */
    cr_assert_eq(role_count(&plan, series_named(&plan, "p2p-1-0"), MOE_COLLECTIVE_ANCHOR), 21);
    cr_assert_eq(role_count(&plan, series_named(&plan, "p2p-2-0"), MOE_COLLECTIVE_ANCHOR), 7);
    moe_collective_plan_free(&plan);
    plan = plan_of(1, 1);
    cr_assert_eq(plan.series_count, 1);
    cr_assert_str_eq(plan.series[0].name, "host_to_device-1");
    moe_collective_plan_free(&plan);
}

Test(collective_plan, refuses)
{
    struct moe_error err = { 0 };
    struct moe_collective_plan plan;
    struct moe_collective_request request = moe_collective_request_all(0, true, 1);
    cr_assert_eq(moe_collective_plan_make(&request, &plan, &err), MOE_RANGE);
    request = moe_collective_request_all(MOE_COLLECTIVE_RANK_LIMIT + 1, true, 1);
    cr_assert_eq(moe_collective_plan_make(&request, &plan, &err), MOE_RANGE);
    request = moe_collective_request_all(2, true, 1);
    request.least_bytes = 15;
    cr_assert_eq(moe_collective_plan_make(&request, &plan, &err), MOE_RANGE);
    request.least_bytes = 2048;
    request.most_bytes = 2047;
    cr_assert_eq(moe_collective_plan_make(&request, &plan, &err), MOE_RANGE);
}

Test(collective_plan, without_nccl_only_copies)
{
    struct moe_error err = { 0 };
    struct moe_collective_plan plan;
    const struct moe_collective_request request = moe_collective_request_all(2, false, 1);
    cr_assert_eq(moe_collective_plan_make(&request, &plan, &err), MOE_OK);
    for (uint32_t i = 0; i < plan.series_count; i++) {
        cr_assert_not(moe_collective_op_nccl(plan.series[i].op), "%s", plan.series[i].name);
    }
    cr_assert_eq(plan.series_count, 4);
    moe_collective_plan_free(&plan);
}

/* Held-out sizes: by seed, odd grains, one in each twelfth of log N, none planned twice. */
Test(collective_plan, held_out_sizes)
{
    struct moe_collective_plan plan = plan_of(2, 7);
    struct moe_collective_plan same = plan_of(2, 7);
    struct moe_collective_plan other = plan_of(2, 8);
    const uint32_t series = series_named(&plan, "all_gather-2");
    const double width = log(262144.0) / 12.0;
    uint32_t differ = 0;
    uint32_t at = 0;
    cr_assert_eq(plan.point_count, same.point_count);
    for (uint32_t i = 0; i < plan.point_count; i++) {
        const struct moe_collective_point *point = &plan.points[i];
        cr_assert_eq(point->bytes_per_peer, same.points[i].bytes_per_peer);
        cr_assert_eq(point->bytes_per_peer % MOE_COLLECTIVE_GRAIN, 0);
        for (uint32_t k = 0; k < i; k++) {
            cr_assert(plan.points[k].series != point->series ||
                      plan.points[k].bytes_per_peer != point->bytes_per_peer ||
                      plan.points[k].matrix != point->matrix || plan.points[k].rows != point->rows);
        }
        if (point->series != series || point->role != MOE_COLLECTIVE_HELD_OUT) {
            continue;
        }
        const double place = log((double) point->bytes_per_peer * 2.0 / 1024.0) / width;
        cr_assert_eq(point->bytes_per_peer / MOE_COLLECTIVE_GRAIN % 2, 1);
        cr_assert(place > (double) at - 0.1 && place < (double) at + 1.1, "size %u at %g",
                  (unsigned) at, place);
        differ += i < other.point_count && other.points[i].bytes_per_peer != point->bytes_per_peer;
        at++;
    }
    cr_assert_eq(at, 12);
    cr_assert_gt(differ, 6);
    moe_collective_plan_free(&plan);
    moe_collective_plan_free(&same);
    moe_collective_plan_free(&other);
}

/* Times that are a straight line get no more points; a step gets points on both sides of it. */
Test(collective_plan, refines_where_the_curve_bends)
{
    struct moe_error err = { 0 };
    struct moe_collective_plan plan = plan_of(2, 1);
    const uint32_t before = plan.point_count;
    const uint32_t gather = series_named(&plan, "all_gather-2");
    for (uint32_t i = 0; i < before; i++) {
        plan.points[i].median_us = 10.0 + (double) plan.points[i].bytes_per_peer / 200e3;
    }
    cr_assert_eq(moe_collective_plan_refine(&plan, &err), MOE_OK);
    cr_assert_eq(plan.point_count, before, "%u points on straight lines",
                 (unsigned) (plan.point_count - before));
    for (uint32_t i = 0; i < before; i++) {
        const bool stepped =
            plan.points[i].series == gather && plan.points[i].bytes_per_peer > 40000;
        plan.points[i].median_us += stepped ? 6.0 : 0.0;
    }
    cr_assert_eq(moe_collective_plan_refine(&plan, &err), MOE_OK);
    cr_assert_gt(plan.point_count, before);
    cr_assert(has_size(&plan, gather, 46336), "the step from 32 to 64 KiB has no point inside");
    for (uint32_t i = before; i < plan.point_count; i++) {
        cr_assert_eq(plan.points[i].series, gather);
        cr_assert_eq(plan.points[i].role, MOE_COLLECTIVE_REFINE);
        cr_assert(plan.points[i].bytes_per_peer > 16384 && plan.points[i].bytes_per_peer < 131072);
    }
    const uint32_t refined = plan.point_count;
    cr_assert_eq(moe_collective_plan_refine(&plan, &err), MOE_OK);
    cr_assert_eq(plan.point_count, refined, "the same points twice");
    moe_collective_plan_free(&plan);
}

Test(collective_plan, order_is_a_permutation_by_seed_and_pass)
{
    struct moe_collective_plan plan = plan_of(2, 3);
    const uint32_t count = plan.point_count - 5;
    uint32_t *order = calloc(3 * (size_t) count, sizeof *order);
    cr_assert_not_null(order);
    uint32_t moved = 0;
    for (uint32_t pass = 0; pass < 3; pass++) { /* the last is the first again */
        moe_collective_plan_shuffle(&plan, 5, count, pass % 2, order + (size_t) pass * count);
    }
    cr_assert_arr_eq(order, order + 2 * (size_t) count, count * sizeof *order);
    bool *seen = calloc(plan.point_count, sizeof *seen);
    cr_assert_not_null(seen);
    for (uint32_t i = 0; i < count; i++) {
        cr_assert(order[i] >= 5 && order[i] < plan.point_count && !seen[order[i]]);
        seen[order[i]] = true;
        moved += order[i] != order[count + i];
    }
    cr_assert_gt(moved, count / 2);
    free(seen);
    free(order);
    moe_collective_plan_free(&plan);
}

Test(collective_plan, guesses_seconds_and_room)
{
    struct moe_collective_plan two = plan_of(2, 1);
    struct moe_collective_plan eight = plan_of(8, 1);
    const struct moe_collective_room room = moe_collective_plan_room(&two);
    const double seconds = moe_collective_plan_seconds(&two, 0.15);
    cr_assert_eq(room.send, INT64_C(256) << 20);
    cr_assert_eq(room.host, INT64_C(256) << 20);
    cr_assert_geq(room.recv, (INT64_C(256) << 20) + MOE_EXCHANGE_GUARD);
    cr_assert(seconds > 3.0 && seconds < 40.0, "%g s", seconds);
    cr_assert_lt(moe_collective_plan_seconds(&two, 0.01), seconds);
    cr_assert_lt(moe_collective_plan_seconds(&eight, 0.15), 120.0);
    moe_collective_plan_free(&two);
    moe_collective_plan_free(&eight);
}

Test(exchange_matrix, rows_sum_and_hot_rank)
{
    int64_t bytes[64 * 64];
    int64_t again[64 * 64];
    char name[MOE_EXCHANGE_NAME];
    for (uint32_t ranks = 1; ranks <= 64; ranks = ranks * 2 + (ranks == 4)) {
        for (uint32_t kind = 0; kind < 4; kind++) {
            moe_exchange_matrix_make(kind, ranks, 4800, 5, bytes);
            moe_exchange_matrix_make(kind, ranks, 4800, 5, again);
            cr_assert_arr_eq(bytes, again, (size_t) ranks * ranks * sizeof bytes[0]);
            for (uint32_t from = 0; from < ranks; from++) {
                int64_t sum = 0;
                for (uint32_t to = 0; to < ranks; to++) {
                    cr_assert_geq(bytes[from * ranks + to], 0);
                    cr_assert_eq(bytes[from * ranks + to] % MOE_COLLECTIVE_GRAIN, 0);
                    sum += bytes[from * ranks + to];
                }
                cr_assert_eq(sum, 4800 * (int64_t) ranks, "%s",
                             moe_exchange_matrix_name(kind, 1, name));
            }
        }
    }
    /* What rates are told from: one direction only, and almost nothing moved. */
    moe_exchange_matrix_make(MOE_EXCHANGE_ONE_WAY, 2, 4800, 5, bytes);
    cr_assert_gt(bytes[2], 16 * bytes[1]);
    moe_exchange_matrix_make(MOE_EXCHANGE_OWN, 2, 4800, 5, bytes);
    cr_assert(bytes[0] > 16 * bytes[1] && bytes[3] > 16 * bytes[2]);
    cr_assert_str_eq(moe_exchange_matrix_name(MOE_EXCHANGE_OWN, 1, name), "own");
    moe_exchange_matrix_make(0, 2, 4800, 5, bytes);
    cr_assert_eq(bytes[0], 8528); /* 600 grains: 533.3 and 66.7, the rest to the larger remainder */
    cr_assert_eq(bytes[1], 1072);
    moe_exchange_matrix_make(1, 2, 4800, 5, bytes);
    moe_exchange_matrix_make(1, 2, 4800, 6, again);
    cr_assert(bytes[0] != again[0] || bytes[2] != again[2], "the seed does not matter");
    cr_assert_str_eq(moe_exchange_matrix_name(2, 1, name), "random-2");
    cr_assert_str_eq(moe_exchange_matrix_name(2, 7, name), "random-2-7");
}

/* What call must leave in rank's receive buffer, said the slow obvious way: a list of every rank's
 * send buffer, and for each cell of the result who contributes what. */
static void carry_out(const struct moe_collective_call *call, uint32_t rank,
                      uint16_t (*send)[CELLS], uint16_t *recv)
{
    const int64_t piece = call->bytes_per_peer / 2;
    int64_t at = 0;
    for (uint32_t from = 0; from < call->ranks; from++) {
        if (call->op == MOE_COLLECTIVE_ALL_TO_ALL || call->op == MOE_COLLECTIVE_ALL_GATHER) {
            const int64_t first = call->op == MOE_COLLECTIVE_ALL_GATHER ? 0 : piece * rank;
            memcpy(recv + at, send[from] + first, (size_t) piece * 2);
            at += piece;
        } else if (call->op == MOE_COLLECTIVE_ALL_TO_ALL_V) {
            int64_t first = 0;
            for (uint32_t to = 0; to < rank; to++) {
                first += call->matrix[from * call->ranks + to] / 2;
            }
            const int64_t count = call->matrix[from * call->ranks + rank] / 2;
            memcpy(recv + at, send[from] + first, (size_t) count * 2);
            at += count;
        }
    }
}

static float float_of(uint16_t cell)
{
    const uint32_t bits = (uint32_t) cell << 16;
    float value = 0.0F;
    memcpy(&value, &bits, sizeof value);
    return value;
}

Test(exchange_pattern, knows_right_from_wrong)
{
    static uint16_t send[3][CELLS];
    static uint16_t recv[CELLS];
    int64_t matrix[9];
    const enum moe_collective_op ops[] = { MOE_COLLECTIVE_ALL_TO_ALL, MOE_COLLECTIVE_ALL_GATHER,
                                           MOE_COLLECTIVE_ALL_TO_ALL_V };
    moe_exchange_matrix_make(1, 3, 1616, 9, matrix);
    for (uint32_t rank = 0; rank < 3; rank++) {
        moe_exchange_pattern_fill(rank, 3, CELLS, send[rank]);
    }
    for (size_t i = 0; i < sizeof ops / sizeof ops[0]; i++) {
        for (uint32_t rank = 0; rank < 3; rank++) {
            const struct moe_collective_call call = { .op = ops[i],
                                                      .ranks = 3,
                                                      .src = -1,
                                                      .dst = -1,
                                                      .bytes_per_peer = 1616,
                                                      .matrix = matrix };
            struct moe_exchange_fault fault;
            const int64_t count = moe_collective_recv_bytes(&call, rank) / 2;
            memset(recv, 0xff, sizeof recv);
            cr_assert_not(moe_exchange_pattern_right(&call, rank, 3, recv, &fault));
            cr_assert(isnan(fault.found) && fault.cell == 0);
            carry_out(&call, rank, send, recv);
            cr_assert(moe_exchange_pattern_right(&call, rank, 3, recv, &fault), "op %zu cell %ld",
                      i, (long) fault.cell);
            recv[count] = 0; /* behind the end */
            cr_assert_not(moe_exchange_pattern_right(&call, rank, 3, recv, &fault));
            cr_assert(isnan(fault.wanted) && fault.cell == count);
            recv[count] = 0xffff;
            const uint16_t kept = recv[count - 1];
            recv[count - 1] = recv[count - 2]; /* a cell late: neighbours differ */
            cr_assert_not(moe_exchange_pattern_right(&call, rank, 3, recv, &fault));
            cr_assert_eq(fault.cell, count - 1);
            recv[count - 1] = kept;
        }
    }
}

Test(exchange_pattern, sums_are_exact)
{
    static uint16_t send[64][CELLS];
    static uint16_t recv[CELLS];
    struct moe_exchange_fault fault;
    for (uint32_t ranks = 2; ranks <= 64; ranks *= 2) {
        const struct moe_collective_call call = { .op = MOE_COLLECTIVE_ALL_REDUCE,
                                                  .ranks = ranks,
                                                  .src = -1,
                                                  .dst = -1,
                                                  .bytes_per_peer = 64 };
        const int64_t count = moe_collective_recv_bytes(&call, 0) / 2;
        float most = 0.0F;
        memset(recv, 0xff, sizeof recv);
        for (uint32_t rank = 0; rank < ranks; rank++) {
            moe_exchange_pattern_fill(rank, ranks, count, send[rank]);
        }
        for (int64_t i = 0; i < count; i++) {
            float sum = 0.0F;
            for (uint32_t rank = 0; rank < ranks; rank++) {
                sum += float_of(send[rank][i]);
            }
            uint32_t bits = 0;
            memcpy(&bits, &sum, sizeof bits);
            cr_assert_eq(bits & 0xffff, 0, "%g is no bf16", (double) sum);
            recv[i] = (uint16_t) (bits >> 16);
            most = sum > most ? sum : most;
        }
        cr_assert(most < 256.0F && most > 0.0F);
        cr_assert(moe_exchange_pattern_right(&call, ranks - 1, ranks, recv, &fault));
    }
}

Test(collective_op, bytes)
{
    const int64_t matrix[4] = { 32, 64, 160, 16 };
    struct moe_collective_call call = { .op = MOE_COLLECTIVE_ALL_TO_ALL_V,
                                        .ranks = 2,
                                        .src = -1,
                                        .dst = -1,
                                        .bytes_per_peer = 48,
                                        .matrix = matrix };
    char text[160];
    cr_assert_eq(moe_collective_send_bytes(&call, 0), 96);
    cr_assert_eq(moe_collective_recv_bytes(&call, 0), 192);
    cr_assert_eq(moe_collective_wire_bytes(&call), 160);
    call.op = MOE_COLLECTIVE_ALL_REDUCE;
    call.ranks = 4;
    cr_assert_eq(moe_collective_wire_bytes(&call), INT64_C(288));
    cr_assert_eq(moe_collective_send_bytes(&call, 4), 0, "a rank that takes no part");
    call = (struct moe_collective_call){
        .op = MOE_COLLECTIVE_P2P, .ranks = 2, .src = 3, .dst = 1, .bytes_per_peer = 65536
    };
    cr_assert(moe_collective_joins(&call, 3) && moe_collective_joins(&call, 1) &&
              !moe_collective_joins(&call, 0));
    cr_assert_eq(moe_collective_send_bytes(&call, 1), 0);
    cr_assert_eq(moe_collective_recv_bytes(&call, 1), 65536);
    cr_assert_str_eq(moe_collective_describe(&call, text, sizeof text),
                     "p2p of 64 KiB from rank 3 to rank 1");
}
