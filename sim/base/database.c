#include "sim/base/database.h"

#include <assert.h>
#include <errno.h>
#include <fcntl.h>
#include <stdbool.h>
#include <stdio.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

static enum moe_status fail_code(const struct moe_database *db, int code, const char *text,
                                 struct moe_error *err)
{
    const char *noun = db->kind->noun;
    switch (code & 0xff) {
    case SQLITE_NOTADB:
    case SQLITE_CORRUPT:
        return moe_fail(err, MOE_PARSE, "%s: not a readable %s: %s", db->path, noun, text);
    case SQLITE_CONSTRAINT:
    case SQLITE_MISMATCH:
    case SQLITE_ERROR:
        return moe_fail(err, MOE_PARSE, "%s: the %s does not have the expected content: %s",
                        db->path, noun, text);
    default:
        return moe_fail(err, MOE_IO, "%s: cannot use the %s: %s", db->path, noun, text);
    }
}

enum moe_status moe_database_error(struct moe_database *db, struct moe_error *err)
{
    return fail_code(db, sqlite3_extended_errcode(db->handle), sqlite3_errmsg(db->handle), err);
}

enum moe_status moe_database_exec(struct moe_database *db, const char *sql, struct moe_error *err)
{
    return sqlite3_exec(db->handle, sql, NULL, NULL, NULL) == SQLITE_OK
               ? MOE_OK
               : moe_database_error(db, err);
}

enum moe_status moe_database_prepare(struct moe_database *db, const char *sql, sqlite3_stmt **out,
                                     struct moe_error *err)
{
    return sqlite3_prepare_v2(db->handle, sql, -1, out, NULL) == SQLITE_OK
               ? MOE_OK
               : moe_database_error(db, err);
}

enum moe_status moe_database_step(struct moe_database *db, sqlite3_stmt *stmt, int *row,
                                  struct moe_error *err)
{
    const int code = sqlite3_step(stmt);
    if (code != SQLITE_ROW && code != SQLITE_DONE) {
        return moe_database_error(db, err);
    }
    *row = code == SQLITE_ROW;
    return MOE_OK;
}

enum moe_status moe_database_run(struct moe_database *db, sqlite3_stmt *stmt, struct moe_error *err)
{
    const int code = sqlite3_step(stmt);
    assert(code != SQLITE_ROW);
    const enum moe_status status = code == SQLITE_DONE ? MOE_OK : moe_database_error(db, err);
    (void) sqlite3_reset(stmt);
    return status;
}

enum moe_status moe_database_scalar(struct moe_database *db, const char *sql, int64_t fallback,
                                    int64_t *out, struct moe_error *err)
{
    sqlite3_stmt *stmt = NULL;
    int row = 0;
    MOE_TRY(moe_database_prepare(db, sql, &stmt, err));
    const enum moe_status status = moe_database_step(db, stmt, &row, err);
    if (status == MOE_OK) {
        *out = row ? sqlite3_column_int64(stmt, 0) : fallback;
    }
    (void) sqlite3_finalize(stmt);
    return status;
}

static enum moe_status create(struct moe_database *db, struct moe_error *err)
{
    char stamp[160];
    (void) snprintf(stamp, sizeof stamp, "PRAGMA application_id=%u; PRAGMA user_version=%d; COMMIT",
                    db->kind->application_id, db->kind->version);
    /* Large pages: routes are blobs of about 1 MiB, and a 4 KiB page would chain
     * 256 overflow pages for each. */
    MOE_TRY(moe_database_exec(db, "PRAGMA page_size=65536; BEGIN IMMEDIATE", err));
    MOE_TRY(moe_database_exec(db, db->kind->schema, err));
    return moe_database_exec(db, stamp, err);
}

