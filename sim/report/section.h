/*
 * Section: what a report for people says, one function per question. The page decides
 * what it looks like; the order is that of report_table.c and report_markdown.c.
 */
#ifndef MOE_SIM_REPORT_SECTION_H
#define MOE_SIM_REPORT_SECTION_H

#include "sim/report/page.h"
#include "sim/report/report.h"

/* All sections in their order. */
void moe_section_all(struct moe_page *page, const struct moe_study *study,
                     const struct moe_report_options *options);

/* When requests come and how long they are, as fields of the section before; nothing for a
 * closed loop. */
void moe_section_arrivals(struct moe_page *page, const struct moe_study *study);

/* Latencies with queueing, load and goodput; nothing for a closed loop. */
void moe_section_service(struct moe_page *page, const struct moe_study *study);

/* Measured steps beside the simulated ones. */
void moe_section_overlay(struct moe_page *page, const struct moe_study *study,
                         const struct moe_overlay *overlay);

/* What was asked, and that every token of the trace was replayed. */
void moe_section_asked(struct moe_page *page, const struct moe_study *study, const char *chosen);
void moe_section_account(struct moe_page *page, const struct moe_study *study);

/* How much: speed, then balance and memory, per policy. */
void moe_section_throughput(struct moe_page *page, const struct moe_study *study);

/* Placements made anew while serving; nothing when they stay. */
void moe_section_online(struct moe_page *page, const struct moe_study *study);

/* Pools of GPUs: what was asked, as fields of the section before; and what each does, with the
 * hand-over between them. Nothing without pools. */
void moe_section_pools_asked(struct moe_page *page, const struct moe_scenario *scenario);
void moe_section_pools(struct moe_page *page, const struct moe_study *study);

/* Steps in two halves: how many, what they hide, and what they gain or cost against one piece;
 * nothing when the scenario asks for none. */
void moe_section_overlap(struct moe_page *page, const struct moe_study *study);
/* Temporary copies that dispatch policies fetched; nothing when none does. */
void moe_section_fetches(struct moe_page *page, const struct moe_study *study);

/* How far every policy's fullest GPUs are from what could have been. */
void moe_section_bounds(struct moe_page *page, const struct moe_study *study);

/* How right predictions were; nothing when nobody predicts. */
void moe_section_predictions(struct moe_page *page, const struct moe_study *study);

/* Which is best, how far from the bounds, how sure. */
void moe_section_verdict(struct moe_page *page, const struct moe_study *study);
void moe_section_provenance(struct moe_page *page, const struct moe_study *study);

/* Why: who waited for whom. */
void moe_section_layers(struct moe_page *page, const struct moe_study *study);
void moe_section_stragglers(struct moe_page *page, const struct moe_study *study, uint32_t policy);

#endif
