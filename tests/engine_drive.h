/*
 * Engine drive: runs the engine on a case of the engine twin, through a real trace store.
 */
#ifndef MOE_TESTS_ENGINE_DRIVE_H
#define MOE_TESTS_ENGINE_DRIVE_H

#include "sim/engine/run.h"
#include "tests/engine_twin.h"

struct engine_drive {
    char folder[64];
    char path[96]; /* of the trace store */
    struct moe_arena setup;
    struct moe_arena results;
    struct moe_arena work;
    FILE *log; /* where event logs go */
    struct moe_scenario scenario;
    uint64_t kv_limit; /* tokens of a rank's pool at most; 0: as memory says */
};

/* Makes a folder of its own under the system's, and memory for every case. */
void engine_drive_open(struct engine_drive *drive);
void engine_drive_close(struct engine_drive *drive);

/* The case's model, cluster and serving options as the engine knows them. */
void engine_drive_scenario(const struct twin_case *c, struct moe_scenario *scenario);

/* Writes the case's routes to drive->path. */
enum moe_status engine_drive_store(struct engine_drive *drive, const struct twin_case *c,
                                   struct moe_error *err) MOE_MUST_CHECK;

/* Stores, plans (the case's plan, by a policy that knows it) and runs. calibration is the CSV
 * text of the case; events: through the event queue too. *result stands in
 * drive->results until the next run. */
enum moe_status engine_drive_run(struct engine_drive *drive, const struct twin_case *c,
                                 const char *calibration, bool events,
                                 struct moe_run_result *result,
                                 struct moe_error *err) MOE_MUST_CHECK;

/* The same with drive->scenario as it is, for ways to serve that the twin does not know. */
enum moe_status engine_drive_scene(struct engine_drive *drive, const struct twin_case *c,
                                   const char *calibration, bool events,
                                   struct moe_run_result *result,
                                   struct moe_error *err) MOE_MUST_CHECK;

#endif
