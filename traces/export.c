#include "traces/export.h"

#include <stdio.h>
#include <string.h>

#define MOE_EXPORT(name) extern const struct moe_export_format moe_export_##name;
#include "traces/export.def"
#undef MOE_EXPORT

static const struct moe_export_format *const formats[] = {
#define MOE_EXPORT(name) &moe_export_##name,
#include "traces/export.def"
#undef MOE_EXPORT
};

enum { FORMAT_COUNT = sizeof formats / sizeof formats[0] };

const struct moe_export_format *const *moe_export_formats(size_t *count)
{
    *count = FORMAT_COUNT;
    return formats;
}

enum moe_status moe_export_find(const char *name, const struct moe_export_format **out,
                                struct moe_error *err)
{
    char names[160] = "";
    size_t used = 0;
    for (size_t i = 0; i < FORMAT_COUNT; i++) {
        if (strcmp(formats[i]->name, name) == 0) {
            *out = formats[i];
            return MOE_OK;
        }
        if (used < sizeof names - 1) {
            used += (size_t) snprintf(names + used, sizeof names - used, " %s", formats[i]->name);
        }
    }
    return moe_fail(err, MOE_RANGE, "no format '%.48s' to export to; there are:%s", name, names);
}
