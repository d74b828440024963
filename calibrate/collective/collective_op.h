/*
 * Collective operations: what moecal measures between GPUs and over links, and how much of it.
 *
 *   symbol  meaning
 *   n       ranks that take part
 *   c       bytes per peer, a multiple of MOE_COLLECTIVE_GRAIN: the piece that one rank holds for
 *           one other. Every size below follows from it.
 *
 *   operation        send buffer  recv buffer  bytes that the busiest rank sends
 *   all_to_all       n c          n c          (n - 1) c      grouped sends and receives
 *   all_to_all_api   n c          n c          (n - 1) c      NCCL's own call
 *   all_to_all_v     by matrix    by matrix    of the matrix
 *   all_gather       c            n c          (n - 1) c
 *   reduce_scatter   n c          c            (n - 1) c
 *   all_reduce       n c          n c          2 (n - 1) c
 *   p2p, p2p_both    c            c            c              one way; both ways at once
 *   peer_copy        c            c            c              a copy engine of the source
 *   host_to_device   c (host)     c            c              from pinned memory
 *
 * Collectives move bf16, as activations are; pieces held for oneself cross no link and are not
 * counted. Bytes sent over the time is what nccl-tests call bus bandwidth
 * (its doc/PERFORMANCE.md).
 */
#ifndef MOE_CALIBRATE_COLLECTIVE_OP_H
#define MOE_CALIBRATE_COLLECTIVE_OP_H

#include <stdbool.h>
#include <stdint.h>

enum moe_collective_op {
    MOE_COLLECTIVE_ALL_TO_ALL,
    MOE_COLLECTIVE_ALL_TO_ALL_API,
    MOE_COLLECTIVE_ALL_TO_ALL_V,
    MOE_COLLECTIVE_ALL_GATHER,
    MOE_COLLECTIVE_REDUCE_SCATTER,
    MOE_COLLECTIVE_ALL_REDUCE,
    MOE_COLLECTIVE_P2P,
    MOE_COLLECTIVE_P2P_BOTH,
    MOE_COLLECTIVE_PEER_COPY,
    MOE_COLLECTIVE_HOST_TO_DEVICE,
    MOE_COLLECTIVE_OVERLAP, /* expert GEMMs beside all-to-alls: see overlap.h */
    MOE_COLLECTIVE_OP_COUNT
};

enum {
    MOE_COLLECTIVE_GRAIN = 16,      /* bytes: whole token rows are a multiple of it */
    MOE_COLLECTIVE_RANK_LIMIT = 64, /* ranks of one measurement */
};

/* What one call does. Ranks are those of the run, from 0. */
struct moe_collective_call {
    enum moe_collective_op op;
    uint32_t ranks; /* 0 .. ranks - 1 take part; not for src and dst below */
    int32_t src;    /* p2p, peer_copy, and host_to_device of one GPU (src = dst): the ranks that */
    int32_t dst;    /* take part; else -1 */
    int64_t bytes_per_peer;
    const int64_t *matrix; /* all_to_all_v: [src][dst] bytes, multiples of the grain; else NULL */
};

/* "all_to_all", ...: the name of a kind of series (samples/sample_tables.sql). */
const char *moe_collective_op_name(enum moe_collective_op op);

/* "nccl", "nccl-api", "copy-engine", "own". */
const char *moe_collective_op_backend(enum moe_collective_op op);

/* True when NCCL carries it out. */
bool moe_collective_op_nccl(enum moe_collective_op op);

/* True when it is made of NCCL's sends and receives, whose protocol changes at
 * MOE_COLLECTIVE_KNEE bytes per peer (16 KiB for each of the 32 channels of an NVLink pair). */
bool moe_collective_op_sends(enum moe_collective_op op);
#define MOE_COLLECTIVE_KNEE INT64_C(524288)

/* Whether rank takes part. */
bool moe_collective_joins(const struct moe_collective_call *call, uint32_t rank);

/* Bytes of rank's two buffers, and the bytes that the busiest rank sends over links. */
int64_t moe_collective_send_bytes(const struct moe_collective_call *call, uint32_t rank);
int64_t moe_collective_recv_bytes(const struct moe_collective_call *call, uint32_t rank);
int64_t moe_collective_wire_bytes(const struct moe_collective_call *call);

/* "all_to_all of 1 MiB per peer on 2 ranks", "p2p of 64 KiB from rank 1 to rank 0": for errors.
 * At most size bytes, terminated; returns out. */
const char *moe_collective_describe(const struct moe_collective_call *call, char *out,
                                    uint32_t size);

/* "1 KiB", "5.25 MiB": at most 15 characters. */
const char *moe_collective_size_text(int64_t bytes, char out[24]);

#endif
