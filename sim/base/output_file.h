/*
 * Output file: written beside its place and moved there when it is whole, so that a
 * reader never meets half a file and a failed run leaves what was there before.
 *
 * open, write to stream, then commit or discard. A file that exists is refused unless
 * overwrite is set, and anything but a regular file (a device, a link) always is.
 */
#ifndef MOE_SIM_BASE_OUTPUT_FILE_H
#define MOE_SIM_BASE_OUTPUT_FILE_H

#include <stdbool.h>
#include <stdio.h>

#include "sim/base/error.h"

struct moe_output_file {
    FILE *stream; /* NULL when closed */
    bool overwrite;
    char path[4096];
    char temporary[4096 + 32]; /* path with a suffix; gone after commit and discard */
};

/* Errors: MOE_RANGE when path exists and overwrite is not set, is no regular file, or is
 * too long; MOE_IO when the folder cannot be written. On error nothing is left behind. */
enum moe_status moe_output_file_open(struct moe_output_file *file, const char *path, bool overwrite,
                                     struct moe_error *err) MOE_MUST_CHECK;

/* Writes everything to the disk and moves the file to its path; closes it either way.
 * Errors: MOE_IO, MOE_RANGE when somebody made the file meanwhile; then path is as before. */
enum moe_status moe_output_file_commit(struct moe_output_file *file,
                                       struct moe_error *err) MOE_MUST_CHECK;

/* For a signal handler, just before the process ends: removes the temporaries of all files that
 * are open (of the first four, should there be more). */
void moe_output_file_abandon_all(void);

/* Forgets what was written. Safe on a zeroed struct and after commit. */
void moe_output_file_discard(struct moe_output_file *file);

#endif
