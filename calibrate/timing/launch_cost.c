#include "calibrate/timing/launch_cost.h"

#include <cuda_runtime_api.h>

#include "calibrate/device/device.h"
#include "kernels/memory/stream.h"

enum { NODE_BYTES = 16, MANY = 65, EAGER = 400 };

struct nodes {
    void *dst_dev;
    int count;
};

static enum moe_status nodes_launch(void *context, uint32_t set, void *stream,
                                    struct moe_error *err)
{
    const struct nodes *nodes = context;
    (void) set;
    for (int i = 0; i < nodes->count; i++) {
        MOE_TRY(moe_device_check(moe_stream_write(nodes->dst_dev, 1, NODE_BYTES, 1, stream),
                                 "launch", err));
    }
    return MOE_OK;
}

static enum moe_status eager(struct moe_graph_timer *timer, struct nodes *nodes,
                             cudaEvent_t *events, double *ns, struct moe_error *err)
{
    void *stream = moe_graph_timer_stream(timer);
    float ms = 0.0F;
    nodes->count = EAGER;
    MOE_TRY(moe_device_check((int) cudaEventRecord(events[0], stream), "cudaEventRecord", err));
    MOE_TRY(nodes_launch(nodes, 0, stream, err));
    MOE_TRY(moe_device_check((int) cudaEventRecord(events[1], stream), "cudaEventRecord", err));
    MOE_TRY(moe_graph_wait(timer, "launches", err));
    MOE_TRY(moe_device_check((int) cudaEventElapsedTime(&ms, events[0], events[1]),
                             "cudaEventElapsedTime", err));
    *ns = (double) ms * 1e6 / EAGER;
    return MOE_OK;
}

static enum moe_status measure(struct moe_graph_timer *timer, struct nodes *nodes,
                               cudaEvent_t *events, struct moe_launch_cost *out,
                               struct moe_error *err)
{
    float one_us = 0.0F;
    float many_us = 0.0F;
    MOE_TRY(eager(timer, nodes, events, &out->launch_ns, err)); /* once to load the kernel */
    MOE_TRY(eager(timer, nodes, events, &out->launch_ns, err));
    nodes->count = 1;
    MOE_TRY(moe_graph_probe(timer, nodes_launch, nodes, &one_us, err));
    nodes->count = MANY;
    MOE_TRY(moe_graph_probe(timer, nodes_launch, nodes, &many_us, err));
    out->graph_node_ns = (double) (many_us - one_us) * 1e3 / (MANY - 1);
    return MOE_OK;
}

enum moe_status moe_launch_cost_measure(struct moe_graph_timer *timer, struct moe_launch_cost *out,
                                        struct moe_error *err)
{
    struct nodes nodes = { 0 };
    cudaEvent_t events[2] = { NULL, NULL };
    enum moe_status status =
        moe_device_check((int) cudaMalloc(&nodes.dst_dev, NODE_BYTES), "cudaMalloc", err);
    for (int i = 0; status == MOE_OK && i < 2; i++) {
        status = moe_device_check((int) cudaEventCreate(&events[i]), "cudaEventCreate", err);
    }
    if (status == MOE_OK) {
        status = measure(timer, &nodes, events, out, err);
    }
    for (int i = 0; !moe_graph_timer_stuck(timer) && i < 2; i++) {
        if (events[i] != NULL) {
            (void) cudaEventDestroy(events[i]);
        }
    }
    if (!moe_graph_timer_stuck(timer)) {
        (void) cudaFree(nodes.dst_dev);
    }
    return status;
}
