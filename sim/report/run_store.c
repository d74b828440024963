#include "sim/report/run_store.h"

#include <assert.h>
#include <math.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "policies/placement.h"
#include "sim/base/output_file.h"
#include "sim/report/figure.h"
#include "sim/report/finding.h"
#include "sim/report/report.h"

enum { SCENARIO_BYTES = 64 << 10 };

/* policy and seed are numbers: policy counts from 0 in the scenario's order, a seed above
 * 2^63-1 is its negative twin. Times are nanoseconds; everything but account is of the scored
 * phase. placement holds the first seed's plan, and another seed's where it differs. */
const struct moe_database_kind moe_run_store_database = {
    .noun = "run store",
    .application_id = 0x6d6f6552, /* "moeR" */
    .version = 1,
    .schema =
        "CREATE TABLE run (name TEXT PRIMARY KEY, value TEXT NOT NULL) WITHOUT ROWID;"
        "CREATE TABLE policy (policy INTEGER PRIMARY KEY, name TEXT NOT NULL UNIQUE,"
        " mark TEXT NOT NULL, fits INTEGER NOT NULL, why TEXT NOT NULL, oracle INTEGER NOT NULL,"
        " speedup REAL, speedup_half REAL);"
        "CREATE TABLE metric (policy INTEGER, metric TEXT, unit TEXT NOT NULL, mean REAL,"
        " half REAL, PRIMARY KEY (policy, metric)) WITHOUT ROWID;"
        "CREATE TABLE metric_seed (policy INTEGER, metric TEXT, seed INTEGER, value REAL,"
        " PRIMARY KEY (policy, metric, seed)) WITHOUT ROWID;"
        "CREATE TABLE account (policy INTEGER, seed INTEGER, phase TEXT, steps INTEGER,"
        " tokens INTEGER, output_tokens INTEGER, requests INTEGER, assignments INTEGER,"
        " time_ns INTEGER, PRIMARY KEY (policy, seed, phase)) WITHOUT ROWID;"
        "CREATE TABLE cause (policy INTEGER, seed INTEGER, cause TEXT, idle_ns INTEGER,"
        " time_without_ns INTEGER, PRIMARY KEY (policy, seed, cause)) WITHOUT ROWID;"
        "CREATE TABLE part_provenance (policy INTEGER, seed INTEGER, part TEXT, provenance TEXT,"
        " time_ns INTEGER, PRIMARY KEY (policy, seed, part, provenance)) WITHOUT ROWID;"
        "CREATE TABLE gpu (policy INTEGER, seed INTEGER, gpu INTEGER, node INTEGER,"
        " last INTEGER, lead_ns INTEGER, tokens INTEGER, compute REAL, memory REAL, comm REAL,"
        " in_tail INTEGER, PRIMARY KEY (policy, seed, gpu)) WITHOUT ROWID;"
        "CREATE TABLE layer (policy INTEGER, seed INTEGER, layer INTEGER, idle_ns INTEGER,"
        " max_load REAL, mean_load REAL, PRIMARY KEY (policy, seed, layer)) WITHOUT ROWID;"
        "CREATE TABLE expert (policy INTEGER, layer INTEGER, expert INTEGER, tokens INTEGER,"
        " lead_ns INTEGER, PRIMARY KEY (policy, layer, expert)) WITHOUT ROWID;"
        "CREATE TABLE placement (policy INTEGER, seed INTEGER, layer INTEGER, slot INTEGER,"
        " gpu INTEGER, expert INTEGER, PRIMARY KEY (policy, seed, layer, slot)) WITHOUT ROWID;"
        "CREATE TABLE flip (part TEXT, scale REAL, winner INTEGER, PRIMARY KEY (part, scale))"
        " WITHOUT ROWID;",
};

/* A table being filled. kinds: one letter per column, i int64_t, d double, t const char *. */
struct table {
    struct moe_database *db;
    sqlite3_stmt *insert;
    const char *kinds;
};

static enum moe_status table_begin(struct table *table, struct moe_database *db, const char *name,
                                   const char *kinds, struct moe_error *err)
{
    char sql[160];
    int used = snprintf(sql, sizeof sql, "INSERT INTO %s VALUES (?", name);
    for (size_t i = 1; i < strlen(kinds); i++) {
        used += snprintf(sql + used, sizeof sql - (size_t) used, ",?");
    }
    (void) snprintf(sql + used, sizeof sql - (size_t) used, ")");
    *table = (struct table){ .db = db, .kinds = kinds };
    return moe_database_prepare(db, sql, &table->insert, err);
}

