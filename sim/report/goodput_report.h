/*
 * Goodput report: what a search for goodput found, for people (table, Markdown) and programs
 * (JSON, schema "moesim.goodput/1"; CSV, one row per policy and seed).
 */
#ifndef MOE_SIM_REPORT_GOODPUT_REPORT_H
#define MOE_SIM_REPORT_GOODPUT_REPORT_H

#include <stdio.h>

#include "sim/engine/goodput.h"
#include "sim/report/page.h"

/* FOUND "found", "impossible", "unbounded", "does not fit". */
const char *moe_goodput_end_name(enum moe_goodput_end end);

void moe_goodput_report_page(const struct moe_goodput_study *goodput, enum moe_page_dress dress,
                             FILE *out);

/* Columns: policy, seed, end, requests_per_s, failed_requests_per_s, output_tokens_per_s,
 * slo_share, ttft_p50_ms, ttft_p99_ms, tpot_p50_ms, tpot_p99_ms, runs. What is not known is
 * empty. */
void moe_goodput_report_csv(const struct moe_goodput_study *goodput, FILE *out);

/* Errors: MOE_LIMIT without memory. */
enum moe_status moe_goodput_report_json(const struct moe_goodput_study *goodput, FILE *out,
                                        struct moe_error *err) MOE_MUST_CHECK;

#endif
