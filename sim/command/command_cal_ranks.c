/* moesim cal ranks: what curves over few GPUs foretell for more. */
#include <stdio.h>

#include "sim/base/options.h"
#include "sim/calibration/rank_check.h"
#include "sim/command/cal_command.h"
#include "sim/command/command.h"

static void print_errors(const char *rule, const struct moe_rank_check_errors *errors)
{
    (void) printf("  %-9s %8.2f %8.2f %8.2f %8.2f  at %.6g\n", rule, 100.0 * errors->small,
                  100.0 * errors->large, 100.0 * errors->bias, 100.0 * errors->worst,
                  errors->worst_bytes);
}

static void print_checks(const struct moe_rank_check_row *rows, uint32_t count, uint32_t from,
                         uint32_t to)
{
    (void) printf("Error over %u GPUs of what was fitted over %u: same, the curve as it is; trend, "
                  "extended\n%-16s %6s\n  %-9s %8s %8s %8s %8s  bytes\n",
                  to, from, "operation", "points", "rule", "<1MiB %", ">=1MiB %", "bias %",
                  "worst %");
    for (uint32_t i = 0; i < count; i++) {
        if (rows[i].is_fitted && rows[i].points > 0) {
            (void) printf("%-16s %6u\n", moe_evidence_kind_name(rows[i].kind), rows[i].points);
            print_errors("same", &rows[i].plain);
            print_errors("trend", &rows[i].extended);
        }
    }
}

static void print_predictions(const struct moe_rank_check_row *rows, uint32_t count, uint32_t to)
{
    static const char *const heads[MOE_RANK_CHECK_SIZES] = { "64 KiB", "512 KiB", "4 MiB", "32 MiB",
                                                             "256 MiB" };
    (void) printf("\nTimes over %u GPUs by the trend, us, by the bytes that one rank sends\n%-16s",
                  to, "operation");
    for (uint32_t k = 0; k < MOE_RANK_CHECK_SIZES; k++) {
        (void) printf(" %8s", heads[k]);
    }
    (void) puts("  step ns   gain");
    for (uint32_t i = 0; i < count; i++) {
        const struct moe_rank_check_row *row = &rows[i];
        if (!row->is_fitted || row->kind == MOE_EVIDENCE_ALL_TO_ALL_V) {
            continue;
        }
        (void) printf("%-16s", moe_evidence_kind_name(row->kind));
        for (uint32_t k = 0; k < MOE_RANK_CHECK_SIZES; k++) {
            (void) printf(" %8.1f", row->ns[k] / 1e3);
        }
        (void) printf(" %8.0f %6.3f  ", row->trend.step_ns, row->trend.gain);
        if (row->trend_ranks == 0) {
            (void) printf("published trend");
        } else {
            (void) printf("trend from %u GPUs on", row->trend_ranks);
        }
        (void) puts(row->points > 0 ? "" : "; extrapolated, not measured");
    }
}

static enum moe_status check(const struct moe_evidence *evidence, uint32_t from, uint32_t to,
                             struct moe_error *err)
{
    const struct moe_sample_fit_options options = { 0 };
    const struct moe_calibration *base = NULL;
    struct moe_rank_check_row rows[MOE_RANK_CHECK_LIMIT];
    struct moe_sample_fit fit;
    struct moe_arena arena;
    uint32_t count = 0;
    MOE_TRY(moe_arena_init(&arena, moe_sample_fit_bytes(evidence), err));
    enum moe_status status = moe_calibration_load(&base, "builtin", &arena, err);
    if (status == MOE_OK) {
        status = moe_sample_fit_make(&fit, evidence, base, &options, &arena, err);
    }
    if (status == MOE_OK) {
        status = moe_rank_check(&fit, from, to, rows, &count, err);
    }
    if (status == MOE_OK) {
        print_checks(rows, count, from, to);
        print_predictions(rows, count, to);
    }
    moe_arena_finish(&arena);
    return status;
}

enum moe_status moe_cal_command_ranks(int argc, char **argv, struct moe_error *err)
{
    const char *path = NULL;
    uint32_t from = 2;
    uint32_t to = 4;
    struct moe_evidence evidence;
    const struct moe_option options[] = {
        { "from", MOE_OPTION_COUNT, &from, "N", "GPUs whose curves are used", 2, 1024 },
        { "to", MOE_OPTION_COUNT, &to, "N", "GPUs that they foretell", 3, 65536 },
    };
    const size_t option_count = sizeof options / sizeof options[0];
    struct moe_positionals positionals = { .items = &path, .min = 1, .max = 1 };
    if (moe_command_wants_help(argc, argv)) {
        (void) puts("usage: moesim cal ranks S.cal.db [--from N] [--to N]\n"
                    "  What the exchanges measured over few GPUs foretell for more, by the rule\n"
                    "  that runs use, and its error where more were measured too. The whole store\n"
                    "  is fitted for it: about a minute for 20,000 samples.");
        moe_options_print(stdout, options, option_count);
        return MOE_OK;
    }
    MOE_TRY(moe_options_parse(options, option_count, &positionals, argc, argv, err));
    if (from >= to) {
        return moe_fail(err, MOE_RANGE, "--from %u, --to %u: to more GPUs than from are allowed",
                        from, to);
    }
    MOE_TRY(moe_evidence_load(&evidence, path, err));
    const enum moe_status status = check(&evidence, from, to, err);
    moe_evidence_finish(&evidence);
    return status;
}
