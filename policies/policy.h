/*
 * Policy: what every policy fills in, and how the engine calls it.
 *
 * Four kinds of decision. A policy fills the slots of those that it makes:
 *   place     which experts and copies lie in which physical slots, before the run
 *   dispatch  how the tokens of an expert with several copies split over them, every step
 *   predict   the loads to come, for those who plan on them
 *   group     which waiting request goes to which GPU
 * A policy proposes, the engine checks and carries out. It sees const views of what it asked
 * for (needs), writes one bounded answer, and takes memory only from the arena it is handed:
 * the engine owns its state. Equal views give equal answers, on any machine: no clock, no
 * global, no address, and every tie has a stated rule.
 *
 * To add one: write NAME.c in place/, dispatch/, predict/ or group/ with
 * `MOE_POLICY_DEFINE(NAME) = { MOE_POLICY_HEADER, ... };` and add its line to
 * policies/registry.def. The contract tests then run over it. The same file compiled with
 * -DMOE_POLICY_PLUGIN as a shared object is a plug-in (policies/plugin.h). A policy includes this
 * header and what solve/ offers, never another policy.
 */
#ifndef MOE_POLICIES_POLICY_H
#define MOE_POLICIES_POLICY_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "policies/placement.h"
#include "policies/policy_view.h"
#include "sim/base/arena.h"
#include "sim/base/error.h"

/* Bumped whenever a header that policies include changes what a compiled one relies on. */
enum { MOE_POLICY_ABI = 3 };

enum moe_policy_kind {
    MOE_POLICY_PLACE,
    MOE_POLICY_DISPATCH,
    MOE_POLICY_PREDICT,
    MOE_POLICY_GROUP,
    MOE_POLICY_KIND_COUNT
};

const char *moe_policy_kind_name(enum moe_policy_kind kind); /* "place", "dispatch", ... */

enum { MOE_POLICY_PARAMETER_LIMIT = 24 };

enum moe_parameter_kind {
    MOE_PARAMETER_REAL,   /* min .. max */
    MOE_PARAMETER_WHOLE,  /* the same, without a fraction */
    MOE_PARAMETER_CHOICE, /* its value is an index into choices */
    MOE_PARAMETER_FLAG,   /* 0 or 1, written false or true */
};

/* A knob of a policy, set by `NAME:parameter=value`. */
struct moe_policy_parameter {
    const char *name; /* [A-Za-z0-9_]+, unique in the policy */
    enum moe_parameter_kind kind;
    double standard; /* what it is when nobody says */
    double min;      /* of reals and whole numbers; |min|, |max| <= 2^53 */
    double max;
    const char *const *choices; /* NULL-terminated [a-z0-9_]+; NULL for the other kinds */
    const char *help;           /* one line */
    const char *source;         /* where the default comes from: paper, program or "own" */
};

/* --- dispatch ------------------------------------------------------------------------------ */

/* One layer of one step, seen after the gate. Copies of a layer are numbered expert by expert,
 * those of one expert in ascending order of their slots. */
struct moe_dispatch_view {
    struct moe_placement_shape shape;
    uint64_t step;
    uint32_t layer;
    /* Temporary slots of every GPU, the last ones of its slots (shape counts them): empty, but for
     * what fetch brought. 0: weights stay where they are. */
    uint32_t fetch_limit;
    uint32_t copy_count;
    const uint32_t *first_copy;   /* [expert_count + 1] copies of e: first_copy[e] .. [e + 1]-1 */
    const uint16_t *slot_of_copy; /* [copy_count] */
    const uint16_t *gpu_of_copy;  /* [copy_count] */
    const uint32_t *demand;       /* [source GPU][expert] tokens */
    const uint64_t *expert_total; /* [expert] demand summed over sources */
    const float *predicted;       /* [expert] what a predictor said, or NULL without one */
    const struct moe_policy_speed *speed;       /* as asked for */
    const struct moe_policy_topology *topology; /* as asked for */
    const double *parameters;
    uint64_t seed;
};

