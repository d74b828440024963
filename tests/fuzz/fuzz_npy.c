/* Any bytes as a .npy file: the header is refused or keeps its promises, and every value
 * that follows it becomes an expert id or is named. */
#include <assert.h>

#include "traces/npy.h"
#include "traces/trace_store.h"

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    struct moe_npy_header header;
    struct moe_error err = { 0 };
    uint16_t experts[256];
    if (moe_npy_parse(&header, "fuzz.npy", data, size, &err) != MOE_OK) {
        assert(err.text[0] != '\0');
        return 0;
    }
    assert(header.data_begin <= size);
    struct moe_tensor tensor;
    if (moe_npy_tensor(&tensor, "fuzz.npy", data, size, &err) == MOE_OK) {
        const uint64_t some = tensor.item_count < 256 ? tensor.item_count : 256;
        assert(moe_tensor_experts(&tensor, tensor.item_count - some, some, experts) <= some);
    }
    if (header.type > MOE_NPY_I64) {
        return 0;
    }
    assert(header.dimension_count <= MOE_NPY_DIMENSION_LIMIT);
    assert(header.item_count <= UINT64_MAX / 16);
    uint64_t items = (size - header.data_begin) / header.item_bytes;
    items = items < header.item_count ? items : header.item_count;
    items = items < 256 ? items : 256;
    const uint8_t *values = data + header.data_begin;
    const size_t good = moe_npy_to_experts(header.type, values, (size_t) items, 200, experts);
    assert(good <= items);
    for (size_t i = 0; i < good; i++) {
        const int64_t value = moe_npy_value(header.type, values, i);
        assert(value < 0 ? experts[i] == MOE_EXPERT_UNKNOWN : experts[i] == value);
    }
    assert(good == items || moe_npy_value(header.type, values, good) < -1 ||
           moe_npy_value(header.type, values, good) >= 200);
    return 0;
}
