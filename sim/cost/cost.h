/*
 * Cost: how long each part of a step takes on one GPU, from the calibration tables.
 *
 * struct moe_cost is prepared once from a calibration database for one model and
 * cluster; its functions are then called from the engine's hot path: they allocate
 * nothing, take no lock, and are safe from several threads at once.
 * All durations are nanoseconds as double (the engine rounds up once); all factors
 * multiply time, so 1.03 is 3 % slower.
 *
 * Expert FFN (calibration.md 5.6, design 3), per rank and layer:
 *   t = ratio * (t0 + ((m * memory)^p + (c * compute)^p)^(1/p))
 *   m = active * expert_bytes / bandwidth
 *   c = (tiles * tile_tokens + weight * min(fullest, rows)) * flops_of_a_row / peak
 * where active counts physical slots with at least one token, tiles is the sum over
 * slots of ceil(tokens / tile_tokens), fullest is the tokens of the slot that has most (its
 * tiles are the critical path: table fullest; weight 0 without), and ratio is the measured correction, linear
 * between measured points in (log2 tokens per active slot, log2 active), held at the
 * border. Zero tokens cost zero. A series whose times leave out the permutation to expert
 * order gets its bytes over the copy bandwidth on top (times memory).
 *
 * Exchange (dispatch, combine): piecewise alpha-beta per link class, at most six
 * segments each, over the ranks that were measured or else rank_trend.h; a rank takes the longer of its two classes, and for each the larger
 * of its ingress and egress. Near links are quicker one way than both ways at once:
 *   t = t(0) + (t(larger) - t(0)) * (1 - one_way_saving * (1 - smaller / larger))
 * and a library that is given a rank's own copies moves them at own_bytes_s beside the
 * others, which takes longest when almost all stay: t(0) + own bytes / own_bytes_s. Both
 * only where they were measured. The factor comm multiplies the whole, latency included.
 *
 * Dense parts: one p-norm GEMM per weight matrix (read once a call, rows padded to the
 * series' tile; ratio at the unpadded rows), launches, and copied bytes over the copy
 * bandwidth (times memory; a launch has no factor). Per row of h hidden values:
 *   attention  norm.bytes_per_value * h copied, attention.launches. GQA, MHA: h x (q + 2 kv
 *              heads) * size and heads * size x h; MLA: h x (q rank + latent) and q rank x
 *              query (or h x (query + latent)), kv rank x heads * (size + value), heads * value
 *              x h; an output gate is one more query. latent = kv rank + rope, query = heads *
 *              (size + rope). Shared: h x (q rank + size), q rank x heads * size, heads * size x output
 *              rank, g groups * output rank x h. Layers of linear attention: h x w and w x h, 2hw = linear_weights
 *              (0: as the others), by their share
 *   its core   of full and windowed layers by their share: attention.t0_ns + ((KV bytes read / attention.bytes_s *
 *              memory)^p + (FLOPs / attention.flop_s * compute)^p)^(1/p); 4 * heads * size FLOPs
 *              a pair. MLA decode is absorbed (2 * heads * (2 kv rank + rope) a pair), the rest
 *              that or expanded, whichever is less (2 * heads * (size + rope + value) a pair, and
 *              2 * kv rank * heads * (size + value) a token of context beyond the step's own).
 *              Latent models take attention.mla_* instead where those were measured. Where table
 *              decode has the model's shape (KV of bf16), sequences with one row take that instead
 *              (decode.h), by their number and mean context; rows of prompts the rest of the bytes
 *              and FLOPs as above, with the t0 of that row; windowed layers likewise in a step that only
 *              decodes
 *   sparse     (never measured: assumed) a sparse layer's core reads what its rows choose instead;
 *              MLA's rows of prompts that, absorbed, or everything, expanded and masked. A pooled
 *              one reads every pooled_ratio-th token. Compressed entries: and the window besides.
 *              KV of kind shared is one vector of head_size for K and V. An indexer: q rank x index
 *              heads * size, h x (size + index heads), attention.launches; then over all entries
 *              attention.bytes_s, attention.flop_s of 2 * index heads * size FLOPs a pair, and 8
 *              bytes a pair copied for each block (scores written, and read by the choice).
 *              Compression: h x 4 * head size (pooled 2), one launch; keys likewise
 *              instead of h x size.
 *              Hyper-connections: 12 bytes * streams * h copied per row (mHC, arXiv 2512.24880:
 *              2 streams read and 1 written, around the attention and around the FFN)
 *   dense      h x f (twice as wide when gated) and f x h; activation 2 bytes a value of all
 *   shared     three (two) widths; one launch
 *   gate       router h x experts in bf16, gate.launches; latent models: both projections.
 *              4 bytes a value of the experts' width, and the copies that leave a rank,
 *              G (1 - (1 - 1/G)^k) of G GPUs at k choices, in the dtypes of both exchanges
 *   head       LM head h x vocabulary in bf16 over the sampled rows, head.launches, 12 bytes a
 *              logit; 4 h bytes a row, sampled or not
 * EXPERT's published series time the whole MoE op, so GATE holds only what happens on the
 * token's own rank: router, and permutation before the dispatch and after the combine.
 *
 * Provenance: a point's own on it; between points the worse of both, interpolated when both
 * are measured; beyond them, or with a fit only, or over another number of ranks, extrapolated
 * for what was ours and assumed for what was published. Between the points of a series that
 * did not meet its accuracy gate (table fit_quality): extrapolated.
 * A duration that is a sum claims the worst provenance among its parts.
 */