/* A temporary copy: for one layer of one step the expert's weights are brought to a GPU. */
struct moe_dispatch_fetch {
    uint16_t expert;
    uint16_t gpu;
};

struct moe_dispatch_methods {
    /* The engine gives the copies of an expert their tokens in turn, token by token; split is
     * then NULL. */
    bool in_turn;
    bool may_drop; /* quotas may fall short of the demand: the rest is dropped and counted */
    /* Optional: once per run. *state (or NULL) is handed to every split. Errors: MOE_LIMIT when
     * the arena is full, MOE_POLICY when the set-up cannot be served. */
    enum moe_status (*init)(const struct moe_place_view *planning,
                            const struct moe_placement *placement, struct moe_arena *arena,
                            void **state, struct moe_error *err);
    /* Optional, where fetch_limit > 0: names the temporary copies of this layer and step,
     * fetch[*count] with room for gpu_count * fetch_limit: at most fetch_limit for a GPU, each for
     * a GPU that holds no copy of the expert, none twice. The caller has their weights brought and
     * charged, and then calls split for the same layer with a view that has these copies too. */
    enum moe_status (*fetch)(void *state, const struct moe_dispatch_view *view,
                             struct moe_dispatch_fetch *fetch, uint32_t *count,
                             struct moe_error *err);
    /* Mandatory unless in_turn: quota[source GPU][copy], handed over zeroed. For every source and
     * expert the quotas of its copies sum to its demand (may_drop: to at most that), also where
     * there is one copy. No allocation. Called layer by layer, step by step. */
    enum moe_status (*split)(void *state, const struct moe_dispatch_view *view, uint32_t *quota,
                             struct moe_error *err);
};

/* --- predict ------------------------------------------------------------------------------- */

/* One prediction in the replay: the counts of (step, layer) as they are about to be. */
struct moe_predict_view {
    struct moe_placement_shape shape;
    uint64_t step;
    uint32_t layer;
    uint32_t lead_steps;    /* 1: the step before is the last known one */
    uint32_t lead_layers;   /* 1: the layer before, of this step, is known */
    const uint32_t *last;   /* [expert] this layer, lead_steps ago; NULL in the first steps */
    const uint32_t *before; /* [expert] the layer lead_layers before, this step; NULL when
                                 * there is none */
    const uint32_t *actual; /* [expert] the truth; for those that need the future */
    const double *parameters;
    uint64_t seed;
};

struct moe_predict_methods {
    /* The loads that a place policy is to plan on instead of the window's sums:
     * load[layer][expert], each from 0 to MOE_POLICY_LOAD_LIMIT. Optional, but one of window and
     * step is there. Reads planning->batches (or routes, ...), whatever needs says. */
    enum moe_status (*window)(const struct moe_place_view *planning, struct moe_arena *scratch,
                              double *load, struct moe_error *err);
    /* Optional, once per run; as for dispatch. */
    enum moe_status (*init)(const struct moe_place_view *planning, struct moe_arena *arena,
                            void **state, struct moe_error *err);
    /* Optional: predicted[expert] of one layer and step, handed over zeroed. No allocation. */
    enum moe_status (*step)(void *state, const struct moe_predict_view *view, float *predicted,
                            struct moe_error *err);
};

/* --- group --------------------------------------------------------------------------------- */

enum { MOE_GROUP_LOOKAHEAD_LIMIT = 256 };

struct moe_waiting_request {
    uint32_t request; /* its number in the trace */
    uint32_t prompt_tokens;
    uint32_t domain;      /* 0 .. ; as the trace labels it */
    uint32_t passed_over; /* how often a later one was preferred */
    uint64_t kv_tokens;   /* what it reserves */
    /* [layer][expert] counts of its prompt's routes, known because a prefill pool has read it;
     * NULL unless the policy needs routes. */
    const float *signature;
};

