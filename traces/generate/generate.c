#include "traces/generate/generate.h"

#include <inttypes.h>
#include <stdlib.h>
#include <string.h>

#include "sim/base/hash.h"
#include "sim/base/progress.h"
#include "sim/base/random.h"
#include "traces/trace_schema.h"
#include "traces/trace_writer.h"

enum { PIECE_IDS = 1 << 16, REQUEST_LIMIT = 1 << 26 };

_Static_assert(PIECE_IDS >= MOE_TRACE_LAYER_LIMIT * MOE_TRACE_TOP_K_LIMIT, "a piece holds a row");

#define MOE_GENERATOR(file, name) extern const struct moe_generator moe_generator_##name;
#include "traces/generate/generate.def"
#undef MOE_GENERATOR

static const struct moe_generator *const generators[] = {
#define MOE_GENERATOR(file, name) &moe_generator_##name,
#include "traces/generate/generate.def"
#undef MOE_GENERATOR
};

enum { GENERATOR_COUNT = sizeof generators / sizeof generators[0] };

const struct moe_generator *const *moe_generators(size_t *count)
{
    *count = GENERATOR_COUNT;
    return generators;
}

enum moe_status moe_generator_find(const char *name, const struct moe_generator **out,
                                   struct moe_error *err)
{
    char names[240] = "";
    size_t used = 0;
    for (size_t i = 0; i < GENERATOR_COUNT; i++) {
        if (strcmp(generators[i]->name, name) == 0) {
            *out = generators[i];
            return MOE_OK;
        }
        if (used < sizeof names - 1) {
            used +=
                (size_t) snprintf(names + used, sizeof names - used, " %s", generators[i]->name);
        }
    }
    return moe_fail(err, MOE_RANGE, "no workload '%.48s'; there are:%s", name, names);
}

uint64_t moe_generate_key(const char *workload, uint64_t seed, uint64_t purpose)
{
    const uint64_t name = moe_hash_bytes(workload, strlen(workload), purpose);
    return moe_random_key(moe_random_mix(seed) ^ name, MOE_RANDOM_GENERATE);
}

uint64_t moe_generate_row_key(uint64_t key, uint64_t request, uint64_t position)
{
    return moe_random_mix(moe_random_mix(key ^ request) + position) | 1;
}

void moe_generate_bits(const struct moe_generate_row *row, uint32_t layer, uint64_t bits[3])
{
    for (uint64_t i = 0; i < 3; i++) {
        bits[i] = moe_random_bits(row->key, 4 * (uint64_t) layer + i + 1);
    }
}

enum moe_status moe_generate_model(struct moe_trace_model *model,
                                   const struct moe_generate_options *options, const char *what,
                                   struct moe_error *err)
{
    const char *missing = options->layer_count == 0    ? "--layers"
                          : options->expert_count == 0 ? "--experts"
                          : options->top_k == 0        ? "--top-k"
                                                       : NULL;
    if (missing != NULL) {
        return moe_fail(err, MOE_RANGE, "%s: %s is needed", what, missing);
    }
    model->layer_count = options->layer_count;
    model->expert_count = options->expert_count;
    model->top_k = options->top_k;
    model->group_count = options->group_count == 0 ? 1 : options->group_count;
    model->group_limit = options->group_limit == 0 ? model->group_count : options->group_limit;
    model->domain_count = 1;
    (void) snprintf(model->domains[0], sizeof model->domains[0], "synthetic");
    (void) snprintf(model->name, sizeof model->name, "%s", what);
    if (model->group_count > MOE_CHOICE_GROUP_LIMIT) {
        return moe_fail(err, MOE_RANGE, "%s: --groups %u; at most %d", what, model->group_count,
                        MOE_CHOICE_GROUP_LIMIT);
    }
    return moe_trace_model_check(model, what, err);
}

enum moe_status moe_generate_refuse_others(const struct moe_generate_options *options,
                                           const char *what, const char *allowed,
                                           struct moe_error *err)
{
    const struct {
        const char *name;
        bool is_said;
    } said[] = {
        { " --input", options->input != NULL },
        { " --requests", options->request_count != 0 },
        { " --layers", options->layer_count != 0 },
        { " --experts", options->expert_count != 0 },
        { " --top-k", options->top_k != 0 },
        { " --groups", options->group_count != 0 },
        { " --group-limit", options->group_limit != 0 },
        { " --prompt-tokens", options->prompt_tokens != 0 },
        { " --output-tokens", options->output_tokens != 0 },
        { " --steps", options->step_count != 0 },
        { " --step-tokens", options->step_tokens != 0 },
        { " --ranks", options->rank_count != 0 },
        { " --max-over-mean", options->max_over_mean != 0.0 },
        { " --heat", options->heat != 0.0 },
    };
    for (size_t i = 0; i < sizeof said / sizeof said[0]; i++) {
        const char *found = strstr(allowed, said[i].name);
        const size_t length = strlen(said[i].name);
        const bool is_allowed = found != NULL && (found[length] == ' ' || found[length] == '\0');
        if (said[i].is_said && !is_allowed) {
            return moe_fail(err, MOE_RANGE, "%s has no use for%s; it takes:%s", what, said[i].name,
                            allowed);
        }
    }
    return MOE_OK;
}

/* A generation under way. */
struct job {
    const struct moe_generator *generator;
    void *state;
    uint64_t key;
    struct moe_trace_model model;
    uint64_t request_count;
    struct moe_trace_request *requests; /* [request_count]; owned */
    uint16_t *piece;                    /* [PIECE_IDS]; owned */
    struct moe_trace_history history;
};

