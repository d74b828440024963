#include "traces/route_gather.h"

#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "sim/base/hash.h"

enum { REQUEST_LIMIT = 1 << 24 };

enum moe_status moe_route_gather_domain(struct moe_route_gather *gather, const char *name,
                                        const char *place, uint32_t *out, struct moe_error *err)
{
    for (uint32_t i = 0; i < gather->domain_count; i++) {
        if (strcmp(gather->domains[i], name) == 0) {
            *out = i;
            return MOE_OK;
        }
    }
    if (gather->domain_count == MOE_TRACE_DOMAIN_LIMIT || name[0] == '\0' ||
        strlen(name) >= sizeof gather->domains[0]) {
        return moe_fail(err, MOE_RANGE,
                        "%s: domain '%.40s'; names of 1 to %zu bytes and at most %d of them are "
                        "allowed",
                        place, name, sizeof gather->domains[0] - 1, MOE_TRACE_DOMAIN_LIMIT);
    }
    (void) snprintf(gather->domains[gather->domain_count], sizeof gather->domains[0], "%s", name);
    *out = gather->domain_count++;
    return MOE_OK;
}

static void put(struct moe_route_gather *gather, size_t request)
{
    size_t slot = gather->requests[request].key & (gather->table_size - 1);
    while (gather->table[slot] != 0) {
        slot = (slot + 1) & (gather->table_size - 1);
    }
    gather->table[slot] = (uint32_t) request + 1;
}

static enum moe_status grow(struct moe_route_gather *gather, const char *place,
                            struct moe_error *err)
{
    const size_t size = gather->table_size == 0 ? 64 : 2 * gather->table_size;
    if (size > 2 * (size_t) REQUEST_LIMIT) {
        return moe_fail(err, MOE_RANGE, "%s: more than %d requests", place, REQUEST_LIMIT);
    }
    uint32_t *table = calloc(size, sizeof *table);
    struct moe_gather_request *requests = realloc(gather->requests, size / 2 * sizeof *requests);
    gather->requests = requests != NULL ? requests : gather->requests;
    if (table == NULL || requests == NULL) {
        free(table);
        return moe_fail(err, MOE_LIMIT, "%s: no memory for %zu requests", place, size / 2);
    }
    free(gather->table);
    gather->table = table;
    gather->table_size = size;
    for (size_t i = 0; i < gather->request_count; i++) {
        put(gather, i);
    }
    return MOE_OK;
}

/* The request of that key; NULL when there is none. */
static struct moe_gather_request *find(const struct moe_route_gather *gather, uint64_t key)
{
    size_t slot = gather->table_size == 0 ? 0 : key & (gather->table_size - 1);
    while (gather->table_size > 0 && gather->table[slot] != 0) {
        struct moe_gather_request *request = &gather->requests[gather->table[slot] - 1];
        if (request->key == key) {
            return request;
        }
        slot = (slot + 1) & (gather->table_size - 1);
    }
    return NULL;
}

static enum moe_status note(struct moe_route_gather *gather, const struct moe_gather_choice *choice,
                            const char *place, struct moe_error *err)
{
    struct moe_gather_request *request = find(gather, choice->request);
    if (request == NULL) {
        if (gather->request_count >= gather->table_size / 2) {
            MOE_TRY(grow(gather, place, err));
        }
        request = &gather->requests[gather->request_count];
        *request = (struct moe_gather_request){
            .key = choice->request,
            .first_token = choice->token,
            .output_token = UINT64_MAX,
            .domain = choice->domain,
        };
        put(gather, gather->request_count++);
    }
    if (choice->token < request->first_token) {
        request->first_token = choice->token;
    }
    if (choice->token >= request->end_token) {
        request->end_token = choice->token + 1;
    }
    if (choice->is_output && choice->token < request->output_token) {
        request->output_token = choice->token;
    }
    gather->layer_is_seen[choice->layer] = true;
    gather->top_k = choice->count > gather->top_k ? choice->count : gather->top_k;
    return MOE_OK;
}

static enum moe_status fill(struct moe_route_gather *gather, const struct moe_gather_choice *choice,
                            const char *place, struct moe_error *err)
{
    const struct moe_gather_request *request = find(gather, choice->request);
    const struct moe_route_list *list = &gather->list;
    if (request == NULL || choice->token < request->first_token ||
        choice->token >= request->end_token || !gather->layer_is_seen[choice->layer] ||
        choice->count > list->top_k) {
        return moe_fail(err, MOE_PARSE, "%s: the file changed while it was read", place);
    }
    const uint64_t row = request->row + (choice->token - request->first_token);
    uint16_t *to =
        list->rows + (row * list->layer_count + gather->layer_index[choice->layer]) * list->top_k;
    if (choice->count > 0 && to[0] != MOE_EXPERT_UNKNOWN) {
        return moe_fail(err, MOE_PARSE,
                        "%s: token %" PRIu64 " of layer %u stands twice in its request", place,
                        choice->token, choice->layer);
    }
    memcpy(to, choice->experts, choice->count * sizeof *to);
    return MOE_OK;
}