/* One row. A double that is not finite is stored as NULL. */
static enum moe_status put(struct table *table, struct moe_error *err, ...)
{
    int code = SQLITE_OK;
    va_list values;
    va_start(values, err);
    for (int i = 0; table->kinds[i] != '\0' && code == SQLITE_OK; i++) {
        switch (table->kinds[i]) {
        case 'i':
            code = sqlite3_bind_int64(table->insert, i + 1, va_arg(values, int64_t));
            break;
        case 'd':
            code = sqlite3_bind_double(table->insert, i + 1, va_arg(values, double));
            break;
        default:
            assert(table->kinds[i] == 't');
            code = sqlite3_bind_text(table->insert, i + 1, va_arg(values, const char *), -1,
                                     SQLITE_TRANSIENT);
            break;
        }
    }
    va_end(values);
    return code == SQLITE_OK ? moe_database_run(table->db, table->insert, err)
                             : moe_database_error(table->db, err);
}

static void table_end(struct table *table)
{
    (void) sqlite3_finalize(table->insert);
    table->insert = NULL;
}

/* Fills one table over the whole study. */
#define INT(value) ((int64_t) (value))

static enum moe_status fill_run(struct table *t, const struct moe_study *study,
                                struct moe_error *err)
{
    char *report = NULL;
    char *scenario = calloc(1, SCENARIO_BYTES);
    if (scenario == NULL) {
        return moe_fail(err, MOE_LIMIT, "no memory for the scenario's text");
    }
    moe_scenario_write(study->scenario, scenario, SCENARIO_BYTES);
    enum moe_status status = moe_report_json_text(study, &report, err);
    const struct moe_figure trace_hash = moe_figure_hash(study->trace_hash);
    const struct moe_figure calibration_hash = moe_figure_hash(study->calibration_hash);
    const struct {
        const char *name;
        const char *value;
    } entries[] = {
        { "program_version", MOE_VERSION },
        { "trace_hash", trace_hash.text },
        { "calibration_hash", calibration_hash.text },
        { "scenario", scenario },
        { "report", report },
    };
    for (size_t i = 0; status == MOE_OK && i < sizeof entries / sizeof entries[0]; i++) {
        status = put(t, err, entries[i].name, entries[i].value);
    }
    free(report);
    free(scenario);
    return status;
}

static enum moe_status fill_policy(struct table *t, const struct moe_study *study,
                                   struct moe_error *err)
{
    for (uint32_t i = 0; i < study->policy_count; i++) {
        const struct moe_policy_summary *p = &study->policies[i];
        const bool compared = p->fits && study->policies[study->baseline].fits;
        MOE_TRY(put(t, err, INT(i), p->composition.label, moe_finding_mark(study, i), INT(p->fits),
                    moe_finding_why(study, i), INT(p->oracle), compared ? p->speedup.mean : NAN,
                    compared ? p->speedup.half : NAN));
    }
    return MOE_OK;
}

static enum moe_status fill_metric(struct table *t, const struct moe_study *study,
                                   struct moe_error *err)
{
    for (uint32_t i = 0; i < study->policy_count; i++) {
        const struct moe_policy_summary *p = &study->policies[i];
        for (uint32_t m = 0; p->fits && m < moe_metric_known_count(study->scenario); m++) {
            const enum moe_metric metric = (enum moe_metric) m;
            MOE_TRY(put(t, err, INT(i), moe_metric_name(metric), moe_metric_unit(metric),
                        p->metric[m].mean, p->metric[m].half));
        }
        for (uint32_t f = 0; f < MOE_PLAN_FIGURE_COUNT; f++) {
            const enum moe_plan_figure figure = (enum moe_plan_figure) f;
            const struct moe_estimate e = moe_plan_figure_estimate(study, i, figure);
            MOE_TRY(put(t, err, INT(i), moe_plan_figure_name(figure), moe_plan_figure_unit(figure),
                        e.mean, e.half));
        }
    }
    return MOE_OK;
}

/* The tables that have rows for each run call one of these per run. */
typedef enum moe_status fill_run_rows(struct table *t, const struct moe_study *study,
                                      uint32_t policy, const struct moe_run_result *run,
                                      struct moe_error *err);

