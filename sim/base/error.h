/*
 * Errors: one status code, one struct that says what went wrong and where.
 *
 * A function that can fail for a reason outside the program (a bad file, a full
 * disk, a missing device) returns enum moe_status and takes struct moe_error *
 * as its last argument. A broken invariant is not an error: assert it.
 * Library code never prints and never exits; only main() does.
 */
#ifndef MOE_SIM_BASE_ERROR_H
#define MOE_SIM_BASE_ERROR_H

enum moe_status {
    MOE_OK,
    MOE_IO,          /* the operating system refused: a file, a database */
    MOE_PARSE,       /* the input is malformed */
    MOE_RANGE,       /* a value lies outside its allowed range */
    MOE_LIMIT,       /* a fixed limit or an arena is full */
    MOE_POLICY,      /* a policy asked for something impossible */
    MOE_UNSUPPORTED, /* not available in this build or on this machine */
    MOE_DEVICE,      /* a GPU call failed */
    MOE_GATE,        /* the run is good, but a stated gate is not met */
    MOE_STATUS_COUNT
};

struct moe_error {
    enum moe_status status;
    const char *file; /* where it was raised; static storage */
    int line;
    char text[480]; /* one sentence without a full stop; always terminated */
};

#define MOE_MUST_CHECK __attribute__((warn_unused_result))

/* A fixed English phrase for the status. Never NULL, also for unknown values. */
const char *moe_status_text(enum moe_status status);

/* Fills *err (which may be NULL) and yields status, so a caller writes
 * `return moe_fail(err, MOE_PARSE, "line %u: ...", line);`. */
#define moe_fail(err, status, ...) \
    (moe_error_set((err), (status), __FILE__, __LINE__, __VA_ARGS__), (status))

void moe_error_set(struct moe_error *err, enum moe_status status, const char *file, int line,
                   const char *format, ...) __attribute__((format(printf, 5, 6)));

/* Returns from the calling function when expr is not MOE_OK. Only for functions
 * that hold nothing yet; those that do use `goto done`. */
#define MOE_TRY(expr)                             \
    do {                                          \
        enum moe_status moe_try_status_ = (expr); \
        if (moe_try_status_ != MOE_OK) {          \
            return moe_try_status_;               \
        }                                         \
    } while (0)

#endif
