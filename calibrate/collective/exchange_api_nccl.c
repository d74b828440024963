#include "calibrate/collective/exchange_api.h"

bool moe_exchange_api_found(void)
{
    return true;
}

ncclResult_t moe_exchange_api_all_to_all(const void *send_dev, void *recv_dev, size_t cells,
                                         ncclComm_t comm, cudaStream_t stream)
{
    return ncclAlltoAll(send_dev, recv_dev, cells, ncclBfloat16, comm, stream);
}