static enum moe_status metric_seed_rows(struct table *t, const struct moe_study *study,
                                        uint32_t policy, const struct moe_run_result *run,
                                        struct moe_error *err)
{
    for (uint32_t m = 0;
         study->policies[policy].fits && m < moe_metric_known_count(study->scenario); m++) {
        const enum moe_metric metric = (enum moe_metric) m;
        MOE_TRY(put(t, err, INT(policy), moe_metric_name(metric), INT(run->seed),
                    moe_metric_value(metric, run)));
    }
    for (uint32_t f = 0; f < MOE_PLAN_FIGURE_COUNT; f++) {
        const enum moe_plan_figure figure = (enum moe_plan_figure) f;
        MOE_TRY(put(t, err, INT(policy), moe_plan_figure_name(figure), INT(run->seed),
                    moe_plan_figure_value(study, run, figure)));
    }
    return MOE_OK;
}

static enum moe_status account_rows(struct table *t, const struct moe_study *study, uint32_t policy,
                                    const struct moe_run_result *run, struct moe_error *err)
{
    (void) study;
    for (uint32_t i = 0; run->fits && i < MOE_PHASE_COUNT; i++) {
        const struct moe_token_account *a = &run->account[i];
        MOE_TRY(put(t, err, INT(policy), INT(run->seed), moe_phase_name((enum moe_phase) i),
                    INT(a->steps), INT(a->tokens), INT(a->output_tokens), INT(a->requests),
                    INT(a->assignments), INT(a->time_ns)));
    }
    return MOE_OK;
}

static enum moe_status cause_rows(struct table *t, const struct moe_study *study, uint32_t policy,
                                  const struct moe_run_result *run, struct moe_error *err)
{
    (void) study;
    for (uint32_t i = 0; run->attributed && i < MOE_CAUSE_COUNT; i++) {
        const uint32_t others = MOE_CAUSE_ALL & ~(UINT32_C(1) << i);
        MOE_TRY(put(t, err, INT(policy), INT(run->seed), moe_cause_name((enum moe_cause) i),
                    INT(run->cause_idle_ns[i]), INT(run->subset_time_ns[others])));
    }
    return MOE_OK;
}

static enum moe_status path_rows(struct table *t, const struct moe_study *study, uint32_t policy,
                                 const struct moe_run_result *run, struct moe_error *err)
{
    (void) study;
    for (uint32_t part = 0; run->fits && part < MOE_COST_PART_COUNT; part++) {
        for (uint32_t i = 0; i < MOE_PROVENANCE_COUNT; i++) {
            if (run->path.ns[part][i] != 0) {
                MOE_TRY(put(t, err, INT(policy), INT(run->seed),
                            moe_cost_part_name((enum moe_cost_part) part),
                            moe_provenance_name((enum moe_provenance) i),
                            INT(run->path.ns[part][i])));
            }
        }
    }
    return MOE_OK;
}

static enum moe_status gpu_rows(struct table *t, const struct moe_study *study, uint32_t policy,
                                const struct moe_run_result *run, struct moe_error *err)
{
    const uint32_t gpus_per_node = study->scenario->cluster.gpus_per_node;
    for (uint32_t gpu = 0; run->fits && gpu < run->gpu_count; gpu++) {
        uint64_t tokens = 0;
        for (uint32_t layer = 0; layer < run->layer_count; layer++) {
            tokens += run->gpu_layer_tokens[(size_t) layer * run->gpu_count + gpu];
        }
        MOE_TRY(put(t, err, INT(policy), INT(run->seed), INT(gpu), INT(gpu / gpus_per_node),
                    INT(run->gpu_last[gpu]), INT(run->gpu_lead_ns[gpu]), INT(tokens),
                    run->gpu_factor[gpu].compute, run->gpu_factor[gpu].memory,
                    run->gpu_factor[gpu].comm, INT(run->gpu_in_tail[gpu])));
    }
    return MOE_OK;
}

static enum moe_status layer_rows(struct table *t, const struct moe_study *study, uint32_t policy,
                                  const struct moe_run_result *run, struct moe_error *err)
{
    (void) study;
    for (uint32_t layer = 0; run->fits && layer < run->layer_count; layer++) {
        MOE_TRY(put(t, err, INT(policy), INT(run->seed), INT(layer), INT(run->layer_idle_ns[layer]),
                    run->layer_max_load[layer], run->layer_mean_load[layer]));
    }
    return MOE_OK;
}

