/*
 * Exchange: the operations of collective_op.h on the lanes, by NCCL and by the copy engines.
 *
 * exchange_nccl.c where the build found NCCL, else exchange_none.c, with which only copies can be
 * carried out. Our program sets NCCL_NVLS_ENABLE=0 itself before NCCL starts: with NVLink multicast
 * a process that ends at the wrong moment can take a shared host's GPUs out of service, and the
 * simulator's tables are meant for exchanges, which multicast does not serve.
 */
#ifndef MOE_CALIBRATE_EXCHANGE_H
#define MOE_CALIBRATE_EXCHANGE_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "calibrate/collective/bootstrap.h"
#include "calibrate/collective/lanes.h"
#include "sim/base/error.h"

struct moe_exchange; /* opaque: communicators of the first 2, 4, ... and of all ranks */

/* Whether NCCL is there, which operations it has, and its version ("2.28.9"; "" without). */
bool moe_exchange_has_nccl(void);
bool moe_exchange_has_api(void); /* ncclAlltoAll, from 2.28 on */
void moe_exchange_version(char *out, size_t size);

/* Sets NCCL_NVLS_ENABLE=0, before the first call of NCCL. Errors: MOE_RANGE when the environment
 * says something else than 0: it is not overruled in silence. */
enum moe_status moe_exchange_forbid_multicast(struct moe_error *err) MOE_MUST_CHECK;

/* Communicators for 2, 4, 8, ... and all ranks of the lanes; none when there is one rank or no
 * NCCL. lanes and boot outlive it. Errors: MOE_DEVICE with NCCL's own sentence; as
 * moe_exchange_forbid_multicast. */
enum moe_status moe_exchange_create(const struct moe_bootstrap *boot, const struct moe_lanes *lanes,
                                    struct moe_exchange **out,
                                    struct moe_error *err) MOE_MUST_CHECK;
/* stuck: operations have not ended; communicators are given up. NULL is allowed. */
void moe_exchange_destroy(struct moe_exchange *exchange, bool stuck);

/* Queues one call on the streams of the lanes that take part. Not for MOE_COLLECTIVE_OVERLAP: its
 * exchange is an all_to_all. Errors: MOE_DEVICE; MOE_UNSUPPORTED for NCCL's without NCCL. */
enum moe_status moe_exchange_enqueue(struct moe_exchange *exchange,
                                     const struct moe_collective_call *call,
                                     struct moe_error *err) MOE_MUST_CHECK;

#endif
