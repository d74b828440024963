/* Exchanges between GPUs, copies and interference, as a table and into a store. */
#include <inttypes.h>
#include <math.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "calibrate/bench/bench_plan.h"
#include "calibrate/collective/collective.h"
#include "calibrate/collective/collective_file.h"
#include "calibrate/collective/collective_table.h"
#include "calibrate/collective/exchange.h"
#include "calibrate/collective/lanes.h"
#include "calibrate/device/device.h"
#include "calibrate/verb.h"
#include "sim/base/options.h"

/* What the command line asks for. */
struct request {
    const char *gpus;
    const char *ops;
    const char *out;
    const char *expert;
    double limit_s;
    uint64_t seed;
    uint32_t rows_few;
    uint32_t rows_many;
    uint32_t least_bytes;
    uint32_t most_mib;
    bool plan_only;
};

/* Set by a signal: the run ends after the visit under way, and keeps what it has. */
static volatile sig_atomic_t stop_asked;

static void ask_to_stop(int signal_number)
{
    (void) signal_number;
    stop_asked = 1;
}

static enum moe_status parse_gpus(const char *text, uint32_t found, uint32_t *devices,
                                  uint32_t *count, struct moe_error *err)
{
    *count = 0;
    if (text == NULL) {
        if (found > MOE_LANE_LIMIT) {
            return moe_fail(err, MOE_RANGE, "%" PRIu32 " GPUs; --gpus must choose at most %d",
                            found, MOE_LANE_LIMIT);
        }
        while (*count < found) {
            devices[*count] = *count;
            (*count)++;
        }
        return MOE_OK;
    }
    for (const char *at = text; *count == 0 || *at != '\0';) {
        char item[16];
        uint64_t number = 0;
        const size_t length = strcspn(at, ",");
        (void) snprintf(item, sizeof item, "%.*s", length < 15 ? (int) length : 15, at);
        MOE_TRY(moe_parse_count(item, "--gpus", 0, found - 1, &number, err));
        for (uint32_t i = 0; i < *count; i++) {
            if (devices[i] == (uint32_t) number) {
                return moe_fail(err, MOE_RANGE, "--gpus: %" PRIu64 " stands there twice", number);
            }
        }
        if (*count == MOE_LANE_LIMIT) {
            return moe_fail(err, MOE_RANGE, "--gpus: more than %d", MOE_LANE_LIMIT);
        }
        devices[(*count)++] = (uint32_t) number;
        at += length + (at[length] == ',');
    }
    return MOE_OK;
}

static enum moe_status parse_ops(const char *text, bool *chosen, struct moe_error *err)
{
    bool asked[MOE_COLLECTIVE_OP_COUNT] = { false };
    for (const char *at = text; *at != '\0';) {
        const size_t length = strcspn(at, ",");
        int op = 0;
        while (op < MOE_COLLECTIVE_OP_COUNT) {
            const char *name = moe_collective_op_name((enum moe_collective_op) op);
            if (strlen(name) == length && strncmp(name, at, length) == 0) {
                break;
            }
            op++;
        }
        if (op == MOE_COLLECTIVE_OP_COUNT) {
            char names[300] = "";
            size_t used = 0;
            for (int i = 0; i < MOE_COLLECTIVE_OP_COUNT; i++) {
                used += (size_t) snprintf(names + used, sizeof names - used, " %s",
                                          moe_collective_op_name((enum moe_collective_op) i));
            }
            return moe_fail(err, MOE_RANGE, "--ops: there is no '%.*s'; allowed:%s", (int) length,
                            at, names);
        }
        if (!chosen[op]) {
            return moe_fail(err, MOE_UNSUPPORTED, "--ops: this moecal cannot do %s: %s",
                            moe_collective_op_name((enum moe_collective_op) op),
                            moe_exchange_has_nccl() ? "its NCCL is older than 2.28"
                                                    : "it was built without NCCL");
        }
        asked[op] = true;
        at += length + (at[length] == ',');
    }
    memcpy(chosen, asked, sizeof asked);
    return MOE_OK;
}

