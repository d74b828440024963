/* Any bytes as a pickle: refused with the place, or data whose every value can be walked. */
#include <assert.h>

#include "traces/pickle.h"

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

/* Values may hold themselves: depth and number are bounded here. */
static void walk(const struct moe_pickle_value *value, int depth, int *left)
{
    if (depth == 0 || --*left < 0) {
        return;
    }
    assert(moe_pickle_kind_text(value)[0] != '\0');
    if (value->kind == MOE_PICKLE_TENSOR) {
        assert(value->tensor->offset <= value->tensor->storage->item_count);
        assert(value->tensor->view.dimension_count <= MOE_TENSOR_DIMENSION_LIMIT);
    }
    if (value->kind == MOE_PICKLE_LIST || value->kind == MOE_PICKLE_TUPLE ||
        value->kind == MOE_PICKLE_DICT) {
        for (size_t i = 0; i<value->list->count && * left> 0; i++) {
            walk(&value->list->items[i], depth - 1, left);
        }
    }
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    struct moe_pickle *pickle = NULL;
    struct moe_error err = { 0 };
    int left = 10000;
    if (moe_pickle_parse(&pickle, "fuzz", data, size, &err) != MOE_OK) {
        assert(err.text[0] != '\0');
        return 0;
    }
    walk(moe_pickle_root(pickle), 50, &left);
    (void) moe_pickle_get(moe_pickle_root(pickle), "records");
    moe_pickle_close(pickle);
    return 0;
}
