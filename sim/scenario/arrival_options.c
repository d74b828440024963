#include "sim/scenario/arrival_options.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "sim/base/options.h"

static const char *const kind_names[] = { "closed", "trace",   "file",  "poisson",
                                          "gamma",  "weibull", "bursts" };
static const double longest_s = 1e8; /* three years */

void moe_arrival_options_default(struct moe_arrival_options *options)
{
    *options = (struct moe_arrival_options){
        .kind = MOE_ARRIVAL_CLOSED,
        .cv = 1.0,
        .burst_on_s = 10.0,
        .burst_off_s = 30.0,
        .burst_share = 0.75,
        .lengths = MOE_ARRIVAL_LENGTHS_RECORDED,
        .prompt_tokens = 1000.0,
        .prompt_cv = 1.0,
        .output_tokens = 200.0,
        .output_cv = 1.0,
        .longest_tokens = 131072,
    };
}

/* A number up to a space, '=' or the end; *at moves behind it. */
static bool take_number(const char **at, double max, double *out)
{
    char word[40];
    const size_t length = strcspn(*at, " =");
    if (length == 0 || length >= sizeof word || strspn(*at, "0123456789+-.eE") < length) {
        return false;
    }
    memcpy(word, *at, length);
    word[length] = '\0';
    *at += length;
    return moe_parse_real(word, "", 0.0, max, out, NULL) == MOE_OK;
}

enum moe_status moe_arrival_points_read(const char (*items)[MOE_ARRIVAL_POINT_BYTES],
                                        uint32_t count, const char *key,
                                        struct moe_arrival_point *points, struct moe_error *err)
{
    for (uint32_t i = 0; i < count; i++) {
        const char *at = items[i];
        if (!take_number(&at, longest_s, &points[i].at_s) || *at != ' ') {
            return moe_fail(err, MOE_RANGE,
                            "%s: '%s' does not begin with seconds from 0 to %g and a space", key,
                            items[i], longest_s);
        }
        const double least = i == 0 ? 0.0 : points[i - 1].at_s;
        if (points[i].at_s < least || (i == 0 && points[i].at_s > 0.0)) {
            return moe_fail(err, MOE_RANGE,
                            "%s: '%s' is at %g s; the first point must be at 0 and none before the "
                            "one before it (%g s)",
                            key, items[i], points[i].at_s, least);
        }
        points[i].rest = at + 1;
    }
    return MOE_OK;
}

enum moe_status moe_arrival_factor_read(const struct moe_arrival_point *point, double *factor,
                                        struct moe_error *err)
{
    const char *at = point->rest;
    if (!take_number(&at, 1e6, factor) || *at != '\0') {
        return moe_fail(err, MOE_RANGE,
                        "arrivals.schedule: '%g %s' is not SECONDS FACTOR with a factor from 0 to "
                        "1e+06",
                        point->at_s, point->rest);
    }
    return MOE_OK;
}

enum moe_status moe_arrival_weight_read(const char **at, char domain[32], double *weight, bool *got,
                                        struct moe_error *err)
{
    const char *begin = *at;
    *at += strspn(*at, " ");
    *got = **at != '\0';
    if (!*got) {
        return MOE_OK;
    }
    const size_t length = strcspn(*at, "= ");
    if (length > 0 && length < 32 && (*at)[length] == '=') {
        memcpy(domain, *at, length);
        domain[length] = '\0';
        *at += length + 1;
        if (take_number(at, 1e9, weight) && (**at == ' ' || **at == '\0')) {
            return MOE_OK;
        }
    }
    return moe_fail(err, MOE_RANGE,
                    "arrivals.drift: '%s' is not DOMAIN=WEIGHT ... with weights from 0 to 1e+09",
                    begin);
}

enum moe_status moe_arrival_priorities_read(const struct moe_arrival_options *options,
                                            double *share, struct moe_error *err)
{
    double sum = 0.0;
    for (uint32_t i = 0; i < options->priority_count; i++) {
        const char *at = options->priorities[i];
        if (!take_number(&at, 1e9, &share[i]) || *at != '\0') {
            return moe_fail(err, MOE_RANGE,
                            "arrivals.priorities: '%s' is not a share from 0 to 1e+09",
                            options->priorities[i]);
        }
        sum += share[i];
    }
    if (options->priority_count > 0 && !(sum > 0.0)) {
        return moe_fail(err, MOE_RANGE, "arrivals.priorities: all shares are 0");
    }
    for (uint32_t i = 0; i < options->priority_count; i++) {
        share[i] /= sum;
    }
    return MOE_OK;
}

