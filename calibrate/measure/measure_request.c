/* What the command line asks for, word by word. */
#include <stdio.h>
#include <string.h>

#include "calibrate/measure/measure_backend.h"
#include "calibrate/measure/measure_model.h"
#include "calibrate/measure/measure_plan.h"
#include "sim/base/options.h"

static const char *const kind_names[MOE_MEASURE_KIND_COUNT] = {
    "expert", "gemm", "permute", "combine", "gate", "kv_gqa", "kv_mla", "stream", "launch",
};

const char *moe_measure_kind_name(enum moe_measure_kind kind)
{
    return kind_names[kind];
}

const char *moe_measure_role_name(enum moe_measure_role role)
{
    static const char *const names[MOE_ROLE_COUNT] = { "anchor",   "heldout",   "skew",  "refine",
                                                       "sentinel", "sustained", "burst", "uneven" };
    return names[role];
}

void moe_measure_request_default(struct moe_measure_request *request)
{
    *request = (struct moe_measure_request){
        .ep = { 8 },
        .ep_count = 1,
        .dtypes = { [MOE_EXPERT_BF16] = true },
        .backends = { "own" },
        .backend_count = 1,
        .rows_max = 8192,
        .context_max = 65536,
        .stream_bytes = 0x1p30,
        .sentinel = { 7168, 2048, 32, MOE_EXPERT_SWIGLU },
        .sentinel_rows = 256,
        .seed = 1,
        .settle_s = 0.2,
        .repeat_percent = 30,
    };
    for (int kind = 0; kind < MOE_MEASURE_KIND_COUNT; kind++) {
        request->kinds[kind] = true;
    }
}

typedef const char *(*name_of_index)(size_t index); /* NULL behind the last */

static const char *model_name(size_t index)
{
    return index < moe_measure_model_count ? moe_measure_models[index].name : NULL;
}

static const char *dtype_name(size_t index)
{
    return index < MOE_EXPERT_DTYPE_COUNT ? moe_expert_dtype_name((enum moe_expert_dtype) index)
                                          : NULL;
}

static const char *kind_name(size_t index)
{
    return index < MOE_MEASURE_KIND_COUNT ? kind_names[index] : NULL;
}

static const char *backend_name(size_t index)
{
    return index < moe_measure_backend_count ? moe_measure_backends[index].name : NULL;
}

/* The next of comma-separated names at *at, as an index; *at moves on. */
static enum moe_status next_name(const char **at, const char *option, name_of_index name_of,
                                 size_t *index, struct moe_error *err)
{
    const size_t length = strcspn(*at, ",");
    *index = 0;
    while (name_of(*index) != NULL &&
           (strlen(name_of(*index)) != length || strncmp(name_of(*index), *at, length) != 0)) {
        (*index)++;
    }
    if (name_of(*index) == NULL) {
        char names[400] = "";
        size_t used = 0;
        for (size_t i = 0; name_of(i) != NULL && used < sizeof names; i++) {
            used += (size_t) snprintf(names + used, sizeof names - used, " %s", name_of(i));
        }
        return moe_fail(err, MOE_RANGE, "%s: there is no '%.*s'; allowed:%s", option,
                        (int) (length < 60 ? length : 60), *at, names);
    }
    *at += length + ((*at)[length] == ',');
    return MOE_OK;
}

static enum moe_status refuse_empty(const char *text, const char *option, struct moe_error *err)
{
    return text[0] == '\0' ? moe_fail(err, MOE_RANGE, "%s: nothing is named", option) : MOE_OK;
}

enum moe_status moe_measure_parse_models(const char *text, struct moe_measure_request *request,
                                         struct moe_error *err)
{
    bool seen[MOE_MEASURE_MODEL_LIMIT] = { false };
    MOE_TRY(refuse_empty(text, "--models", err));
    request->model_count = 0;
    if (strcmp(text, "all") == 0) {
        for (size_t i = 0; i < moe_measure_model_count; i++) {
            request->models[request->model_count++] = (uint32_t) i;
        }
        return MOE_OK;
    }
    for (const char *at = text; *at != '\0';) {
        size_t index = 0;
        MOE_TRY(next_name(&at, "--models", model_name, &index, err));
        if (seen[index]) {
            return moe_fail(err, MOE_RANGE, "--models: %s is named twice",
                            moe_measure_models[index].name);
        }
        seen[index] = true;
        request->models[request->model_count++] = (uint32_t) index;
    }
    return MOE_OK;
}

enum moe_status moe_measure_parse_ep(const char *text, struct moe_measure_request *request,
                                     struct moe_error *err)
{
    MOE_TRY(refuse_empty(text, "--ep", err));
    request->ep_count = 0;
    for (const char *at = text; *at != '\0';) {
        const size_t length = strcspn(at, ",");
        char part[16];
        uint64_t value = 0;
        (void) snprintf(part, sizeof part, "%.*s", (int) (length < 15 ? length : 15), at);
        MOE_TRY(moe_parse_count(part, "--ep", 1, 1024, &value, err));
        if (request->ep_count == MOE_MEASURE_EP_LIMIT) {
            return moe_fail(err, MOE_RANGE, "--ep: more than %d degrees", MOE_MEASURE_EP_LIMIT);
        }
        request->ep[request->ep_count++] = (int32_t) value;
        at += length + (at[length] == ',');
    }
    return MOE_OK;
}

enum moe_status moe_measure_parse_dtypes(const char *text, struct moe_measure_request *request,
                                         struct moe_error *err)
{
    MOE_TRY(refuse_empty(text, "--dtype", err));
    memset(request->dtypes, 0, sizeof request->dtypes);
    for (const char *at = text; *at != '\0';) {
        size_t index = 0;
        MOE_TRY(next_name(&at, "--dtype", dtype_name, &index, err));
        request->dtypes[index] = true;
    }
    return MOE_OK;
}

enum moe_status moe_measure_parse_kinds(const char *text, struct moe_measure_request *request,
                                        struct moe_error *err)
{
    MOE_TRY(refuse_empty(text, "--kinds", err));
    memset(request->kinds, 0, sizeof request->kinds);
    for (const char *at = text; *at != '\0';) {
        size_t index = 0;
        MOE_TRY(next_name(&at, "--kinds", kind_name, &index, err));
        request->kinds[index] = true;
    }
    return MOE_OK;
}

enum moe_status moe_measure_parse_backends(const char *text, struct moe_measure_request *request,
                                           struct moe_error *err)
{
    MOE_TRY(refuse_empty(text, "--backend", err));
    request->backend_count = 0;
    for (const char *at = text; *at != '\0';) {
        size_t index = 0;
        MOE_TRY(next_name(&at, "--backend", backend_name, &index, err));
        if (request->backend_count == MOE_MEASURE_BACKEND_LIMIT) {
            return moe_fail(err, MOE_RANGE, "--backend: more than %d", MOE_MEASURE_BACKEND_LIMIT);
        }
        (void) snprintf(request->backends[request->backend_count++], sizeof request->backends[0],
                        "%s", moe_measure_backends[index].name);
    }
    return MOE_OK;
}
