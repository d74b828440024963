/* In the place of exchange_api_nccl.c where NCCL is older than 2.28. */
#include "calibrate/collective/exchange_api.h"

bool moe_exchange_api_found(void)
{
    return false;
}

ncclResult_t moe_exchange_api_all_to_all(const void *send_dev, void *recv_dev, size_t cells,
                                         ncclComm_t comm, cudaStream_t stream)
{
    (void) send_dev;
    (void) recv_dev;
    (void) cells;
    (void) comm;
    (void) stream;
    return ncclInvalidUsage;
}
