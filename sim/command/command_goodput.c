/* `moesim goodput SCENARIO.yaml`: the largest arrival rate at which the requests meet an SLO. */
#include <stdio.h>
#include <string.h>
#include <unistd.h>

#include "sim/base/options.h"
#include "sim/command/command.h"
#include "sim/engine/goodput.h"
#include "sim/report/goodput_report.h"
#include "sim/report/report.h"

enum { OPTION_COUNT = 7 };

struct goodput_command {
    struct moe_scenario scenario;
    struct moe_option_list sets;
    const char *slo;
    const char *format;
    double share;
    double tolerance;
    uint32_t threads;
    uint32_t seeds;
    char set_text[4][64]; /* what --slo, --share and --seeds set */
    uint32_t set_count;
};

static enum moe_status add_set(struct goodput_command *c, const char *text, struct moe_error *err)
{
    if (c->sets.count == MOE_OPTION_LIST_LIMIT) {
        return moe_fail(err, MOE_RANGE, "--set: given too often; at most %d",
                        MOE_OPTION_LIST_LIMIT - 4);
    }
    char *kept = c->set_text[c->set_count++];
    (void) snprintf(kept, sizeof c->set_text[0], "%s", text);
    c->sets.items[c->sets.count++] = kept;
    return MOE_OK;
}

/* "ttft=500,tpot=50" as settings of the scenario, which checks the numbers. */
static enum moe_status settle_slo(struct goodput_command *c, struct moe_error *err)
{
    bool seen[2] = { false };
    for (const char *at = c->slo; at != NULL;) {
        static const char *const names[2] = { "ttft=", "tpot=" };
        const size_t length = strcspn(at, ",");
        const int which = strncmp(at, names[0], 5) == 0 ? 0 : strncmp(at, names[1], 5) == 0 ? 1 : 2;
        char text[64];
        if (which == 2 || seen[which] || length > 40) {
            return moe_fail(err, MOE_RANGE,
                            "--slo: '%.60s' is not ttft=MS,tpot=MS, each at most once", c->slo);
        }
        seen[which] = true;
        (void) snprintf(text, sizeof text, "slo.%s_ms=%.*s", which == 0 ? "ttft" : "tpot",
                        (int) (length - 5), at + 5);
        MOE_TRY(add_set(c, text, err));
        at = at[length] == ',' ? at + length + 1 : NULL;
    }
    return MOE_OK;
}

static enum moe_status settle(struct goodput_command *c, struct moe_error *err)
{
    char text[64];
    static const char *const forms[] = { "table", "markdown", "json", "csv" };
    bool known = false;
    for (size_t i = 0; i < sizeof forms / sizeof forms[0]; i++) {
        known = known || strcmp(c->format, forms[i]) == 0;
    }
    if (!known) {
        return moe_fail(err, MOE_RANGE, "--format: '%s' is not one of table, markdown, json, csv",
                        c->format);
    }
    MOE_TRY(settle_slo(c, err));
    if (c->share > 0.0) {
        (void) snprintf(text, sizeof text, "slo.share=%.12g", c->share);
        MOE_TRY(add_set(c, text, err));
    }
    if (c->seeds > 0) {
        (void) snprintf(text, sizeof text, "seeds=%u", c->seeds);
        MOE_TRY(add_set(c, text, err));
    }
    return MOE_OK;
}

static enum moe_status report(const struct goodput_command *c,
                              const struct moe_goodput_study *goodput, struct moe_error *err)
{
    if (strcmp(c->format, "json") == 0) {
        MOE_TRY(moe_goodput_report_json(goodput, stdout, err));
    } else if (strcmp(c->format, "csv") == 0) {
        moe_goodput_report_csv(goodput, stdout);
    } else {
        moe_goodput_report_page(
            goodput, strcmp(c->format, "table") == 0 ? MOE_PAGE_PLAIN : MOE_PAGE_MARKDOWN, stdout);
    }
    MOE_TRY(moe_report_stream_status(stdout, err));
    uint32_t runs = 0;
    for (uint32_t i = 0; i < goodput->policy_count * goodput->seed_count; i++) {
        runs += goodput->found[i].runs;
    }
    (void) fflush(stdout);
    (void) fprintf(stderr, "%u runs in %.1f s\n", runs, goodput->wall_seconds);
    return MOE_OK;
}

static enum moe_status run(int argc, char **argv, struct moe_error *err)
{
    struct goodput_command c = { .format = "table", .tolerance = 0.01 };
    const char *path = NULL;
    struct moe_positionals inputs = { .items = &path, .min = 1, .max = 1, .what = "SCENARIO.yaml" };
    struct moe_goodput_study *goodput = NULL;
    const struct moe_option options[OPTION_COUNT] = {
        { "slo", MOE_OPTION_TEXT, &c.slo, "ttft=MS,tpot=MS",
          "what a request must meet; else the scenario's slo", 0, 0 },
        { "share", MOE_OPTION_REAL, &c.share, "SHARE",
          "of the requests that must meet it; 0 = as the scenario says", 0, 1 },
        { "tolerance", MOE_OPTION_REAL, &c.tolerance, "RATIO",
          "how near the search comes to the limit", 0.0001, 1 },
        { "set", MOE_OPTION_LIST, &c.sets, "KEY=VALUE",
          "change one key of the scenario; may be given again", 0, 0 },
        { "seeds", MOE_OPTION_COUNT, &c.seeds, "N", "searches per policy; 0 = as the scenario says",
          0, 100 },
        { "threads", MOE_OPTION_COUNT, &c.threads, "N",
          "searches at a time; 0 = one per processor. Changes no result", 0, 1024 },
        { "format", MOE_OPTION_TEXT, &c.format, "FORM", "table, markdown, json or csv", 0, 0 },
    };
    if (moe_command_wants_help(argc, argv)) {
        (void) puts("usage: moesim goodput SCENARIO.yaml [OPTION ...]\n"
                    "The largest arrival rate at which slo.share of the requests meet the SLO, for "
                    "every policy\nand seed. Keys of a scenario: `moesim run --help`.");
        moe_options_print(stdout, options, OPTION_COUNT);
        return MOE_OK;
    }
    MOE_TRY(moe_options_parse(options, OPTION_COUNT, &inputs, argc, argv, err));
    MOE_TRY(settle(&c, err));
    MOE_TRY(moe_scenario_load(&c.scenario, path, c.sets.items, (uint32_t) c.sets.count, err));
    MOE_TRY(moe_goodput_create(&goodput, &c.scenario, c.tolerance, c.threads,
                               isatty(STDERR_FILENO) == 1, err));
    const enum moe_status status = report(&c, goodput, err);
    moe_goodput_destroy(goodput);
    return status;
}

const struct moe_command moe_command_goodput = {
    .name = "goodput",
    .summary = "the largest request rate at which each policy meets an SLO",
    .run = run,
};
