#include "sim/report/report.h"
#include "sim/report/section.h"

static enum moe_status write(const struct moe_study *study,
                             const struct moe_report_options *options, FILE *out,
                             struct moe_error *err)
{
    struct moe_page page = { .out = out, .dress = MOE_PAGE_MARKDOWN };
    moe_section_all(&page, study, options);
    return moe_report_stream_status(out, err);
}

const struct moe_report moe_report_markdown = {
    .name = "markdown",
    .summary = "for a pull request or a job summary",
    .write = write,
};
