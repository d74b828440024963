#include "policies/solve/affinity_solver.h"

#include <assert.h>
#include <math.h>
#include <string.h>

#include "policies/solve/count_clusters.h"
#include "policies/solve/winner_tree.h"
#include "sim/base/no_malloc.h"
#include "traces/trace_store.h"

static uint32_t picked_request(const struct moe_policy_routes *routes, uint32_t picked,
                               uint32_t pick)
{
    return (uint32_t) ((uint64_t) pick * routes->request_count / picked);
}

/* Adds a request's tokens of one phase to count[layer][expert]; returns how many there are. */
static uint32_t count_tokens(const struct moe_affinity *affinity,
                             const struct moe_policy_routes *routes, uint32_t request,
                             enum moe_route_phase phase, uint16_t *count)
{
    const uint32_t layers = affinity->shape.layer_count;
    const uint32_t experts = affinity->shape.expert_count;
    uint32_t tokens = 0;
    memset(count, 0, (size_t) layers * experts * sizeof *count);
    for (uint32_t token = routes->first_token[request]; token < routes->first_token[request + 1];
         token++) {
        if (routes->phase[token] != phase) {
            continue;
        }
        const uint16_t *row = routes->expert + (size_t) token * layers * routes->top_k;
        for (uint32_t i = 0; i < layers * routes->top_k; i++) {
            if (row[i] != MOE_EXPERT_UNKNOWN) {
                uint16_t *cell = &count[(size_t) (i / routes->top_k) * experts + row[i]];
                *cell = (uint16_t) (*cell + (*cell < UINT16_MAX));
            }
        }
        tokens++;
    }
    return tokens;
}

static void count_request(const struct moe_affinity *affinity,
                          const struct moe_policy_routes *routes, uint32_t request, uint16_t *count)
{
    if (count_tokens(affinity, routes, request, MOE_ROUTE_DECODE, count) == 0) {
        (void) count_tokens(affinity, routes, request, MOE_ROUTE_PREFILL, count);
    }
}

/* sum[cluster][width] of the rows' counts and mass[cluster], their total. */
static void sum_clusters(const struct moe_count_rows *rows, const struct moe_clusters *clusters,
                         double *sum, double *mass)
{
    assert(clusters->cluster_of != NULL);
    for (uint32_t row = 0; row < rows->row_count; row++) {
        const uint16_t *count = rows->count + (size_t) row * rows->width;
        double *mine = sum + (size_t) clusters->cluster_of[row] * rows->width;
        for (uint32_t i = 0; i < rows->width; i++) {
            mine[i] += count[i];
            mass[clusters->cluster_of[row]] += count[i];
        }
    }
}

/* The clusters' sums as rows for the second K-means: scaled so that the largest is 65,535. */
static void scale_sums(const double *sum, size_t cells, uint16_t *count)
{
    double largest = 0.0;
    for (size_t i = 0; i < cells; i++) {
        largest = sum[i] > largest ? sum[i] : largest;
    }
    for (size_t i = 0; i < cells; i++) {
        count[i] = largest > 0.0 ? (uint16_t) (sum[i] / largest * UINT16_MAX) : 0;
    }
}

/* How many groups each cluster gets when there are fewer clusters: one each, every further one
 * to the cluster with most tokens per group, the first of equals. */
static void share_groups(const double *mass, uint32_t cluster_count, uint32_t group_count,
                         uint32_t *groups_of)
{
    for (uint32_t cluster = 0; cluster < cluster_count; cluster++) {
        groups_of[cluster] = 1;
    }
    for (uint32_t i = cluster_count; i < group_count; i++) {
        uint32_t found = 0;
        for (uint32_t cluster = 1; cluster < cluster_count; cluster++) {
            if (mass[cluster] * groups_of[found] > mass[found] * groups_of[cluster]) {
                found = cluster;
            }
        }
        groups_of[found]++;
    }
}

struct learning {
    struct moe_count_rows rows;
    struct moe_clusters clusters;
    struct moe_clusters meta; /* of the clusters, when there are more than groups */
    double *sum;              /* [cluster][width] */
    double *mass;             /* [cluster] */
    uint32_t *groups_of;      /* [cluster] */
    uint32_t *first_group;    /* [cluster] */
    uint16_t *count;          /* [width] */
};

