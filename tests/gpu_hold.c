/* The hold keeps what is behind it waiting until it is opened, ends by itself when it is not, and
 * says so; the SMs' clock between two stamps is one that an SM can have. */
#include <time.h>

#include "kernels/clock/clock.h"
#include "kernels/clock/hold.h"
#include "tests/gpu_case.h"

enum { SECOND_NS = 1000000000, STRETCH_NS = 20000000 };

static void wait_ns(long ns)
{
    const struct timespec pause = { .tv_nsec = ns };
    (void) nanosleep(&pause, NULL);
}

static void check_open(struct moe_hold *hold, cudaStream_t *streams)
{
    /* Twice over, as an opened hold must not leave the next one open. */
    for (int round = 0; round < 2; round++) {
        for (int i = 0; i < 2; i++) {
            gpu_demand(moe_hold_enqueue(hold, SECOND_NS, streams[i]), "moe_hold_enqueue");
        }
        wait_ns(STRETCH_NS);
        for (int i = 0; i < 2; i++) {
            gpu_require(cudaStreamQuery(streams[i]) == cudaErrorNotReady,
                        "round %d: stream %d did not wait", round, i);
        }
        moe_hold_open(hold);
        for (int i = 0; i < 2; i++) {
            gpu_demand((int) cudaStreamSynchronize(streams[i]), "moe_hold");
        }
        gpu_require(!moe_hold_timed_out(hold), "round %d: timed out though it was opened", round);
    }
}

/* Tools that watch memory may make each launch wait for its end: then only the timeout is left. */
static void check_hold(cudaStream_t *streams, int small)
{
    struct moe_hold *hold = NULL;
    gpu_demand(moe_hold_create(&hold), "moe_hold_create");
    gpu_require(moe_hold_enqueue(hold, 0, streams[0]) == (int) cudaErrorInvalidValue,
                "a timeout of 0 is taken");
    if (!small) {
        check_open(hold, streams);
    }
    gpu_demand(moe_hold_enqueue(hold, 1000000, streams[0]), "moe_hold_enqueue");
    gpu_demand((int) cudaStreamSynchronize(streams[0]), "moe_hold");
    gpu_require(moe_hold_timed_out(hold), "ended unopened and did not say so");
    moe_hold_destroy(hold);
}

static void check_clock(cudaStream_t stream)
{
    static struct moe_clock_reading stamps[2][MOE_CLOCK_SM_LIMIT];
    void *dev[2];
    int sm_count = 0;
    struct moe_hold *hold = NULL;
    gpu_demand((int) cudaDeviceGetAttribute(&sm_count, cudaDevAttrMultiProcessorCount, 0),
               "cudaDeviceGetAttribute");
    gpu_require(sm_count <= MOE_CLOCK_SM_LIMIT, "%d SMs", sm_count);
    gpu_demand(moe_hold_create(&hold), "moe_hold_create");
    for (int i = 0; i < 2; i++) {
        dev[i] = gpu_alloc(sizeof stamps[i]);
    }
    gpu_require(moe_clock_stamp(dev[0], 0, stream) == (int) cudaErrorInvalidValue, "no SM");
    gpu_require(moe_clock_stamp(NULL, 1, stream) == (int) cudaErrorInvalidValue, "no stamps");
    /* The stretch in between is a hold that times out. */
    gpu_demand(moe_clock_stamp(dev[0], sm_count, stream), "moe_clock_stamp");
    gpu_demand(moe_hold_enqueue(hold, STRETCH_NS, stream), "moe_hold_enqueue");
    gpu_demand(moe_clock_stamp(dev[1], sm_count, stream), "moe_clock_stamp");
    int reached = 0;
    for (int i = 0; i < 2; i++) {
        gpu_download(stamps[i], dev[i], sizeof stamps[i], "moe_clock_stamp");
    }
    for (int sm = 0; sm < sm_count; sm++) {
        reached += stamps[0][sm].time_ns > 0 && stamps[1][sm].time_ns > 0;
    }
    const double mhz = moe_clock_mhz(stamps[0], stamps[1], sm_count);
    (void) printf("%d of %d SMs reached, %.1f MHz\n", reached, sm_count, mhz);
    gpu_require(reached >= 1, "no SM was reached");
    gpu_require(mhz > 100.0 && mhz < 5000.0, "%.1f MHz", mhz);
    moe_hold_destroy(hold);
    gpu_free_all(dev, 2, NULL, 0);
}

int main(int argc, char **argv)
{
    cudaStream_t streams[2];
    const int small = gpu_begin(argc, argv);
    for (int i = 0; i < 2; i++) {
        gpu_demand((int) cudaStreamCreateWithFlags(&streams[i], cudaStreamNonBlocking),
                   "cudaStreamCreateWithFlags");
    }
    check_hold(streams, small);
    check_clock(streams[0]);
    for (int i = 0; i < 2; i++) {
        gpu_demand((int) cudaStreamDestroy(streams[i]), "cudaStreamDestroy");
    }
    return EXIT_SUCCESS;
}