enum moe_status moe_route_gather_take(struct moe_route_gather *gather,
                                      const struct moe_gather_choice *choice, const char *place,
                                      struct moe_error *err)
{
    if (choice->layer >= MOE_GATHER_LAYER_END || choice->token >= UINT32_MAX ||
        choice->count > MOE_TRACE_TOP_K_LIMIT) {
        return moe_fail(err, MOE_RANGE,
                        "%s: token %" PRIu64 ", layer %u, %u choices; below 2^32, below %d and at "
                        "most %d are allowed",
                        place, choice->token, choice->layer, choice->count, MOE_GATHER_LAYER_END,
                        MOE_TRACE_TOP_K_LIMIT);
    }
    return gather->is_filling ? fill(gather, choice, place, err) : note(gather, choice, place, err);
}

/* Splits a request's tokens; those before the first output token are its prompt, and one that
 * has none counts its first token as prompt. */
static enum moe_status split(const struct moe_gather_request *request, uint64_t prompt_tokens,
                             const char *place, struct moe_trace_request *out,
                             struct moe_error *err)
{
    const uint64_t count = request->end_token - request->first_token;
    uint64_t prompt = prompt_tokens;
    if (request->output_token != UINT64_MAX) {
        prompt = request->output_token - request->first_token;
        prompt = prompt == 0 ? 1 : prompt;
    }
    MOE_TRY(moe_route_list_split(count, prompt, place, out, err));
    out->domain = request->domain;
    return MOE_OK;
}

static int by_key(const void *a, const void *b)
{
    const struct moe_gather_request *x = a;
    const struct moe_gather_request *y = b;
    return x->key < y->key ? -1 : x->key > y->key;
}

static void sort_requests(struct moe_route_gather *gather)
{
    qsort(gather->requests, gather->request_count, sizeof *gather->requests, by_key);
    memset(gather->table, 0, gather->table_size * sizeof *gather->table);
    for (size_t i = 0; i < gather->request_count; i++) {
        put(gather, i);
    }
}

enum moe_status moe_route_gather_turn(struct moe_route_gather *gather, uint64_t prompt_tokens,
                                      const char *place, struct moe_error *err)
{
    struct moe_route_list *list = &gather->list;
    for (uint32_t layer = 0; layer < MOE_GATHER_LAYER_END; layer++) {
        gather->layer_index[layer] = list->layer_count;
        list->layer_count += gather->layer_is_seen[layer];
    }
    list->top_k = gather->top_k;
    if (gather->request_count == 0 || gather->top_k == 0) {
        return moe_fail(err, MOE_PARSE, "%s: holds no routes", place);
    }
    if (gather->sorts_requests) {
        sort_requests(gather);
    }
    for (size_t i = 0; i < gather->request_count; i++) {
        struct moe_trace_request request;
        uint16_t *rows = NULL;
        gather->requests[i].row = list->row_count;
        MOE_TRY(split(&gather->requests[i], prompt_tokens, place, &request, err));
        MOE_TRY(moe_route_list_add(list, &request, &rows, place, err));
    }
    gather->is_filling = true;
    gather->request_in_turn = 0;
    return MOE_OK;
}

void moe_route_gather_describe(const struct moe_route_gather *gather,
                               struct moe_import_description *out)
{
    uint32_t count = 0;
    out->model.content = MOE_TRACE_ROUTES;
    out->model.layer_count = gather->list.layer_count;
    out->model.top_k = gather->list.top_k;
    out->model.expert_count = gather->expert_count;
    out->model.domain_count = gather->domain_count;
    memcpy(out->model.domains, gather->domains, sizeof out->model.domains);
    out->layers_stated = true; /* what was routed is a MoE layer */
    for (uint32_t layer = 0; layer < MOE_GATHER_LAYER_END; layer++) {
        if (gather->layer_is_seen[layer] && count < MOE_TRACE_LAYER_LIMIT) {
            out->is_moe_layer[count] = true;
            out->layer_number[count++] = layer;
        }
    }
}

void moe_route_gather_finish(struct moe_route_gather *gather)
{
    moe_route_list_finish(&gather->list);
    free(gather->requests);
    free(gather->table);
    gather->requests = NULL;
    gather->table = NULL;
    gather->table_size = 0;
}

