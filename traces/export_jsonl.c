/*
 * Export form "jsonl": everything that a store holds, a JSON object on each line; read back by
 * the import format "moesim" (import_moesim.c). The first line states the model:
 *
 *   {"format": "moesim.trace", "version": 1, "content": "routes", "model": NAME, "layers": L,
 *    "experts": E, "top_k": K, "groups": G, "group_limit": M, "hidden": 0, "expert_size": 0,
 *    "shared_size": 0, "domains": [NAME, ...], "block_tokens": 0, "placement": null}
 *
 * placement: [layer][slot] of the one in force, null for an empty slot. Then, of routes, for
 * each request
 *   {"request": i, "arrival_ns": t or null, "domain": d, "prompt_tokens": p, "output_tokens": o}
 * and lines {"rows": [[L * K experts of a row, null for one not recorded], ...]} of its rows; of
 * arrivals the same without rows, with "blocks": [hash, ...] where prefixes were recorded; of
 * loads
 *   {"step": s, "rank": r or null, "domain": d, "label": n or null, "counts": [[E per layer]]}
 */
#include <errno.h>
#include <inttypes.h>
#include <jansson.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "sim/base/output_file.h"
#include "traces/export.h"
#include "traces/trace_loads.h"

enum { PIECE_IDS = 1 << 17, LINE_IDS = 1 << 14 };

_Static_assert(PIECE_IDS >= MOE_TRACE_LAYER_LIMIT * MOE_TRACE_TOP_K_LIMIT, "a piece holds a row");

/* count ids, null for MOE_EXPERT_UNKNOWN. */
static void print_ids(FILE *out, const uint16_t *ids, size_t count)
{
    (void) fputc('[', out);
    for (size_t i = 0; i < count; i++) {
        if (ids[i] == MOE_EXPERT_UNKNOWN) {
            (void) fputs(i == 0 ? "null" : ",null", out);
        } else {
            (void) fprintf(out, i == 0 ? "%u" : ",%u", ids[i]);
        }
    }
    (void) fputc(']', out);
}

/* As few digits as read back to the same number. */
static void print_count(FILE *out, double value)
{
    char text[40];
    for (int digits = 1; digits <= 17; digits++) {
        (void) snprintf(text, sizeof text, "%.*g", digits, value);
        if (strtod(text, NULL) == value) {
            break;
        }
    }
    (void) fputs(text, out);
}

static void print_text(FILE *out, const char *text)
{
    json_t *value = json_string(text);
    (void) json_dumpf(value, out, JSON_ENCODE_ANY); /* the stream is checked at the end */
    json_decref(value);
}

/* ", "key": value", null below 0. */
static void print_known(FILE *out, const char *key, int64_t value)
{
    if (value < 0) {
        (void) fprintf(out, ", \"%s\": null", key);
    } else {
        (void) fprintf(out, ", \"%s\": %" PRId64, key, value);
    }
}

static enum moe_status print_head(FILE *out, struct moe_trace *trace, struct moe_error *err)
{
    const struct moe_trace_model *m = moe_trace_model(trace);
    uint32_t block_tokens = 0;
    uint32_t slots = 0;
    uint16_t *placement = NULL;
    MOE_TRY(moe_trace_block_tokens(trace, &block_tokens, err));
    MOE_TRY(moe_trace_placement_read(trace, &slots, &placement, err));
    (void) fprintf(out, "{\"format\": \"moesim.trace\", \"version\": 1, \"content\": \"%s\", ",
                   moe_trace_content_text(m->content));
    (void) fputs("\"model\": ", out);
    print_text(out, m->name);
    (void) fprintf(out,
                   ", \"layers\": %u, \"experts\": %u, \"top_k\": %u, \"groups\": %u, "
                   "\"group_limit\": %u, \"hidden\": %u, \"expert_size\": %u, \"shared_size\": %u, "
                   "\"domains\": [",
                   m->layer_count, m->expert_count, m->top_k, m->group_count, m->group_limit,
                   m->hidden_size, m->expert_size, m->shared_size);
    for (uint32_t i = 0; i < m->domain_count; i++) {
        (void) fputs(i == 0 ? "" : ", ", out);
        print_text(out, m->domains[i]);
    }
    (void) fprintf(out, "], \"block_tokens\": %u, \"placement\": ", block_tokens);
    for (uint32_t layer = 0; slots > 0 && layer < m->layer_count; layer++) {
        (void) fputs(layer == 0 ? "[" : ",", out);
        print_ids(out, placement + (size_t) layer * slots, slots);
    }
    (void) fputs(slots > 0 ? "]}\n" : "null}\n", out);
    free(placement);
    return MOE_OK;
}

