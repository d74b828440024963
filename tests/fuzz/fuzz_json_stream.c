/* Any bytes as JSON, token by token and as matrices: what passes is JSON for jansson too, but
 * for what only jansson checks (UTF-8, escapes of surrogates, numbers it cannot hold). */
#include <assert.h>
#include <jansson.h>
#include <math.h>

#include "traces/json_stream.h"

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

static enum moe_status take(void *context, const struct moe_json_matrix *matrix,
                            struct moe_error *err)
{
    (void) err;
    *(int *) context += 1;
    assert(matrix->row_count > 0 && matrix->column_count > 0);
    for (uint32_t i = 0; i < matrix->row_count * matrix->column_count; i++) {
        assert(matrix->cells[i] >= 0.0 && isfinite(matrix->cells[i]));
    }
    return MOE_OK;
}

/* Whether plain ASCII without escapes: there the two must agree. */
static bool is_plain(const uint8_t *data, size_t size)
{
    for (size_t i = 0; i < size; i++) {
        if (data[i] >= 0x7f || data[i] == '\\' || data[i] == 0) {
            return false;
        }
    }
    return true;
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    struct moe_json_stream stream;
    struct moe_error err = { 0 };
    enum moe_json_token token = MOE_JSON_OBJECT_BEGIN;
    enum moe_status status = moe_json_stream_open_memory(&stream, "fuzz", data, size, &err);
    while (status == MOE_OK && token != MOE_JSON_END) {
        status = moe_json_stream_next(&stream, &token, &err);
    }
    assert((status == MOE_OK) == (err.text[0] == '\0'));
    moe_json_stream_close(&stream);
    if (status == MOE_OK && is_plain(data, size)) {
        json_error_t reason;
        json_t *document = json_loadb((const char *) data, size,
                                      JSON_DECODE_ANY | JSON_DECODE_INT_AS_REAL, &reason);
        assert(document != NULL);
        json_decref(document);
    }
    struct moe_json_matrix matrix = { .row_limit = 50, .column_limit = 50 };
    int count = 0;
    if (moe_json_stream_open_memory(&stream, "fuzz", data, size, &err) == MOE_OK) {
        status = moe_json_stream_matrices(&stream, true, "m", &matrix, take, &count, &err);
        assert(status != MOE_OK || count > 0);
        moe_json_stream_close(&stream);
    }
    moe_json_matrix_finish(&matrix);
    return 0;
}