/* first_group and groups_of for every cluster, and U. */
static enum moe_status map_clusters(struct moe_affinity *affinity, struct moe_arena *arena,
                                    const struct moe_affinity_plan *plan, struct learning *learn,
                                    struct moe_error *err)
{
    const uint32_t clusters = learn->clusters.cluster_count;
    const size_t width = learn->rows.width;
    if (clusters > affinity->group_count) {
        uint16_t *count = MOE_NEW(arena, uint16_t, clusters * width);
        if (count == NULL) {
            return moe_fail(err, MOE_LIMIT, "no room to join %u clusters", clusters);
        }
        scale_sums(learn->sum, clusters * width, count);
        const struct moe_count_rows sums = { count, clusters, learn->rows.width };
        MOE_TRY(moe_clusters_fit(&learn->meta, arena, &sums, affinity->group_count, plan->balanced,
                                 plan->round_limit, plan->key + 2, err));
        for (uint32_t cluster = 0; cluster < clusters; cluster++) {
            learn->first_group[cluster] = learn->meta.cluster_of[cluster];
            learn->groups_of[cluster] = 1;
        }
    } else {
        share_groups(learn->mass, clusters, affinity->group_count, learn->groups_of);
        for (uint32_t cluster = 0, first = 0; cluster < clusters; cluster++) {
            learn->first_group[cluster] = first;
            first += learn->groups_of[cluster];
        }
    }
    for (uint32_t cluster = 0; cluster < clusters; cluster++) {
        for (uint32_t i = 0; i < learn->groups_of[cluster]; i++) {
            double *use = affinity->use + (learn->first_group[cluster] + i) * width;
            for (size_t cell = 0; cell < width; cell++) {
                use[cell] += learn->sum[cluster * width + cell] / learn->groups_of[cluster];
            }
        }
    }
    return MOE_OK;
}

/* signature: the mean of the prompts' unit vectors of every group's requests. */
static void learn_signatures(struct moe_affinity *affinity, const struct moe_policy_routes *routes,
                             const struct learning *learn, uint32_t *members)
{
    const uint32_t width = learn->rows.width;
    for (uint32_t pick = 0; pick < learn->rows.row_count; pick++) {
        const uint32_t cluster = learn->clusters.cluster_of[pick];
        const uint32_t request = picked_request(routes, learn->rows.row_count, pick);
        (void) count_tokens(affinity, routes, request, MOE_ROUTE_PREFILL, learn->count);
        const float norm = moe_clusters_norm(learn->count, width);
        for (uint32_t i = 0; i < learn->groups_of[cluster]; i++) {
            const uint32_t group = learn->first_group[cluster] + i;
            float *signature = affinity->signature + (size_t) group * width;
            for (uint32_t cell = 0; norm > 0.0f && cell < width; cell++) {
                signature[cell] += (float) learn->count[cell] / norm;
            }
            members[group]++;
        }
    }
    for (uint32_t group = 0; group < affinity->group_count; group++) {
        float *signature = affinity->signature + (size_t) group * width;
        for (uint32_t cell = 0; cell < width; cell++) {
            signature[cell] /= (float) (members[group] > 0 ? members[group] : 1);
            affinity->square[group] += signature[cell] * signature[cell];
        }
    }
}

enum moe_status moe_affinity_learn(struct moe_affinity *affinity, struct moe_arena *arena,
                                   const struct moe_placement_shape *shape,
                                   const struct moe_policy_routes *routes,
                                   const struct moe_affinity_plan *plan, struct moe_error *err)
{
    const uint32_t width = shape->layer_count * shape->expert_count;
    const uint32_t clusters = plan->cluster_count > 0 ? plan->cluster_count : plan->group_count;
    const size_t cells = (size_t) plan->group_count * width;
    if (routes->request_count == 0) {
        return moe_fail(err, MOE_POLICY, "the planning window has no request to learn from");
    }
    const uint32_t picked = plan->request_limit > 0 && plan->request_limit < routes->request_count
                                ? plan->request_limit
                                : routes->request_count;
    struct moe_affinity made = { .shape = *shape,
                                 .group_count = plan->group_count,
                                 .use = MOE_NEW(arena, double, cells),
                                 .signature = MOE_NEW(arena, float, cells),
                                 .square = MOE_NEW(arena, float, plan->group_count) };
    uint16_t *count = MOE_NEW(arena, uint16_t, (size_t) picked * width);
    struct learning learn = {
        .rows = { count, picked, width },
        .sum = MOE_NEW(arena, double, (size_t) clusters *width),
        .mass = MOE_NEW(arena, double, clusters),
        .groups_of = MOE_NEW(arena, uint32_t, clusters),
        .first_group = MOE_NEW(arena, uint32_t, clusters),
        .count = MOE_NEW(arena, uint16_t, width),
    };
    uint32_t *members = MOE_NEW(arena, uint32_t, plan->group_count);
    if (made.use == NULL || made.signature == NULL || made.square == NULL || count == NULL ||
        learn.sum == NULL || learn.mass == NULL || learn.groups_of == NULL ||
        learn.first_group == NULL || learn.count == NULL || members == NULL) {
        return moe_fail(err, MOE_LIMIT,
                        "no room to learn from %u requests of %u layers x %u experts", picked,
                        shape->layer_count, shape->expert_count);
    }
    for (uint32_t pick = 0; pick < picked; pick++) {
        count_request(&made, routes, picked_request(routes, picked, pick),
                      count + (size_t) pick * width);
    }
    MOE_TRY(moe_clusters_fit(&learn.clusters, arena, &learn.rows, clusters, plan->balanced,
                             plan->round_limit, plan->key, err));
    sum_clusters(&learn.rows, &learn.clusters, learn.sum, learn.mass);
    MOE_TRY(map_clusters(&made, arena, plan, &learn, err));
    learn_signatures(&made, routes, &learn, members);
    *affinity = made;
    return MOE_OK;
}

