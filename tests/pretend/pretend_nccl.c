/*
 * NCCL of the pretend GPU: the calls that calibrate/collective/ makes, carried out when a group
 * ends. It is stricter than NCCL: where NCCL would wait for ever (a rank that does not take part, a
 * send without its receive, unlike sizes) it fails.
 *
 * PRETEND_FAULT: wrong (all_gather leaves a cell behind), error (all_reduce fails), hang (streams
 * never get idle after a reduce_scatter), init (communicators are refused).
 */
#include <cuda_runtime_api.h>
#include <nccl.h>
#include <stdbool.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "tests/pretend/pretend_gpu.h"

enum { RANK_LIMIT = 16, GROUP_LIMIT = 64, OP_LIMIT = 4096 };

enum kind { SEND, RECEIVE, ALL_GATHER, REDUCE_SCATTER, ALL_REDUCE };

struct group {
    char id[NCCL_UNIQUE_ID_BYTES];
    int rank_count;
};

struct ncclComm {
    struct group *group;
    int rank;
};

struct op {
    enum kind kind;
    struct ncclComm *comm;
    const uint16_t *from;
    uint16_t *to;
    size_t count;
    int peer;
    struct pretend_stream *stream;
    bool done;
};

static struct group groups[GROUP_LIMIT];
static int group_count;
static struct op ops[OP_LIMIT];
static int op_count;
static int depth;

static bool fault(const char *name)
{
    const char *text = getenv("PRETEND_FAULT");
    return text != NULL && strcmp(text, name) == 0;
}

const char *ncclGetErrorString(ncclResult_t result)
{
    return result == ncclSuccess ? "no error" : "pretend NCCL error";
}

const char *ncclGetLastError(ncclComm_t comm)
{
    (void) comm;
    return "as it was told to";
}

ncclResult_t ncclGetVersion(int *version)
{
    *version = 22809;
    return ncclSuccess;
}

ncclResult_t ncclGetUniqueId(ncclUniqueId *id)
{
    static int made;
    memset(id, 0, sizeof *id);
    (void) snprintf(id->internal, sizeof id->internal, "pretended %d", ++made);
    return ncclSuccess;
}

ncclResult_t ncclCommInitRank(ncclComm_t *out, int rank_count, ncclUniqueId id, int rank)
{
    const char *multicast = getenv("NCCL_NVLS_ENABLE");
    int at = 0;
    if (fault("init") || multicast == NULL || strcmp(multicast, "0") != 0 || rank < 0 ||
        rank >= rank_count || rank_count > RANK_LIMIT) {
        return ncclInvalidUsage;
    }
    while (at < group_count && memcmp(groups[at].id, id.internal, sizeof groups[at].id) != 0) {
        at++;
    }
    if (at == group_count) {
        memcpy(groups[group_count++].id, id.internal, sizeof groups[at].id);
        groups[at].rank_count = rank_count;
    }
    *out = calloc(1, sizeof **out);
    (*out)->group = &groups[at];
    (*out)->rank = rank;
    return ncclSuccess;
}

ncclResult_t ncclCommDestroy(ncclComm_t comm)
{
    free(comm);
    return ncclSuccess;
}

/* NCCL's header declares these two without a prototype. */
ncclResult_t ncclGroupStart(void);
ncclResult_t ncclGroupEnd(void);

ncclResult_t ncclGroupStart(void)
{
    depth++;
    return ncclSuccess;
}

static float number(uint16_t cell)
{
    const uint32_t bits = (uint32_t) cell << 16;
    float value = 0.0F;
    memcpy(&value, &bits, sizeof value);
    return value;
}

/* Exact for the whole numbers that tests look at. */
static uint16_t cell_of(float value)
{
    uint32_t bits = 0;
    memcpy(&bits, &value, sizeof bits);
    return (uint16_t) (bits >> 16);
}

/* The other end of a send or receive; the same call of rank `peer` for a collective. */
static struct op *partner(const struct op *op, int peer)
{
    for (int i = 0; i < op_count; i++) {
        struct op *other = &ops[i];
        if (other->done || other->comm->group != op->comm->group || other->comm->rank != peer) {
            continue;
        }
        if (op->kind == SEND ? other->kind == RECEIVE && other->peer == op->comm->rank
                             : other->kind == op->kind) {
            return other;
        }
    }
    return NULL;
}

/* Times of a link: sends change their protocol at 512 KiB, which costs. */
static void take_time(struct pretend_stream *const *streams, int count, double bytes, bool sends)
{
    static unsigned turn;
    const double us = 8.0 + bytes / 200e3 + (sends && bytes > 524288.0 ? 5.0 : 0.0);
    double from_us = 0.0;
    for (int i = 0; i < count; i++) {
        from_us = streams[i]->busy_us > from_us ? streams[i]->busy_us : from_us;
    }
    for (int i = 0; i < count; i++) {
        pretend_busy(streams[i], from_us, us * (1.0 + 0.0005 * (double) (turn % 7)));
    }
    turn++;
}

static ncclResult_t carry_send(struct op *op)
{
    struct op *to = partner(op, op->peer);
    if (to == NULL || to->count != op->count) {
        return ncclInvalidUsage;
    }
    memmove(to->to, op->from, op->count * 2);
    op->done = true;
    to->done = true;
    if (op->comm->rank != op->peer) {
        struct pretend_stream *const both[] = { op->stream, to->stream };
        take_time(both, 2, (double) op->count * 2.0, true);
    }
    return ncclSuccess;
}

