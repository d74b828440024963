/* Any bytes as a torch file: refused, or every tensor at its top is refused or readable. */
#include <assert.h>
#include <stdlib.h>

#include "traces/torch_file.h"

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    struct moe_torch_file *file = NULL;
    struct moe_error err = { 0 };
    if (moe_torch_file_open_memory(&file, "fuzz.pt", data, size, &err) != MOE_OK) {
        assert(err.text[0] != '\0');
        return 0;
    }
    const struct moe_pickle_value *root = moe_torch_file_root(file);
    for (size_t i = 0; root->kind == MOE_PICKLE_DICT && i + 1 < root->list->count; i += 2) {
        struct moe_tensor tensor;
        unsigned char *bytes = NULL;
        double items[64];
        if (moe_torch_file_tensor(file, &root->list->items[i + 1], "x", &tensor, &bytes, &err) !=
            MOE_OK) {
            assert(err.text[0] != '\0');
            continue;
        }
        const uint64_t some = tensor.item_count < 64 ? tensor.item_count : 64;
        moe_tensor_real(&tensor, 0, some, items);
        moe_tensor_real(&tensor, tensor.item_count - some, some, items);
        free(bytes);
    }
    moe_torch_file_close(file);
    return 0;
}
