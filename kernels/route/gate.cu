// The top-k gate; what is computed and what the versions differ in is told in gate.h.
#include "kernels/route/gate.h"

#include <float.h>

#include "kernels/instruction/launch.cuh"
#include "kernels/instruction/warp.cuh"

enum { THREADS = 128, WARPS = THREADS / 32 };

struct gate_case {
    moe_gate gate;
    int32_t token_count;
    int32_t *ids;
    float *weights;
    const float *logits;
    const float *bias;
};

// A number's order as an unsigned one: larger numbers have larger keys. 0 is the key of no number
// that is not NaN, and stands for an expert that cannot be chosen (any more).
static __device__ __forceinline__ uint32_t key_of(float value)
{
    const uint32_t bits = __float_as_uint(value + 0.0F); // -0 and 0 are equal
    return (bits & 0x80000000U) != 0 ? ~bits : bits | 0x80000000U;
}

static __device__ __forceinline__ float sigmoid(float x)
{
    return 1.0F / (1.0F + expf(-x));
}

static __device__ __forceinline__ float group_score(moe_gate_group group, float best, float second)
{
    return group == MOE_GATE_GROUP_BEST ? best : best + second;
}

static __device__ __forceinline__ void put_best_two(float value, float *best, float *second)
{
    if (value > *best) {
        *second = *best;
        *best = value;
    } else if (value > *second) {
        *second = value;
    }
}

// Of version 1: one token's scores, recomputed whenever they are asked for.
struct token_scores {
    const float *logits;
    const float *bias;
    float largest; // softmax only
    float inverse_sum;
    bool is_softmax;

    __device__ float score(int32_t expert) const
    {
        return is_softmax ? expf(logits[expert] - largest) * inverse_sum : sigmoid(logits[expert]);
    }
    __device__ float choice(int32_t expert) const
    {
        return score(expert) + (bias != nullptr ? bias[expert] : 0.0F);
    }
};

static __device__ token_scores token_begin(const gate_case &c, int32_t token)
{
    token_scores t = { c.logits + (int64_t) token * c.gate.expert_count, c.bias, -FLT_MAX, 1.0F,
                       c.gate.score == MOE_GATE_SOFTMAX };
    float sum = 0.0F;
    for (int32_t e = 0; e < c.gate.expert_count; e++) {
        t.largest = fmaxf(t.largest, t.logits[e]);
    }
    for (int32_t e = 0; t.is_softmax && e < c.gate.expert_count; e++) {
        sum += expf(t.logits[e] - t.largest);
    }
    t.inverse_sum = t.is_softmax ? 1.0F / sum : 1.0F;
    return t;
}

// Which groups of the token stay, a bit each.
static __device__ uint32_t groups_kept(const gate_case &c, const token_scores &t)
{
    const int32_t size = c.gate.expert_count / c.gate.group_count;
    uint32_t kept = 0;
    for (int32_t n = 0; n < c.gate.group_keep; n++) {
        int32_t chosen = -1;
        float chosen_score = 0.0F;
        for (int32_t g = 0; g < c.gate.group_count; g++) {
            float best = -FLT_MAX;
            float second = -FLT_MAX;
            for (int32_t e = g * size; (kept >> g & 1) == 0 && e < (g + 1) * size; e++) {
                put_best_two(t.choice(e), &best, &second);
            }
            const float score = group_score(c.gate.group, best, second);
            if ((kept >> g & 1) == 0 && (chosen < 0 || score > chosen_score)) {
                chosen = g;
                chosen_score = score;
            }
        }
        kept |= 1U << chosen;
    }
    return kept;
}

static __global__ void __launch_bounds__(THREADS) gate_v1(gate_case c)
{
    const auto token = (int32_t) (blockIdx.x * THREADS + threadIdx.x);
    if (token >= c.token_count) {
        return;
    }
    const token_scores t = token_begin(c, token);
    const int32_t size = c.gate.expert_count / c.gate.group_count;
    const uint32_t kept = c.gate.group_count > 1 ? groups_kept(c, t) : 1;
    int32_t *ids = c.ids + (int64_t) token * c.gate.top_k;
    float *weights = c.weights + (int64_t) token * c.gate.top_k;
    float sum = 0.0F;
    for (int32_t place = 0; place < c.gate.top_k; place++) {
        int32_t chosen = -1;
        for (int32_t e = 0; e < c.gate.expert_count; e++) {
            bool taken = (kept >> (e / size) & 1) == 0;
            for (int32_t p = 0; p < place; p++) {
                taken = taken || ids[p] == e;
            }
            if (!taken && (chosen < 0 || t.choice(e) > t.choice(chosen))) {
                chosen = e;
            }
        }
        ids[place] = chosen;
        weights[place] = t.score(chosen);
        sum += weights[place];
    }
    for (int32_t place = 0; place < c.gate.top_k; place++) {
        weights[place] *= c.gate.renormalise ? c.gate.scale / sum : c.gate.scale;
    }
}

