#include "traces/trace_edit.h"

#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "sim/base/hash.h"
#include "sim/base/random.h"
#include "traces/trace_loads.h"
#include "traces/trace_schema.h"
#include "traces/trace_writer.h"

enum { PIECE_IDS = 1 << 18 };

_Static_assert(PIECE_IDS >= MOE_TRACE_LAYER_LIMIT * MOE_TRACE_TOP_K_LIMIT, "a piece holds a row");

struct input {
    struct moe_trace *trace;
    uint32_t domain[MOE_TRACE_DOMAIN_LIMIT]; /* of the output, by the input's own */
};

struct item {
    uint32_t input;
    uint64_t index; /* of the request */
    int64_t arrival_ns;
};

struct job {
    const struct moe_trace_edit *edit;
    struct input inputs[MOE_TRACE_EDIT_LIMIT];
    struct moe_trace_model model;
    struct moe_trace_history history;
    struct item *items; /* chosen requests; owned */
    uint64_t item_count;
    uint32_t block_tokens;
    uint16_t *piece; /* [PIECE_IDS]; owned */
    struct moe_trace_writer *writer;
};

struct moe_trace_choice moe_trace_choose_all(void)
{
    return (struct moe_trace_choice){
        .first_share = 1.0, .begin_ns = INT64_MIN, .end_ns = INT64_MAX, .drawn_share = 1.0
    };
}

/* What differs between two models, or NULL. */
static const char *difference(const struct moe_trace_model *a, const struct moe_trace_model *b)
{
    return a->content != b->content           ? "what they hold"
           : a->layer_count != b->layer_count ? "the number of layers"
           : a->expert_count != b->expert_count || a->group_count != b->group_count ||
                   a->group_limit != b->group_limit
               ? "experts or their groups"
           : a->top_k != b->top_k ? "top-k"
           : a->hidden_size != b->hidden_size || a->expert_size != b->expert_size ||
                   a->shared_size != b->shared_size
               ? "the model's sizes"
               : NULL;
}

static enum moe_status add_domains(struct job *job, struct input *input, struct moe_error *err)
{
    const struct moe_trace_model *own = moe_trace_model(input->trace);
    struct moe_trace_model *model = &job->model;
    for (uint32_t i = 0; i < own->domain_count; i++) {
        uint32_t at = 0;
        while (at < model->domain_count && strcmp(model->domains[at], own->domains[i]) != 0) {
            at++;
        }
        if (at == MOE_TRACE_DOMAIN_LIMIT) {
            return moe_fail(err, MOE_RANGE, "%.300s: with its domains there are more than %d",
                            moe_trace_path(input->trace), MOE_TRACE_DOMAIN_LIMIT);
        }
        if (at == model->domain_count) {
            memcpy(model->domains[at], own->domains[i], sizeof model->domains[at]);
            model->domain_count++;
        }
        input->domain[i] = at;
    }
    return MOE_OK;
}

static enum moe_status open_inputs(struct job *job, struct moe_error *err)
{
    for (size_t i = 0; i < job->edit->input_count; i++) {
        struct input *input = &job->inputs[i];
        uint32_t block_tokens = 0;
        MOE_TRY(moe_trace_open_any(&input->trace, job->edit->inputs[i], err));
        MOE_TRY(moe_trace_block_tokens(input->trace, &block_tokens, err));
        if (i == 0) {
            job->model = *moe_trace_model(input->trace);
            job->block_tokens = block_tokens;
        }
        const char *what = difference(&job->model, moe_trace_model(input->trace));
        if (what == NULL && block_tokens != job->block_tokens) {
            what = "the size of prefix blocks";
        }
        if (what != NULL) {
            return moe_fail(err, MOE_RANGE, "%.180s and %.180s differ in %s", job->edit->inputs[0],
                            job->edit->inputs[i], what);
        }
        MOE_TRY(add_domains(job, input, err));
    }
    return MOE_OK;
}

/* Item number index of count, of that arrival time and domain of the output. */
static bool is_chosen(const struct job *job, uint64_t index, uint64_t count, int64_t arrival_ns,
                      uint32_t domain)
{
    const struct moe_trace_choice *c = &job->edit->choice;
    const uint64_t key = moe_random_key(c->seed, MOE_RANDOM_REQUEST_ORDER);
    const bool holds =
        (c->domain == NULL || strcmp(job->model.domains[domain], c->domain) == 0) &&
        (c->first_share >= 1.0 || (double) index < c->first_share * (double) count) &&
        arrival_ns >= c->begin_ns && (c->end_ns == INT64_MAX || arrival_ns < c->end_ns) &&
        (c->drawn_share >= 1.0 || moe_random_uniform(key, index) < c->drawn_share);
    return holds != c->is_rest;
}

