/*
 * A pretend GPU: the calls of the CUDA runtime, cuBLAS, NCCL and our kernels that calibrate/ makes,
 * carried out on the CPU at once, so that what calibrate/ does around them (layouts, strides,
 * forks and joins, files) is tested where there is no GPU. Times are made up. Test code only: it
 * stands in the place of the real libraries when its files are linked instead of them.
 *
 * It is stricter than a GPU in two things: work launched on a stream that is not part of the
 * capture under way, and a capture that ends with a stream not joined, fail as they would there;
 * and products go by the layouts' every stride. PRETEND_GPUS in the environment says how many GPUs
 * there are, PRETEND_FAULT what goes wrong (pretend_nccl.c).
 */
#ifndef MOE_TESTS_PRETEND_GPU_H
#define MOE_TESTS_PRETEND_GPU_H

#include <stdbool.h>
#include <stddef.h>

struct pretend_stream {
    bool capturing;
    const void *captured_by; /* the thread whose capture it is part of */
    long work;               /* launched so far */
    long joined;             /* of it, what the capture's own stream waited for */
    double busy_us;          /* time that its work has taken, as far as it said */
    bool hangs;              /* never gets idle */
};

/* The stream, which may be NULL, works until then at least, and us longer. */
void pretend_busy(void *stream, double from_us, double us);

/* The stream waits until all others are done: what is queued behind holds starts together. */
void pretend_hold(void *stream);

/* Notes a launch on stream (NULL: the default one). Returns a cudaError_t. */
int pretend_launch(void *stream);

/* Element i of an array: type 0 bf16, 1 e4m3, 2 float. */
double pretend_read(const void *base, int type, long i);
void pretend_write(void *base, int type, long i, double value);

#endif
