#include "calibrate/collective/lane_copies.h"

#include <assert.h>
#include <cuda_runtime_api.h>

enum moe_status moe_lane_copies_enqueue(const struct moe_lanes *lanes,
                                        const struct moe_collective_call *call,
                                        struct moe_error *err)
{
    const size_t bytes = (size_t) call->bytes_per_peer;
    for (uint32_t i = 0; i < lanes->count; i++) {
        const struct moe_lane *lane = &lanes->lanes[i];
        const cudaStream_t stream = lane->stream;
        if (!moe_lane_works(lane, call)) {
            continue;
        }
        if (call->op == MOE_COLLECTIVE_HOST_TO_DEVICE) {
            MOE_TRY(moe_device_check((int) cudaMemcpyAsync(lane->recv_dev, lane->host, bytes,
                                                           cudaMemcpyHostToDevice, stream),
                                     "cudaMemcpyAsync from the host", err));
            continue;
        }
        const uint32_t to = (uint32_t) call->dst - lanes->rank_first;
        assert(call->op == MOE_COLLECTIVE_PEER_COPY);
        assert(to < lanes->count);
        const struct moe_lane *peer = &lanes->lanes[to];
        MOE_TRY(moe_device_check((int) cudaMemcpyPeerAsync(peer->recv_dev, (int) peer->device,
                                                           lane->send_dev, (int) lane->device,
                                                           bytes, stream),
                                 "cudaMemcpyPeerAsync", err));
    }
    return MOE_OK;
}
