/*
 * npy: numpy's array file, read in pieces.
 *
 * Source: numpy/lib/format.py's description of the format, versions 1.0, 2.0 and 3.0: a
 * magic, a header length, a Python dict literal with 'descr', 'fortran_order' and
 * 'shape', then the values. Up to 4 dimensions of little-endian numbers are read; anything else
 * is refused by name. In pieces, from a file, only integers in C order are.
 */
#ifndef MOE_TRACES_NPY_H
#define MOE_TRACES_NPY_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "sim/base/error.h"
#include "traces/tensor.h"

enum { MOE_NPY_DIMENSION_LIMIT = 4, MOE_NPY_HEADER_LIMIT = 65536 };

/* The first five are read in pieces, the others as a tensor only. */
enum moe_npy_type {
    MOE_NPY_U8,
    MOE_NPY_U16,
    MOE_NPY_I16,
    MOE_NPY_I32,
    MOE_NPY_I64,
    MOE_NPY_I8,
    MOE_NPY_BOOL,
    MOE_NPY_U32,
    MOE_NPY_U64,
    MOE_NPY_F16,
    MOE_NPY_F32,
    MOE_NPY_F64,
    MOE_NPY_TYPE_COUNT
};

struct moe_npy_header {
    enum moe_npy_type type;
    uint32_t item_bytes;
    bool fortran_order;
    uint32_t dimension_count;
    uint64_t shape[MOE_NPY_DIMENSION_LIMIT];
    uint64_t item_count; /* product of shape */
    uint64_t data_begin; /* offset of the first value */
};

/* Reads the header at the beginning of bytes[size]; what follows it is not looked at.
 * name begins the errors. Errors: MOE_PARSE; MOE_UNSUPPORTED for a good header of an
 * array that this reader does not read. */
enum moe_status moe_npy_parse(struct moe_npy_header *out, const char *name,
                              const unsigned char *bytes, size_t size,
                              struct moe_error *err) MOE_MUST_CHECK;

/* A whole file in memory, bytes[size], as a view of them. Errors: those of moe_npy_parse, and
 * MOE_PARSE when the values are not as many as the header says. */
enum moe_status moe_npy_tensor(struct moe_tensor *out, const char *name, const unsigned char *bytes,
                               size_t size, struct moe_error *err) MOE_MUST_CHECK;

struct moe_npy {
    char path[4096];
    int file; /* -1 when closed */
    struct moe_npy_header header;
};

/* Opens a file and compares its size with what the header promises. Errors: MOE_IO;
 * MOE_PARSE for a truncated or too long file, with the bytes expected and found;
 * MOE_UNSUPPORTED for what is read as a tensor only. */
enum moe_status moe_npy_open(struct moe_npy *npy, const char *path,
                             struct moe_error *err) MOE_MUST_CHECK;

/* Safe on a struct whose file is -1, and safe twice. */
void moe_npy_close(struct moe_npy *npy);

/* Items first .. first+count-1 as they stand in the file: bytes[count * item_bytes].
 * Items outside of the array are asserted. Errors: MOE_IO; MOE_PARSE when the file has
 * become shorter. */
enum moe_status moe_npy_read(const struct moe_npy *npy, uint64_t first, uint64_t count, void *bytes,
                             struct moe_error *err) MOE_MUST_CHECK;

/* The value of item index of what moe_npy_read gave: of the first five types (asserted). */
int64_t moe_npy_value(enum moe_npy_type type, const void *bytes, size_t index);

/* Converts count items to expert ids, -1 to MOE_EXPERT_UNKNOWN. Returns the index of the
 * first item that is neither -1 nor 0 .. expert_count-1, or count. */
size_t moe_npy_to_experts(enum moe_npy_type type, const void *bytes, size_t count,
                          uint32_t expert_count, uint16_t *out);

#endif