// Scores of the token in registers: lane l has experts l, l + 32, ...; 0 beyond the last.
template <int Values>
static __device__ __forceinline__ void score_token(const gate_case &c, int32_t token, float *score)
{
    const int32_t lane = (int32_t) threadIdx.x % 32;
    const float *logits = c.logits + (int64_t) token * c.gate.expert_count;
    float largest = -FLT_MAX;
    float sum = 0.0F;
#pragma unroll
    for (int v = 0; v < Values; v++) {
        const int32_t expert = v * 32 + lane;
        score[v] = expert < c.gate.expert_count ? logits[expert] : -FLT_MAX;
        largest = fmaxf(largest, score[v]);
    }
    if (c.gate.score == MOE_GATE_SIGMOID) {
#pragma unroll
        for (int v = 0; v < Values; v++) {
            score[v] = sigmoid(score[v]);
        }
        return;
    }
    largest = warp_max(largest);
#pragma unroll
    for (int v = 0; v < Values; v++) {
        score[v] = expf(score[v] - largest);
        sum += v * 32 + lane < c.gate.expert_count ? score[v] : 0.0F;
    }
    const float inverse_sum = 1.0F / warp_sum(sum);
#pragma unroll
    for (int v = 0; v < Values; v++) {
        score[v] *= inverse_sum;
    }
}

// Which groups stay, a bit each. choices: the warp's place in shared memory, where a word is left
// out after each 32, so that lanes that walk over a group each meet different banks.
template <int Values>
static __device__ __forceinline__ uint32_t keep_groups(const gate_case &c, const float *choice,
                                                       float *choices)
{
    const int32_t lane = (int32_t) threadIdx.x % 32;
    const int32_t size = c.gate.expert_count / c.gate.group_count;
    float best = -FLT_MAX;
    float second = -FLT_MAX;
#pragma unroll
    for (int v = 0; v < Values; v++) {
        choices[v * 33 + lane] = choice[v];
    }
    __syncwarp();
    if (lane < c.gate.group_count) {
        for (int32_t e = lane * size; e < (lane + 1) * size; e++) {
            put_best_two(choices[e + e / 32], &best, &second);
        }
    }
    const float mine = group_score(c.gate.group, best, second);
    int32_t ahead = 0; // groups that come before this lane's
    for (int32_t g = 0; g < c.gate.group_count; g++) {
        const float other = __shfl_sync(0xffffffffU, mine, g);
        ahead += other > mine || (other == mine && g < lane);
    }
    return __ballot_sync(0xffffffffU, lane < c.gate.group_count && ahead < c.gate.group_keep);
}

