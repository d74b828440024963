#include <assert.h>
#include <cuda_runtime_api.h>
#include <inttypes.h>
#include <nccl.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "calibrate/collective/exchange.h"
#include "calibrate/collective/exchange_api.h"
#include "calibrate/collective/lane_copies.h"

enum { GROUP_LIMIT = 8 }; /* 2, 4, ... and all of at most MOE_COLLECTIVE_RANK_LIMIT ranks */

struct group {
    uint32_t ranks;
    ncclComm_t comms[MOE_LANE_LIMIT]; /* by lane; NULL for lanes beyond the ranks */
};

struct moe_exchange {
    const struct moe_lanes *lanes;
    struct group groups[GROUP_LIMIT];
    uint32_t group_count;
};

static enum moe_status check(ncclResult_t result, const char *call, struct moe_error *err)
{
    if (result == ncclSuccess) {
        return MOE_OK;
    }
    const char *last = ncclGetLastError(NULL);
    return moe_fail(err, MOE_DEVICE, "%s: %s%s%.300s", call, ncclGetErrorString(result),
                    last == NULL || last[0] == '\0' ? "" : ": ", last == NULL ? "" : last);
}

bool moe_exchange_has_nccl(void)
{
    return true;
}

bool moe_exchange_has_api(void)
{
    return moe_exchange_api_found();
}

void moe_exchange_version(char *out, size_t size)
{
    int version = 0; /* 22809 is 2.28.9 */
    if (ncclGetVersion(&version) != ncclSuccess) {
        version = NCCL_VERSION_CODE;
    }
    (void) snprintf(out, size, "%d.%d.%d", version / 10000, version / 100 % 100, version % 100);
}

/* The variable is read when NCCL starts, and by nothing else. */
enum moe_status moe_exchange_forbid_multicast(struct moe_error *err)
{
    const char *set = getenv("NCCL_NVLS_ENABLE");
    if (set != NULL && strcmp(set, "0") != 0) {
        return moe_fail(err, MOE_RANGE,
                        "NCCL_NVLS_ENABLE is %.40s; only 0 is allowed, since NVLink multicast can "
                        "take the GPUs of a shared host out of service",
                        set);
    }
    if (setenv("NCCL_NVLS_ENABLE", "0", 1) != 0) {
        return moe_fail(err, MOE_LIMIT, "no memory for NCCL_NVLS_ENABLE");
    }
    return MOE_OK;
}

/* Each process asks for the ranks it drives; the id of process 0 ties them together. */
static enum moe_status join(const struct moe_bootstrap *boot, const struct moe_lanes *lanes,
                            struct group *group, struct moe_error *err)
{
    ncclUniqueId id;
    memset(&id, 0, sizeof id);
    enum moe_status status = MOE_OK;
    if (boot->process == 0) {
        status = check(ncclGetUniqueId(&id), "ncclGetUniqueId", err);
    }
    MOE_TRY(moe_bootstrap_agree(boot, status, err));
    MOE_TRY(moe_bootstrap_broadcast(boot, &id, sizeof id, err));
    if (lanes->rank_first >= group->ranks) {
        return MOE_OK;
    }
    MOE_TRY(check(ncclGroupStart(), "ncclGroupStart", err));
    for (uint32_t i = 0; status == MOE_OK && i < lanes->count; i++) {
        const struct moe_lane *lane = &lanes->lanes[i];
        if (lane->rank >= group->ranks) {
            continue;
        }
        status = moe_device_check((int) cudaSetDevice((int) lane->device), "cudaSetDevice", err);
        if (status == MOE_OK) {
            status =
                check(ncclCommInitRank(&group->comms[i], (int) group->ranks, id, (int) lane->rank),
                      "ncclCommInitRank", err);
        }
    }
    const ncclResult_t ended = ncclGroupEnd();
    return status == MOE_OK ? check(ended, "ncclCommInitRank", err) : status;
}

enum moe_status moe_exchange_create(const struct moe_bootstrap *boot, const struct moe_lanes *lanes,
                                    struct moe_exchange **out, struct moe_error *err)
{
    MOE_TRY(moe_exchange_forbid_multicast(err));
    struct moe_exchange *exchange = calloc(1, sizeof *exchange);
    if (exchange == NULL) {
        return moe_fail(err, MOE_LIMIT, "no memory for communicators");
    }
    const uint32_t count = lanes->rank_count;
    enum moe_status status = MOE_OK;
    exchange->lanes = lanes;
    for (uint32_t ranks = 2; status == MOE_OK && ranks <= count;) {
        struct group *group = &exchange->groups[exchange->group_count++];
        group->ranks = ranks;
        status = join(boot, lanes, group, err);
        ranks = ranks < count && 2 * ranks > count ? count : 2 * ranks;
    }
    if (status != MOE_OK) {
        moe_exchange_destroy(exchange, true);
        return status;
    }
    *out = exchange;
    return MOE_OK;
}

void moe_exchange_destroy(struct moe_exchange *exchange, bool stuck)
{
    if (exchange == NULL) {
        return;
    }
    /* Destroying waits for what is under way, which may wait for ever. */
    for (uint32_t k = 0; !stuck && k < exchange->group_count; k++) {
        for (uint32_t i = 0; i < MOE_LANE_LIMIT; i++) {
            if (exchange->groups[k].comms[i] != NULL) {
                (void) ncclCommDestroy(exchange->groups[k].comms[i]);
            }
        }
    }
    free(exchange);
}

