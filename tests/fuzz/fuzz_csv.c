/* Any bytes as CSV: each record is refused with its line, or fields that hold no line end. */
#include <assert.h>
#include <math.h>
#include <string.h>

#include "traces/csv.h"

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    static struct moe_csv csv;
    struct moe_error err = { 0 };
    bool got = true;
    if (moe_csv_open_memory(&csv, "fuzz.csv", data, size, &err) != MOE_OK) {
        return 0;
    }
    while (got) {
        if (moe_csv_next(&csv, &got, &err) != MOE_OK) {
            assert(strncmp(err.text, "fuzz.csv:", 9) == 0);
            break;
        }
        for (size_t i = 0; got && i < csv.field_count; i++) {
            double value = 0.0;
            assert(strchr(csv.fields[i], '\n') == NULL);
            if (moe_csv_real(&csv, i, -1e9, 1e9, &value, &err) == MOE_OK) {
                assert(isfinite(value));
            }
        }
    }
    moe_csv_close(&csv);
    return 0;
}