void moe_affinity_distances(const struct moe_affinity *affinity, const float *prompt,
                            double *distance)
{
    const size_t width = (size_t) affinity->shape.layer_count * affinity->shape.expert_count;
    double own = 0.0;
    for (size_t cell = 0; cell < width; cell++) {
        own += (double) prompt[cell] * (double) prompt[cell];
    }
    const double scale = own > 0.0 ? 1.0 / sqrt(own) : 0.0;
    for (uint32_t group = 0; group < affinity->group_count; group++) {
        const float *signature = affinity->signature + group * width;
        double dot = 0.0;
        for (size_t cell = 0; cell < width; cell++) {
            dot += (double) prompt[cell] * (double) signature[cell];
        }
        distance[group] = (double) affinity->square[group] - 2.0 * dot * scale;
    }
}

static double use_at(const struct moe_affinity *affinity, uint32_t group, uint32_t layer,
                     uint32_t expert)
{
    const struct moe_placement_shape *shape = &affinity->shape;
    return affinity
        ->use[((size_t) group * shape->layer_count + layer) * shape->expert_count + expert];
}

/* Ascending order of unique keys, by insertion: few, and sorted once per layer. */
static void sort_keys(uint64_t *key, uint32_t count)
{
    for (uint32_t i = 1; i < count; i++) {
        const uint64_t moved = key[i];
        uint32_t hole = i;
        for (; hole > 0 && key[hole - 1] > moved; hole--) {
            key[hole] = key[hole - 1];
        }
        key[hole] = moved;
    }
}

static void order_by_lead(const struct moe_affinity *affinity, uint32_t layer, uint64_t *order)
{
    for (uint32_t expert = 0; expert < affinity->shape.expert_count; expert++) {
        double first = 0.0;
        double second = 0.0;
        for (uint32_t group = 0; group < affinity->group_count; group++) {
            const double use = use_at(affinity, group, layer, expert);
            if (use > first) {
                second = first;
                first = use;
            } else if (use > second) {
                second = use;
            }
        }
        order[expert] =
            moe_winner_key(moe_winner_rank_descending((float) (first - second)), expert);
    }
    sort_keys(order, affinity->shape.expert_count);
}

static void cover(const struct moe_affinity *affinity, uint32_t layer,
                  const struct moe_affinity_scratch *scratch, uint8_t *member)
{
    const uint32_t experts = affinity->shape.expert_count;
    const uint32_t base = experts / affinity->group_count;
    uint32_t larger = experts % affinity->group_count;
    order_by_lead(affinity, layer, scratch->order);
    for (uint32_t i = 0; i < experts; i++) {
        const uint32_t expert = (uint32_t) scratch->order[i];
        uint32_t found = UINT32_MAX;
        double most = 0.0;
        for (uint32_t group = 0; group < affinity->group_count; group++) {
            const double use = use_at(affinity, group, layer, expert);
            if (scratch->fill[group] < base + (larger > 0) &&
                (found == UINT32_MAX || use > most ||
                 (use == most && scratch->fill[group] < scratch->fill[found]))) {
                found = group;
                most = use;
            }
        }
        assert(found != UINT32_MAX);
        larger -= scratch->fill[found] == base;
        scratch->fill[found]++;
        member[(size_t) found * experts + expert] = 1;
    }
}

/* One more copy for the group: its most used expert that it lacks. False when it has all. */
static bool add_copy(const struct moe_affinity *affinity, uint32_t layer, uint32_t group,
                     uint8_t *member)
{
    const uint32_t experts = affinity->shape.expert_count;
    uint32_t found = UINT32_MAX;
    for (uint32_t expert = 0; expert < experts; expert++) {
        if (member[(size_t) group * experts + expert] == 0 &&
            (found == UINT32_MAX ||
             use_at(affinity, group, layer, expert) > use_at(affinity, group, layer, found))) {
            found = expert;
        }
    }
    if (found != UINT32_MAX) {
        member[(size_t) group * experts + found] = 1;
    }
    return found != UINT32_MAX;
}