struct moe_group_view {
    struct moe_placement_shape shape;
    uint32_t waiting_count;                    /* 1 .. what init asked for */
    const struct moe_waiting_request *waiting; /* [waiting_count] in order of arrival */
    const uint32_t *free_seats;                /* [gpu] requests that may still join */
    const uint32_t *running;                   /* [gpu] */
    const uint64_t *kv_free_tokens;            /* [gpu] */
    const double *parameters;
    uint64_t seed;
};

/* Which waiting request joins which GPU. gpu = shape.gpu_count: none for now. */
struct moe_group_choice {
    uint32_t waiting;
    uint32_t gpu;
};

struct moe_group_methods {
    /* The engine offers requests to GPUs in turn; choose is then NULL. */
    bool in_turn;
    /* Optional, once per run. *lookahead: how many waiting requests choose is shown at most,
     * 1 .. MOE_GROUP_LOOKAHEAD_LIMIT, 1 when left alone. */
    enum moe_status (*init)(const struct moe_place_view *planning,
                            const struct moe_placement *placement, struct moe_arena *arena,
                            void **state, uint32_t *lookahead, struct moe_error *err);
    /* Mandatory unless in_turn. Called until it chooses none or nothing fits. The chosen GPU has
     * a free seat and the KV tokens. At an empty cluster it must choose. */
    enum moe_status (*choose)(void *state, const struct moe_group_view *view,
                              struct moe_group_choice *choice, struct moe_error *err);
};

/* ------------------------------------------------------------------------------------------- */

struct moe_policy {
    uint32_t abi;         /* MOE_POLICY_ABI */
    uint32_t struct_size; /* sizeof(struct moe_policy); these two are read before all else */
    const char *name;     /* [a-z0-9_]+, unique among the policies of a kind */
    const char *summary;  /* one line for `moesim policies` */
    const char *source;   /* paper, program or "own"; what it departs from */
    const char *tie_rule; /* how equal loads are decided */
    uint32_t needs;       /* enum moe_policy_need */
    bool numbered; /* its place answer depends on the numbers of experts beyond ties, so other
                    * numbers of the same experts may give another balance */
    bool budgeted; /* place keeps replica_budget_total; without it a view with one is refused */
    uint32_t parameter_count;
    const struct moe_policy_parameter *parameters; /* [parameter_count] */

    /* The kinds of decision it makes; at least one is not NULL. */

    /* Fills plan, which comes with view->shape and all slots empty. scratch is reset by the
     * caller afterwards. Errors: MOE_POLICY when the shape cannot be served (the text says why),
     * MOE_LIMIT when scratch is full. */
    enum moe_status (*place)(const struct moe_place_view *view, struct moe_arena *scratch,
                             struct moe_placement *plan, struct moe_error *err);
    const struct moe_dispatch_methods *dispatch;
    const struct moe_predict_methods *predict;
    const struct moe_group_methods *group;
};

/* The first two fields of every policy. */
#define MOE_POLICY_HEADER .abi = MOE_POLICY_ABI, .struct_size = sizeof(struct moe_policy)

/* parameters and their count, from an array. */
#define MOE_POLICY_PARAMETERS(array) \
    .parameter_count = sizeof(array) / sizeof(array)[0], .parameters = (array)

/* Defines the policy: for the registry, or as a plug-in whose one visible symbol is its door. */
#ifdef MOE_POLICY_PLUGIN
#define MOE_POLICY_DEFINE(name)                                                              \
    static const struct moe_policy moe_policy_##name;                                        \
    __attribute__((visibility("default"))) const struct moe_policy *moe_policy_plugin(void); \
    const struct moe_policy *moe_policy_plugin(void)                                         \
    {                                                                                        \
        return &moe_policy_##name;                                                           \
    }                                                                                        \
    static const struct moe_policy moe_policy_##name
#else
#define MOE_POLICY_DEFINE(name)                       \
    extern const struct moe_policy moe_policy_##name; \
    const struct moe_policy moe_policy_##name
