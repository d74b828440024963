#include "traces/tensor.h"

#include <assert.h>
#include <inttypes.h>
#include <math.h>
#include <stdio.h>
#include <string.h>

#include "traces/trace_store.h"

static const uint8_t item_bytes[MOE_TENSOR_TYPE_COUNT] = {
    [MOE_TENSOR_U8] = 1,  [MOE_TENSOR_I8] = 1,  [MOE_TENSOR_BOOL] = 1, [MOE_TENSOR_U16] = 2,
    [MOE_TENSOR_I16] = 2, [MOE_TENSOR_F16] = 2, [MOE_TENSOR_BF16] = 2, [MOE_TENSOR_U32] = 4,
    [MOE_TENSOR_I32] = 4, [MOE_TENSOR_F32] = 4, [MOE_TENSOR_U64] = 8,  [MOE_TENSOR_I64] = 8,
    [MOE_TENSOR_F64] = 8,
};

uint32_t moe_tensor_item_bytes(enum moe_tensor_type type)
{
    return item_bytes[type];
}

void moe_tensor_set_strides(struct moe_tensor *tensor, bool fortran)
{
    uint64_t stride = 1;
    for (uint32_t i = 0; i < tensor->dimension_count; i++) {
        const uint32_t axis = fortran ? i : tensor->dimension_count - 1 - i;
        tensor->stride[axis] = stride;
        /* An overflow is found by check, which computes the same product. */
        stride *= tensor->shape[axis];
    }
}

enum moe_status moe_tensor_check(struct moe_tensor *tensor, uint64_t size_bytes, const char *name,
                                 struct moe_error *err)
{
    const uint64_t room = size_bytes / item_bytes[tensor->type];
    char shape[120];
    uint64_t count = 1;
    uint64_t last = 0;
    bool fits = true;
    for (uint32_t i = 0; i < tensor->dimension_count; i++) {
        uint64_t reach = 0;
        if (tensor->shape[i] == 0) {
            tensor->item_count = 0;
            return MOE_OK;
        }
        fits = fits && !__builtin_mul_overflow(count, tensor->shape[i], &count) &&
               !__builtin_mul_overflow(tensor->shape[i] - 1, tensor->stride[i], &reach) &&
               !__builtin_add_overflow(last, reach, &last);
    }
    if (!fits || count > room || last >= room) {
        return moe_fail(err, MOE_PARSE,
                        "%s: a tensor of shape %s does not fit the %" PRIu64 " bytes that hold it",
                        name, moe_tensor_shape_text(tensor, shape, sizeof shape), size_bytes);
    }
    tensor->item_count = count;
    return MOE_OK;
}

const char *moe_tensor_shape_text(const struct moe_tensor *tensor, char *text, size_t size)
{
    size_t used = (size_t) snprintf(text, size, "[");
    for (uint32_t i = 0; i < tensor->dimension_count && used < size; i++) {
        used += (size_t) snprintf(text + used, size - used, "%s%" PRIu64, i == 0 ? "" : ", ",
                                  tensor->shape[i]);
    }
    if (used < size) {
        (void) snprintf(text + used, size - used, "]");
    }
    return text;
}

/* Walks items in C order. */
struct walk {
    const struct moe_tensor *tensor;
    uint64_t index[MOE_TENSOR_DIMENSION_LIMIT];
    uint64_t offset; /* in items */
};

static struct walk walk_from(const struct moe_tensor *tensor, uint64_t first)
{
    struct walk walk = { .tensor = tensor };
    for (uint32_t i = tensor->dimension_count; i-- > 0;) {
        walk.index[i] = first % tensor->shape[i];
        first /= tensor->shape[i];
        walk.offset += walk.index[i] * tensor->stride[i];
    }
    return walk;
}

static const unsigned char *walk_item(const struct walk *walk)
{
    return walk->tensor->data + walk->offset * item_bytes[walk->tensor->type];
}

static void walk_step(struct walk *walk)
{
    const struct moe_tensor *tensor = walk->tensor;
    for (uint32_t i = tensor->dimension_count; i-- > 0;) {
        walk->offset += tensor->stride[i];
        if (++walk->index[i] < tensor->shape[i]) {
            return;
        }
        walk->offset -= walk->index[i] * tensor->stride[i];
        walk->index[i] = 0;
    }
}

/* IEEE 754 binary16. */
static double half(uint16_t bits)
{
    const int exponent = bits >> 10 & 31;
    const double fraction = bits & 1023;
    const double magnitude = exponent == 0    ? ldexp(fraction, -24)
                             : exponent == 31 ? (fraction == 0.0 ? INFINITY : NAN)
                                              : ldexp(fraction + 1024.0, exponent - 25);
    return (bits & 0x8000) != 0 ? -magnitude : magnitude;
}

