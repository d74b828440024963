#include "traces/import.h"

#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>

#include "traces/import_map.h"
#include "traces/trace_schema.h"

#define MOE_IMPORT(name) extern const struct moe_import_format moe_import_##name;
#include "traces/import.def"
#undef MOE_IMPORT

static const struct moe_import_format *const formats[] = {
#define MOE_IMPORT(name) &moe_import_##name,
#include "traces/import.def"
#undef MOE_IMPORT
};

enum { FORMAT_COUNT = sizeof formats / sizeof formats[0] };

const struct moe_import_format *const *moe_import_formats(size_t *count)
{
    *count = FORMAT_COUNT;
    return formats;
}

/* What often is why no format takes an input, about its first file; "" when nothing is known. */
static const char *likely_cause(const struct moe_import_input *input)
{
    static const struct {
        const char *begin;
        size_t bytes;
        const char *words;
    } known[] = {
        { "\xff\xfe", 2, " (text in UTF-16: save it as UTF-8)" },
        { "\xfe\xff", 2, " (text in UTF-16: save it as UTF-8)" },
        { "\xef\xbb\xbf", 3, " (it begins with a byte order mark: save it without)" },
        { "\x1f\x8b", 2, " (compressed with gzip: unpack it)" },
        { "\x28\xb5\x2f\xfd", 4, " (compressed with zstd: unpack it)" },
        { "PAR1", 4, " (Parquet: traces/README.md says how to convert it)" },
        { "\x80\x02", 2, " (a pickle outside of a zip file: save it with torch 1.6 or newer)" },
        { "<", 1, " (a page of HTML or XML, perhaps of a failed download)" },
    };
    if (input->file_count == 0) {
        return " (it holds no file)";
    }
    const struct moe_import_file *file = &input->files[0];
    if (file->size_bytes == 0) {
        return " (the file is empty)";
    }
    for (size_t i = 0; i < sizeof known / sizeof known[0]; i++) {
        if (file->head_bytes >= known[i].bytes &&
            memcmp(file->head, known[i].begin, known[i].bytes) == 0) {
            return known[i].words;
        }
    }
    return "";
}

enum moe_status moe_import_find(const char *name, const struct moe_import_input *input,
                                const struct moe_import_format **out, struct moe_error *err)
{
    char names[480] = "";
    size_t used = 0;
    const bool automatic = strcmp(name, "auto") == 0;
    for (size_t i = 0; i < FORMAT_COUNT; i++) {
        if (automatic ? formats[i]->recognise(input) : strcmp(formats[i]->name, name) == 0) {
            *out = formats[i];
            return MOE_OK;
        }
        if (used < sizeof names - 1) {
            used += (size_t) snprintf(names + used, sizeof names - used, " %s", formats[i]->name);
        }
    }
    return automatic
               ? moe_fail(err, MOE_PARSE,
                          "%.120s: its content looks like none of the formats there are%s:%s; "
                          "--format says which one it is",
                          input->paths[0], likely_cause(input), names)
               : moe_fail(err, MOE_RANGE, "no format '%.40s'; there are: auto%s", name, names);
}

/* A sink that writes to a store. */
struct store {
    struct moe_import_sink sink; /* first, so that the one is the other */
    struct moe_trace_writer *writer;
    struct moe_progress *progress;
    uint64_t done;
    uint64_t request_count;
    uint32_t block_tokens;
    bool is_arrivals;
};

static enum moe_status store_request(struct moe_import_sink *sink,
                                     const struct moe_trace_request *request, const int64_t *blocks,
                                     size_t block_count, struct moe_error *err)
{
    struct store *store = (struct store *) sink;
    store->request_count++;
    return store->is_arrivals ? moe_trace_writer_arrival(store->writer, request, blocks,
                                                         block_count, store->block_tokens, err)
                              : moe_trace_writer_requests(store->writer, request, 1, err);
}

static enum moe_status store_rows(struct moe_import_sink *sink, const uint16_t *experts,
                                  uint64_t row_count, struct moe_error *err)
{
    struct store *store = (struct store *) sink;
    store->done += row_count;
    moe_progress_update(store->progress, store->done);
    return moe_trace_writer_rows(store->writer, experts, row_count, err);
}

static enum moe_status store_load(struct moe_import_sink *sink, const struct moe_trace_load *load,
                                  const double *counts, struct moe_error *err)
{
    struct store *store = (struct store *) sink;
    moe_progress_update(store->progress, ++store->done);
    return moe_trace_writer_load(store->writer, load, counts, err);
}

/* One import under way. */
struct job {
    const struct moe_import_request *request;
    struct moe_import_input input;
    struct moe_import_description description;
    struct moe_trace_history history;
    struct moe_import_measure measure;
    struct moe_import_map map;
    struct moe_import_result result;
    void *state;
};

