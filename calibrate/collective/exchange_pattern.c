#include "calibrate/collective/exchange_pattern.h"

#include <assert.h>
#include <math.h>
#include <string.h>

static const int64_t CELL = 2; /* bytes */
static const uint16_t POISON = 0xffff;

static uint32_t value_of(uint32_t rank, uint32_t ranks, int64_t cell)
{
    const uint32_t bound = 256 / ranks < 16 ? 256 / ranks : 16;
    assert(bound >= 2);
    const uint64_t mixed = (uint64_t) cell * 7 + (uint64_t) cell / 61 + (uint64_t) rank * 5;
    return (uint32_t) (mixed % bound);
}

/* Whole numbers below 256 have at most 8 significant bits, so cutting the fp32 loses nothing. */
static uint16_t bf16_from(uint32_t value)
{
    const float number = (float) value;
    uint32_t bits = 0;
    memcpy(&bits, &number, sizeof bits);
    return (uint16_t) (bits >> 16);
}

static double number_of(uint16_t cell)
{
    const uint32_t bits = (uint32_t) cell << 16;
    float number = 0.0F;
    memcpy(&number, &bits, sizeof number);
    return (double) number;
}

void moe_exchange_pattern_fill(uint32_t rank, uint32_t ranks, int64_t cell_count, uint16_t *cells)
{
    for (int64_t i = 0; i < cell_count; i++) {
        cells[i] = bf16_from(value_of(rank, ranks, i));
    }
}

static bool same(uint16_t found, uint32_t wanted, int64_t cell, struct moe_exchange_fault *fault)
{
    if (found == bf16_from(wanted)) {
        return true;
    }
    *fault = (struct moe_exchange_fault){ cell, number_of(found), (double) wanted };
    return false;
}

/* count cells at recv[at] came from cell `first` on of rank `from`. */
static bool piece_right(const uint16_t *recv, int64_t at, int64_t count, uint32_t from,
                        int64_t first, uint32_t ranks, struct moe_exchange_fault *fault)
{
    for (int64_t i = 0; i < count; i++) {
        if (!same(recv[at + i], value_of(from, ranks, first + i), at + i, fault)) {
            return false;
        }
    }
    return true;
}

static bool sum_right(const uint16_t *recv, int64_t count, int64_t first, uint32_t taking_part,
                      uint32_t ranks, struct moe_exchange_fault *fault)
{
    for (int64_t i = 0; i < count; i++) {
        uint32_t sum = 0;
        for (uint32_t from = 0; from < taking_part; from++) {
            sum += value_of(from, ranks, first + i);
        }
        if (!same(recv[i], sum, i, fault)) {
            return false;
        }
    }
    return true;
}

/* What arrives from each rank lies in rank order, as each sender's pieces do. */
static bool pieces_right(const struct moe_collective_call *call, uint32_t rank, uint32_t ranks,
                         const uint16_t *recv, struct moe_exchange_fault *fault)
{
    int64_t at = 0;
    for (uint32_t from = 0; from < call->ranks; from++) {
        int64_t first = call->bytes_per_peer / CELL * (int64_t) rank;
        int64_t count = call->bytes_per_peer / CELL;
        if (call->op == MOE_COLLECTIVE_ALL_GATHER) {
            first = 0;
        } else if (call->op == MOE_COLLECTIVE_ALL_TO_ALL_V) {
            const int64_t *row = call->matrix + (int64_t) from * call->ranks;
            first = 0;
            for (uint32_t to = 0; to < rank; to++) {
                first += row[to] / CELL;
            }
            count = row[rank] / CELL;
        }
        if (!piece_right(recv, at, count, from, first, ranks, fault)) {
            return false;
        }
        at += count;
    }
    return true;
}

static bool contents_right(const struct moe_collective_call *call, uint32_t rank, uint32_t ranks,
                           const uint16_t *recv, struct moe_exchange_fault *fault)
{
    const int64_t count = moe_collective_recv_bytes(call, rank) / CELL;
    switch (call->op) {
    case MOE_COLLECTIVE_ALL_TO_ALL:
    case MOE_COLLECTIVE_ALL_TO_ALL_API:
    case MOE_COLLECTIVE_ALL_TO_ALL_V:
    case MOE_COLLECTIVE_ALL_GATHER:
    case MOE_COLLECTIVE_OVERLAP:
        return pieces_right(call, rank, ranks, recv, fault);
    case MOE_COLLECTIVE_REDUCE_SCATTER:
        return sum_right(recv, count, count * (int64_t) rank, call->ranks, ranks, fault);
    case MOE_COLLECTIVE_ALL_REDUCE:
        return sum_right(recv, count, 0, call->ranks, ranks, fault);
    case MOE_COLLECTIVE_P2P:
    case MOE_COLLECTIVE_PEER_COPY:
        return piece_right(recv, 0, count, (uint32_t) call->src, 0, ranks, fault);
    case MOE_COLLECTIVE_P2P_BOTH:
        return piece_right(recv, 0, count,
                           (uint32_t) (rank == (uint32_t) call->src ? call->dst : call->src), 0,
                           ranks, fault);
    case MOE_COLLECTIVE_HOST_TO_DEVICE:
        return piece_right(recv, 0, count, rank, 0, ranks, fault);
    case MOE_COLLECTIVE_OP_COUNT:
        break;
    }
    assert(call->op < MOE_COLLECTIVE_OP_COUNT);
    return false;
}

bool moe_exchange_pattern_right(const struct moe_collective_call *call, uint32_t rank,
                                uint32_t ranks, const uint16_t *recv,
                                struct moe_exchange_fault *fault)
{
    const int64_t count = moe_collective_recv_bytes(call, rank) / CELL;
    if (moe_collective_joins(call, rank) && !contents_right(call, rank, ranks, recv, fault)) {
        return false;
    }
    for (int64_t i = 0; i < MOE_EXCHANGE_GUARD / CELL; i++) {
        if (recv[count + i] != POISON) {
            *fault = (struct moe_exchange_fault){ count + i, number_of(recv[count + i]), NAN };
            return false;
        }
    }
    return true;
}