static enum moe_status placement_rows(struct table *t, const struct moe_study *study,
                                      uint32_t policy, const struct moe_run_result *run,
                                      struct moe_error *err)
{
    const struct moe_run_result *first = study->policies[policy].runs;
    const size_t slots = (size_t) run->layer_count * run->slot_count;
    const uint32_t slots_per_gpu = run->slot_count / run->gpu_count;
    if (run != first && memcmp(run->expert_of_slot, first->expert_of_slot,
                               slots * sizeof *run->expert_of_slot) == 0) {
        return MOE_OK;
    }
    for (uint32_t layer = 0; layer < run->layer_count; layer++) {
        for (uint32_t slot = 0; slot < run->slot_count; slot++) {
            const uint16_t expert = run->expert_of_slot[(size_t) layer * run->slot_count + slot];
            if (expert != MOE_SLOT_EMPTY) {
                MOE_TRY(put(t, err, INT(policy), INT(run->seed), INT(layer), INT(slot),
                            INT(slot / slots_per_gpu), INT(expert)));
            }
        }
    }
    return MOE_OK;
}

/* Summed over seeds: its rows come with the first run. */
static enum moe_status expert_rows(struct table *t, const struct moe_study *study, uint32_t policy,
                                   const struct moe_run_result *run, struct moe_error *err)
{
    if (run != study->policies[policy].runs || !study->policies[policy].fits) {
        return MOE_OK;
    }
    for (uint32_t layer = 0; layer < run->layer_count; layer++) {
        for (uint32_t expert = 0; expert < run->expert_count; expert++) {
            const size_t cell = (size_t) layer * run->expert_count + expert;
            uint64_t tokens = 0;
            moe_time_ns lead_ns = 0;
            for (uint32_t i = 0; i < study->seed_count; i++) {
                tokens += study->policies[policy].runs[i].expert_tokens[cell];
                lead_ns += study->policies[policy].runs[i].expert_lead_ns[cell];
            }
            MOE_TRY(put(t, err, INT(policy), INT(layer), INT(expert), INT(tokens), INT(lead_ns)));
        }
    }
    return MOE_OK;
}

static enum moe_status fill_flip(struct table *t, const struct moe_study *study,
                                 struct moe_error *err)
{
    for (uint32_t i = 0; i < study->flip_count; i++) {
        MOE_TRY(put(t, err, moe_cost_part_name(study->flips[i].part), study->flips[i].scale,
                    INT(study->flips[i].winner)));
    }
    return MOE_OK;
}

static enum moe_status fill_runs(struct table *t, const struct moe_study *study,
                                 fill_run_rows *rows, struct moe_error *err)
{
    for (uint32_t policy = 0; policy < study->policy_count; policy++) {
        for (uint32_t i = 0; i < study->seed_count; i++) {
            MOE_TRY(rows(t, study, policy, &study->policies[policy].runs[i], err));
        }
    }
    return MOE_OK;
}

static enum moe_status fill(struct moe_database *db, const struct moe_study *study,
                            struct moe_error *err)
{
    static const struct {
        const char *name;
        const char *kinds;
        enum moe_status (*whole)(struct table *, const struct moe_study *, struct moe_error *);
        fill_run_rows *per_run;
    } tables[] = {
        { "run", "tt", fill_run, NULL },
        { "policy", "ittitidd", fill_policy, NULL },
        { "metric", "ittdd", fill_metric, NULL },
        { "metric_seed", "itid", NULL, metric_seed_rows },
        { "account", "iitiiiiii", NULL, account_rows },
        { "cause", "iitii", NULL, cause_rows },
        { "part_provenance", "iitti", NULL, path_rows },
        { "gpu", "iiiiiiidddi", NULL, gpu_rows },
        { "layer", "iiiidd", NULL, layer_rows },
        { "expert", "iiiii", NULL, expert_rows },
        { "placement", "iiiiii", NULL, placement_rows },
        { "flip", "tdi", fill_flip, NULL },
    };
    MOE_TRY(moe_database_exec(db, "BEGIN", err));
    for (size_t i = 0; i < sizeof tables / sizeof tables[0]; i++) {
        struct table table = { 0 };
        MOE_TRY(table_begin(&table, db, tables[i].name, tables[i].kinds, err));
        const enum moe_status status = tables[i].whole != NULL
                                           ? tables[i].whole(&table, study, err)
                                           : fill_runs(&table, study, tables[i].per_run, err);
        table_end(&table);
        MOE_TRY(status);
    }
    return moe_database_exec(db, "COMMIT", err);
}

