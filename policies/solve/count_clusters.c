#include "policies/solve/count_clusters.h"

#include <assert.h>
#include <math.h>
#include <string.h>

#include "policies/solve/winner_tree.h"
#include "sim/base/no_malloc.h"
#include "sim/base/random.h"

enum { LANES = 8 };

static float sum_lanes(const float lane[LANES])
{
    return ((lane[0] + lane[1]) + (lane[2] + lane[3])) +
           ((lane[4] + lane[5]) + (lane[6] + lane[7]));
}

float moe_clusters_dot(const uint16_t *count, const float *centre, uint32_t width)
{
    float lane[LANES] = { 0 };
    uint32_t i = 0;
    for (; i + LANES <= width; i += LANES) {
        for (uint32_t j = 0; j < LANES; j++) {
            lane[j] += (float) count[i + j] * centre[i + j];
        }
    }
    for (uint32_t j = 0; i < width; i++, j++) {
        lane[j] += (float) count[i] * centre[i];
    }
    return sum_lanes(lane);
}

float moe_clusters_norm(const uint16_t *count, uint32_t width)
{
    double sum = 0.0; /* whole numbers: exact, whatever the order */
    for (uint32_t i = 0; i < width; i++) {
        sum += (double) count[i] * (double) count[i];
    }
    return (float) sqrt(sum);
}

static float square(const float *centre, uint32_t width)
{
    float lane[LANES] = { 0 };
    for (uint32_t i = 0; i < width; i++) {
        lane[i % LANES] += centre[i] * centre[i];
    }
    return sum_lanes(lane);
}

struct fit {
    const struct moe_count_rows *rows;
    struct moe_clusters *clusters;
    float *scale;    /* [row] 1 / norm, 0 for a row of zeros */
    float *distance; /* [row][cluster]: squared, less the row's own square */
    float *nearest;  /* [row] for seeding; what a row has to lose when balanced */
    uint64_t *order; /* [row] */
    float *square;   /* [cluster] */
};

static const uint16_t *row_at(const struct fit *fit, uint32_t row)
{
    return fit->rows->count + (size_t) row * fit->rows->width;
}

static float *centre_at(const struct fit *fit, uint32_t cluster)
{
    return fit->clusters->centre + (size_t) cluster * fit->clusters->width;
}

static void copy_row(const struct fit *fit, uint32_t row, float *centre)
{
    for (uint32_t i = 0; i < fit->rows->width; i++) {
        centre[i] = (float) row_at(fit, row)[i] * fit->scale[row];
    }
}

/* k-means++: the next centre is a row, drawn with the square of its distance to the nearest
 * centre there is. */
static void seed_centres(struct fit *fit, uint64_t key)
{
    const uint32_t rows = fit->rows->row_count;
    for (uint32_t row = 0; row < rows; row++) {
        fit->nearest[row] = 2.0f;
    }
    for (uint32_t cluster = 0; cluster < fit->clusters->cluster_count; cluster++) {
        double sum = 0.0;
        for (uint32_t row = 0; row < rows; row++) {
            sum += (double) fit->nearest[row];
        }
        const double drawn = sum * moe_random_uniform(key, cluster);
        uint32_t chosen = 0;
        double before = 0.0;
        for (uint32_t row = 0; row < rows; row++) {
            if (fit->nearest[row] > 0.0f) {
                chosen = row;
                before += (double) fit->nearest[row];
                if (before > drawn) {
                    break;
                }
            }
        }
        float *centre = centre_at(fit, cluster);
        copy_row(fit, chosen, centre);
        for (uint32_t row = 0; row < rows; row++) {
            const float dot =
                moe_clusters_dot(row_at(fit, row), centre, fit->rows->width) * fit->scale[row];
            const float away = row == chosen || dot > 1.0f ? 0.0f : 2.0f - 2.0f * dot;
            fit->nearest[row] = away < fit->nearest[row] ? away : fit->nearest[row];
        }
    }
}

static void measure(struct fit *fit)
{
    const uint32_t clusters = fit->clusters->cluster_count;
    for (uint32_t cluster = 0; cluster < clusters; cluster++) {
        fit->square[cluster] = square(centre_at(fit, cluster), fit->rows->width);
    }
    for (uint32_t row = 0; row < fit->rows->row_count; row++) {
        for (uint32_t cluster = 0; cluster < clusters; cluster++) {
            const float dot =
                moe_clusters_dot(row_at(fit, row), centre_at(fit, cluster), fit->rows->width);
            fit->distance[(size_t) row * clusters + cluster] =
                fit->square[cluster] - 2.0f * dot * fit->scale[row];
        }
    }
}

static uint32_t nearest_with_room(const struct fit *fit, uint32_t row, uint32_t room)
{
    const uint32_t clusters = fit->clusters->cluster_count;
    const float *distance = fit->distance + (size_t) row * clusters;
    uint32_t found = UINT32_MAX;
    for (uint32_t cluster = 0; cluster < clusters; cluster++) {
        if (fit->clusters->size[cluster] < room &&
            (found == UINT32_MAX || distance[cluster] < distance[found])) {
            found = cluster;
        }
    }
    assert(found != UINT32_MAX);
    return found;
}

