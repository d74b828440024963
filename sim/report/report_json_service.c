/* Of the JSON report what comes over time, and the user's measured steps (report_json.c). */
#include "sim/report/figure.h"
#include "sim/report/finding.h"
#include "sim/report/report_json.h"

static const char *const kind_names[] = { "closed", "trace",   "file",  "poisson",
                                          "gamma",  "weibull", "bursts" };
static const char *const lengths_names[] = { "recorded", "trace", "lognormal" };

static json_t *slo_json(struct moe_json *json)
{
    const struct moe_slo *slo = &json->study->scenario->slo;
    if (!moe_slo_is_asked(slo)) {
        return json_null();
    }
    json_t *out = json_object();
    moe_json_put(json, out, "ttft_ms",
                 slo->ttft_ms > 0.0 ? moe_json_real(slo->ttft_ms) : json_null());
    moe_json_put(json, out, "tpot_ms",
                 slo->tpot_ms > 0.0 ? moe_json_real(slo->tpot_ms) : json_null());
    moe_json_put(json, out, "share", moe_json_real(slo->share));
    return out;
}

json_t *moe_json_arrivals(struct moe_json *json)
{
    const struct moe_study *s = json->study;
    const struct moe_arrival_options *o = &s->scenario->arrivals;
    if (s->arrivals == NULL) {
        return json_null();
    }
    json_t *out = json_object();
    json_t *file = json_null();
    if (o->kind == MOE_ARRIVAL_FILE) {
        file = json_object();
        moe_json_put(json, file, "name", json_string(s->arrivals->file_name));
        moe_json_put(json, file, "hash", json_string(moe_figure_hash(s->arrivals->file_hash).text));
    }
    moe_json_put(json, out, "kind", json_string(kind_names[o->kind]));
    moe_json_put(json, out, "rate", o->rate > 0.0 ? moe_json_real(o->rate) : json_null());
    moe_json_put(json, out, "recorded_rate",
                 s->arrivals->recorded_rate > 0.0 ? moe_json_real(s->arrivals->recorded_rate)
                                                  : json_null());
    moe_json_put(json, out, "cv", moe_json_real(o->cv));
    moe_json_put(json, out, "file", file);
    moe_json_put(json, out, "lengths", json_string(lengths_names[o->lengths]));
    moe_json_put(json, out, "requests", moe_json_count(s->survey.count));
    moe_json_put(json, out, "last_s", moe_json_real((double) s->survey.last_ns * 1e-9));
    moe_json_put(json, out, "prompt_tokens", moe_json_count(s->survey.prompt_tokens));
    moe_json_put(json, out, "output_tokens", moe_json_count(s->survey.output_tokens));
    moe_json_put(json, out, "hit_tokens", moe_json_count(s->survey.hit_tokens));
    moe_json_put(json, out, "repeated_routes", json_boolean(s->arrivals->is_stretched));
    moe_json_put(json, out, "slo", slo_json(json));
    return out;
}

static json_t *compared_json(struct moe_json *json, const struct moe_overlay *overlay,
                             uint32_t policy)
{
    struct moe_step_profile profile;
    json_t *out = json_object();
    moe_finding_profile(json->study, policy, &profile);
    const struct moe_overlay_error e =
        moe_overlay_compare(overlay, &profile, MOE_STEP_KINDS, MOE_STEP_CELLS);
    const bool known = e.count > 0;
    moe_json_put(json, out, "name", json_string(json->study->policies[policy].composition.label));
    moe_json_put(json, out, "compared", moe_json_count(e.count));
    moe_json_put(json, out, "left_out", moe_json_count(e.left_out));
    moe_json_put(json, out, "bias", known ? moe_json_real(e.bias) : json_null());
    moe_json_put(json, out, "mape", known ? moe_json_real(e.mape) : json_null());
    moe_json_put(json, out, "p95", known ? moe_json_real(e.p95) : json_null());
    moe_json_put(json, out, "measured_ms",
                 known ? moe_json_real(e.measured_ns * 1e-6) : json_null());
    moe_json_put(json, out, "simulated_ms",
                 known ? moe_json_real(e.simulated_ns * 1e-6) : json_null());
    return out;
}

json_t *moe_json_overlay(struct moe_json *json, const struct moe_overlay *overlay)
{
    json_t *out = json_object();
    json_t *policies = json_array();
    for (uint32_t i = 0; i < json->study->policy_count; i++) {
        if (json->study->policies[i].fits) {
            moe_json_push(json, policies, compared_json(json, overlay, i));
        }
    }
    moe_json_put(json, out, "hash", json_string(moe_figure_hash(overlay->hash).text));
    moe_json_put(json, out, "steps", moe_json_count(overlay->count));
    moe_json_put(json, out, "policies", policies);
    return out;
}
