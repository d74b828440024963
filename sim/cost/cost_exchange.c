#include <assert.h>
#include <string.h>

#include "sim/cost/cost_state.h"
#include "sim/cost/rank_trend.h"

static const char *const link_names[] = { "near", "far" };

static bool is_of(const struct moe_cost_setup *setup, const struct moe_calibration_segment *row,
                  uint32_t op, uint32_t link)
{
    return row->op == op && row->link == link && strcmp(row->gpu_kind, setup->kind) == 0;
}

/* The curve measured with the fewest ranks that are enough; without one, with the most. */
static uint32_t choose_ranks(const struct moe_cost_setup *setup, uint32_t op, uint32_t link,
                             uint32_t ranks)
{
    uint32_t enough = 0;
    uint32_t most = 0;
    for (uint32_t i = 0; i < setup->calibration->segment_count; i++) {
        const struct moe_calibration_segment *row = &setup->calibration->segment_rows[i];
        if (!is_of(setup, row, op, link)) {
            continue;
        }
        most = row->ranks > most ? row->ranks : most;
        if (row->ranks >= ranks && (enough == 0 || row->ranks < enough)) {
            enough = row->ranks;
        }
    }
    return enough != 0 ? enough : most;
}

/* The ends of the curve over the most ranks below so many; ranks is 0 when there is none. */
static struct moe_rank_curve curve_below(const struct moe_cost_setup *setup, uint32_t op,
                                         uint32_t link, uint32_t ranks)
{
    struct moe_rank_curve curve = { 0 };
    for (uint32_t i = 0; i < setup->calibration->segment_count; i++) {
        const struct moe_calibration_segment *row = &setup->calibration->segment_rows[i];
        if (is_of(setup, row, op, link) && row->ranks < ranks && row->ranks >= curve.ranks) {
            if (row->ranks > curve.ranks) {
                curve = (struct moe_rank_curve){ row->ranks, row->alpha_ns, 0.0 };
            }
            curve.last_ns_per_byte = 1e9 / row->bandwidth_bytes_s;
        }
    }
    return curve;
}

/* More ranks of a node than were measured: see rank_trend.h. */
static void extend_link(struct moe_cost_link *link, const struct moe_cost_setup *setup, uint32_t op,
                        uint32_t from, uint32_t to)
{
    const struct moe_rank_curve fewer = curve_below(setup, op, MOE_LINK_NEAR, from);
    const struct moe_rank_curve more = { from, link->alpha_ns[0],
                                         link->ns_per_byte[link->segment_count - 1] };
    const struct moe_rank_trend trend =
        fewer.ranks == 0 ? moe_rank_trend_published(op) : moe_rank_trend_between(op, &fewer, &more);
    moe_rank_trend_extend(&trend, op, from, to, link->alpha_ns, link->ns_per_byte,
                          link->segment_count);
}

/* The curve as it would be with another bandwidth: all but the latency of a small message is
 * stretched, so it stays continuous. What was measured is then a stated assumption. */
static void stretch_link(struct moe_cost_link *link, double bytes_s)
{
    const double stretch = 1e9 / bytes_s / link->ns_per_byte[link->segment_count - 1];
    for (uint32_t i = 0; i < link->segment_count; i++) {
        link->alpha_ns[i] = link->alpha_ns[0] + (link->alpha_ns[i] - link->alpha_ns[0]) * stretch;
        link->ns_per_byte[i] *= stretch;
        link->provenance[i] = MOE_PROVENANCE_ASSUMED;
    }
}

enum moe_status moe_cost_link_init(struct moe_cost_link *out, const struct moe_cost_setup *setup,
                                   uint32_t op, uint32_t fallback, uint32_t link, uint32_t ranks,
                                   struct moe_error *err)
{
    uint32_t measured = choose_ranks(setup, op, link, ranks);
    if (measured == 0) {
        op = fallback;
        measured = choose_ranks(setup, op, link, ranks);
    }
    if (measured == 0) {
        return moe_fail(err, MOE_RANGE, "%s: table segment has no curve for %s links of %s",
                        setup->calibration->name, link_names[link], setup->kind);
    }
    out->segment_count = 0;
    for (uint32_t i = 0; i < setup->calibration->segment_count; i++) {
        const struct moe_calibration_segment *row = &setup->calibration->segment_rows[i];
        if (!is_of(setup, row, op, link) || row->ranks != measured) {
            continue;
        }
        const uint32_t n = out->segment_count++;
        out->first = n == 0 ? row : out->first;
        assert(n < MOE_COST_SEGMENT_LIMIT);
        out->to_bytes[n] = row->to_bytes;
        out->alpha_ns[n] = row->alpha_ns;
        out->ns_per_byte[n] = 1e9 / row->bandwidth_bytes_s;
        out->provenance[n] =
            measured == ranks ? row->provenance : moe_provenance_outside(row->provenance);
    }
    if (link == MOE_LINK_NEAR && measured < ranks) {
        extend_link(out, setup, op, measured, ranks);
    }
    const double wanted =
        link == MOE_LINK_NEAR ? setup->cluster->near_bytes_s : setup->cluster->far_bytes_s;
    if (wanted > 0.0) {
        stretch_link(out, wanted);
    }
    return MOE_OK;
}