static enum moe_status fill_options(const struct request *request,
                                    struct moe_collective_options *options, struct moe_error *err)
{
    options->seed = request->seed;
    options->limit_s = request->limit_s > 0.0 ? request->limit_s : INFINITY;
    options->least_bytes = (int64_t) request->least_bytes;
    options->most_bytes = (int64_t) request->most_mib << 20;
    options->overlap.rows[0] = request->rows_few;
    options->overlap.rows[1] = request->rows_many;
    options->stop = &stop_asked;
    options->progress = isatty(STDERR_FILENO) != 0 ? stderr : NULL;
    if (request->expert != NULL) {
        struct moe_bench_shape shape;
        MOE_TRY(moe_bench_shape_parse(request->expert, &shape, err));
        options->overlap.hidden = (uint32_t) shape.hidden;
        options->overlap.inter = (uint32_t) shape.inter;
        options->overlap.experts = (uint32_t) shape.expert_count;
    }
    return request->ops == NULL ? MOE_OK : parse_ops(request->ops, options->ops, err);
}

static void print_head(const struct moe_bootstrap *boot, uint32_t device_count)
{
    char version[32];
    moe_exchange_version(version, sizeof version);
    (void) printf("%" PRIu32 " GPUs on %" PRIu32
                  " hosts, NCCL %s, NCCL_NVLS_ENABLE=0; times of the "
                  "slowest rank, GB/s of what the busiest rank sends\n",
                  boot->process_count * device_count, boot->host_count,
                  version[0] == '\0' ? "not built in" : version);
}

static void print_end(const struct moe_collective_outcome *outcome, bool whole)
{
    (void) printf("\n%" PRIu32 " visits in %.1f s", outcome->visit_count, outcome->seconds);
    if (outcome->left_out > 0) {
        (void) printf("; %" PRIu32 " points are left out%s", outcome->left_out,
                      !whole            ? ""
                      : stop_asked != 0 ? ", since the run was stopped"
                                        : ", since --limit did not allow more");
    }
    (void) putchar('\n');
}

static enum moe_status measure(const struct request *request,
                               const struct moe_collective_options *options,
                               const struct moe_bootstrap *boot, int argc, char **argv,
                               struct moe_error *err)
{
    struct moe_collective_file file = { 0 };
    struct moe_collective_outcome outcome = { 0 };
    enum moe_status status = MOE_OK;
    const bool first = boot->process == 0;
    if (first && request->out != NULL) {
        status = moe_collective_file_open(request->out, argc, argv, request->seed,
                                          boot->process_count * options->device_count,
                                          options->nvml, &file, err);
    }
    MOE_TRY(moe_bootstrap_agree(boot, status, err));
    status = moe_collective_measure(file.store, file.run, options, boot, &outcome, err);
    struct moe_error close_err = { 0 };
    const enum moe_status closed = moe_collective_file_close(
        &file, status == MOE_OK && stop_asked == 0, outcome.seconds, &close_err);
    if (first) {
        moe_collective_table_print(stdout, &outcome.plan);
        print_end(&outcome, status == MOE_OK);
    }
    moe_collective_plan_free(&outcome.plan);
    if (status == MOE_OK && closed != MOE_OK) {
        *err = close_err;
        return closed;
    }
    return status;
}

static enum moe_status run(const struct request *request, const struct moe_bootstrap *boot,
                           int argc, char **argv, struct moe_error *err)
{
    uint32_t devices[MOE_LANE_LIMIT];
    uint32_t found = 0;
    uint32_t count = 0;
    uint32_t first = 0;
    struct moe_nvml *nvml = NULL;
    struct moe_error nvml_err = { 0 };
    enum moe_status status = moe_device_count(&found, err);
    if (status == MOE_OK) {
        status = parse_gpus(request->gpus, found, devices, &count, err);
    }
    if (status == MOE_OK) {
        status = moe_bootstrap_share(boot, count, &first, &count, err);
    }
    MOE_TRY(moe_bootstrap_agree(boot, status, err));
    struct moe_collective_options options = moe_collective_options_all(devices + first, count);
    MOE_TRY(fill_options(request, &options, err));
    if (request->plan_only) {
        struct moe_collective_plan plan;
        MOE_TRY(moe_collective_plan_for(&options, boot, &plan, err));
        if (boot->process == 0) {
            moe_collective_table_plan(stdout, &plan, MOE_COLLECTIVE_BUDGET_S);
        }
        moe_collective_plan_free(&plan);
        return MOE_OK;
    }
    if (moe_nvml_create(&nvml, &nvml_err) != MOE_OK) {
        (void) fprintf(stderr, "moecal: going on without clocks and power: %s\n", nvml_err.text);
        nvml = NULL;
    }
    options.nvml = nvml;
    if (boot->process == 0) {
        print_head(boot, count);
    }
    status = measure(request, &options, boot, argc, argv, err);
    moe_nvml_destroy(nvml);
    return status;
}

