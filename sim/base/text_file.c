#include "sim/base/text_file.h"

#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

/* Reads until the end, never past limit_bytes + 1: no size is asked for beforehand, so
 * pipes work and a growing file cannot surprise. */
enum moe_status moe_text_file_read(const char *path, size_t limit_bytes, char **text, size_t *bytes,
                                   struct moe_error *err)
{
    FILE *file = fopen(path, "rb");
    if (file == NULL) {
        return moe_fail(err, MOE_IO, "cannot open %.300s: %s", path, strerror(errno));
    }
    enum moe_status status = MOE_OK;
    char *buffer = malloc(limit_bytes + 2);
    if (buffer == NULL) {
        status =
            moe_fail(err, MOE_LIMIT, "no memory for the %zu bytes of %.300s", limit_bytes, path);
        goto done;
    }
    errno = 0;
    const size_t count = fread(buffer, 1, limit_bytes + 1, file);
    if (ferror(file) != 0) {
        status = moe_fail(err, MOE_IO, "cannot read %.300s: %s", path, strerror(errno));
        goto done;
    }
    if (count > limit_bytes) {
        status = moe_fail(err, MOE_RANGE, "%.300s is longer than %zu bytes", path, limit_bytes);
        goto done;
    }
    buffer[count] = '\0';
    *text = buffer;
    *bytes = count;
    buffer = NULL;

done:
    free(buffer);
    (void) fclose(file);
    return status;
}
