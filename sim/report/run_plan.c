#include "sim/report/run_plan.h"

#include <stdio.h>
#include <string.h>

#include "sim/report/run_store.h"
#include "sim/scenario/scenario.h"

struct reader {
    struct moe_database db;
    int64_t policy;
    int64_t seed; /* of the rows: where a seed's plan does not differ, the first one's */
};

/* Labels of all policies, for an error. */
static enum moe_status refuse_policy(struct reader *reader, const char *label,
                                     struct moe_error *err)
{
    sqlite3_stmt *select = NULL;
    char names[240] = "";
    size_t used = 0;
    int row = 1;
    MOE_TRY(
        moe_database_prepare(&reader->db, "SELECT name FROM policy ORDER BY policy", &select, err));
    enum moe_status status = moe_database_step(&reader->db, select, &row, err);
    while (status == MOE_OK && row != 0) {
        const char *name = (const char *) sqlite3_column_text(select, 0);
        if (used < sizeof names - 1) {
            used += (size_t) snprintf(names + used, sizeof names - used, " %s",
                                      name == NULL ? "?" : name);
        }
        status = moe_database_step(&reader->db, select, &row, err);
    }
    (void) sqlite3_finalize(select);
    MOE_TRY(status);
    return label == NULL
               ? moe_fail(err, MOE_RANGE, "%.120s: no policy is the best one; name one of:%s",
                          reader->db.path, names)
               : moe_fail(err, MOE_RANGE, "%.120s: no policy '%.100s'; there are:%s",
                          reader->db.path, label, names);
}

static enum moe_status find_policy(struct reader *reader, const char *label, char *name,
                                   struct moe_error *err)
{
    sqlite3_stmt *select = NULL;
    int row = 0;
    MOE_TRY(moe_database_prepare(&reader->db,
                                 label == NULL
                                     ? "SELECT policy, name FROM policy WHERE mark = 'best'"
                                     : "SELECT policy, name FROM policy WHERE name = ?",
                                 &select, err));
    enum moe_status status = MOE_OK;
    if (label != NULL && sqlite3_bind_text(select, 1, label, -1, SQLITE_STATIC) != SQLITE_OK) {
        status = moe_database_error(&reader->db, err);
    }
    if (status == MOE_OK) {
        status = moe_database_step(&reader->db, select, &row, err);
    }
    if (status == MOE_OK && row != 0) {
        const char *text = (const char *) sqlite3_column_text(select, 1);
        reader->policy = sqlite3_column_int64(select, 0);
        (void) snprintf(name, MOE_COMPOSITION_BYTES, "%s", text == NULL ? "?" : text);
    }
    (void) sqlite3_finalize(select);
    return status == MOE_OK && row == 0 ? refuse_policy(reader, label, err) : status;
}

/* The seed whose rows hold the plan. */
static enum moe_status find_seed(struct reader *reader, const struct moe_scenario *scenario,
                                 const struct moe_run_plan_choice *choice, struct moe_error *err)
{
    const uint64_t last = scenario->first_seed + scenario->seed_count - 1;
    const uint64_t wanted = choice->seed_is_given ? choice->seed : scenario->first_seed;
    char sql[160];
    int64_t rows = 0;
    if (wanted - scenario->first_seed >= scenario->seed_count) {
        return moe_fail(err, MOE_RANGE, "%.120s: no seed %llu; there are seeds %llu to %llu",
                        reader->db.path, (unsigned long long) wanted,
                        (unsigned long long) scenario->first_seed, (unsigned long long) last);
    }
    (void) snprintf(sql, sizeof sql,
                    "SELECT count(*) FROM placement WHERE policy = %lld AND seed = %lld",
                    (long long) reader->policy, (long long) wanted);
    MOE_TRY(moe_database_scalar(&reader->db, sql, 0, &rows, err));
    reader->seed = (int64_t) (rows > 0 ? wanted : scenario->first_seed);
    return MOE_OK;
}

static enum moe_status read_slots(struct reader *reader, struct moe_plan *plan,
                                  struct moe_error *err)
{
    const struct moe_placement_shape *shape = &plan->placement.shape;
    sqlite3_stmt *select = NULL;
    int row = 0;
    MOE_TRY(moe_database_prepare(
        &reader->db, "SELECT layer, slot, expert FROM placement WHERE policy = ? AND seed = ?",
        &select, err));
    enum moe_status status = sqlite3_bind_int64(select, 1, reader->policy) == SQLITE_OK &&
                                     sqlite3_bind_int64(select, 2, reader->seed) == SQLITE_OK
                                 ? moe_database_step(&reader->db, select, &row, err)
                                 : moe_database_error(&reader->db, err);
    while (status == MOE_OK && row != 0) {
        const int64_t layer = sqlite3_column_int64(select, 0);
        const int64_t slot = sqlite3_column_int64(select, 1);
        const int64_t expert = sqlite3_column_int64(select, 2);
        if (layer < 0 || layer >= shape->layer_count || slot < 0 || slot >= shape->slot_count ||
            expert < 0 || expert >= shape->expert_count) {
            status =
                moe_fail(err, MOE_PARSE,
                         "%.200s: placement holds layer %lld, slot %lld, expert %lld; the "
                         "scenario has %u layers of %u slots and %u experts",
                         reader->db.path, (long long) layer, (long long) slot, (long long) expert,
                         shape->layer_count, shape->slot_count, shape->expert_count);
            break;
        }
        moe_placement_layer(&plan->placement, (uint32_t) layer)[slot] = (uint16_t) expert;
        status = moe_database_step(&reader->db, select, &row, err);
    }
    (void) sqlite3_finalize(select);
    return status;
}

static enum moe_status read_plan(struct reader *reader, struct moe_plan *plan,
                                 struct moe_run_plan_found *found,
                                 const struct moe_scenario *scenario,
                                 const struct moe_run_plan_choice *choice, struct moe_error *err)
{
    const struct moe_placement_shape shape = moe_scenario_shape(scenario);
    MOE_TRY(find_policy(reader, choice->policy, found->policy, err));
    MOE_TRY(find_seed(reader, scenario, choice, err));
    MOE_TRY(moe_plan_init(plan, &shape, reader->db.path, err));
    MOE_TRY(read_slots(reader, plan, err));
    MOE_TRY(moe_plan_settle(plan, reader->db.path, err));
    found->dense_layers = scenario->model.layer_count - scenario->model.moe_layer_count;
    return moe_plan_number(plan, found->dense_layers, 1, err);
}

enum moe_status moe_run_plan_read(struct moe_plan *out, struct moe_run_plan_found *found,
                                  const char *path, const struct moe_run_plan_choice *choice,
                                  struct moe_error *err)
{
    static struct moe_scenario scenario; /* 20 KiB */
    struct moe_run_record record;
    struct reader reader = { .policy = -1 };
    struct moe_plan plan = { 0 };
    MOE_TRY(moe_run_store_read(&record, path, err));
    enum moe_status status = moe_scenario_parse(&scenario, record.scenario, path, err);
    moe_run_record_finish(&record);
    MOE_TRY(status);
    MOE_TRY(moe_database_open(&reader.db, &moe_run_store_database, path, MOE_DATABASE_READ, err));
    status = read_plan(&reader, &plan, found, &scenario, choice, err);
    moe_database_close(&reader.db);
    if (status != MOE_OK) {
        moe_plan_finish(&plan);
        return status;
    }
    *out = plan;
    return MOE_OK;
}