/* Where the options below point. */
static struct request asked = {
    .seed = 1,
    .rows_few = 8,
    .rows_many = 512,
    .least_bytes = 1024,
    .most_mib = 256,
};

static const struct moe_option options[] = {
    { .name = "gpus",
      .kind = MOE_OPTION_TEXT,
      .target = &asked.gpus,
      .value = "0,1,...",
      .help = "these GPUs, as `moecal list` numbers them (otherwise all)" },
    { .name = "ops",
      .kind = MOE_OPTION_TEXT,
      .target = &asked.ops,
      .value = "A,B,...",
      .help = "only these operations (otherwise all)" },
    { .name = "limit",
      .kind = MOE_OPTION_REAL,
      .target = &asked.limit_s,
      .value = "SECONDS",
      .help = "of wall time; what does not fit is left out (0: none)",
      .max = 1e6 },
    { .name = "o",
      .kind = MOE_OPTION_TEXT,
      .target = &asked.out,
      .value = "FILE",
      .help = "store of samples, made or continued (S.cal.db)" },
    { .name = "seed",
      .kind = MOE_OPTION_SEED,
      .target = &asked.seed,
      .value = "N",
      .help = "of held-out sizes, matrices and order" },
    { .name = "min-bytes",
      .kind = MOE_OPTION_COUNT,
      .target = &asked.least_bytes,
      .value = "N",
      .help = "smallest buffer",
      .min = 16,
      .max = 1 << 20 },
    { .name = "max-mib",
      .kind = MOE_OPTION_COUNT,
      .target = &asked.most_mib,
      .value = "N",
      .help = "largest buffer",
      .min = 1,
      .max = 16384 },
    { .name = "expert",
      .kind = MOE_OPTION_TEXT,
      .target = &asked.expert,
      .value = "HxIxE",
      .help = "hidden and expert size and experts of a GPU for overlap (7168x2048x8)" },
    { .name = "rows-few",
      .kind = MOE_OPTION_COUNT,
      .target = &asked.rows_few,
      .value = "N",
      .help = "rows of each of them where weights take the time",
      .min = 1,
      .max = 1 << 16 },
    { .name = "rows-many",
      .kind = MOE_OPTION_COUNT,
      .target = &asked.rows_many,
      .value = "N",
      .help = "and where arithmetic does",
      .min = 1,
      .max = 1 << 16 },
    { .name = "plan-only",
      .kind = MOE_OPTION_FLAG,
      .target = &asked.plan_only,
      .help = "say what would be measured and how long it takes" },
};

enum moe_status moe_verb_collectives(int argc, char **argv, struct moe_error *err)
{
    struct moe_positionals none = { 0 };
    struct moe_bootstrap boot;
    if (argc > 0 && strcmp(argv[0], "--help") == 0) {
        moe_options_print(stdout, options, sizeof options / sizeof options[0]);
        return MOE_OK;
    }
    MOE_TRY(moe_options_parse(options, sizeof options / sizeof options[0], &none, argc, argv, err));
    if (asked.rows_few == asked.rows_many) {
        return moe_fail(err, MOE_RANGE, "--rows-few and --rows-many are both %" PRIu32,
                        asked.rows_few);
    }
    MOE_TRY(moe_bootstrap_start(&boot, err));
    const struct sigaction action = { .sa_handler = ask_to_stop, .sa_flags = (int) SA_RESETHAND };
    (void) sigaction(SIGINT, &action, NULL);
    (void) sigaction(SIGTERM, &action, NULL);
    const enum moe_status status = run(&asked, &boot, argc, argv, err);
    moe_bootstrap_end(&boot);
    return status;
}
