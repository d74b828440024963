/*
 * Tensor: numbers of one type with a shape, somewhere in memory, as files of arrays hold them
 * (npy, torch, safetensors). A view: it owns nothing.
 */
#ifndef MOE_TRACES_TENSOR_H
#define MOE_TRACES_TENSOR_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "sim/base/error.h"

enum { MOE_TENSOR_DIMENSION_LIMIT = 4 };

enum moe_tensor_type {
    MOE_TENSOR_U8,
    MOE_TENSOR_I8,
    MOE_TENSOR_BOOL,
    MOE_TENSOR_U16,
    MOE_TENSOR_I16,
    MOE_TENSOR_F16,
    MOE_TENSOR_BF16,
    MOE_TENSOR_U32,
    MOE_TENSOR_I32,
    MOE_TENSOR_F32,
    MOE_TENSOR_U64,
    MOE_TENSOR_I64,
    MOE_TENSOR_F64,
    MOE_TENSOR_TYPE_COUNT
};

struct moe_tensor {
    enum moe_tensor_type type;
    uint32_t dimension_count;
    uint64_t shape[MOE_TENSOR_DIMENSION_LIMIT];
    uint64_t stride[MOE_TENSOR_DIMENSION_LIMIT]; /* in items */
    uint64_t item_count;                         /* product of shape; set by check */
    const unsigned char *data;                   /* of item 0, ...; any alignment, little endian */
};

uint32_t moe_tensor_item_bytes(enum moe_tensor_type type);

/* Strides of an array without gaps, last index fastest (C order) or first (Fortran order). */
void moe_tensor_set_strides(struct moe_tensor *tensor, bool fortran);

/* Computes item_count and checks that every item lies within size_bytes from data, and that
 * there are no more items than those bytes hold. name begins the error. Errors: MOE_PARSE. */
enum moe_status moe_tensor_check(struct moe_tensor *tensor, uint64_t size_bytes, const char *name,
                                 struct moe_error *err) MOE_MUST_CHECK;

/* Items first .. first+count-1 in C order, whatever the strides. Asserts the range.
 * whole: returns how many were whole numbers that an int64 holds before the first other one;
 * real: every type as double (NaN included). */
uint64_t moe_tensor_whole(const struct moe_tensor *tensor, uint64_t first, uint64_t count,
                          int64_t *out);
void moe_tensor_real(const struct moe_tensor *tensor, uint64_t first, uint64_t count, double *out);

/* Items as expert ids, -1 as MOE_EXPERT_UNKNOWN: returns the number before the first item that
 * is no whole number from -1 to MOE_TRACE_EXPERT_LIMIT - 1. */
uint64_t moe_tensor_experts(const struct moe_tensor *tensor, uint64_t first, uint64_t count,
                            uint16_t *out);

/* Items as counts, each finite and >= 0: returns the number before the first other one. */
uint64_t moe_tensor_counts(const struct moe_tensor *tensor, uint64_t first, uint64_t count,
                           double *out);

/* An item as a number, "nan" and all, into text[size]; returns text. */
const char *moe_tensor_item_text(const struct moe_tensor *tensor, uint64_t item, char *text,
                                 size_t size);

/* "[8, 16, 64]", into text[size]; returns text. */
const char *moe_tensor_shape_text(const struct moe_tensor *tensor, char *text, size_t size);

#endif