static void reduce(struct op *const *all, int count, size_t first, size_t cells, uint16_t *to)
{
    for (size_t i = 0; i < cells; i++) {
        float sum = 0.0F;
        for (int rank = 0; rank < count; rank++) {
            sum += number(all[rank]->from[first + i]);
        }
        to[i] = cell_of(sum);
    }
}

static ncclResult_t carry_collective(struct op *op)
{
    struct op *all[RANK_LIMIT];
    struct pretend_stream *streams[RANK_LIMIT];
    const int count = op->comm->group->rank_count;
    for (int rank = 0; rank < count; rank++) {
        all[rank] = partner(op, rank);
        if (all[rank] == NULL || all[rank]->count != op->count) {
            return ncclInvalidUsage;
        }
        streams[rank] = all[rank]->stream;
    }
    for (int rank = 0; rank < count; rank++) {
        for (int from = 0; op->kind == ALL_GATHER && from < count; from++) {
            memmove(all[rank]->to + (size_t) from * op->count, all[from]->from, op->count * 2);
        }
        if (op->kind == REDUCE_SCATTER) {
            reduce(all, count, (size_t) rank * op->count, op->count, all[rank]->to);
            all[rank]->stream->hangs = fault("hang");
        }
        if (op->kind == ALL_REDUCE) {
            reduce(all, count, 0, op->count, all[rank]->to);
        }
    }
    if (op->kind == ALL_GATHER && fault("wrong")) {
        all[count - 1]->to[op->count - 1] = 0x4000; /* 2.0 */
        all[count - 1]->to[op->count - 2] = 0x4040;
    }
    for (int rank = 0; rank < count; rank++) {
        all[rank]->done = true;
    }
    take_time(streams, count, (double) op->count * 2.0, false);
    return op->kind == ALL_REDUCE && fault("error") ? ncclSystemError : ncclSuccess;
}

static ncclResult_t carry_out(void)
{
    ncclResult_t result = ncclSuccess;
    for (int i = 0; result == ncclSuccess && i < op_count; i++) {
        if (ops[i].done) {
            continue;
        }
        if (ops[i].kind == SEND) {
            result = carry_send(&ops[i]);
        } else if (ops[i].kind != RECEIVE) {
            result = carry_collective(&ops[i]);
        }
    }
    for (int i = 0; result == ncclSuccess && i < op_count; i++) {
        result = ops[i].done ? ncclSuccess : ncclInvalidUsage; /* a receive without its send */
        (void) pretend_launch(ops[i].stream);
    }
    op_count = 0;
    return result;
}

ncclResult_t ncclGroupEnd(void)
{
    return --depth == 0 ? carry_out() : ncclSuccess;
}

static ncclResult_t add(struct op op)
{
    if (op_count == OP_LIMIT || op.comm == NULL) {
        return ncclInvalidArgument;
    }
    ops[op_count++] = op;
    return depth == 0 ? carry_out() : ncclSuccess;
}

ncclResult_t ncclSend(const void *from, size_t count, ncclDataType_t type, int peer,
                      ncclComm_t comm, cudaStream_t stream)
{
    const struct op op = { SEND, comm, from, NULL, count, peer, (void *) stream, false };
    return type == ncclBfloat16 ? add(op) : ncclInvalidArgument;
}

ncclResult_t ncclRecv(void *to, size_t count, ncclDataType_t type, int peer, ncclComm_t comm,
                      cudaStream_t stream)
{
    const struct op op = { RECEIVE, comm, NULL, to, count, peer, (void *) stream, false };
    return type == ncclBfloat16 ? add(op) : ncclInvalidArgument;
}

ncclResult_t ncclAlltoAll(const void *from, void *to, size_t count, ncclDataType_t type,
                          ncclComm_t comm, cudaStream_t stream)
{
    ncclResult_t result = ncclSuccess;
    depth++;
    for (int peer = 0; result == ncclSuccess && peer < comm->group->rank_count; peer++) {
        const size_t at = (size_t) peer * count;
        result = ncclSend((const uint16_t *) from + at, count, type, peer, comm, stream);
        if (result == ncclSuccess) {
            result = ncclRecv((uint16_t *) to + at, count, type, peer, comm, stream);
        }
    }
    depth--;
    return result;
}

ncclResult_t ncclAllGather(const void *from, void *to, size_t count, ncclDataType_t type,
                           ncclComm_t comm, cudaStream_t stream)
{
    const struct op op = { ALL_GATHER, comm, from, to, count, 0, (void *) stream, false };
    return type == ncclBfloat16 ? add(op) : ncclInvalidArgument;
}

ncclResult_t ncclReduceScatter(const void *from, void *to, size_t count, ncclDataType_t type,
                               ncclRedOp_t reduction, ncclComm_t comm, cudaStream_t stream)
{
    const struct op op = { REDUCE_SCATTER, comm, from, to, count, 0, (void *) stream, false };
    return type == ncclBfloat16 && reduction == ncclSum ? add(op) : ncclInvalidArgument;
}

ncclResult_t ncclAllReduce(const void *from, void *to, size_t count, ncclDataType_t type,
                           ncclRedOp_t reduction, ncclComm_t comm, cudaStream_t stream)
{
    const struct op op = { ALL_REDUCE, comm, from, to, count, 0, (void *) stream, false };
    return type == ncclBfloat16 && reduction == ncclSum ? add(op) : ncclInvalidArgument;
}
