#include "sim/report/report.h"

#include <string.h>

#define MOE_REPORT(name) extern const struct moe_report moe_report_##name;
#include "sim/report/report.def"
#undef MOE_REPORT

static const struct moe_report *const reports[] = {
#define MOE_REPORT(name) &moe_report_##name,
#include "sim/report/report.def"
#undef MOE_REPORT
};

enum { REPORT_COUNT = sizeof reports / sizeof reports[0] };

const struct moe_report *const *moe_report_list(size_t *count)
{
    *count = REPORT_COUNT;
    return reports;
}

enum moe_status moe_report_find(const char *name, const struct moe_report **out,
                                struct moe_error *err)
{
    char names[120] = "";
    size_t used = 0;
    for (size_t i = 0; i < REPORT_COUNT; i++) {
        if (strcmp(reports[i]->name, name) == 0) {
            *out = reports[i];
            return MOE_OK;
        }
        if (used < sizeof names - 1) {
            used += (size_t) snprintf(names + used, sizeof names - used, " %s", reports[i]->name);
        }
    }
    return moe_fail(err, MOE_RANGE, "--format: no form '%s'; there are:%s", name, names);
}

enum moe_status moe_report_stream_status(FILE *out, struct moe_error *err)
{
    return ferror(out) == 0 ? MOE_OK : moe_fail(err, MOE_IO, "the report cannot be written");
}