template <int Values> static __global__ void __launch_bounds__(THREADS) gate_v2(gate_case c)
{
    __shared__ float choices[WARPS][Values * 33];
    const int32_t lane = (int32_t) threadIdx.x % 32;
    const int32_t warp = (int32_t) threadIdx.x / 32;
    const auto token = (int32_t) blockIdx.x * WARPS + warp;
    if (token >= c.token_count) {
        return;
    }
    float score[Values];
    float choice[Values];
    uint32_t key[Values];
    score_token<Values>(c, token, score);
#pragma unroll
    for (int v = 0; v < Values; v++) {
        const int32_t expert = v * 32 + lane;
        const bool exists = expert < c.gate.expert_count;
        choice[v] = score[v] + (exists && c.bias != nullptr ? c.bias[expert] : 0.0F);
        key[v] = exists ? key_of(choice[v]) : 0;
    }
    if (c.gate.group_count > 1) {
        const int32_t size = c.gate.expert_count / c.gate.group_count;
        const uint32_t kept = keep_groups<Values>(c, choice, choices[warp]);
#pragma unroll
        for (int v = 0; v < Values; v++) {
            const int32_t group = min((v * 32 + lane) / size, MOE_GATE_GROUP_LIMIT - 1);
            key[v] = (kept >> group & 1) != 0 ? key[v] : 0;
        }
    }
    int32_t chosen_id = 0; // lane p keeps place p
    float chosen_score = 0.0F;
    for (int32_t place = 0; place < c.gate.top_k; place++) {
        uint32_t mine = 0;
        float mine_score = 0.0F;
        uint32_t mine_id = UINT32_MAX;
#pragma unroll
        for (int v = 0; v < Values; v++) { // upwards, so that of equals the lower id stays
            if (key[v] > mine) {
                mine = key[v];
                mine_score = score[v];
                mine_id = (uint32_t) (v * 32 + lane);
            }
        }
        const uint32_t best = warp_max(mine);
        const uint32_t id = warp_min(mine == best ? mine_id : UINT32_MAX);
        const float id_score = __shfl_sync(0xffffffffU, mine_score, (int) (id % 32));
        if (lane == place) {
            chosen_id = (int32_t) id;
            chosen_score = id_score;
        }
#pragma unroll
        for (int v = 0; v < Values; v++) {
            key[v] = (uint32_t) (v * 32 + lane) == id ? 0 : key[v];
        }
    }
    const float sum = warp_sum(chosen_score); // 0 in the other lanes
    if (lane < c.gate.top_k) {
        const int64_t at = (int64_t) token * c.gate.top_k + lane;
        c.ids[at] = chosen_id;
        c.weights[at] = chosen_score * (c.gate.renormalise ? c.gate.scale / sum : c.gate.scale);
    }
}

static bool is_bad(const moe_gate *gate, int32_t token_count, int version)
{
    return token_count < 1 || gate->expert_count < 1 ||
           gate->expert_count > MOE_GATE_EXPERT_LIMIT || gate->top_k < 1 ||
           gate->top_k > MOE_GATE_TOP_K_LIMIT || gate->group_count < 1 ||
           gate->group_count > MOE_GATE_GROUP_LIMIT ||
           gate->expert_count % gate->group_count != 0 || gate->group_keep < 1 ||
           gate->group_keep > gate->group_count ||
           gate->top_k > gate->expert_count / gate->group_count * gate->group_keep ||
           (int) gate->score < 0 || gate->score >= MOE_GATE_SCORE_COUNT || (int) gate->group < 0 ||
           gate->group >= MOE_GATE_GROUP_COUNT ||
           (gate->group_count > 1 && gate->group == MOE_GATE_GROUP_BEST_TWO &&
            gate->expert_count / gate->group_count < 2) ||
           version < 1 || version > MOE_GATE_VERSION_COUNT;
}

extern "C" int moe_gate_choose(const struct moe_gate *gate, int32_t token_count, int32_t *ids_dev,
                               float *weights_dev, const float *logits_dev, const float *bias_dev,
                               int version, void *stream)
{
    const auto to = (cudaStream_t) stream;
    const gate_case c = { *gate, token_count, ids_dev, weights_dev, logits_dev, bias_dev };
    if (is_bad(gate, token_count, version) || !launch_is_aligned(ids_dev, 4) ||
        !launch_is_aligned(weights_dev, 4) || !launch_is_aligned(logits_dev, 4)) {
        return (int) cudaErrorInvalidValue;
    }
    const auto grid = (unsigned) launch_ceil(token_count, version == 1 ? THREADS : WARPS);
    const int32_t values = (gate->expert_count + 31) / 32;
    void (*kernel)(gate_case) = gate_v2<32>;
    if (version == 1) {
        kernel = gate_v1;
    } else if (values <= 1) {
        kernel = gate_v2<1>;
    } else if (values <= 2) {
        kernel = gate_v2<2>;
    } else if (values <= 4) {
        kernel = gate_v2<4>;
    } else if (values <= 8) {
        kernel = gate_v2<8>;
    } else if (values <= 12) {
        kernel = gate_v2<12>;
    } else if (values <= 16) {
        kernel = gate_v2<16>;
    }
    kernel<<<grid, THREADS, 0, to>>>(c);
    return (int) cudaGetLastError();
}
