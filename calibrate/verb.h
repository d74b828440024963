/*
 * Verbs: what moecal can be told to do, one file each (verb_NAME.c), one line each in verb.def.
 */
#ifndef MOE_CALIBRATE_VERB_H
#define MOE_CALIBRATE_VERB_H

#include "sim/base/error.h"

/* argv[argc]: what stands behind the verb. Prints its result to standard output.
 * Errors: MOE_RANGE for bad arguments, MOE_UNSUPPORTED when there is no GPU, others as they
 * come. */
#define VERB(name, text, help) \
    enum moe_status moe_verb_##name(int argc, char **argv, struct moe_error *err) MOE_MUST_CHECK;
#include "calibrate/verb.def"
#undef VERB

#endif
