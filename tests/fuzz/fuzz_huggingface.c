/* Any bytes as a HuggingFace config: refused with a sentence, or a model that passes its
 * check and that its own card reads back. */
#include <assert.h>
#include <stdint.h>

#include "sim/model/model_reader.h"

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    static char written[16384];
    struct moe_model model;
    struct moe_model again;
    struct moe_error err = { 0 };
    if (moe_model_read_huggingface(&model, (const char *) data, size, "in/config.json", &err) !=
        MOE_OK) {
        assert(err.text[0] != '\0');
        return 0;
    }
    enum moe_status status = moe_model_check(&model, &err);
    assert(status == MOE_OK);
    assert(moe_model_total_weights(&model) > 0.0);
    const size_t bytes = moe_settings_write(&moe_model_settings, &model, written, sizeof written);
    status = moe_model_read_card(&again, written, bytes, "written", &err);
    assert(status == MOE_OK);
    assert(moe_model_total_weights(&model) == moe_model_total_weights(&again));
    return 0;
}