void moe_affinity_cover(const struct moe_affinity *affinity, uint32_t layer, uint32_t copy_limit,
                        const struct moe_affinity_scratch *scratch, uint8_t *member)
{
    const struct moe_placement_shape *shape = &affinity->shape;
    const uint32_t room = shape->slot_count / affinity->group_count;
    uint32_t left = copy_limit;
    memset(member, 0, (size_t) affinity->group_count * shape->expert_count);
    memset(scratch->fill, 0, affinity->group_count * sizeof *scratch->fill);
    cover(affinity, layer, scratch, member);
    for (bool added = true; added && left > 0;) { /* a copy per group and round */
        added = false;
        for (uint32_t group = 0; group < affinity->group_count && left > 0; group++) {
            if (scratch->fill[group] < room && add_copy(affinity, layer, group, member)) {
                scratch->fill[group]++;
                left--;
                added = true;
            }
        }
    }
}

struct pack_scratch {
    struct moe_packer packer;
    uint8_t *member;
    float *share;           /* [slots of a group] */
    uint16_t *expert;       /* [slots of a group] */
    uint32_t *slot_of_item; /* [slots of a group] */
    uint32_t *copies;       /* [expert] */
};

static void place_layer(const struct moe_affinity *affinity, const double *load,
                        struct pack_scratch *scratch, uint16_t *expert_of_slot)
{
    const struct moe_placement_shape *shape = &affinity->shape;
    const uint32_t experts = shape->expert_count;
    assert(affinity->group_count >= 1 && experts >= 1);
    const uint32_t room = shape->slot_count / affinity->group_count;
    memset(scratch->copies, 0, experts * sizeof *scratch->copies);
    for (size_t i = 0; i < (size_t) affinity->group_count * experts; i++) {
        scratch->copies[i % experts] += scratch->member[i];
    }
    for (uint32_t group = 0; group < affinity->group_count; group++) {
        struct moe_packing_shape packing = { .pack_count = shape->gpu_count / affinity->group_count,
                                             .capacity = moe_placement_slots_per_gpu(shape),
                                             .set_count = 1 };
        for (uint32_t expert = 0; expert < experts; expert++) {
            if (scratch->member[(size_t) group * experts + expert] != 0) {
                scratch->expert[packing.item_count] = (uint16_t) expert;
                scratch->share[packing.item_count++] =
                    (float) load[expert] / (float) scratch->copies[expert] + 0.0f;
            }
        }
        if (packing.item_count > 0) {
            moe_packer_pack(&scratch->packer, &packing, scratch->share, scratch->slot_of_item);
        }
        for (uint32_t item = 0; item < packing.item_count; item++) {
            expert_of_slot[(size_t) group * room + scratch->slot_of_item[item]] =
                scratch->expert[item];
        }
    }
}

enum moe_status moe_affinity_place(const struct moe_affinity *affinity, const double *load,
                                   uint32_t copy_limit_total, struct moe_arena *scratch,
                                   struct moe_placement *plan, struct moe_error *err)
{
    const struct moe_placement_shape *shape = &affinity->shape;
    const uint32_t groups = affinity->group_count;
    assert(groups >= 1);
    const uint32_t room = shape->slot_count / groups;
    const struct moe_affinity_scratch sets = { .order =
                                                   MOE_NEW(scratch, uint64_t, shape->expert_count),
                                               .fill = MOE_NEW(scratch, uint32_t, groups) };
    struct pack_scratch pack = {
        .member = MOE_NEW(scratch, uint8_t, (size_t) groups * shape->expert_count),
        .share = MOE_NEW(scratch, float, room),
        .expert = MOE_NEW(scratch, uint16_t, room),
        .slot_of_item = MOE_NEW(scratch, uint32_t, room),
        .copies = MOE_NEW(scratch, uint32_t, shape->expert_count),
    };
    if (sets.order == NULL || sets.fill == NULL || pack.member == NULL || pack.share == NULL ||
        pack.expert == NULL || pack.slot_of_item == NULL || pack.copies == NULL) {
        return moe_fail(err, MOE_LIMIT, "no room to place %u experts on %u groups",
                        shape->expert_count, groups);
    }
    MOE_TRY(moe_packer_init(&pack.packer, scratch, room, shape->gpu_count / groups, err));
    assert(shape->layer_count >= 1);
    for (uint32_t layer = 0; layer < shape->layer_count; layer++) {
        const uint32_t spread =
            copy_limit_total / shape->layer_count + (layer < copy_limit_total % shape->layer_count);
        moe_affinity_cover(affinity, layer, spread, &sets, pack.member);
        place_layer(affinity, load + (size_t) layer * shape->expert_count, &pack,
                    moe_placement_layer(plan, layer));
    }
    return MOE_OK;
}