enum moe_status moe_jsonl_take(struct moe_route_gather *gather, const json_t *line,
                               const char *place, const struct moe_jsonl_keys *keys,
                               const struct moe_gather_choice *choice, struct moe_error *err)
{
    const json_t *ids = json_object_get(line, keys->experts);
    const size_t count = json_array_size(ids);
    uint16_t experts[MOE_TRACE_TOP_K_LIMIT];
    struct moe_gather_choice whole = *choice;
    int64_t token = 0;
    int64_t layer = 0;
    MOE_TRY(moe_json_whole(line, keys->token, place, 0, INT32_MAX, -1, &token, err));
    MOE_TRY(moe_json_whole(line, keys->layer, place, 0, MOE_GATHER_LAYER_END - 1, -1, &layer, err));
    if (!json_is_array(ids) || count > MOE_TRACE_TOP_K_LIMIT ||
        (count == 0 && !keys->may_be_empty)) {
        return moe_fail(err, MOE_PARSE,
                        "%s: \"%s\" is %s of %zu; a list of %d to %d choices is "
                        "expected",
                        place, keys->experts, moe_json_kind_text(ids), count,
                        keys->may_be_empty ? 0 : 1, MOE_TRACE_TOP_K_LIMIT);
    }
    MOE_TRY(moe_json_experts(ids, count, keys->experts, place, experts, err));
    whole.token = (uint64_t) token;
    whole.layer = (uint32_t) layer;
    whole.count = (uint32_t) count;
    whole.experts = experts;
    return moe_route_gather_take(gather, &whole, place, err);
}

enum moe_status moe_jsonl_request(const json_t *line, const char *key, const char *place,
                                  uint64_t salt, uint64_t *out, struct moe_error *err)
{
    const json_t *value = json_object_get(line, key);
    const int64_t number = json_integer_value(value);
    if (!json_is_string(value) && !json_is_integer(value)) {
        return moe_fail(err, MOE_PARSE, "%s: \"%s\" is %s; a text or number is expected", place,
                        key, moe_json_kind_text(value));
    }
    *out = json_is_string(value)
               ? moe_hash_bytes(json_string_value(value), json_string_length(value), salt)
               : moe_hash_bytes(&number, sizeof number, salt);
    return MOE_OK;
}

/* A pass over the files of a dialect. */
struct jsonl_pass {
    struct moe_route_gather *gather;
    const struct moe_jsonl_dialect *dialect;
};

static enum moe_status take_line(void *context, const json_t *line, const char *place,
                                 struct moe_error *err)
{
    const struct jsonl_pass *pass = context;
    return pass->dialect->record(pass->gather, line, place, err);
}

enum moe_status moe_jsonl_open(void **state, struct moe_import_input *input,
                               struct moe_import_description *out,
                               const struct moe_jsonl_dialect *dialect, struct moe_error *err)
{
    struct moe_route_gather *gather = calloc(1, sizeof *gather);
    if (gather == NULL) {
        return moe_fail(err, MOE_LIMIT, "no memory to import");
    }
    struct jsonl_pass pass = { gather, dialect };
    *state = gather;
    gather->sorts_requests = dialect->sorts_requests;
    for (int time = 0; time < 2; time++) {
        for (size_t i = 0; i < input->file_count; i++) {
            input->files[i].is_used = true;
            MOE_TRY(moe_json_documents_read(input->files[i].path, take_line, &pass, err));
        }
        MOE_TRY(time == 0 ? moe_route_gather_turn(gather, input->options.prompt_tokens,
                                                  input->paths[0], err)
                          : MOE_OK);
    }
    moe_route_gather_describe(gather, out);
    (void) snprintf(out->record->engine, sizeof out->record->engine, "%s", dialect->engine);
    (void) snprintf(out->record->note, sizeof out->record->note, "%s", dialect->note);
    return MOE_OK;
}

enum moe_status moe_jsonl_feed(void *state, struct moe_import_sink *sink, struct moe_error *err)
{
    const struct moe_route_gather *gather = state;
    return moe_route_list_feed(&gather->list, sink, err);
}

void moe_jsonl_close(void *state)
{
    if (state != NULL) {
        moe_route_gather_finish(state);
        free(state);
    }
}

bool moe_jsonl_recognise(const struct moe_import_input *input, const char *const *texts)
{
    for (size_t i = 0; i < input->file_count; i++) {
        if (!moe_import_file_is_json(&input->files[i])) {
            return false;
        }
        for (const char *const *text = texts; *text != NULL; text++) {
            if (!moe_import_file_has(&input->files[i], *text)) {
                return false;
            }
        }
    }
    return input->file_count > 0;
}
