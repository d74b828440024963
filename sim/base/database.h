/*
 * Database: a SQLite file of ours, opened, versioned and closed in one way.
 *
 * Three kinds of file are databases: traces, calibrations and runs. Each carries
 * its kind in PRAGMA application_id and its schema version in PRAGMA user_version,
 * so the wrong file and a newer one are told apart from a broken one.
 */
#ifndef MOE_SIM_BASE_DATABASE_H
#define MOE_SIM_BASE_DATABASE_H

#include <sqlite3.h>
#include <stdint.h>

#include "sim/base/error.h"

/* What a store of one kind is. schema creates every table of an empty file. */
struct moe_database_kind {
    const char *noun; /* "trace store": used in errors */
    uint32_t application_id;
    int version;        /* the newest version this program reads and writes */
    const char *schema; /* SQL */
};

enum moe_database_mode {
    MOE_DATABASE_READ,   /* must exist; opened read-only */
    MOE_DATABASE_CREATE, /* must not exist, or be empty */
    MOE_DATABASE_RESUME, /* created when absent, continued when it is of this kind */
};

struct moe_database {
    sqlite3 *handle; /* NULL when closed */
    const struct moe_database_kind *kind;
    char path[4096];
};

/* Opens path; ":memory:" with CREATE is a database of this process alone.
 * Errors: MOE_IO when the file cannot be opened, is read-only or the disk is full;
 * MOE_PARSE when it is no database or of another kind; MOE_UNSUPPORTED when its
 * version is newer than kind->version. On error *db is closed and a file that
 * this call created is removed. */
enum moe_status moe_database_open(struct moe_database *db, const struct moe_database_kind *kind,
                                  const char *path, enum moe_database_mode mode,
                                  struct moe_error *err) MOE_MUST_CHECK;

/* Safe on a zeroed struct and safe twice. */
void moe_database_close(struct moe_database *db);

/* Runs SQL that returns no rows. Errors: as moe_database_error. */
enum moe_status moe_database_exec(struct moe_database *db, const char *sql,
                                  struct moe_error *err) MOE_MUST_CHECK;

/* Prepares one statement; the caller finalises it with sqlite3_finalize. */
enum moe_status moe_database_prepare(struct moe_database *db, const char *sql, sqlite3_stmt **out,
                                     struct moe_error *err) MOE_MUST_CHECK;

/* Steps a statement that must give no row, and resets it. */
enum moe_status moe_database_run(struct moe_database *db, sqlite3_stmt *stmt,
                                 struct moe_error *err) MOE_MUST_CHECK;

/* Steps a statement: *row says whether one came. */
enum moe_status moe_database_step(struct moe_database *db, sqlite3_stmt *stmt, int *row,
                                  struct moe_error *err) MOE_MUST_CHECK;

/* First column of the first row of sql as an integer; fallback when there is no row. */
enum moe_status moe_database_scalar(struct moe_database *db, const char *sql, int64_t fallback,
                                    int64_t *out, struct moe_error *err) MOE_MUST_CHECK;

/* Turns the handle's last error into ours: corrupt files are MOE_PARSE, what the
 * operating system refused is MOE_IO. The text names the file. */
enum moe_status moe_database_error(struct moe_database *db, struct moe_error *err);

#endif