static enum moe_status check_schedule(const struct moe_arrival_options *o, struct moe_error *err)
{
    struct moe_arrival_point points[MOE_ARRIVAL_POINT_LIMIT];
    double largest = o->schedule_count == 0 ? 1.0 : 0.0;
    MOE_TRY(
        moe_arrival_points_read(o->schedule, o->schedule_count, "arrivals.schedule", points, err));
    for (uint32_t i = 0; i < o->schedule_count; i++) {
        double factor = 0.0;
        MOE_TRY(moe_arrival_factor_read(&points[i], &factor, err));
        largest = factor > largest ? factor : largest;
    }
    return largest > 0.0 ? MOE_OK
                         : moe_fail(err, MOE_RANGE,
                                    "arrivals.schedule: all factors are 0: nothing would arrive");
}

static enum moe_status check_drift(const struct moe_arrival_options *o, struct moe_error *err)
{
    struct moe_arrival_point points[MOE_ARRIVAL_POINT_LIMIT];
    MOE_TRY(moe_arrival_points_read(o->drift, o->drift_count, "arrivals.drift", points, err));
    for (uint32_t i = 0; i < o->drift_count; i++) {
        const char *at = points[i].rest;
        double sum = 0.0;
        for (bool got = true; got;) {
            char domain[32];
            double weight = 0.0;
            MOE_TRY(moe_arrival_weight_read(&at, domain, &weight, &got, err));
            sum += weight;
        }
        if (!(sum > 0.0)) {
            return moe_fail(err, MOE_RANGE, "arrivals.drift: '%s' gives no domain a weight above 0",
                            o->drift[i]);
        }
    }
    return MOE_OK;
}

/* A key that says something which the kind would not hear. */
static enum moe_status refuse_idle(const char *key, const char *kind, const char *needs,
                                   struct moe_error *err)
{
    return moe_fail(err, MOE_RANGE,
                    "arrivals.%s: has no meaning with arrivals.kind %s; it needs %s", key, kind,
                    needs);
}

static enum moe_status check_closed(const struct moe_arrival_options *o, struct moe_error *err)
{
    static const char open[] = "an open kind (poisson, file, ...)";
    const struct {
        const char *key;
        bool given;
    } keys[] = {
        { "rate", o->rate > 0.0 },
        { "requests", o->requests > 0 },
        { "duration_s", o->duration_s > 0.0 },
        { "schedule", o->schedule_count > 0 },
        { "drift", o->drift_count > 0 },
        { "priorities", o->priority_count > 0 },
        { "lengths", o->lengths == MOE_ARRIVAL_LENGTHS_LOGNORMAL },
    };
    for (size_t i = 0; i < sizeof keys / sizeof keys[0]; i++) {
        if (keys[i].given) {
            return refuse_idle(keys[i].key, "closed", open, err);
        }
    }
    return MOE_OK;
}

enum moe_status moe_arrival_options_check(const struct moe_arrival_options *o,
                                          struct moe_error *err)
{
    const char *kind = kind_names[o->kind];
    double share[MOE_ARRIVAL_PRIORITY_LIMIT];
    if (o->kind == MOE_ARRIVAL_FILE && o->file[0] == '\0') {
        return moe_fail(err, MOE_RANGE,
                        "arrivals.file: none is named; kind file needs a store of arrivals "
                        "(`moesim trace import` makes it)");
    }
    if (o->kind != MOE_ARRIVAL_FILE && o->file[0] != '\0') {
        return refuse_idle("file", kind, "kind file", err);
    }
    if (moe_arrival_is_drawn(o) && !(o->rate > 0.0)) {
        return moe_fail(err, MOE_RANGE, "arrivals.rate: kind %s needs requests per second above 0",
                        kind);
    }
    if (!moe_arrival_is_drawn(o) && o->schedule_count > 0 && o->kind != MOE_ARRIVAL_CLOSED) {
        return refuse_idle("schedule", kind, "a drawn kind (poisson, gamma, weibull, bursts)", err);
    }
    if (o->kind == MOE_ARRIVAL_TRACE && o->drift_count > 0) {
        return refuse_idle("drift", kind, "a kind that does not replay the trace's own requests",
                           err);
    }
    if (o->kind == MOE_ARRIVAL_CLOSED) {
        return check_closed(o, err);
    }
    MOE_TRY(check_schedule(o, err));
    MOE_TRY(check_drift(o, err));
    return moe_arrival_priorities_read(o, share, err);
}
