/*
 * Zip file: members read whole into memory, through libzip, with bounds.
 *
 * Members are stored (torch, numpy.savez) or deflated (numpy.savez_compressed). Refused are
 * encryption, other methods, members longer than MOE_ZIP_MEMBER_LIMIT, and those that unpack
 * to more than MOE_ZIP_RATIO_LIMIT times their packed size once they are large: deflate can
 * blow one byte up to a thousand, counts and ids do not.
 */
#ifndef MOE_TRACES_ZIP_FILE_H
#define MOE_TRACES_ZIP_FILE_H

#include <stddef.h>
#include <stdint.h>

#include "sim/base/error.h"

#define MOE_ZIP_MEMBER_LIMIT     (UINT64_C(2) << 30)
#define MOE_ZIP_RATIO_LIMIT      200
#define MOE_ZIP_RATIO_FREE_BYTES (UINT64_C(16) << 20) /* below this any ratio will do */

struct moe_zip; /* one open file */

/* Errors: MOE_IO, MOE_PARSE for what is no zip file, MOE_LIMIT. */
enum moe_status moe_zip_open(struct moe_zip **out, const char *path,
                             struct moe_error *err) MOE_MUST_CHECK;

/* The same of bytes[size], which stay until close; name stands for the file in errors. */
enum moe_status moe_zip_open_memory(struct moe_zip **out, const char *name, const void *bytes,
                                    size_t size, struct moe_error *err) MOE_MUST_CHECK;

/* Safe for NULL. */
void moe_zip_close(struct moe_zip *zip);

const char *moe_zip_path(const struct moe_zip *zip);
uint64_t moe_zip_member_count(const struct moe_zip *zip);

/* Name of a member, NULL when it has none that can be read; good until close. */
const char *moe_zip_member_name(const struct moe_zip *zip, uint64_t index);

/* Index of the member of that name, -1 when there is none. */
int64_t moe_zip_find(const struct moe_zip *zip, const char *name);

/* Unpacks a member of at most limit bytes; *bytes (never NULL) is to be freed. Its checksum is
 * checked. Errors: MOE_PARSE naming file and member; MOE_LIMIT without memory. */
enum moe_status moe_zip_read(const struct moe_zip *zip, uint64_t index, uint64_t limit,
                             unsigned char **bytes, size_t *size,
                             struct moe_error *err) MOE_MUST_CHECK;

#endif
