/* Any bytes: a routing model is refused with a reason, or its tables are what they should be. */
#include <assert.h>
#include <math.h>
#include <stdint.h>

#include "traces/generate/routing_model.h"

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    struct moe_routing_model model = { 0 };
    struct moe_error err = { 0 };
    const enum moe_status status =
        moe_routing_model_parse(&model, "input", (const char *) data, size, &err);
    assert((status == MOE_OK) == (err.text[0] == '\0'));
    if (status != MOE_OK) {
        return 0;
    }
    const size_t experts = model.model.expert_count;
    const size_t layers = (size_t) model.class_count * model.model.layer_count;
    for (size_t layer = 0; layer < layers; layer++) {
        double sum = 0.0;
        for (size_t i = 0; i < experts; i++) {
            sum += model.class_popularity[layer * experts + i];
        }
        assert(fabs(sum - 1.0) < 1e-6);
    }
    assert(model.slot_count >= 1);
    moe_routing_model_finish(&model);
    return 0;
}