static enum moe_status prepare(struct job *job, const struct moe_generate_options *options,
                               struct moe_error *err)
{
    struct moe_trace_provenance *record = NULL;
    MOE_TRY(moe_trace_history_add(&job->history, &record, err));
    (void) snprintf(record->engine, sizeof record->engine, "none: synthetic");
    (void) snprintf(record->format, sizeof record->format, "generate %s", job->generator->name);
    (void) snprintf(record->layer_map, sizeof record->layer_map, "synthetic");
    job->model.content = MOE_TRACE_ROUTES;
    MOE_TRY(
        job->generator->open(&job->state, options, &job->model, &job->request_count, record, err));
    if (job->request_count < 1 || job->request_count > REQUEST_LIMIT) {
        return moe_fail(err, MOE_RANGE, "%" PRIu64 " requests; 1 to %d can be generated",
                        job->request_count, REQUEST_LIMIT);
    }
    job->requests = calloc((size_t) job->request_count, sizeof *job->requests);
    job->piece = malloc(PIECE_IDS * sizeof *job->piece);
    if (job->requests == NULL || job->piece == NULL) {
        return moe_fail(err, MOE_LIMIT, "no memory for %" PRIu64 " requests", job->request_count);
    }
    uint64_t row = 0;
    for (uint64_t i = 0; i < job->request_count; i++) {
        job->generator->request(job->state, i, &job->requests[i]);
        job->requests[i].first_row = row;
        row += moe_trace_request_rows(&job->requests[i]);
    }
    return MOE_OK;
}

static uint64_t row_count_of(const struct job *job)
{
    const struct moe_trace_request *last = &job->requests[job->request_count - 1];
    return last->first_row + moe_trace_request_rows(last);
}

/* Rows from `from` on of one request. */
static enum moe_status send_request(struct job *job, uint64_t index, uint64_t from,
                                    struct moe_trace_writer *writer, struct moe_error *err)
{
    const struct moe_trace_request *request = &job->requests[index];
    const uint64_t ids = (uint64_t) job->model.layer_count * job->model.top_k;
    const uint64_t most = PIECE_IDS / ids;
    const uint64_t rows = moe_trace_request_rows(request);
    if (job->generator->begin != NULL) {
        job->generator->begin(job->state, index, request);
    }
    while (from < rows) {
        const uint64_t count = rows - from < most ? rows - from : most;
        for (uint64_t i = 0; i < count; i++) {
            const struct moe_generate_row row = {
                .key = moe_generate_row_key(job->key, index, from + i),
                .request = index,
                .position = from + i,
                .is_decode = from + i >= request->prompt_tokens,
                .domain = request->domain,
            };
            job->generator->row(job->state, &row, job->piece + i * ids);
        }
        MOE_TRY(moe_trace_writer_rows(writer, job->piece, count, err));
        from += count;
    }
    return MOE_OK;
}

static enum moe_status send(struct job *job, struct moe_trace_writer *writer,
                            struct moe_progress *progress, struct moe_error *err)
{
    uint64_t request = 0;
    uint64_t row = 0;
    moe_trace_writer_resume(writer, &request, &row);
    MOE_TRY(moe_trace_writer_requests(writer, job->requests + request, job->request_count - request,
                                      err));
    for (uint64_t i = 0; i < job->request_count; i++) {
        const struct moe_trace_request *r = &job->requests[i];
        if (r->first_row + moe_trace_request_rows(r) > row) {
            const uint64_t from = row > r->first_row ? row - r->first_row : 0;
            MOE_TRY(send_request(job, i, from, writer, err));
            moe_progress_update(progress, r->first_row);
        }
    }
    return MOE_OK;
}

static enum moe_status write_store(struct job *job, const char *path, bool overwrite,
                                   FILE *progress_file, struct moe_generate_result *result,
                                   struct moe_error *err)
{
    struct moe_trace_writer *writer = NULL;
    struct moe_progress progress;
    MOE_TRY(moe_trace_writer_open(&writer, path, overwrite, &job->model, &job->history, err));
    *result = (struct moe_generate_result){
        .model = job->model,
        .request_count = job->request_count,
        .row_count = row_count_of(job),
        .was_finished = moe_trace_writer_is_finished(writer),
    };
    enum moe_status status = MOE_OK;
    if (!result->was_finished) {
        moe_progress_begin(&progress, progress_file, "generating", "rows",
                           moe_trace_writer_stored_rows(writer), result->row_count);
        status = send(job, writer, &progress, err);
        if (status == MOE_OK) {
            status = moe_trace_writer_finish(writer, &result->hash, err);
        }
        moe_progress_end(&progress);
    }
    (void) moe_trace_writer_close(writer, status);
    return status;
}

enum moe_status moe_generate(const struct moe_generator *generator,
                             const struct moe_generate_options *options, const char *path,
                             bool overwrite, FILE *progress, struct moe_generate_result *result,
                             struct moe_error *err)
{
    struct job job = { .generator = generator,
                       .key = moe_generate_key(generator->name, options->seed, 0) };
    enum moe_status status = prepare(&job, options, err);
    if (status == MOE_OK) {
        status = write_store(&job, path, overwrite, progress, result, err);
    }
    generator->close(job.state);
    moe_trace_history_finish(&job.history);
    free(job.requests);
    free(job.piece);
    return status;
}
