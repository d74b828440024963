/* The exchange's part of the cost twin: curves over links, over more ranks, uneven. */
#include <math.h>
#include <string.h>

#include "tests/cost_twin.h"

static enum twin_source outside(enum twin_source source)
{
    return source <= TWIN_EXTRAPOLATED ? TWIN_EXTRAPOLATED : TWIN_ASSUMED;
}

/* The ranks of the curve that serves so many: the fewest that are enough, else the most; 0
 * when the operation has no rows for these links. */
static double curve_ranks(const struct cost_twin *twin, const char *op, const char *link,
                          double ranks)
{
    double enough = 0;
    double most = 0;
    for (uint32_t i = 0; i < twin->table.rows; i++) {
        const struct twin_row *row = &twin->table.row[i];
        if (twin_same(row->table, "segment") && twin_is(row, "op", op) &&
            twin_is(row, "link", link)) {
            const double n = twin_number(row, "ranks");
            most = fmax(most, n);
            enough = n >= ranks && (enough == 0 || n < enough) ? n : enough;
        }
    }
    return enough > 0 ? enough : most;
}

/* The segment that holds the bytes, or the last one. */
static const struct twin_row *segment_at(const struct cost_twin *twin, const char *op,
                                         const char *link, double ranks, double bytes)
{
    const struct twin_row *segment = NULL;
    for (uint32_t i = 0; i < twin->table.rows; i++) {
        const struct twin_row *row = &twin->table.row[i];
        if (twin_same(row->table, "segment") && twin_is(row, "op", op) &&
            twin_is(row, "link", link) && twin_number(row, "ranks") == ranks &&
            twin_number(row, "from_bytes") <= bytes &&
            (segment == NULL ||
             twin_number(row, "from_bytes") > twin_number(segment, "from_bytes"))) {
            segment = row;
        }
    }
    return segment;
}

/* What an exchange that takes ns over `measured` ranks takes over more, `ranks`: from the next
 * smaller curve, or else from published all-to-alls over 2 and 8 ranks. */
static double over_more(const struct cost_twin *twin, const char *op, double measured, double ranks,
                        double ns)
{
    const struct twin_row *first = segment_at(twin, op, "near", measured, 0);
    const double start = twin_number(first, "alpha_ns");
    double step = (7400.0 - 6400.0) / 6;
    double gain = (311.0 / 298 - 1) / (1.0 / 2 - 1.0 / 8);
    double below = measured - 1;
    while (below > 0 && segment_at(twin, op, "near", below, 0) == NULL) {
        below--;
    }
    if (below > 0) {
        const struct twin_row *last = segment_at(twin, op, "near", measured, 1e300);
        const struct twin_row *less = segment_at(twin, op, "near", below, 0);
        const struct twin_row *less_last = segment_at(twin, op, "near", below, 1e300);
        step = fmax(start - twin_number(less, "alpha_ns"), 0) / (measured - below);
        gain = fmax(twin_number(last, "bandwidth_bytes_s") /
                            twin_number(less_last, "bandwidth_bytes_s") -
                        1,
                    0) /
               (1 / below - 1 / measured);
    }
    return start + step * (ranks - measured) +
           (ns - start) / (1 + gain * (1 / measured - 1 / ranks));
}

static struct twin_duration over_link(const struct cost_twin *twin, enum twin_part part,
                                      const char *link, double ranks, double bytes)
{
    const char *op = part == TWIN_DISPATCH ? "dispatch" : "combine";
    double measured = curve_ranks(twin, op, link, ranks);
    if (measured == 0) {
        op = "all_to_all";
        measured = curve_ranks(twin, op, link, ranks);
    }
    const struct twin_row *segment = segment_at(twin, op, link, measured, bytes);
    double ns =
        twin_number(segment, "alpha_ns") + bytes / twin_number(segment, "bandwidth_bytes_s") * 1e9;
    if (twin_same(link, "near") && measured < ranks) {
        ns = over_more(twin, op, measured, ranks, ns);
    }
    enum twin_source source = twin_source_of(segment);
    source = measured == ranks ? source : outside(source);
    source = bytes <= twin_number(segment, "to_bytes") ? source : outside(source);
    return (struct twin_duration){ ns, source };
}

/* The row of a parameter that may be left out; NULL when it is. */
static const struct twin_row *optional(const struct cost_twin *twin, const char *name)
{
    for (uint32_t i = 0; i < twin->table.rows; i++) {
        const struct twin_row *row = &twin->table.row[i];
        if (twin_same(row->table, "parameter") && twin_is(row, "name", name)) {
            return row;
        }
    }
    return NULL;
}

struct twin_duration cost_twin_bulk(const struct cost_twin *twin, enum twin_part part, double near,
                                    double far)
{
    struct twin_duration longest = { 0, TWIN_MEASURED };
    if (near > 0) {
        longest = over_link(twin, part, "near", twin->gpus_per_node, near);
    }
    if (far > 0) {
        const struct twin_duration other =
            over_link(twin, part, "far", (double) twin->nodes * twin->gpus_per_node, far);
        longest = other.ns > longest.ns ? other : longest;
    }
    return longest;
}

struct twin_duration cost_twin_exchange(const struct cost_twin *twin, enum twin_part part,
                                        struct twin_exchange work, struct twin_factor factor)
{
    const double bytes = cost_twin_copy_bytes(twin, part);
    const double more = fmax(work.near_in, work.near_out) * bytes;
    const double less = fmin(work.near_in, work.near_out) * bytes;
    const struct twin_row *saving = optional(twin, "exchange.one_way_saving");
    const struct twin_row *own = optional(twin, "exchange.own_bytes_s");
    const struct twin_duration far =
        cost_twin_bulk(twin, part, 0, fmax(work.far_in, work.far_out) * bytes);
    struct twin_duration longest = cost_twin_bulk(twin, part, more, 0);
    double empty = 0; /* an exchange of nothing over near links */
    if (twin->gpus_per_node > 1) {
        empty = over_link(twin, part, "near", twin->gpus_per_node, 0).ns;
    }
    if (more > 0 && saving != NULL) {
        longest.ns -=
            fmax(longest.ns - empty, 0) * twin_number(saving, "value") * (1 - less / more);
    }
    if (own != NULL && work.near_own > 0 && twin->gpus_per_node > 1) {
        const double own_ns = empty + work.near_own * bytes / twin_number(own, "value") * 1e9;
        longest =
            own_ns > longest.ns ? (struct twin_duration){ own_ns, twin_source_of(own) } : longest;
    }
    longest = far.ns > longest.ns ? far : longest;
    longest.ns *= factor.comm;
    return longest;
}
