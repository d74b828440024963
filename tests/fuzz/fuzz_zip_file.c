/* Any bytes as a zip file: every member is refused with a reason, or unpacked within the limit. */
#include <assert.h>
#include <stdlib.h>

#include "traces/zip_file.h"

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    struct moe_zip *zip = NULL;
    struct moe_error err = { 0 };
    if (moe_zip_open_memory(&zip, "fuzz.zip", data, size, &err) != MOE_OK) {
        assert(err.text[0] != '\0');
        return 0;
    }
    for (uint64_t i = 0; i < moe_zip_member_count(zip) && i < 16; i++) {
        unsigned char *bytes = NULL;
        size_t length = 0;
        err.text[0] = '\0';
        if (moe_zip_read(zip, i, 1 << 20, &bytes, &length, &err) == MOE_OK) {
            assert(length <= 1 << 20);
            free(bytes);
        } else {
            assert(err.text[0] != '\0');
        }
    }
    moe_zip_close(zip);
    return 0;
}
