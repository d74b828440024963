#include "traces/import.h"

#include <stdio.h>
#include <string.h>
#include <sys/stat.h>

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

static enum moe_status find_format(const struct moe_import_request *request,
                                   const struct moe_import_format **out, struct moe_error *err)
{
    char names[320] = "";
    size_t used = 0;
    const bool automatic = strcmp(request->format, "auto") == 0;
    for (size_t i = 0; i < FORMAT_COUNT; i++) {
        if (automatic ? formats[i]->recognise(request->input)
                      : strcmp(formats[i]->name, request->format) == 0) {
            *out = formats[i];
            return MOE_OK;
        }
        if (used < sizeof names - 1) {
            used += (size_t) snprintf(names + used, sizeof names - used, " %s", formats[i]->name);
        }
    }
    return automatic ? moe_fail(err, MOE_PARSE,
                                "%s: its content looks like none of the formats there are:%s; "
                                "--format says which one it is",
                                request->input, names)
                     : moe_fail(err, MOE_RANGE, "no format '%s'; there are: auto%s",
                                request->format, names);
}

/* An input that does not exist is told apart from one that is not understood. */
static enum moe_status check_input(const char *input, struct moe_error *err)
{
    struct stat info;
    return stat(input, &info) == 0
               ? MOE_OK
               : moe_fail(err, MOE_IO, "%s: no such file or folder, or not readable", input);
}

static enum moe_status hash_sources(const struct moe_import_request *request,
                                    const struct moe_import_description *description,
                                    struct moe_error *err)
{
    for (size_t i = 0; i < description->file_count; i++) {
        char path[4096];
        struct moe_progress progress;
        struct stat info = { 0 };
        if (snprintf(path, sizeof path, "%s/%s", request->input, description->files[i]) >=
            (int) sizeof path) {
            return moe_fail(err, MOE_RANGE, "%s: the path is longer than %zu bytes", request->input,
                            sizeof path - 1);
        }
        const uint64_t size = stat(path, &info) == 0 ? (uint64_t) info.st_size : 0;
        moe_progress_begin(&progress, request->progress, "hashing the source", "bytes", 0, size);
        const enum moe_status status = moe_trace_provenance_add_file(
            description->record, description->files[i], path, &progress, err);
        moe_progress_end(&progress);
        if (status != MOE_OK) {
            return status;
        }
    }
    return MOE_OK;
}

static enum moe_status write_store(const struct moe_import_request *request, void *state,
                                   const struct moe_import_description *description,
                                   const struct moe_trace_history *history,
                                   struct moe_import_result *result, struct moe_error *err)
{
    struct moe_trace_writer *writer = NULL;
    struct moe_progress progress;
    struct moe_error reason = { 0 };
    MOE_TRY(moe_trace_writer_open(&writer, request->output, request->overwrite, &description->model,
                                  history, err));
    result->was_finished = moe_trace_writer_is_finished(writer);
    if (result->was_finished) {
        (void) moe_trace_writer_close(writer, MOE_OK);
        return MOE_OK;
    }
    result->resumed_row = moe_trace_writer_stored_rows(writer);
    moe_progress_begin(&progress, request->progress, "importing", "rows", result->resumed_row,
                       description->row_count);
    enum moe_status status = result->format->copy(state, writer, &progress, &reason);
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

enum moe_status moe_import_run(const struct moe_import_request *request,
                               struct moe_import_result *result, struct moe_error *err)
{
    struct moe_trace_history history = { 0 };
    struct moe_import_description description = { 0 };
    struct moe_import_result done = { 0 };
    void *state = NULL;
    MOE_TRY(check_input(request->input, err));
    MOE_TRY(find_format(request, &done.format, err));
    MOE_TRY(moe_trace_history_add(&history, &description.record, err));
    (void) snprintf(description.record->format, sizeof description.record->format, "%s",
                    done.format->name);
    enum moe_status status = done.format->open(&state, request->input, &description, err);
    if (status == MOE_OK && request->name != NULL) {
        if (strlen(request->name) >= sizeof description.model.name) {
            status = moe_fail(err, MOE_RANGE, "--name: at most %zu bytes are allowed",
                              sizeof description.model.name - 1);
        } else {
            (void) snprintf(description.model.name, sizeof description.model.name, "%s",
                            request->name);
        }
    }
    if (status == MOE_OK) {
        status = moe_trace_model_check(&description.model, request->input, err);
    }
    if (status == MOE_OK) {
        status = hash_sources(request, &description, err);
    }
    if (status == MOE_OK) {
        status = write_store(request, state, &description, &history, &done, err);
    }
    done.format->close(state);
    moe_trace_history_finish(&history);
    if (status == MOE_OK) {
        done.model = description.model;
        done.request_count = description.request_count;
        done.row_count = description.row_count;
        *result = done;
    }
    return status;
}
