#include "sim/base/output_file.h"

#include <assert.h>
#include <errno.h>
#include <fcntl.h>
#include <signal.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

/* What a signal handler has to remove. The name is complete before the flag is set. */
enum { PENDING_LIMIT = 4 };
static struct {
    volatile sig_atomic_t used;
    char temporary[sizeof((struct moe_output_file *) NULL)->temporary];
} pending[PENDING_LIMIT];

static void remember(const char *temporary)
{
    for (int i = 0; i < PENDING_LIMIT; i++) {
        if (!pending[i].used) {
            (void) snprintf(pending[i].temporary, sizeof pending[i].temporary, "%s", temporary);
            pending[i].used = 1;
            return;
        }
    }
}

static void forget(const char *temporary)
{
    for (int i = 0; i < PENDING_LIMIT; i++) {
        if (pending[i].used && strcmp(pending[i].temporary, temporary) == 0) {
            pending[i].used = 0;
        }
    }
}

void moe_output_file_abandon_all(void)
{
    for (int i = 0; i < PENDING_LIMIT; i++) {
        if (pending[i].used) {
            (void) unlink(pending[i].temporary);
        }
    }
}

static enum moe_status refuse_existing(const char *path, struct moe_error *err)
{
    return moe_fail(err, MOE_RANGE, "%s: exists already; --overwrite replaces it", path);
}

static enum moe_status check_target(const char *path, bool overwrite, struct moe_error *err)
{
    struct stat found;
    if (lstat(path, &found) != 0) {
        return MOE_OK; /* what keeps it from being made, open will say */
    }
    if (!S_ISREG(found.st_mode)) {
        return moe_fail(err, MOE_RANGE, "%s: is no regular file, so it is not replaced", path);
    }
    return overwrite ? MOE_OK : refuse_existing(path, err);
}

enum moe_status moe_output_file_open(struct moe_output_file *file, const char *path, bool overwrite,
                                     struct moe_error *err)
{
    if (strlen(path) >= sizeof file->path) {
        return moe_fail(err, MOE_RANGE, "a path of %zu bytes is longer than %zu", strlen(path),
                        sizeof file->path - 1);
    }
    MOE_TRY(check_target(path, overwrite, err));
    *file = (struct moe_output_file){ .overwrite = overwrite };
    (void) snprintf(file->path, sizeof file->path, "%s", path);
    (void) snprintf(file->temporary, sizeof file->temporary, "%s.part-%ld", path, (long) getpid());
    /* O_EXCL: never write through a link that someone laid there. */
    const int handle = open(file->temporary, O_WRONLY | O_CREAT | O_EXCL | O_CLOEXEC, 0666);
    if (handle < 0) {
        return moe_fail(err, MOE_IO, "%s: cannot be created: %s", path, strerror(errno));
    }
    file->stream = fdopen(handle, "w");
    if (file->stream == NULL) {
        const int reason = errno;
        (void) close(handle);
        (void) unlink(file->temporary);
        return moe_fail(err, MOE_IO, "%s: cannot be created: %s", path, strerror(reason));
    }
    remember(file->temporary);
    return MOE_OK;
}

/* Without overwrite the move is a link, which fails when the name is taken; a file
 * system without links leaves a check before the move. */
static enum moe_status publish(const struct moe_output_file *file, struct moe_error *err)
{
    if (!file->overwrite) {
        if (link(file->temporary, file->path) == 0) {
            (void) unlink(file->temporary);
            return MOE_OK;
        }
        if (errno == EEXIST) {
            return refuse_existing(file->path, err);
        }
        MOE_TRY(check_target(file->path, false, err));
    }
    if (rename(file->temporary, file->path) != 0) {
        return moe_fail(err, MOE_IO, "%s: cannot be created: %s", file->path, strerror(errno));
    }
    return MOE_OK;
}

enum moe_status moe_output_file_commit(struct moe_output_file *file, struct moe_error *err)
{
    assert(file->stream != NULL);
    errno = 0;
    const bool failed =
        ferror(file->stream) != 0 || fflush(file->stream) != 0 || fsync(fileno(file->stream)) != 0;
    const int reason = errno;
    const bool unclosed = fclose(file->stream) != 0;
    file->stream = NULL;
    enum moe_status status = MOE_OK;
    if (failed || unclosed) {
        status = moe_fail(err, MOE_IO, "%s: cannot be written: %s", file->path,
                          reason != 0 ? strerror(reason) : "an earlier write failed");
    } else {
        status = publish(file, err);
    }
    if (status != MOE_OK) {
        (void) unlink(file->temporary);
    }
    forget(file->temporary);
    return status;
}

void moe_output_file_discard(struct moe_output_file *file)
{
    if (file->stream != NULL) {
        (void) fclose(file->stream);
        (void) unlink(file->temporary);
        forget(file->temporary);
        file->stream = NULL;
    }
}
