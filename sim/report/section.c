#include "sim/report/section.h"

#include "sim/report/figure.h"

static bool shows_stragglers(const struct moe_study *study,
                             const struct moe_report_options *options, uint32_t policy)
{
    return study->policies[policy].fits &&
           (options->all_policies || policy == study->baseline || policy == study->best);
}

void moe_section_all(struct moe_page *page, const struct moe_study *study,
                     const struct moe_report_options *options)
{
    char title[256];
    (void) snprintf(title, sizeof title, "%s: %u placement polic%s for %s on %u %s",
                    study->scenario->name, study->policy_count,
                    study->policy_count == 1 ? "y" : "ies", study->scenario->model.name,
                    moe_cluster_gpu_count(&study->scenario->cluster), study->scenario->cluster.gpu);
    moe_page_title(page, title);
    moe_section_asked(page, study, options->chosen);
    moe_section_account(page, study);
    moe_section_throughput(page, study);
    moe_section_service(page, study);
    moe_section_pools(page, study);
    moe_section_online(page, study);
    moe_section_overlap(page, study);
    moe_section_fetches(page, study);
    if (options->overlay != NULL) {
        moe_section_overlay(page, study, options->overlay);
    }
    moe_section_bounds(page, study);
    moe_section_predictions(page, study);
    moe_section_verdict(page, study);
    moe_section_provenance(page, study);
    moe_section_layers(page, study);
    for (uint32_t i = 0; i < study->policy_count; i++) {
        if (shows_stragglers(study, options, i)) {
            moe_section_stragglers(page, study, i);
        }
    }
}