/* Pairs use the communicator of all: sends are between the two of them anyhow. */
static const struct group *group_of(const struct moe_exchange *exchange,
                                    const struct moe_collective_call *call)
{
    const uint32_t last = exchange->group_count - 1;
    assert(exchange->group_count > 0);
    for (uint32_t k = 0; call->src < 0 && k < last; k++) {
        if (exchange->groups[k].ranks == call->ranks) {
            return &exchange->groups[k];
        }
    }
    return &exchange->groups[last];
}

static char *at(void *base, int64_t offset)
{
    return (char *) base + offset;
}

static ncclResult_t send(const struct moe_lane *lane, ncclComm_t comm, int64_t offset,
                         int64_t bytes, uint32_t peer)
{
    return ncclSend(at(lane->send_dev, offset), (size_t) bytes / 2, ncclBfloat16, (int) peer, comm,
                    lane->stream);
}

static ncclResult_t receive(const struct moe_lane *lane, ncclComm_t comm, int64_t offset,
                            int64_t bytes, uint32_t peer)
{
    return ncclRecv(at(lane->recv_dev, offset), (size_t) bytes / 2, ncclBfloat16, (int) peer, comm,
                    lane->stream);
}

/* Empty pieces are left out at both ends. */
static ncclResult_t all_to_all(const struct moe_lane *lane, ncclComm_t comm,
                               const struct moe_collective_call *call)
{
    int64_t sent = 0;
    int64_t received = 0;
    ncclResult_t result = ncclSuccess;
    for (uint32_t peer = 0; result == ncclSuccess && peer < call->ranks; peer++) {
        int64_t out = call->bytes_per_peer;
        int64_t in = call->bytes_per_peer;
        if (call->matrix != NULL) {
            out = call->matrix[lane->rank * call->ranks + peer];
            in = call->matrix[peer * call->ranks + lane->rank];
        }
        if (out > 0) {
            result = send(lane, comm, sent, out, peer);
        }
        if (result == ncclSuccess && in > 0) {
            result = receive(lane, comm, received, in, peer);
        }
        sent += out;
        received += in;
    }
    return result;
}

static ncclResult_t pair(const struct moe_lane *lane, ncclComm_t comm,
                         const struct moe_collective_call *call)
{
    const bool source = lane->rank == (uint32_t) call->src;
    const uint32_t peer = (uint32_t) (source ? call->dst : call->src);
    const bool both = call->op == MOE_COLLECTIVE_P2P_BOTH;
    ncclResult_t result = ncclSuccess;
    if (source || both) {
        result = send(lane, comm, 0, call->bytes_per_peer, peer);
    }
    if (result == ncclSuccess && (!source || both)) {
        result = receive(lane, comm, 0, call->bytes_per_peer, peer);
    }
    return result;
}

static ncclResult_t launch(const struct moe_lane *lane, ncclComm_t comm,
                           const struct moe_collective_call *call)
{
    const size_t cells = (size_t) call->bytes_per_peer / 2;
    switch (call->op) {
    case MOE_COLLECTIVE_ALL_TO_ALL:
    case MOE_COLLECTIVE_ALL_TO_ALL_V:
        return all_to_all(lane, comm, call);
    case MOE_COLLECTIVE_ALL_TO_ALL_API:
        return moe_exchange_api_all_to_all(lane->send_dev, lane->recv_dev, cells, comm,
                                           lane->stream);
    case MOE_COLLECTIVE_ALL_GATHER:
        return ncclAllGather(lane->send_dev, lane->recv_dev, cells, ncclBfloat16, comm,
                             lane->stream);
    case MOE_COLLECTIVE_REDUCE_SCATTER:
        return ncclReduceScatter(lane->send_dev, lane->recv_dev, cells, ncclBfloat16, ncclSum, comm,
                                 lane->stream);
    case MOE_COLLECTIVE_ALL_REDUCE:
        return ncclAllReduce(lane->send_dev, lane->recv_dev, cells * call->ranks, ncclBfloat16,
                             ncclSum, comm, lane->stream);
    case MOE_COLLECTIVE_P2P:
    case MOE_COLLECTIVE_P2P_BOTH:
        return pair(lane, comm, call);
    case MOE_COLLECTIVE_PEER_COPY:
    case MOE_COLLECTIVE_HOST_TO_DEVICE:
    case MOE_COLLECTIVE_OVERLAP:
    case MOE_COLLECTIVE_OP_COUNT:
        break;
    }
    assert(moe_collective_op_nccl(call->op) && call->op != MOE_COLLECTIVE_OVERLAP);
    return ncclInvalidArgument;
}

enum moe_status moe_exchange_enqueue(struct moe_exchange *exchange,
                                     const struct moe_collective_call *call, struct moe_error *err)
{
    char what[160];
    if (!moe_collective_op_nccl(call->op)) {
        return moe_lane_copies_enqueue(exchange->lanes, call, err);
    }
    const struct group *group = group_of(exchange, call);
    ncclResult_t result = ncclGroupStart();
    for (uint32_t i = 0; result == ncclSuccess && i < exchange->lanes->count; i++) {
        const struct moe_lane *lane = &exchange->lanes->lanes[i];
        if (moe_collective_joins(call, lane->rank)) {
            result = launch(lane, group->comms[i], call);
        }
    }
    const ncclResult_t ended = ncclGroupEnd();
    return check(result == ncclSuccess ? ended : result,
                 moe_collective_describe(call, what, sizeof what), err);
}