static int compare_arrivals(const void *a, const void *b)
{
    const struct item *x = a;
    const struct item *y = b;
    if (x->arrival_ns != y->arrival_ns) {
        return x->arrival_ns < y->arrival_ns ? -1 : 1;
    }
    if (x->input != y->input) {
        return x->input < y->input ? -1 : 1;
    }
    return x->index < y->index ? -1 : x->index > y->index;
}

static enum moe_status choose_requests(struct job *job, struct moe_error *err)
{
    uint64_t room = 0;
    const struct moe_trace_choice *c = &job->edit->choice;
    const bool needs_times =
        job->edit->by_arrival || c->begin_ns != INT64_MIN || c->end_ns != INT64_MAX;
    for (size_t i = 0; i < job->edit->input_count; i++) {
        room += moe_trace_request_count(job->inputs[i].trace);
    }
    job->items = malloc((size_t) (room + 1) * sizeof *job->items);
    if (job->items == NULL) {
        return moe_fail(err, MOE_LIMIT, "no memory for %" PRIu64 " requests", room);
    }
    for (size_t i = 0; i < job->edit->input_count; i++) {
        const struct input *input = &job->inputs[i];
        const struct moe_trace_request *requests = moe_trace_requests(input->trace);
        const uint64_t count = moe_trace_request_count(input->trace);
        for (uint64_t r = 0; r < count; r++) {
            if (needs_times && requests[r].arrival_ns < 0) {
                return moe_fail(err, MOE_RANGE,
                                "%.300s: request %" PRIu64
                                " has no arrival time, which is asked for",
                                moe_trace_path(input->trace), r);
            }
            if (is_chosen(job, r, count, requests[r].arrival_ns,
                          input->domain[requests[r].domain])) {
                job->items[job->item_count++] =
                    (struct item){ (uint32_t) i, r, requests[r].arrival_ns };
            }
        }
    }
    if (job->edit->by_arrival) {
        qsort(job->items, (size_t) job->item_count, sizeof *job->items, compare_arrivals);
    }
    return job->item_count > 0
               ? MOE_OK
               : moe_fail(err, MOE_RANGE, "%.300s: no request is chosen", job->edit->inputs[0]);
}

static enum moe_status copy_rows(struct job *job, struct moe_trace *from,
                                 const struct moe_trace_request *request, struct moe_error *err)
{
    const uint64_t most = PIECE_IDS / ((uint64_t) job->model.layer_count * job->model.top_k);
    uint64_t left = moe_trace_request_rows(request);
    uint64_t row = request->first_row;
    while (left > 0) {
        const uint64_t rows = left < most ? left : most;
        MOE_TRY(moe_trace_read(from, row, rows, job->piece, err));
        MOE_TRY(moe_trace_writer_rows(job->writer, job->piece, rows, err));
        row += rows;
        left -= rows;
    }
    return MOE_OK;
}

static enum moe_status copy_requests(struct job *job, struct moe_error *err)
{
    for (uint64_t i = 0; i < job->item_count; i++) {
        const struct input *input = &job->inputs[job->items[i].input];
        const uint64_t index = job->items[i].index;
        struct moe_trace_request request = moe_trace_requests(input->trace)[index];
        request.domain = input->domain[request.domain];
        if (job->model.content == MOE_TRACE_ARRIVALS) {
            int64_t *blocks = NULL;
            size_t count = 0;
            MOE_TRY(moe_trace_blocks_read(input->trace, index, &blocks, &count, err));
            const enum moe_status status = moe_trace_writer_arrival(job->writer, &request, blocks,
                                                                    count, job->block_tokens, err);
            free(blocks);
            MOE_TRY(status);
            continue;
        }
        MOE_TRY(moe_trace_writer_requests(job->writer, &request, 1, err));
        MOE_TRY(copy_rows(job, input->trace, &request, err));
    }
    return MOE_OK;
}

/* The chosen loads of one input; steps go on from job->item_count. */
static enum moe_status copy_input_loads(struct job *job, const struct input *input, double *counts,
                                        struct moe_error *err)
{
    struct moe_trace_load_cursor cursor = { 0 };
    struct moe_trace_load load = { 0 };
    uint64_t steps = 0;
    uint64_t last = UINT64_MAX; /* step of the input that was written last */
    bool got = true;
    MOE_TRY(moe_trace_step_count(input->trace, &steps, err));
    MOE_TRY(moe_trace_loads_begin(&cursor, input->trace, err));
    enum moe_status status = moe_trace_loads_next(&cursor, &load, counts, &got, err);
    while (status == MOE_OK && got) {
        load.domain = input->domain[load.domain];
        if (is_chosen(job, load.step, steps, -1, load.domain)) {
            job->item_count += load.step != last;
            last = load.step;
            load.step = job->item_count - 1;
            status = moe_trace_writer_load(job->writer, &load, counts, err);
        }
        if (status == MOE_OK) {
            status = moe_trace_loads_next(&cursor, &load, counts, &got, err);
        }
    }
    moe_trace_loads_end(&cursor);
    return status;
}

