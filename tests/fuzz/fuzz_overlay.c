/* Any bytes as measured steps: refused with the file's name, or steps that can be compared. */
#include <assert.h>
#include <math.h>
#include <string.h>

#include "sim/engine/step_profile.h"

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    static struct moe_step_profile profile;
    struct moe_overlay overlay = { 0 };
    struct moe_error err = { 0 };
    if (moe_overlay_parse(&overlay, (const char *) data, size, "fuzz.csv", &err) != MOE_OK) {
        assert(strncmp(err.text, "fuzz.csv:", 9) == 0);
        assert(overlay.steps == NULL);
        return 0;
    }
    moe_step_profile_add(&profile, MOE_STEP_DECODE, 100, 1000);
    assert(overlay.count > 0);
    uint64_t steps = 0;
    for (uint32_t kind = 0; kind < MOE_STEP_KINDS; kind++) {
        const struct moe_overlay_error e =
            moe_overlay_compare(&overlay, &profile, kind, MOE_STEP_CELLS);
        assert(isfinite(e.bias) && isfinite(e.mape) && e.p95 >= 0.0);
        steps += e.count + e.left_out;
    }
    assert(steps == overlay.count);
    moe_overlay_finish(&overlay);
    return 0;
}