enum moe_status moe_run_store_write(const struct moe_study *study, const char *path, bool overwrite,
                                    struct moe_error *err)
{
    struct moe_database db = { 0 };
    struct moe_output_file file = { 0 };
    unsigned char *image = NULL;
    sqlite3_int64 bytes = 0;
    MOE_TRY(moe_output_file_open(&file, path, overwrite, err));
    enum moe_status status =
        moe_database_open(&db, &moe_run_store_database, ":memory:", MOE_DATABASE_CREATE, err);
    if (status == MOE_OK) {
        status = fill(&db, study, err);
    }
    if (status == MOE_OK) {
        image = sqlite3_serialize(db.handle, "main", &bytes, 0);
        status = image != NULL ? MOE_OK
                               : moe_fail(err, MOE_LIMIT, "%s: no memory for the run store", path);
    }
    moe_database_close(&db);
    if (status == MOE_OK) {
        (void) fwrite(image, 1, (size_t) bytes, file.stream); /* commit sees its failure */
        status = moe_output_file_commit(&file, err);
    }
    sqlite3_free(image);
    moe_output_file_discard(&file);
    return status;
}

/* One entry of table run, as text that the caller frees. */
static enum moe_status read_entry(struct moe_database *db, const char *name, char **out,
                                  struct moe_error *err)
{
    sqlite3_stmt *select = NULL;
    int row = 0;
    MOE_TRY(moe_database_prepare(db, "SELECT value FROM run WHERE name = ?", &select, err));
    enum moe_status status = sqlite3_bind_text(select, 1, name, -1, SQLITE_STATIC) == SQLITE_OK
                                 ? moe_database_step(db, select, &row, err)
                                 : moe_database_error(db, err);
    if (status == MOE_OK && !row) {
        status = moe_fail(err, MOE_PARSE, "%s: the run store has no entry '%s'", db->path, name);
    }
    if (status == MOE_OK) {
        const char *text = (const char *) sqlite3_column_text(select, 0);
        *out = text != NULL ? strdup(text) : NULL;
        status = *out != NULL ? MOE_OK : moe_fail(err, MOE_LIMIT, "no memory for '%s'", name);
    }
    (void) sqlite3_finalize(select);
    return status;
}

static enum moe_status read_hash(struct moe_database *db, const char *name, uint64_t *hash,
                                 struct moe_error *err)
{
    char *text = NULL;
    MOE_TRY(read_entry(db, name, &text, err));
    const size_t length = strspn(text, "0123456789abcdef");
    enum moe_status status = MOE_OK;
    if (length == 16 && text[16] == '\0') {
        *hash = strtoull(text, NULL, 16);
    } else {
        status = moe_fail(err, MOE_PARSE, "%s: entry '%s' is '%.40s', not 16 hexadecimal digits",
                          db->path, name, text);
    }
    free(text);
    return status;
}

static enum moe_status read_all(struct moe_run_record *record, struct moe_database *db,
                                struct moe_error *err)
{
    char *version = NULL;
    MOE_TRY(read_entry(db, "program_version", &version, err));
    (void) snprintf(record->program_version, sizeof record->program_version, "%s", version);
    free(version);
    MOE_TRY(read_hash(db, "trace_hash", &record->trace_hash, err));
    MOE_TRY(read_hash(db, "calibration_hash", &record->calibration_hash, err));
    MOE_TRY(read_entry(db, "scenario", &record->scenario, err));
    return read_entry(db, "report", &record->report, err);
}

enum moe_status moe_run_store_read(struct moe_run_record *record, const char *path,
                                   struct moe_error *err)
{
    struct moe_database db;
    *record = (struct moe_run_record){ 0 };
    MOE_TRY(moe_database_open(&db, &moe_run_store_database, path, MOE_DATABASE_READ, err));
    const enum moe_status status = read_all(record, &db, err);
    moe_database_close(&db);
    if (status != MOE_OK) {
        moe_run_record_finish(record);
    }
    return status;
}

void moe_run_record_finish(struct moe_run_record *record)
{
    free(record->scenario);
    free(record->report);
    record->scenario = NULL;
    record->report = NULL;
}