/* order[]: rows by how much further their second-nearest centre is, most first. */
static void order_by_loss(struct fit *fit)
{
    const uint32_t clusters = fit->clusters->cluster_count;
    const uint32_t rows = fit->rows->row_count;
    for (uint32_t row = 0; row < rows; row++) {
        const float *distance = fit->distance + (size_t) row * clusters;
        float first = INFINITY;
        float second = INFINITY;
        for (uint32_t cluster = 0; cluster < clusters; cluster++) {
            if (distance[cluster] < first) {
                second = first;
                first = distance[cluster];
            } else if (distance[cluster] < second) {
                second = distance[cluster];
            }
        }
        const float loss = clusters > 1 ? second - first : 0.0f;
        fit->order[row] = moe_winner_key(moe_winner_rank_descending(loss + 0.0f), row);
    }
    /* Heap sort: in place, no worst case that matters. */
    for (uint32_t end = rows, first = rows / 2; end > 1;) {
        uint64_t moved;
        if (first > 0) {
            moved = fit->order[--first];
        } else {
            moved = fit->order[--end];
            fit->order[end] = fit->order[0];
        }
        uint32_t at = first;
        for (uint32_t child = 2 * at + 1; child < end; child = 2 * at + 1) {
            child += child + 1 < end && fit->order[child] < fit->order[child + 1];
            if (fit->order[child] <= moved) {
                break;
            }
            fit->order[at] = fit->order[child];
            at = child;
        }
        fit->order[at] = moved;
    }
}

/* Every row to its cluster; returns how many changed. */
static uint32_t assign(struct fit *fit, bool balanced)
{
    struct moe_clusters *clusters = fit->clusters;
    const uint32_t rows = fit->rows->row_count;
    uint32_t changed = 0;
    uint32_t larger = balanced ? rows % clusters->cluster_count : 0;
    memset(clusters->size, 0, clusters->cluster_count * sizeof *clusters->size);
    if (balanced) {
        order_by_loss(fit);
    }
    for (uint32_t i = 0; i < rows; i++) {
        const uint32_t row = balanced ? (uint32_t) fit->order[i] : i;
        const uint32_t base = rows / clusters->cluster_count;
        const uint32_t room = balanced ? base + (larger > 0) : rows;
        const uint32_t cluster = nearest_with_room(fit, row, room);
        larger -= balanced && larger > 0 && clusters->size[cluster] == base;
        clusters->size[cluster]++;
        changed += clusters->cluster_of[row] != cluster;
        clusters->cluster_of[row] = cluster;
    }
    return changed;
}

/* Centres to the means of their members; an empty cluster keeps its centre. */
static void move_centres(struct fit *fit)
{
    struct moe_clusters *clusters = fit->clusters;
    const uint32_t width = fit->rows->width;
    for (uint32_t cluster = 0; cluster < clusters->cluster_count; cluster++) {
        if (clusters->size[cluster] > 0) {
            memset(centre_at(fit, cluster), 0, width * sizeof(float));
        }
    }
    for (uint32_t row = 0; row < fit->rows->row_count; row++) {
        const uint32_t cluster = clusters->cluster_of[row];
        float *restrict centre = centre_at(fit, cluster);
        const uint16_t *restrict count = row_at(fit, row);
        const float share = fit->scale[row] / (float) clusters->size[cluster];
        for (uint32_t i = 0; i < width; i++) {
            centre[i] += (float) count[i] * share;
        }
    }
}

enum moe_status moe_clusters_fit(struct moe_clusters *clusters, struct moe_arena *arena,
                                 const struct moe_count_rows *rows, uint32_t cluster_count,
                                 bool balanced, uint32_t round_limit, uint64_t key,
                                 struct moe_error *err)
{
    const size_t centres = (size_t) cluster_count * rows->width;
    struct moe_clusters made = {
        .cluster_count = cluster_count,
        .width = rows->width,
        .centre = MOE_NEW(arena, float, centres),
        .cluster_of = MOE_NEW(arena, uint32_t, rows->row_count),
        .size = MOE_NEW(arena, uint32_t, cluster_count),
    };
    struct fit fit = {
        .rows = rows,
        .clusters = &made,
        .scale = MOE_NEW(arena, float, rows->row_count),
        .distance = MOE_NEW(arena, float, (size_t) rows->row_count *cluster_count),
        .nearest = MOE_NEW(arena, float, rows->row_count),
        .order = MOE_NEW(arena, uint64_t, rows->row_count),
        .square = MOE_NEW(arena, float, cluster_count),
    };
    if (made.centre == NULL || made.cluster_of == NULL || made.size == NULL || fit.scale == NULL ||
        fit.distance == NULL || fit.nearest == NULL || fit.order == NULL || fit.square == NULL) {
        return moe_fail(err, MOE_LIMIT, "no room to find %u clusters among %u rows of %u counts",
                        cluster_count, rows->row_count, rows->width);
    }
    for (uint32_t row = 0; row < rows->row_count; row++) {
        const float norm = moe_clusters_norm(row_at(&fit, row), rows->width);
        fit.scale[row] = norm > 0.0f ? 1.0f / norm : 0.0f;
        made.cluster_of[row] = UINT32_MAX;
    }
    seed_centres(&fit, key);
    for (uint32_t round = 0; round < round_limit || round == 0; round++) {
        measure(&fit);
        if (assign(&fit, balanced) == 0) {
            break;
        }
        move_centres(&fit);
    }
    *clusters = made;
    return MOE_OK;
}