#ifndef MOE_SIM_COST_COST_H
#define MOE_SIM_COST_COST_H

#include <stdbool.h>
#include <stdint.h>

#include "sim/base/arena.h"
#include "sim/base/error.h"
#include "sim/model/model.h"
#include "sim/scenario/scenario.h"

/* Where a duration comes from, best first. */
enum moe_provenance {
    MOE_PROVENANCE_MEASURED,     /* on a measured point, by our calibration */
    MOE_PROVENANCE_INTERPOLATED, /* between measured points */
    MOE_PROVENANCE_EXTRAPOLATED, /* outside the measured points */
    MOE_PROVENANCE_PUBLISHED,    /* from published tables, on or between their points */
    MOE_PROVENANCE_ASSUMED, /* a stated assumption, or published values used outside their range */
    MOE_PROVENANCE_COUNT
};

/* The parts that a step's time is split into; also what +-20 % sensitivity moves. */
enum moe_cost_part {
    MOE_COST_ATTENTION, /* projections, scores, KV read */
    MOE_COST_DENSE,     /* FFN of dense layers */
    MOE_COST_GATE,      /* router, top-k, permute and un-permute of the rank's own tokens */
    MOE_COST_SHARED,    /* shared experts, where they are not hidden */
    MOE_COST_DISPATCH,
    MOE_COST_EXPERT, /* routed experts with permutation to expert order */
    MOE_COST_COMBINE,
    MOE_COST_HEAD, /* embedding, LM head, sampling */
    MOE_COST_HOST, /* scheduler, launch; once per step */
    MOE_COST_PART_COUNT
};

const char *moe_provenance_name(enum moe_provenance provenance);
const char *moe_cost_part_name(enum moe_cost_part part);

/* Time factors of one simulated GPU, by what bounds the work. */
struct moe_gpu_factor {
    double compute;
    double memory;
    double comm;
};

/* A duration with its source. */
struct moe_duration {
    double ns;
    enum moe_provenance provenance;
};

/* One rank's routed-expert work in one layer. Doubles, so that means can be priced. */
struct moe_expert_work {
    double tokens;  /* (token, expert) assignments */
    double active;  /* physical slots with at least one */
    double tiles;   /* sum over slots of ceil(tokens / tile_tokens) */
    double fullest; /* tokens of the slot that has most */
};