static enum moe_status check(struct moe_database *db, struct moe_error *err)
{
    int64_t id = 0;
    int64_t version = 0;
    MOE_TRY(moe_database_scalar(db, "PRAGMA application_id", 0, &id, err));
    MOE_TRY(moe_database_scalar(db, "PRAGMA user_version", 0, &version, err));
    if (id != (int64_t) db->kind->application_id) {
        return moe_fail(err, MOE_PARSE, "%s: not a %s: application_id is %lld, expected %u",
                        db->path, db->kind->noun, (long long) id, db->kind->application_id);
    }
    if (version < 1 || version > db->kind->version) {
        return moe_fail(err, MOE_UNSUPPORTED,
                        "%s: this %s has schema version %lld; this program reads 1 to %d", db->path,
                        db->kind->noun, (long long) version, db->kind->version);
    }
    return MOE_OK;
}

static enum moe_status prepare_file(struct moe_database *db, enum moe_database_mode mode,
                                    bool existed, struct moe_error *err)
{
    int64_t tables = 0;
    MOE_TRY(moe_database_scalar(db, "SELECT count(*) FROM sqlite_schema", 0, &tables, err));
    if (mode != MOE_DATABASE_READ && tables == 0) {
        return create(db, err);
    }
    if (mode == MOE_DATABASE_CREATE && existed) {
        return moe_fail(err, MOE_RANGE, "%s: exists already; give --overwrite to replace it",
                        db->path);
    }
    return check(db, err);
}

/* Whether the file was there; in a writing mode it is there afterwards. Creating it here,
 * exclusively, leaves no doubt whose it is when the opening fails and it is removed again. */
static enum moe_status find_file(const char *path, enum moe_database_mode mode, bool *existed,
                                 struct moe_error *err)
{
    struct stat info;
    if (mode != MOE_DATABASE_READ) {
        const int file = open(path, O_CREAT | O_EXCL | O_WRONLY | O_CLOEXEC, 0666);
        if (file >= 0) {
            *existed = false;
            return close(file) == 0 ? MOE_OK
                                    : moe_fail(err, MOE_IO, "%s: %s", path, strerror(errno));
        }
        if (errno != EEXIST) {
            return moe_fail(err, MOE_IO, "%s: %s", path, strerror(errno));
        }
    }
    if (stat(path, &info) != 0) {
        return moe_fail(err, MOE_IO, "%s: %s", path, strerror(errno));
    }
    if (!S_ISREG(info.st_mode)) {
        return moe_fail(err, MOE_RANGE, "%s: not a regular file", path);
    }
    *existed = true;
    return MOE_OK;
}

enum moe_status moe_database_open(struct moe_database *db, const struct moe_database_kind *kind,
                                  const char *path, enum moe_database_mode mode,
                                  struct moe_error *err)
{
    *db = (struct moe_database){ .kind = kind };
    if (strlen(path) >= sizeof db->path) {
        return moe_fail(err, MOE_RANGE, "a path of %zu bytes; at most %zu are allowed",
                        strlen(path), sizeof db->path - 1);
    }
    (void) snprintf(db->path, sizeof db->path, "%s", path);
    const bool on_disk = mode != MOE_DATABASE_CREATE || strcmp(path, ":memory:") != 0;
    bool existed = true;
    if (on_disk && strcmp(path, ":memory:") == 0) {
        return moe_fail(err, MOE_RANGE, "%s: names no file", path);
    }
    if (on_disk) {
        MOE_TRY(find_file(path, mode, &existed, err));
    }
    const int flags = mode == MOE_DATABASE_READ ? SQLITE_OPEN_READONLY
                                                : SQLITE_OPEN_READWRITE | SQLITE_OPEN_CREATE;
    const int code = sqlite3_open_v2(path, &db->handle, flags | SQLITE_OPEN_NOMUTEX, NULL);
    enum moe_status status =
        code == SQLITE_OK
            ? MOE_OK
            : fail_code(db, code, db->handle == NULL ? "out of memory" : sqlite3_errmsg(db->handle),
                        err);
    if (status == MOE_OK) {
        (void) sqlite3_busy_timeout(db->handle, 2000);
        status = prepare_file(db, mode, existed, err);
    }
    if (status != MOE_OK) {
        moe_database_close(db);
        if (!existed) {
            (void) unlink(path);
        }
    }
    return status;
}

void moe_database_close(struct moe_database *db)
{
    if (db->handle != NULL) {
        (void) sqlite3_close(db->handle);
        db->handle = NULL;
    }
}