static enum moe_status hash_source(struct job *job, const char *name, const char *path,
                                   struct moe_error *err)
{
    struct moe_progress progress;
    struct stat info = { 0 };
    const uint64_t size = stat(path, &info) == 0 ? (uint64_t) info.st_size : 0;
    moe_progress_begin(&progress, job->request->progress, "hashing the source", "bytes", 0, size);
    const enum moe_status status =
        moe_trace_provenance_add_file(job->description.record, name, path, &progress, err);
    moe_progress_end(&progress);
    return status;
}

static enum moe_status hash_sources(struct job *job, struct moe_error *err)
{
    const struct moe_import_description *description = &job->description;
    const char *folder = job->request->inputs[0];
    for (size_t i = 0; i < description->file_count; i++) {
        char path[4096];
        if (snprintf(path, sizeof path, "%s/%s", folder, description->files[i]) >=
            (int) sizeof path) {
            return moe_fail(err, MOE_RANGE, "%s: the path is longer than %zu bytes", folder,
                            sizeof path - 1);
        }
        MOE_TRY(hash_source(job, description->files[i], path, err));
    }
    for (size_t i = 0; i < job->input.file_count; i++) {
        const struct moe_import_file *file = &job->input.files[i];
        MOE_TRY(file->is_used ? hash_source(job, file->name, file->path, err) : MOE_OK);
    }
    return MOE_OK;
}

static enum moe_status copy(struct job *job, struct moe_trace_writer *writer,
                            struct moe_progress *progress, struct moe_error *err)
{
    const struct moe_import_format *format = job->result.format;
    struct store store = {
        .sink = { store_request, store_rows, store_load },
        .writer = writer,
        .progress = progress,
        .block_tokens = job->description.block_tokens,
        .is_arrivals = job->result.model.content == MOE_TRACE_ARRIVALS,
    };
    if (format->feed == NULL) {
        return format->copy(job->state, writer, progress, err);
    }
    if (job->description.placement != NULL) {
        uint16_t *placement = NULL;
        MOE_TRY(moe_import_map_placement(&job->map, &placement, err));
        const enum moe_status status =
            moe_trace_writer_placement(writer, placement, job->description.slot_count, err);
        free(placement);
        MOE_TRY(status);
    }
    moe_import_map_begin(&job->map, &store.sink);
    MOE_TRY(format->feed(job->state, &job->map.sink, err));
    job->result.request_count = store.request_count;
    return MOE_OK;
}

static enum moe_status write_store(struct job *job, struct moe_error *err)
{
    const struct moe_import_request *request = job->request;
    struct moe_import_result *result = &job->result;
    struct moe_trace_writer *writer = NULL;
    struct moe_progress progress;
    struct moe_error reason = { 0 };
    MOE_TRY(moe_trace_writer_open(&writer, request->output, request->overwrite, &result->model,
                                  &job->history, err));
    result->was_finished = moe_trace_writer_is_finished(writer);
    if (result->was_finished) {
        (void) moe_trace_writer_close(writer, MOE_OK);
        return MOE_OK;
    }
    const bool loads = result->model.content == MOE_TRACE_LOADS;
    result->resumed_row = moe_trace_writer_stored_rows(writer);
    moe_progress_begin(&progress, request->progress, "importing", loads ? "loads" : "rows",
                       result->resumed_row, loads ? result->load_count : result->row_count);
    enum moe_status status = copy(job, writer, &progress, &reason);
    if (status == MOE_OK) {
        status = moe_trace_writer_finish(writer, &result->hash, &reason);
    }
    moe_progress_end(&progress);
    if (moe_trace_writer_close(writer, status)) {
        return moe_fail(err, status,
                        "%s; what is stored so far stays, and the same command goes on from it",
                        reason.text);
    }
    return status == MOE_OK ? MOE_OK : moe_fail(err, status, "%s", reason.text);
}

/* First pass, and what follows from it for the trace. */
static enum moe_status measure(struct job *job, struct moe_error *err)
{
    const struct moe_import_format *format = job->result.format;
    struct moe_import_description *description = &job->description;
    struct moe_import_result *result = &job->result;
    const char *what = job->request->inputs[0];
    if (format->feed == NULL) {
        const struct moe_import_options *options = &job->request->options;
        if (options->layers != NULL || options->expert_count != 0 || options->prompt_tokens != 0 ||
            options->skip_warmup) {
            return moe_fail(err, MOE_RANGE,
                            "format %s states layers, experts and lengths itself; --layers, "
                            "--experts, --prompt-tokens and --skip-warmup are not for it",
                            format->name);
        }
        result->model = description->model;
        result->request_count = description->request_count;
        result->row_count = description->row_count;
        return MOE_OK;
    }
    MOE_TRY(moe_import_measure_init(&job->measure, description, err));
    MOE_TRY(format->feed(job->state, &job->measure.sink, err));
    MOE_TRY(moe_import_measure_check(&job->measure, what, err));
    MOE_TRY(moe_import_map_init(&job->map, &job->measure, &job->request->options,
                                description->record, what, err));
    result->model = job->map.model;
    result->request_count = job->measure.request_count;
    result->row_count = job->measure.row_count;
    result->load_count = job->measure.load_count;
    result->warmup_rows = moe_import_measure_warmup(&job->measure);
    result->rows_skipped = description->record->rows_skipped;
    if (result->model.content == MOE_TRACE_LOADS) {
        result->load_count -= result->rows_skipped;
        result->step_count = job->measure.step_count - result->rows_skipped;
    } else {
        result->row_count -= result->rows_skipped;
    }
    return MOE_OK;
}