enum moe_status moe_cost_init_exchange(struct moe_cost_setup *setup, struct moe_error *err)
{
    const struct moe_cluster *cluster = setup->cluster;
    const double own_bytes_s = setup->parameters[MOE_PARAMETER_OWN_BYTES_S];
    setup->cost->one_way_saving = setup->parameters[MOE_PARAMETER_ONE_WAY_SAVING];
    setup->cost->own_ns_per_byte = own_bytes_s > 0.0 ? 1e9 / own_bytes_s : 0.0;
    setup->cost->own_provenance = setup->provenance[MOE_PARAMETER_OWN_BYTES_S];
    for (uint32_t part = 0; part < 2; part++) {
        const uint32_t op = part == 0 ? MOE_SEGMENT_DISPATCH : MOE_SEGMENT_COMBINE;
        struct moe_cost_link *links = setup->cost->links[part];
        if (cluster->gpus_per_node > 1) {
            MOE_TRY(moe_cost_link_init(&links[MOE_LINK_NEAR], setup, op, MOE_SEGMENT_ALL_TO_ALL,
                                       MOE_LINK_NEAR, cluster->gpus_per_node, err));
        }
        if (cluster->node_count > 1) {
            MOE_TRY(moe_cost_link_init(&links[MOE_LINK_FAR], setup, op, MOE_SEGMENT_ALL_TO_ALL,
                                       MOE_LINK_FAR, moe_cluster_gpu_count(cluster), err));
        }
    }
    return MOE_OK;
}

double moe_cost_exchange_bytes(const struct moe_cost *cost, enum moe_cost_part part)
{
    assert(part == MOE_COST_DISPATCH || part == MOE_COST_COMBINE);
    return cost->copy_bytes[part == MOE_COST_COMBINE];
}

struct moe_duration moe_cost_link_duration(const struct moe_cost_link *link, double bytes)
{
    uint32_t i = 0;
    if (bytes <= 0.0) {
        return (struct moe_duration){ 0.0, MOE_PROVENANCE_MEASURED };
    }
    assert(link->segment_count > 0);
    while (i + 1 < link->segment_count && bytes >= link->to_bytes[i]) {
        i++;
    }
    return (struct moe_duration){
        link->alpha_ns[i] + bytes * link->ns_per_byte[i],
        bytes <= link->to_bytes[i] ? link->provenance[i]
                                   : moe_provenance_outside(link->provenance[i]),
    };
}

/* See the header: of the two directions over near links, and of what stays. */
static inline struct moe_duration near_duration(const struct moe_cost *cost,
                                                const struct moe_cost_link *link, double bytes,
                                                const struct moe_exchange_work *work)
{
    const bool sends = work->near_out > work->near_in;
    const double more = sends ? work->near_out : work->near_in;
    const double less = sends ? work->near_in : work->near_out;
    struct moe_duration duration = moe_cost_link_duration(link, bytes * more);
    if (cost->one_way_saving > 0.0 && more > 0.0 && duration.ns > link->alpha_ns[0]) {
        duration.ns -=
            (duration.ns - link->alpha_ns[0]) * cost->one_way_saving * (1.0 - less / more);
    }
    if (cost->own_ns_per_byte > 0.0 && work->near_own > 0.0 && link->segment_count > 0) {
        const double own_ns = link->alpha_ns[0] + bytes * work->near_own * cost->own_ns_per_byte;
        if (own_ns > duration.ns) {
            duration = (struct moe_duration){ own_ns, cost->own_provenance };
        }
    }
    return duration;
}

static inline double larger(double a, double b)
{
    return a > b ? a : b;
}

struct moe_duration moe_cost_exchange(const struct moe_cost *cost, enum moe_cost_part part,
                                      const struct moe_exchange_work *work,
                                      const struct moe_gpu_factor *factor)
{
    assert(part == MOE_COST_DISPATCH || part == MOE_COST_COMBINE);
    const struct moe_cost_link *links = cost->links[part == MOE_COST_COMBINE];
    const double bytes = cost->copy_bytes[part == MOE_COST_COMBINE];
    const struct moe_duration near = near_duration(cost, &links[MOE_LINK_NEAR], bytes, work);
    const struct moe_duration far =
        moe_cost_link_duration(&links[MOE_LINK_FAR], bytes * larger(work->far_out, work->far_in));
    struct moe_duration duration = far.ns > near.ns ? far : near;
    duration.ns *= factor->comm;
    return duration;
}