/* One rank's own tokens in one step. */
struct moe_token_work {
    double tokens;           /* rows processed: prefill chunk tokens + decode tokens */
    double sampled;          /* rows whose logits are needed */
    double kv_read;          /* KV tokens read per layer: sum over sequences of their context */
    double score_pairs;      /* sum over rows of the context each attends to */
    double window_read;      /* kv_read in windowed layers: what any row of a sequence sees */
    double window_pairs;     /* score_pairs likewise */
    double decode_read;      /* of kv_read: by sequences with one row. MLA prices those absorbed and
                          * the rest in its cheaper form; 0 lets it treat all as one lot */
    double decode_sequences; /* that decode_read is of; 0: not known */
    /* Of sparse layers, in tokens: what rows choose, at most sparse_entries * sparse_ratio each. */
    double sparse_read;   /* as kv_read: a sequence's rows may all choose others */
    double sparse_pairs;  /* as score_pairs */
    double sparse_decode; /* as decode_read */
};

/* Token copies that a rank sends and receives; near = same node, far = other nodes.
 * Copies that stay on the GPU are in neither; they cost time only as near_own. */
struct moe_exchange_work {
    double near_out;
    double near_in;
    double far_out;
    double far_in;
    double near_own; /* that stay on the GPU, where the exchange carries them all the same */
};

struct moe_cost;        /* prepared; lives in the arena it was made in */
struct moe_calibration; /* sim/cost/calibration.h */

/* Errors: MOE_RANGE when the calibration has no such GPU kind (lists those it has),
 * MOE_LIMIT when the arena is full. */
enum moe_status moe_cost_init(struct moe_cost **out, const struct moe_calibration *calibration,
                              const struct moe_model *model, const struct moe_cluster *cluster,
                              struct moe_arena *arena, struct moe_error *err) MOE_MUST_CHECK;

/* The same for a way of serving: with attention_ranks A of it the attention, dense FFNs and the
 * LM head are those of one of A GPUs, which sum their outputs (moe_cost_reduce); with
 * all_gather a copy has bf16 values both ways and no header. */
enum moe_status moe_cost_init_serving(struct moe_cost **out,
                                      const struct moe_calibration *calibration,
                                      const struct moe_model *whole,
                                      const struct moe_cluster *cluster,
                                      const struct moe_serving *serving, struct moe_arena *arena,
                                      struct moe_error *err) MOE_MUST_CHECK;

uint32_t moe_cost_attention_ranks(const struct moe_cost *cost);

/* Summing one layer's output of so many rows over the GPUs that share an attention: a
 * reduce-scatter and an all-gather of (A-1)/A of the rows' bf16 values each, over the links of
 * the node (the calibration's curve of either, else the all-to-all's, then assumed). 0 when A is
 * 1. */
struct moe_duration moe_cost_reduce(const struct moe_cost *cost, double tokens,
                                    const struct moe_gpu_factor *factor);

/* Bytes from host memory to a GPU, per GPU alone on its link. bytes_s > 0 is the rate to use;
 * 0: the calibration's. Errors: MOE_RANGE when neither is known. */
enum moe_status moe_cost_host_copy(const struct moe_cost *cost, double bytes, double bytes_s,
                                   struct moe_duration *duration,
                                   struct moe_error *err) MOE_MUST_CHECK;

/* Bulk transfer between GPUs (weights), so many bytes that one GPU sends or receives over links
 * of either class at once: the curve of the dispatch. */
struct moe_duration moe_cost_bulk_copy(const struct moe_cost *cost, double near_bytes,
                                       double far_bytes);

/* How much longer what is bound by arithmetic takes under load that lasts (seconds) than in the
 * bursts that calibrations measure; 0 when that was not measured. */
double moe_cost_sustained_factor(const struct moe_cost *cost);

/* How much longer compute takes beside communication, and the other way round; 1, 1 when not
 * measured. */
struct moe_overlap_factors {
    double compute;
    double comm;
};
struct moe_overlap_factors moe_cost_overlap(const struct moe_cost *cost);

