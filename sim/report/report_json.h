/*
 * JSON report, the parts that make it: report_json.c writes what was asked and what
 * follows, report_json_policy.c one policy. Schema in report_json.c.
 */
#ifndef MOE_SIM_REPORT_REPORT_JSON_H
#define MOE_SIM_REPORT_REPORT_JSON_H

#include <jansson.h>
#include <stdbool.h>
#include <stdint.h>

#include "sim/engine/study.h"

/* A document in the making. failed: memory ran out somewhere; the document is void. */
struct moe_json {
    const struct moe_study *study;
    bool failed;
};

/* Takes over value, which may be NULL when memory ran out. */
void moe_json_put(struct moe_json *json, json_t *object, const char *key, json_t *value);
void moe_json_push(struct moe_json *json, json_t *array, json_t *value);

/* A number; null when it is not finite. */
json_t *moe_json_real(double value);
/* A whole number; one above 2^63-1 as a decimal string. */
json_t *moe_json_count(uint64_t value);
/* {"mean", "half_width"}; half_width null with one seed. */
json_t *moe_json_estimate(struct moe_json *json, struct moe_estimate estimate);

json_t *moe_json_policy(struct moe_json *json, uint32_t policy);

/* Kind, rates and lengths of what comes over time; null for a closed loop. */
json_t *moe_json_arrivals(struct moe_json *json);

/* Measured steps beside the simulated ones, per policy. */
json_t *moe_json_overlay(struct moe_json *json, const struct moe_overlay *overlay);

#endif