#endif

/* Whether the policy makes that kind of decision. */
bool moe_policy_is(const struct moe_policy *policy, enum moe_policy_kind kind);

/* All registered policies, in registry order: policies[*count]. */
const struct moe_policy *const *moe_policy_list(size_t *count);

/* By kind and name. Errors: MOE_RANGE listing the names of that kind. */
enum moe_status moe_policy_find(enum moe_policy_kind kind, const char *name,
                                const struct moe_policy **out,
                                struct moe_error *err) MOE_MUST_CHECK;

/* Every parameter's default: values[parameter_count]. */
void moe_policy_defaults(const struct moe_policy *policy, double *values);

/* The name of one need ("batches") and what it means; need is one bit. */
const char *moe_policy_need_name(enum moe_policy_need need);
const char *moe_policy_need_text(enum moe_policy_need need);

/* Whether the table itself is sound: names, texts, parameters, at least one kind, methods there.
 * Errors: MOE_POLICY naming the field. */
enum moe_status moe_policy_check_table(const struct moe_policy *policy,
                                       struct moe_error *err) MOE_MUST_CHECK;

/* Checks the view (shape, what the policy needs, the loads), hides from the policy what it did
 * not ask for, runs policy->place and checks its plan; an error names the policy. Errors:
 * MOE_POLICY when the shape is impossible, a needed part is missing, a load lies outside its
 * range, or the plan lacks an expert or has more copies than the budget; what place returns.
 * *plan is of no use after an error. */
enum moe_status moe_policy_place(const struct moe_policy *policy, const struct moe_place_view *view,
                                 struct moe_arena *scratch, struct moe_placement *plan,
                                 struct moe_error *err) MOE_MUST_CHECK;

/* The same for a prediction of the window: load[layer][expert]. The policy has a window method
 * (asserted). */
enum moe_status moe_policy_predict_window(const struct moe_policy *policy,
                                          const struct moe_place_view *view,
                                          struct moe_arena *scratch, double *load,
                                          struct moe_error *err) MOE_MUST_CHECK;

/* Asks for the temporary copies of one layer: fetch[gpu_count * fetch_limit], *count of them; 0
 * from a policy without the method. Errors: MOE_POLICY naming policy, expert and GPU when a copy
 * may not be; what fetch returns. */
enum moe_status moe_policy_fetch(const struct moe_policy *policy, void *state,
                                 const struct moe_dispatch_view *view,
                                 struct moe_dispatch_fetch *fetch, uint32_t *count,
                                 struct moe_error *err) MOE_MUST_CHECK;

/* Splits one layer's demand: zeroes quota, runs the policy's split and holds it to the demand.
 * *dropped is what the quotas fall short (may_drop only). Errors: MOE_POLICY naming policy, source
 * GPU and expert when the quotas are wrong; what split returns. */
enum moe_status moe_policy_split(const struct moe_policy *policy, void *state,
                                 const struct moe_dispatch_view *view, uint32_t *quota,
                                 uint64_t *dropped, struct moe_error *err) MOE_MUST_CHECK;

/* Lets the policy choose; choice->gpu = shape.gpu_count when it takes none. Errors: MOE_POLICY
 * naming the policy when the choice does not exist or does not fit; what choose returns. */
enum moe_status moe_policy_choose(const struct moe_policy *policy, void *state,
                                  const struct moe_group_view *view,
                                  struct moe_group_choice *choice,
                                  struct moe_error *err) MOE_MUST_CHECK;

/* *shown is view with everything that the policy did not ask for taken away; values stands in
 * for NULL parameters and has room for MOE_POLICY_PARAMETER_LIMIT. Errors: MOE_POLICY naming
 * what is missing. For those who call init themselves. */
enum moe_status moe_policy_show(const struct moe_policy *policy, const struct moe_place_view *view,
                                struct moe_place_view *shown, double *values,
                                struct moe_error *err) MOE_MUST_CHECK;

#endif
