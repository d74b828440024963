/* Any bytes as a scenario and as a model card: refused, or writing what was read and
 * reading it again gives the same. */
#include <assert.h>
#include <stdint.h>
#include <stdlib.h>
#include <string.h>

#include "sim/model/model_reader.h"
#include "sim/scenario/scenario.h"

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

static void check_scenario(const char *text)
{
    static struct moe_scenario first;
    static struct moe_scenario again;
    static char written[65536];
    static char rewritten[65536];
    struct moe_error err = { 0 };
    /* A model that is a path would read files of the machine. */
    if (strstr(text, ".yaml") != NULL || strstr(text, ".yml") != NULL ||
        strstr(text, ".json") != NULL) {
        return;
    }
    if (moe_scenario_parse(&first, text, "input", &err) != MOE_OK) {
        assert(err.text[0] != '\0');
        return;
    }
    moe_scenario_write(&first, written, sizeof written);
    const enum moe_status status = moe_scenario_parse(&again, written, "written", &err);
    assert(status == MOE_OK);
    moe_scenario_write(&again, rewritten, sizeof rewritten);
    assert(strcmp(written, rewritten) == 0);
}

static void check_card(const char *text, size_t size)
{
    static char written[65536];
    struct moe_model first;
    struct moe_model again;
    struct moe_error err = { 0 };
    if (moe_model_read_card(&first, text, size, "input", &err) != MOE_OK) {
        assert(err.text[0] != '\0');
        return;
    }
    const size_t bytes = moe_settings_write(&moe_model_settings, &first, written, sizeof written);
    const enum moe_status status = moe_model_read_card(&again, written, bytes, "written", &err);
    assert(status == MOE_OK);
    assert(moe_model_total_weights(&first) == moe_model_total_weights(&again));
    assert(strcmp(first.source, again.source) == 0);
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    char *text = malloc(size + 1);
    assert(text != NULL);
    memcpy(text, data, size);
    text[size] = '\0';
    check_scenario(text);
    check_card(text, size);
    free(text);
    return 0;
}