static enum moe_status print_rows(FILE *out, struct moe_trace *trace,
                                  const struct moe_trace_request *request, uint16_t *piece,
                                  struct moe_error *err)
{
    const struct moe_trace_model *m = moe_trace_model(trace);
    const size_t ids = (size_t) m->layer_count * m->top_k;
    const uint64_t most = ids < LINE_IDS ? LINE_IDS / ids : 1;
    const uint64_t end = request->first_row + moe_trace_request_rows(request);
    for (uint64_t row = request->first_row; row < end;) {
        const uint64_t rows = end - row < most ? end - row : most;
        MOE_TRY(moe_trace_read(trace, row, rows, piece, err));
        (void) fputs("{\"rows\": ", out);
        for (uint64_t i = 0; i < rows; i++) {
            (void) fputc(i == 0 ? '[' : ',', out);
            print_ids(out, piece + i * ids, ids);
        }
        (void) fputs("]}\n", out);
        row += rows;
    }
    return MOE_OK;
}

static enum moe_status print_blocks(FILE *out, struct moe_trace *trace, uint64_t index,
                                    struct moe_error *err)
{
    int64_t *blocks = NULL;
    size_t count = 0;
    MOE_TRY(moe_trace_blocks_read(trace, index, &blocks, &count, err));
    for (size_t i = 0; i < count; i++) {
        (void) fprintf(out, "%s%" PRId64, i == 0 ? ", \"blocks\": [" : ", ", blocks[i]);
    }
    (void) fputs(count > 0 ? "]" : "", out);
    free(blocks);
    return MOE_OK;
}

static enum moe_status print_requests(FILE *out, struct moe_trace *trace, struct moe_error *err)
{
    const bool has_rows = moe_trace_model(trace)->content == MOE_TRACE_ROUTES;
    uint16_t *piece = malloc(PIECE_IDS * sizeof *piece);
    enum moe_status status =
        piece != NULL ? MOE_OK : moe_fail(err, MOE_LIMIT, "no memory to export");
    for (uint64_t i = 0; status == MOE_OK && i < moe_trace_request_count(trace); i++) {
        const struct moe_trace_request *request = &moe_trace_requests(trace)[i];
        (void) fprintf(out, "{\"request\": %" PRIu64, i);
        print_known(out, "arrival_ns", request->arrival_ns);
        (void) fprintf(out, ", \"domain\": %u, \"prompt_tokens\": %u, \"output_tokens\": %u",
                       request->domain, request->prompt_tokens, request->output_tokens);
        status = has_rows ? MOE_OK : print_blocks(out, trace, i, err);
        (void) fputs("}\n", out);
        if (has_rows) {
            status = print_rows(out, trace, request, piece, err);
        }
    }
    free(piece);
    return status;
}

static void print_load(FILE *out, const struct moe_trace_model *m,
                       const struct moe_trace_load *load, const double *counts)
{
    (void) fprintf(out, "{\"step\": %" PRIu64, load->step);
    print_known(out, "rank", load->rank);
    (void) fprintf(out, ", \"domain\": %u", load->domain);
    print_known(out, "label", load->label);
    (void) fputs(", \"counts\": [", out);
    for (uint32_t layer = 0; layer < m->layer_count; layer++) {
        (void) fputs(layer == 0 ? "[" : ",[", out);
        for (uint32_t i = 0; i < m->expert_count; i++) {
            (void) fputs(i == 0 ? "" : ",", out);
            print_count(out, counts[(size_t) layer * m->expert_count + i]);
        }
        (void) fputc(']', out);
    }
    (void) fputs("]}\n", out);
}

static enum moe_status print_loads(FILE *out, struct moe_trace *trace, struct moe_error *err)
{
    const struct moe_trace_model *m = moe_trace_model(trace);
    struct moe_trace_load_cursor cursor = { 0 };
    struct moe_trace_load load;
    bool got = true;
    double *counts = malloc((size_t) m->layer_count * m->expert_count * sizeof *counts);
    if (counts == NULL) {
        return moe_fail(err, MOE_LIMIT, "no memory to export");
    }
    enum moe_status status = moe_trace_loads_begin(&cursor, trace, err);
    while (status == MOE_OK && got) {
        status = moe_trace_loads_next(&cursor, &load, counts, &got, err);
        if (status == MOE_OK && got) {
            print_load(out, m, &load, counts);
        }
    }
    moe_trace_loads_end(&cursor);
    free(counts);
    return status;
}

static enum moe_status write_file(struct moe_trace *trace, const char *path, bool overwrite,
                                  struct moe_error *err)
{
    struct moe_output_file file;
    MOE_TRY(moe_output_file_open(&file, path, overwrite, err));
    enum moe_status status = print_head(file.stream, trace, err);
    if (status == MOE_OK) {
        status = moe_trace_model(trace)->content == MOE_TRACE_LOADS
                     ? print_loads(file.stream, trace, err)
                     : print_requests(file.stream, trace, err);
    }
    if (status != MOE_OK) {
        moe_output_file_discard(&file);
        return status;
    }
    return moe_output_file_commit(&file, err);
}

const struct moe_export_format moe_export_jsonl = {
    .name = "jsonl",
    .summary = "one JSON object on each line, all that the store holds; import format moesim",
    .write = write_file,
};