/* Names that the producer did not give. */
static enum moe_status name_model(struct job *job, struct moe_error *err)
{
    struct moe_trace_model *model = &job->description.model;
    const char *name = job->request->name;
    if (name != NULL && strlen(name) >= sizeof model->name) {
        return moe_fail(err, MOE_RANGE, "--name: at most %zu bytes are allowed",
                        sizeof model->name - 1);
    }
    if (name != NULL) {
        (void) snprintf(model->name, sizeof model->name, "%s", name);
    } else if (model->name[0] == '\0' && job->result.format->feed != NULL) {
        (void) snprintf(model->name, sizeof model->name, "%s dump", job->result.format->name);
    }
    if (model->domain_count == 0) {
        model->domain_count = 1;
        (void) snprintf(model->domains[0], sizeof model->domains[0], "all");
    }
    if (model->group_count == 0) {
        model->group_count = 1;
        model->group_limit = 1;
    }
    return MOE_OK;
}

/* Everything up to the point where a trace could be written. */
static enum moe_status prepare(struct job *job, struct moe_error *err)
{
    const struct moe_import_request *request = job->request;
    struct moe_trace_provenance *record = NULL;
    MOE_TRY(moe_import_input_open(&job->input, request->inputs, request->input_count, err));
    job->input.options = request->options;
    MOE_TRY(moe_import_find(request->format, &job->input, &job->result.format, err));
    MOE_TRY(moe_trace_history_add(&job->history, &record, err));
    job->description.record = record;
    (void) snprintf(record->format, sizeof record->format, "%s", job->result.format->name);
    (void) snprintf(record->engine, sizeof record->engine, "not stated");
    MOE_TRY(job->result.format->open(&job->state, &job->input, &job->description, err));
    MOE_TRY(name_model(job, err));
    MOE_TRY(measure(job, err));
    return moe_trace_model_check(&job->result.model, request->inputs[0], err);
}

static void finish(struct job *job)
{
    if (job->result.format != NULL) {
        job->result.format->close(job->state);
    }
    moe_import_map_finish(&job->map);
    moe_import_measure_finish(&job->measure);
    moe_trace_history_finish(&job->history);
    moe_import_input_finish(&job->input);
    free(job);
}

static enum moe_status send(struct job *job, struct moe_import_receiver *receiver,
                            struct moe_error *err)
{
    uint16_t *placement = NULL;
    if (job->result.format->feed == NULL) {
        return moe_fail(err, MOE_UNSUPPORTED,
                        "%s: a dump of format %s is read from a store only; make one with `moesim "
                        "trace import`",
                        job->request->inputs[0], job->result.format->name);
    }
    if (job->description.placement != NULL) {
        MOE_TRY(moe_import_map_placement(&job->map, &placement, err));
    }
    enum moe_status status =
        receiver->begin(receiver, &job->result, placement,
                        placement == NULL ? 0 : job->description.slot_count, err);
    free(placement);
    if (status == MOE_OK) {
        moe_import_map_begin(&job->map, &receiver->sink);
        status = job->result.format->feed(job->state, &job->map.sink, err);
    }
    return status;
}

enum moe_status moe_import_read(const struct moe_import_request *request,
                                struct moe_import_receiver *receiver, struct moe_error *err)
{
    struct job *job = calloc(1, sizeof *job);
    if (job == NULL) {
        return moe_fail(err, MOE_LIMIT, "no memory to import");
    }
    job->request = request;
    enum moe_status status = prepare(job, err);
    if (status == MOE_OK) {
        status = send(job, receiver, err);
    }
    finish(job);
    return status;
}

enum moe_status moe_import_run(const struct moe_import_request *request,
                               struct moe_import_result *result, struct moe_error *err)
{
    struct job *job = calloc(1, sizeof *job);
    if (job == NULL) {
        return moe_fail(err, MOE_LIMIT, "no memory to import");
    }
    job->request = request;
    enum moe_status status = prepare(job, err);
    if (status == MOE_OK) {
        status = hash_sources(job, err);
    }
    if (status == MOE_OK) {
        status = write_store(job, err);
    }
    if (status == MOE_OK) {
        *result = job->result;
    }
    finish(job);
    return status;
}
