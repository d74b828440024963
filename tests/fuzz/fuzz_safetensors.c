/* Any bytes as a safetensors file: refused, or every tensor lies in the file. */
#include <assert.h>
#include <stdlib.h>

#include "traces/safetensors.h"

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    struct moe_safetensors *file = NULL;
    struct moe_error err = { 0 };
    if (moe_safetensors_open_memory(&file, "fuzz", data, size, &err) != MOE_OK) {
        assert(err.text[0] != '\0');
        return 0;
    }
    for (size_t i = 0; i < moe_safetensors_count(file) && i < 100; i++) {
        struct moe_tensor tensor;
        unsigned char *bytes = NULL;
        int64_t items[64];
        assert(moe_safetensors_name(file, i) != NULL);
        if (moe_safetensors_read(file, i, &tensor, &bytes, &err) == MOE_OK) {
            assert(tensor.item_count * moe_tensor_item_bytes(tensor.type) <= size);
            (void) moe_tensor_whole(&tensor, 0, tensor.item_count < 64 ? tensor.item_count : 64,
                                    items);
            free(bytes);
        }
    }
    moe_safetensors_close(file);
    return 0;
}