static enum moe_status copy_loads(struct job *job, struct moe_error *err)
{
    const size_t cells = (size_t) job->model.layer_count * job->model.expert_count;
    double *counts = malloc(cells * sizeof *counts);
    enum moe_status status =
        counts != NULL ? MOE_OK : moe_fail(err, MOE_LIMIT, "no memory for %zu counts", cells);
    for (size_t i = 0; status == MOE_OK && i < job->edit->input_count; i++) {
        status = copy_input_loads(job, &job->inputs[i], counts, err);
    }
    free(counts);
    if (status == MOE_OK && job->item_count == 0) {
        status = moe_fail(err, MOE_RANGE, "%.300s: no step is chosen", job->edit->inputs[0]);
    }
    return status;
}

/* The placement that was in force in all inputs; none when they differ. */
static enum moe_status copy_placement(struct job *job, struct moe_error *err)
{
    uint32_t slots = 0;
    uint16_t *experts = NULL;
    bool is_one = true;
    MOE_TRY(moe_trace_placement_read(job->inputs[0].trace, &slots, &experts, err));
    enum moe_status status = MOE_OK;
    for (size_t i = 1; slots > 0 && status == MOE_OK && i < job->edit->input_count; i++) {
        uint32_t other_slots = 0;
        uint16_t *other = NULL;
        status = moe_trace_placement_read(job->inputs[i].trace, &other_slots, &other, err);
        is_one = is_one && other_slots == slots &&
                 memcmp(other, experts, (size_t) job->model.layer_count * slots * 2) == 0;
        free(other);
    }
    if (status == MOE_OK && slots > 0 && is_one) {
        status = moe_trace_writer_placement(job->writer, experts, slots, err);
    }
    free(experts);
    return status;
}

/* All that decides what is chosen, so that another choice is another store. */
static void describe_choice(const struct job *job, char *note, size_t size)
{
    const struct moe_trace_choice *c = &job->edit->choice;
    struct moe_hash contents;
    moe_hash_init(&contents, 0);
    for (size_t i = 0; i < job->edit->input_count; i++) {
        moe_hash_add_u64(&contents, moe_trace_hash(job->inputs[i].trace));
    }
    size_t used =
        job->edit->input_count == 1
            ? (size_t) snprintf(note, size, "of the trace with content %016" PRIx64,
                                moe_trace_hash(job->inputs[0].trace))
            : (size_t) snprintf(note, size, "of %zu traces, their contents together %016" PRIx64,
                                job->edit->input_count, moe_hash_value(&contents));
    if (c->domain != NULL && used < size) {
        used += (size_t) snprintf(note + used, size - used, "; domain %s", c->domain);
    }
    if (c->first_share < 1.0 && used < size) {
        used += (size_t) snprintf(note + used, size - used, "; first %.9g", c->first_share);
    }
    if (c->begin_ns != INT64_MIN && used < size) {
        used += (size_t) snprintf(note + used, size - used, "; from %" PRId64 " ns", c->begin_ns);
    }
    if (c->end_ns != INT64_MAX && used < size) {
        used += (size_t) snprintf(note + used, size - used, "; to %" PRId64 " ns", c->end_ns);
    }
    if (c->drawn_share < 1.0 && used < size) {
        used += (size_t) snprintf(note + used, size - used, "; drawn %.9g, seed %" PRIu64,
                                  c->drawn_share, c->seed);
    }
    if (used < size) {
        (void) snprintf(note + used, size - used, "%s%s", c->is_rest ? "; the rest" : "",
                        job->edit->by_arrival ? "; by arrival" : "");
    }
}

/* Adds an input's records to the output's. */
static enum moe_status inherit(struct job *job, struct moe_trace *from, struct moe_error *err)
{
    struct moe_trace_history own = { 0 };
    MOE_TRY(moe_trace_history_load(&own, moe_trace_database(from), err));
    enum moe_status status = MOE_OK;
    for (size_t i = 0; i < own.count && status == MOE_OK; i++) {
        struct moe_trace_provenance *record = NULL;
        status = moe_trace_history_add(&job->history, &record, err);
        if (status == MOE_OK) {
            *record = own.records[i];
            own.records[i] = (struct moe_trace_provenance){ 0 }; /* its sources have moved */
        }
    }
    moe_trace_history_finish(&own);
    return status;
}

