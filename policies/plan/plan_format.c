/* The forms of a plan: found by name or by content, read and written. */
#include <errno.h>
#include <stdlib.h>
#include <string.h>

#include "policies/plan/plan.h"
#include "sim/base/output_file.h"
#include "sim/base/text_file.h"

#define MOE_PLAN_FORMAT(name) extern const struct moe_plan_format moe_plan_##name;
#include "policies/plan/plan_format.def"
#undef MOE_PLAN_FORMAT

static const struct moe_plan_format *const formats[] = {
#define MOE_PLAN_FORMAT(name) &moe_plan_##name,
#include "policies/plan/plan_format.def"
#undef MOE_PLAN_FORMAT
};

enum { FORMAT_COUNT = sizeof formats / sizeof formats[0] };

const struct moe_plan_format *const *moe_plan_formats(size_t *count)
{
    *count = FORMAT_COUNT;
    return formats;
}

static void list_names(char *names, size_t size)
{
    size_t used = 0;
    for (size_t i = 0; i < FORMAT_COUNT && used < size - 1; i++) {
        used += (size_t) snprintf(names + used, size - used, " %s", formats[i]->name);
    }
}

enum moe_status moe_plan_format_find(const char *name, const struct moe_plan_format **out,
                                     struct moe_error *err)
{
    char names[160] = "";
    for (size_t i = 0; i < FORMAT_COUNT; i++) {
        if (strcmp(formats[i]->name, name) == 0) {
            *out = formats[i];
            return MOE_OK;
        }
    }
    list_names(names, sizeof names);
    return moe_fail(err, MOE_RANGE, "no format '%.48s' of plans; there are:%s", name, names);
}

/* What begins like JSON is JSON; anything else is left to forms that are not. */
static bool looks_like_json(const char *text)
{
    text += strspn(text, " \t\r\n");
    return *text == '{' || *text == '[';
}

static enum moe_status parse_text(struct moe_plan *plan, const struct moe_plan_text *text,
                                  const struct moe_plan_format **format, struct moe_error *err)
{
    char names[160] = "";
    for (size_t i = 0; i < FORMAT_COUNT; i++) {
        if (formats[i]->recognise(text)) {
            *format = formats[i];
            MOE_TRY(formats[i]->parse(plan, text, err));
            return moe_plan_settle(plan, text->name, err);
        }
    }
    list_names(names, sizeof names);
    return moe_fail(err, MOE_PARSE, "%.200s: is no plan of any known form:%s", text->name, names);
}

enum moe_status moe_plan_parse(struct moe_plan *out, const char *name, const char *text,
                               size_t size, const struct moe_plan_format **format,
                               struct moe_error *err)
{
    const struct moe_plan_format *found = NULL;
    struct moe_plan plan = { 0 };
    json_error_t why = { 0 };
    json_t *document = NULL;
    if (looks_like_json(text)) {
        document = json_loadb(text, size, JSON_REJECT_DUPLICATES, &why);
        if (document == NULL) {
            return moe_fail(err, MOE_PARSE, "%.200s:%d:%d: not valid JSON: %s", name, why.line,
                            why.column, why.text);
        }
    }
    const struct moe_plan_text source = { name, text, size, document };
    const enum moe_status status = parse_text(&plan, &source, &found, err);
    json_decref(document);
    if (status != MOE_OK) {
        moe_plan_finish(&plan);
        return status;
    }
    *out = plan;
    if (format != NULL) {
        *format = found;
    }
    return MOE_OK;
}

enum moe_status moe_plan_read(struct moe_plan *out, const char *path,
                              const struct moe_plan_format **format, struct moe_error *err)
{
    char *text = NULL;
    size_t size = 0;
    MOE_TRY(moe_text_file_read(path, MOE_PLAN_BYTES_LIMIT, &text, &size, err));
    const enum moe_status status = moe_plan_parse(out, path, text, size, format, err);
    free(text);
    return status;
}

static bool is_full(const struct moe_placement *placement)
{
    const size_t cells = (size_t) placement->shape.layer_count * placement->shape.slot_count;
    for (size_t i = 0; i < cells; i++) {
        if (placement->expert_of_slot[i] == MOE_SLOT_EMPTY) {
            return false;
        }
    }
    return true;
}

enum moe_status moe_plan_write(const struct moe_plan *plan, const struct moe_plan_format *format,
                               const char *path, bool overwrite, struct moe_error *err)
{
    struct moe_output_file file;
    if (!format->takes_empty && !is_full(&plan->placement)) {
        return moe_fail(err, MOE_RANGE,
                        "%s needs an expert in every slot, and the plan has empty "
                        "ones",
                        format->name);
    }
    if (path == NULL) {
        MOE_TRY(format->print(stdout, plan, err));
        return fflush(stdout) == 0
                   ? MOE_OK
                   : moe_fail(err, MOE_IO, "the plan cannot be written: %s", strerror(errno));
    }
    MOE_TRY(moe_output_file_open(&file, path, overwrite, err));
    const enum moe_status status = format->print(file.stream, plan, err);
    if (status != MOE_OK) {
        moe_output_file_discard(&file);
        return status;
    }
    return moe_output_file_commit(&file, err);
}
