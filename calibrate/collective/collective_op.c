#include "calibrate/collective/collective_op.h"

#include <assert.h>
#include <inttypes.h>
#include <stdio.h>

static const struct {
    const char *name;
    const char *backend;
    bool nccl;
    bool sends;
} ops[MOE_COLLECTIVE_OP_COUNT] = {
    [MOE_COLLECTIVE_ALL_TO_ALL] = { "all_to_all", "nccl", true, true },
    [MOE_COLLECTIVE_ALL_TO_ALL_API] = { "all_to_all_api", "nccl-api", true, true },
    [MOE_COLLECTIVE_ALL_TO_ALL_V] = { "all_to_all_v", "nccl", true, true },
    [MOE_COLLECTIVE_ALL_GATHER] = { "all_gather", "nccl", true, false },
    [MOE_COLLECTIVE_REDUCE_SCATTER] = { "reduce_scatter", "nccl", true, false },
    [MOE_COLLECTIVE_ALL_REDUCE] = { "all_reduce", "nccl", true, false },
    [MOE_COLLECTIVE_P2P] = { "p2p", "nccl", true, true },
    [MOE_COLLECTIVE_P2P_BOTH] = { "p2p_both", "nccl", true, true },
    [MOE_COLLECTIVE_PEER_COPY] = { "peer_copy", "copy-engine", false, false },
    [MOE_COLLECTIVE_HOST_TO_DEVICE] = { "host_to_device", "copy-engine", false, false },
    [MOE_COLLECTIVE_OVERLAP] = { "overlap", "own", true, false },
};

const char *moe_collective_op_name(enum moe_collective_op op)
{
    assert(op < MOE_COLLECTIVE_OP_COUNT);
    return ops[op].name;
}

const char *moe_collective_op_backend(enum moe_collective_op op)
{
    assert(op < MOE_COLLECTIVE_OP_COUNT);
    return ops[op].backend;
}

bool moe_collective_op_nccl(enum moe_collective_op op)
{
    assert(op < MOE_COLLECTIVE_OP_COUNT);
    return ops[op].nccl;
}

bool moe_collective_op_sends(enum moe_collective_op op)
{
    assert(op < MOE_COLLECTIVE_OP_COUNT);
    return ops[op].sends;
}

bool moe_collective_joins(const struct moe_collective_call *call, uint32_t rank)
{
    if (call->src >= 0) {
        return rank == (uint32_t) call->src || rank == (uint32_t) call->dst;
    }
    return rank < call->ranks;
}

/* Of the send buffer, or else the receive buffer. */
static int64_t buffer_bytes(const struct moe_collective_call *call, uint32_t rank, bool sends)
{
    const int64_t all = call->bytes_per_peer * (int64_t) call->ranks;
    int64_t sum = 0;
    if (!moe_collective_joins(call, rank)) {
        return 0;
    }
    switch (call->op) {
    case MOE_COLLECTIVE_ALL_TO_ALL:
    case MOE_COLLECTIVE_ALL_TO_ALL_API:
    case MOE_COLLECTIVE_ALL_REDUCE:
    case MOE_COLLECTIVE_OVERLAP:
        return all;
    case MOE_COLLECTIVE_REDUCE_SCATTER:
        return sends ? all : call->bytes_per_peer;
    case MOE_COLLECTIVE_ALL_GATHER:
        return sends ? call->bytes_per_peer : all;
    case MOE_COLLECTIVE_ALL_TO_ALL_V:
        for (uint32_t other = 0; other < call->ranks; other++) {
            sum += call->matrix[sends ? rank * call->ranks + other : other * call->ranks + rank];
        }
        return sum;
    case MOE_COLLECTIVE_P2P:
    case MOE_COLLECTIVE_PEER_COPY:
        return rank == (uint32_t) (sends ? call->src : call->dst) ? call->bytes_per_peer : 0;
    case MOE_COLLECTIVE_P2P_BOTH:
    case MOE_COLLECTIVE_HOST_TO_DEVICE:
        return call->bytes_per_peer;
    case MOE_COLLECTIVE_OP_COUNT:
        break;
    }
    assert(call->op < MOE_COLLECTIVE_OP_COUNT);
    return 0;
}

int64_t moe_collective_send_bytes(const struct moe_collective_call *call, uint32_t rank)
{
    return buffer_bytes(call, rank, true);
}

int64_t moe_collective_recv_bytes(const struct moe_collective_call *call, uint32_t rank)
{
    return buffer_bytes(call, rank, false);
}

int64_t moe_collective_wire_bytes(const struct moe_collective_call *call)
{
    const int64_t others = (int64_t) call->ranks - 1;
    switch (call->op) {
    case MOE_COLLECTIVE_ALL_TO_ALL:
    case MOE_COLLECTIVE_ALL_TO_ALL_API:
    case MOE_COLLECTIVE_ALL_GATHER:
    case MOE_COLLECTIVE_REDUCE_SCATTER:
    case MOE_COLLECTIVE_OVERLAP:
        return others * call->bytes_per_peer;
    case MOE_COLLECTIVE_ALL_REDUCE:
        return 2 * others * call->bytes_per_peer;
    case MOE_COLLECTIVE_ALL_TO_ALL_V: {
        int64_t most = 0;
        for (uint32_t rank = 0; rank < call->ranks; rank++) {
            const int64_t sent =
                moe_collective_send_bytes(call, rank) - call->matrix[rank * call->ranks + rank];
            most = sent > most ? sent : most;
        }
        return most;
    }
    case MOE_COLLECTIVE_P2P:
    case MOE_COLLECTIVE_P2P_BOTH:
    case MOE_COLLECTIVE_PEER_COPY:
    case MOE_COLLECTIVE_HOST_TO_DEVICE:
        return call->bytes_per_peer;
    case MOE_COLLECTIVE_OP_COUNT:
        break;
    }
    assert(call->op < MOE_COLLECTIVE_OP_COUNT);
    return 0;
}

const char *moe_collective_size_text(int64_t bytes, char out[24])
{
    static const char *const units[] = { "B", "KiB", "MiB", "GiB" };
    double value = (double) bytes;
    size_t unit = 0;
    while (value >= 1024.0 && unit + 1 < sizeof units / sizeof units[0]) {
        value /= 1024.0;
        unit++;
    }
    (void) snprintf(out, 24, "%.4g %s", value, units[unit]);
    return out;
}

const char *moe_collective_describe(const struct moe_collective_call *call, char *out,
                                    uint32_t size)
{
    char bytes[24];
    const char *name = moe_collective_op_name(call->op);
    (void) moe_collective_size_text(call->bytes_per_peer, bytes);
    if (call->src < 0) {
        (void) snprintf(out, size, "%s of %s per peer on %" PRIu32 " ranks", name, bytes,
                        call->ranks);
    } else if (call->src == call->dst) {
        (void) snprintf(out, size, "%s of %s on rank %" PRId32, name, bytes, call->src);
    } else {
        (void) snprintf(out, size, "%s of %s %s rank %" PRId32 " %s rank %" PRId32, name, bytes,
                        call->op == MOE_COLLECTIVE_P2P_BOTH ? "between" : "from", call->src,
                        call->op == MOE_COLLECTIVE_P2P_BOTH ? "and" : "to", call->dst);
    }
    return out;
}