static enum moe_status describe(struct job *job, struct moe_error *err)
{
    struct moe_trace_provenance *record = NULL;
    for (size_t i = 0; i < job->edit->input_count; i++) {
        MOE_TRY(inherit(job, job->inputs[i].trace, err));
    }
    MOE_TRY(moe_trace_history_add(&job->history, &record, err));
    (void) snprintf(record->engine, sizeof record->engine, "none");
    (void) snprintf(record->format, sizeof record->format, "%s", job->edit->verb);
    (void) snprintf(record->layer_map, sizeof record->layer_map, "unchanged");
    describe_choice(job, record->note, sizeof record->note);
    return MOE_OK;
}

static bool has_domain(const struct job *job, const char *name)
{
    bool found = false;
    for (uint32_t i = 0; i < job->model.domain_count; i++) {
        found = found || strcmp(job->model.domains[i], name) == 0;
    }
    return found;
}

static enum moe_status prepare(struct job *job, struct moe_error *err)
{
    const struct moe_trace_choice *c = &job->edit->choice;
    MOE_TRY(open_inputs(job, err));
    if (c->domain != NULL && !has_domain(job, c->domain)) {
        return moe_fail(err, MOE_RANGE,
                        "%.300s: has no domain '%.60s'; `moesim trace stats` lists "
                        "them",
                        job->edit->inputs[0], c->domain);
    }
    if (job->model.content != MOE_TRACE_LOADS) {
        MOE_TRY(choose_requests(job, err));
    } else if (job->edit->by_arrival || c->begin_ns != INT64_MIN || c->end_ns != INT64_MAX) {
        return moe_fail(err, MOE_RANGE, "%.300s: loads have no arrival times",
                        job->edit->inputs[0]);
    }
    MOE_TRY(describe(job, err));
    job->piece = malloc(PIECE_IDS * sizeof *job->piece);
    return job->piece != NULL ? MOE_OK : moe_fail(err, MOE_LIMIT, "no memory to copy");
}

static enum moe_status write_store(struct job *job, struct moe_trace_edit_result *result,
                                   struct moe_error *err)
{
    struct moe_trace_edit_result done = { .model = job->model };
    MOE_TRY(moe_trace_writer_open(&job->writer, job->edit->output, job->edit->overwrite,
                                  &job->model, &job->history, err));
    done.was_finished = moe_trace_writer_is_finished(job->writer);
    enum moe_status status = MOE_OK;
    if (!done.was_finished) {
        status = copy_placement(job, err);
        if (status == MOE_OK) {
            status = job->model.content == MOE_TRACE_LOADS ? copy_loads(job, err)
                                                           : copy_requests(job, err);
        }
        if (status == MOE_OK) {
            status = moe_trace_writer_finish(job->writer, &done.hash, err);
        }
    }
    (void) moe_trace_writer_close(job->writer, status);
    if (status == MOE_OK) {
        done.item_count = job->item_count;
        *result = done;
    }
    return status;
}

/* Runs the edit, or with result NULL only tries whether its output can be written. */
static enum moe_status run_job(const struct moe_trace_edit *edit,
                               struct moe_trace_edit_result *result, struct moe_error *err)
{
    if (edit->input_count < 1 || edit->input_count > MOE_TRACE_EDIT_LIMIT) {
        return moe_fail(err, MOE_RANGE, "%zu trace stores; 1 to %d can be edited together",
                        edit->input_count, MOE_TRACE_EDIT_LIMIT);
    }
    struct job *job = calloc(1, sizeof *job);
    if (job == NULL) {
        return moe_fail(err, MOE_LIMIT, "no memory to edit");
    }
    job->edit = edit;
    enum moe_status status = prepare(job, err);
    if (status == MOE_OK) {
        status = result != NULL ? write_store(job, result, err)
                                : moe_trace_writer_try(edit->output, edit->overwrite, &job->model,
                                                       &job->history, err);
    }
    for (size_t i = 0; i < edit->input_count; i++) {
        moe_trace_close(job->inputs[i].trace);
    }
    moe_trace_history_finish(&job->history);
    free(job->items);
    free(job->piece);
    free(job);
    return status;
}

enum moe_status moe_trace_edit_run(const struct moe_trace_edit *edit,
                                   struct moe_trace_edit_result *result, struct moe_error *err)
{
    return run_job(edit, result, err);
}

enum moe_status moe_trace_edit_try(const struct moe_trace_edit *edit, struct moe_error *err)
{
    return run_job(edit, NULL, err);
}
