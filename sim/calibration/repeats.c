#include "sim/calibration/repeats.h"

#include <math.h>
#include <stdlib.h>
#include <string.h>

#include "sim/calibration/observation.h"

static const double within = 0.015;       /* log of a time */
static const double capped_share = 0.75;  /* of the run's highest clock */
static const double timer_floor_us = 0.1; /* an event's tick or two */

/* One sample of an event. */
struct visit {
    uint32_t point;
    uint32_t run;
    uint32_t gpu; /* MOE_OBSERVATION_NO_GPU: of all together */
    uint32_t pass;
    uint32_t sample;
};

/* An event's time and clock. */
struct event {
    double us;
    double mhz; /* 0: not known */
};

/* A total order: the sample's index decides at last. */
static int compare_visits(const void *left, const void *right)
{
    const struct visit *a = left;
    const struct visit *b = right;
    const uint32_t of_a[] = { a->point, a->run, a->gpu, a->pass, a->sample };
    const uint32_t of_b[] = { b->point, b->run, b->gpu, b->pass, b->sample };
    for (int i = 0; i < 5; i++) {
        if (of_a[i] != of_b[i]) {
            return of_a[i] < of_b[i] ? -1 : 1;
        }
    }
    return 0;
}

static bool same_place(const struct visit *a, const struct visit *b)
{
    return a->point == b->point && a->run == b->run && a->gpu == b->gpu;
}

/* All but sentinels, in order; gives how many. */
static uint32_t list_visits(struct visit *visits, const struct moe_evidence *evidence)
{
    uint32_t count = 0;
    for (uint32_t i = 0; i < evidence->sample_count; i++) {
        const struct moe_evidence_sample *sample = &evidence->samples[i];
        const struct moe_evidence_point *point = &evidence->points[sample->point];
        if (point->role != MOE_EVIDENCE_SENTINEL) {
            const bool together = evidence->series[point->series].ranks > 1;
            visits[count++] =
                (struct visit){ sample->point, sample->run,
                                together ? MOE_OBSERVATION_NO_GPU : sample->gpu, sample->pass, i };
        }
    }
    qsort(visits, count, sizeof visits[0], compare_visits);
    return count;
}

/* The event that begins at visits[*at], which moves on behind it. */
static struct event next_event(const struct moe_evidence *evidence, const struct visit *visits,
                               uint32_t count, uint32_t *at)
{
    const uint32_t begin = *at;
    struct event event = { 0.0, 0.0 };
    do {
        const struct moe_evidence_sample *sample = &evidence->samples[visits[*at].sample];
        const double us = moe_sample_us(sample);
        if (us > event.us) {
            event = (struct event){ us, sample->mhz };
        }
        ++*at;
    } while (visits[begin].gpu == MOE_OBSERVATION_NO_GPU && *at < count &&
             same_place(&visits[begin], &visits[*at]) && visits[begin].pass == visits[*at].pass);
    return event;
}

static bool agree_in_cycles(const struct event *a, const struct event *b, double highest_mhz)
{
    const bool capped = a->mhz > 0.0 && b->mhz > 0.0 && a->mhz < capped_share * highest_mhz &&
                        b->mhz < capped_share * highest_mhz;
    const double apart = log(b->us / a->us) + (capped ? log(b->mhz / a->mhz) : 0.0);
    return fabs(apart) <= within || a->us * expm1(fabs(apart)) <= timer_floor_us;
}

static double *highest_clocks(const struct moe_evidence *evidence, struct moe_arena *arena)
{
    double *highest = MOE_NEW(arena, double, evidence->run_count);
    for (uint32_t i = 0; i < evidence->sample_count && highest != NULL; i++) {
        const struct moe_evidence_sample *sample = &evidence->samples[i];
        highest[sample->run] = fmax(highest[sample->run], sample->mhz);
    }
    return highest;
}

size_t moe_repeats_bytes(const struct moe_evidence *evidence)
{
    return (size_t) evidence->sample_count * sizeof(struct visit) +
           (size_t) evidence->run_count * sizeof(double) +
           (size_t) evidence->series_count * sizeof(struct moe_repeats) + 4096;
}

enum moe_status moe_repeats_count(struct moe_repeats *series, const struct moe_evidence *evidence,
                                  struct moe_arena *arena, struct moe_error *err)
{
    struct visit *visits = MOE_NEW(arena, struct visit, evidence->sample_count);
    const double *highest = highest_clocks(evidence, arena);
    if (visits == NULL || highest == NULL) {
        return moe_fail(err, MOE_LIMIT, "%s: no memory to compare its passes", evidence->name);
    }
    const uint32_t count = list_visits(visits, evidence);
    memset(series, 0, evidence->series_count * sizeof series[0]);
    for (uint32_t at = 0; at < count;) {
        const struct visit *place = &visits[at];
        struct moe_repeats *row = &series[evidence->points[place->point].series];
        const struct event first = next_event(evidence, visits, count, &at);
        while (at < count && same_place(place, &visits[at])) {
            const struct event later = next_event(evidence, visits, count, &at);
            row->count++;
            row->agreeing += fabs(log(later.us / first.us)) <= within ? 1 : 0;
            row->in_cycles += agree_in_cycles(&first, &later, highest[place->run]) ? 1 : 0;
        }
    }
    return MOE_OK;
}

struct moe_repeats moe_repeats_by_kind(struct moe_repeats *kinds, const struct moe_repeats *series,
                                       const struct moe_evidence *evidence)
{
    struct moe_repeats all = { 0 };
    memset(kinds, 0, MOE_EVIDENCE_KIND_COUNT * sizeof kinds[0]);
    for (uint32_t s = 0; s < evidence->series_count; s++) {
        struct moe_repeats *const sums[] = { &kinds[evidence->series[s].kind], &all };
        for (int i = 0; i < 2; i++) {
            sums[i]->count += series[s].count;
            sums[i]->agreeing += series[s].agreeing;
            sums[i]->in_cycles += series[s].in_cycles;
        }
    }
    return all;
}
