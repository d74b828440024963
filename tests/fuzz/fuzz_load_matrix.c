/* Any bytes as a logical_count file: refused with a reason, or a matrix of loads. */
#include <assert.h>
#include <math.h>

#include "traces/load_matrix.h"

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    struct moe_load_matrix matrix = { 0 };
    struct moe_error err = { 0 };
    if (moe_load_matrix_parse_sglang(&matrix, "fuzz.json", (const char *) data, size, &err) !=
        MOE_OK) {
        assert(err.text[0] != '\0');
        assert(matrix.load == NULL);
        return 0;
    }
    assert(matrix.layer_count > 0);
    assert(matrix.expert_count > 0);
    for (size_t i = 0; i < (size_t) matrix.layer_count * matrix.expert_count; i++) {
        assert(isfinite(matrix.load[i]) && matrix.load[i] >= 0.0);
    }
    moe_load_matrix_finish(&matrix);
    return 0;
}
