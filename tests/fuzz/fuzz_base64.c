/* Any bytes as base64: refused, or as long as the text says; the importers of responses feed
 * what comes out to the .npy reader, so that is done here too. */
#include <assert.h>
#include <stdlib.h>

#include "traces/base64.h"
#include "traces/npy.h"

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    unsigned char *bytes = NULL;
    size_t length = 0;
    struct moe_error err = { 0 };
    struct moe_tensor tensor;
    if (moe_base64_decode(&bytes, &length, "fuzz", (const char *) data, size, &err) != MOE_OK) {
        assert(err.text[0] != '\0');
        return 0;
    }
    assert(length <= size / 4 * 3 && length + 2 >= size / 4 * 3);
    assert(moe_npy_tensor(&tensor, "fuzz", bytes, length, &err) == MOE_OK || err.text[0] != 0);
    free(bytes);
    return 0;
}
