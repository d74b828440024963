/*
 * NCCL's own all-to-all call, which came with NCCL 2.28: exchange_api_nccl.c where the header has
 * it, else exchange_api_none.c. For exchange_nccl.c only: the one header that names NCCL's types.
 */
#ifndef MOE_CALIBRATE_EXCHANGE_API_H
#define MOE_CALIBRATE_EXCHANGE_API_H

#include <nccl.h>
#include <stdbool.h>
#include <stddef.h>

bool moe_exchange_api_found(void);

/* cells: bf16 per peer. */
ncclResult_t moe_exchange_api_all_to_all(const void *send_dev, void *recv_dev, size_t cells,
                                         ncclComm_t comm, cudaStream_t stream);

#endif