uint32_t moe_cost_tile_tokens(const struct moe_cost *cost); /* rows of one GEMM tile */
double moe_cost_memory_bytes(const struct moe_cost *cost);  /* of one GPU, for the memory model */

struct moe_duration moe_cost_expert(const struct moe_cost *cost, const struct moe_expert_work *work,
                                    const struct moe_gpu_factor *factor);
/* One layer; layers that see a window only are averaged in. */
struct moe_duration moe_cost_attention(const struct moe_cost *cost,
                                       const struct moe_token_work *work,
                                       const struct moe_gpu_factor *factor);
struct moe_duration moe_cost_dense(const struct moe_cost *cost, double tokens,
                                   const struct moe_gpu_factor *factor);
struct moe_duration moe_cost_shared(const struct moe_cost *cost, double tokens,
                                    const struct moe_gpu_factor *factor);
struct moe_duration moe_cost_gate(const struct moe_cost *cost, double tokens,
                                  const struct moe_gpu_factor *factor);
struct moe_duration moe_cost_head(const struct moe_cost *cost, const struct moe_token_work *work,
                                  const struct moe_gpu_factor *factor);
struct moe_duration moe_cost_host(const struct moe_cost *cost);
/* part: MOE_COST_DISPATCH or MOE_COST_COMBINE (their bytes per token differ). */
struct moe_duration moe_cost_exchange(const struct moe_cost *cost, enum moe_cost_part part,
                                      const struct moe_exchange_work *work,
                                      const struct moe_gpu_factor *factor);
double moe_cost_exchange_bytes(const struct moe_cost *cost, enum moe_cost_part part); /* per copy */

/* Hardware and noise, drawn by counters (sim/base/random.h), so equal for all policies
 * of a seed. */

/* The factors of simulated GPU number gpu under seed: MOE_RANDOM_GPU_FACTOR, counter 8 * gpu
 * chooses one of the measured GPUs. Without any: 8 * gpu + 1 says whether it is in the tail, + 2
 * how deep, + 3, 4, 5 are the normal deviates of compute, memory and comm (exp of sd * normal on
 * a grid of 2^-40). */
struct moe_gpu_factor moe_cost_gpu_factor(const struct moe_cost *cost, uint64_t seed, uint32_t gpu);

/* Whether any of those factors was drawn from the prior's slow tail: a report must name
 * such a GPU. Never for factors of measured GPUs, which are drawn first where there are any. */
bool moe_cost_gpu_in_tail(const struct moe_cost *cost, uint64_t seed, uint32_t gpu);

/* Which residual: compute-bound, memory-bound and communication jitter differ. */
enum moe_jitter { MOE_JITTER_COMPUTE, MOE_JITTER_EXPERT, MOE_JITTER_COMM, MOE_JITTER_COUNT };

/* Time factor around 1 for a uniform draw u in [0, 1): the inverse CDF through the
 * stored quantiles (0, 5, 25, 50, 75, 95 and 99 %; linear between them, held at the ends). Never
 * below 0.5. */
double moe_cost_jitter(const struct moe_cost *cost, enum moe_jitter kind, double u);

/* out[i] for the uniform draws first + i * stride of key, i < count. */
struct moe_jitter_draws {
    uint64_t key;
    uint64_t first;
    uint64_t stride;
};
void moe_cost_jitter_row(const struct moe_cost *cost, enum moe_jitter kind,
                         struct moe_jitter_draws draws, uint32_t count, double *out);

/* Slow drift of a GPU's speed: an AR(1) process per GPU and step in log time.
 * x' = phi * x + sigma * sqrt(1 - phi^2) * normal; the factor is exp(x). */
struct moe_drift {
    double phi;
    double sigma;
};
struct moe_drift moe_cost_drift(const struct moe_cost *cost);

/* Share of the calibration's facts by provenance, the GPU kinds it has and notes for the
 * report stand in sim/cost/calibration.h. */

#endif