static double bfloat(uint16_t bits)
{
    const uint32_t wide = (uint32_t) bits << 16;
    float value = 0.0F;
    memcpy(&value, &wide, 4);
    return (double) value;
}

static double read_float(enum moe_tensor_type type, const unsigned char *item)
{
    uint16_t bits = 0;
    float single = 0.0F;
    double wide = 0.0;
    if (type == MOE_TENSOR_F64) {
        memcpy(&wide, item, 8);
        return wide;
    }
    if (type == MOE_TENSOR_F32) {
        memcpy(&single, item, 4);
        return (double) single;
    }
    memcpy(&bits, item, 2);
    return type == MOE_TENSOR_F16 ? half(bits) : bfloat(bits);
}

static bool is_float(enum moe_tensor_type type)
{
    return type == MOE_TENSOR_F16 || type == MOE_TENSOR_BF16 || type == MOE_TENSOR_F32 ||
           type == MOE_TENSOR_F64;
}

static bool is_signed(enum moe_tensor_type type)
{
    return type == MOE_TENSOR_I8 || type == MOE_TENSOR_I16 || type == MOE_TENSOR_I32 ||
           type == MOE_TENSOR_I64;
}

/* An integer item; false for a U64 beyond int64. */
static bool read_integer(enum moe_tensor_type type, const unsigned char *item, int64_t *out)
{
    const uint32_t bytes = item_bytes[type];
    uint64_t bits = 0;
    memcpy(&bits, item, bytes);
    if (is_signed(type) && bytes < 8 && (bits >> (8 * bytes - 1) & 1) != 0) {
        bits |= UINT64_MAX << 8 * bytes;
    }
    memcpy(out, &bits, 8);
    return type != MOE_TENSOR_U64 || bits <= INT64_MAX;
}

uint64_t moe_tensor_whole(const struct moe_tensor *tensor, uint64_t first, uint64_t count,
                          int64_t *out)
{
    assert(first <= tensor->item_count && count <= tensor->item_count - first);
    if (count == 0) {
        return 0;
    }
    struct walk walk = walk_from(tensor, first);
    for (uint64_t i = 0; i < count; i++, walk_step(&walk)) {
        if (!is_float(tensor->type)) {
            if (!read_integer(tensor->type, walk_item(&walk), &out[i])) {
                return i;
            }
            continue;
        }
        const double value = read_float(tensor->type, walk_item(&walk));
        if (!(fabs(value) < 0x1p62) || value != floor(value)) {
            return i;
        }
        out[i] = (int64_t) value;
    }
    return count;
}

void moe_tensor_real(const struct moe_tensor *tensor, uint64_t first, uint64_t count, double *out)
{
    assert(first <= tensor->item_count && count <= tensor->item_count - first);
    if (count == 0) {
        return;
    }
    struct walk walk = walk_from(tensor, first);
    for (uint64_t i = 0; i < count; i++, walk_step(&walk)) {
        int64_t value = 0;
        if (is_float(tensor->type)) {
            out[i] = read_float(tensor->type, walk_item(&walk));
        } else if (read_integer(tensor->type, walk_item(&walk), &value)) {
            out[i] = (double) value;
        } else {
            out[i] = (double) (uint64_t) value;
        }
    }
}

uint64_t moe_tensor_experts(const struct moe_tensor *tensor, uint64_t first, uint64_t count,
                            uint16_t *out)
{
    enum { PIECE = 256 };
    int64_t values[PIECE];
    for (uint64_t done = 0; done < count; done += PIECE) {
        const uint64_t piece = count - done < PIECE ? count - done : PIECE;
        const uint64_t good = moe_tensor_whole(tensor, first + done, piece, values);
        for (uint64_t i = 0; i < good; i++) {
            if (values[i] < -1 || values[i] >= MOE_TRACE_EXPERT_LIMIT) {
                return done + i;
            }
            out[done + i] = values[i] < 0 ? MOE_EXPERT_UNKNOWN : (uint16_t) values[i];
        }
        if (good < piece) {
            return done + good;
        }
    }
    return count;
}

uint64_t moe_tensor_counts(const struct moe_tensor *tensor, uint64_t first, uint64_t count,
                           double *out)
{
    moe_tensor_real(tensor, first, count, out);
    for (uint64_t i = 0; i < count; i++) {
        if (!(out[i] >= 0.0) || !isfinite(out[i])) {
            return i;
        }
    }
    return count;
}

const char *moe_tensor_item_text(const struct moe_tensor *tensor, uint64_t item, char *text,
                                 size_t size)
{
    double value = 0.0;
    moe_tensor_real(tensor, item, 1, &value);
    (void) snprintf(text, size, isnan(value) ? "nan" : "%.17g", value);
    return text;
}
