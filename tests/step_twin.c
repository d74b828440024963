#include "tests/step_twin.h"

#include <assert.h>
#include <string.h>

static int64_t round_up(double ns)
{
    int64_t whole = (int64_t) ns;
    if ((double) whole < ns) {
        whole++;
    }
    return whole;
}

/* Dense layers before MoE layer l: all before the first when they are fewer, else of D spread
 * over L those from l*D/L to (l+1)*D/L. */
static double dense_before(const struct step_twin *step, uint32_t layer)
{
    if (step->dense_layers < step->layers) {
        return layer == 0 ? step->dense_layers : 0;
    }
    const uint32_t begin = layer * step->dense_layers / step->layers;
    const uint32_t end = (layer + 1) * step->dense_layers / step->layers;
    return end - begin;
}

/* A stretch's price on every GPU, from its parts, each of which may be scaled. */
struct prices {
    double real[TWIN_GPUS];
    double nominal[TWIN_GPUS];
};

static struct prices before_prices(const struct step_twin *step, uint32_t layer,
                                   const double *scale)
{
    struct prices out;
    const double dense = dense_before(step, layer);
    for (uint32_t g = 0; g < step->gpus; g++) {
        const struct twin_price *p = step->own[g];
        const double a = scale[TWIN_ATTENTION];
        const double d = scale[TWIN_DENSE];
        const double t = scale[TWIN_GATE];
        out.real[g] = p[TWIN_ATTENTION].real * a * (1 + dense) + p[TWIN_DENSE].real * d * dense +
                      p[TWIN_GATE].real * t;
        out.nominal[g] = p[TWIN_ATTENTION].nominal * a * (1 + dense) +
                         p[TWIN_DENSE].nominal * d * dense + p[TWIN_GATE].nominal * t;
    }
    return out;
}

static struct prices after_prices(const struct step_twin *step, const double *scale)
{
    struct prices out;
    for (uint32_t g = 0; g < step->gpus; g++) {
        const struct twin_price *p = step->own[g];
        out.real[g] = p[TWIN_HEAD].real * scale[TWIN_HEAD] + p[TWIN_HOST].real * scale[TWIN_HOST];
        out.nominal[g] =
            p[TWIN_HEAD].nominal * scale[TWIN_HEAD] + p[TWIN_HOST].nominal * scale[TWIN_HOST];
    }
    return out;
}

static struct prices part_prices(const struct step_twin *step, uint32_t layer, enum twin_part part,
                                 const double *scale)
{
    struct prices out;
    for (uint32_t g = 0; g < step->gpus; g++) {
        const struct twin_price p =
            part == TWIN_SHARED ? step->own[g][part] : step->moe[layer][g][part];
        out.real[g] = p.real * scale[part];
        out.nominal[g] = p.nominal * scale[part];
    }
    return out;
}

/* One stretch under a subset of causes; own is the bit of the stretch's own cause. */
static void durations(const struct step_twin *step, const struct prices *price,
                      const double *jitter, uint32_t own, uint32_t subset, int64_t *out)
{
    const bool hardware = (subset >> TWIN_BY_HARDWARE & 1) != 0;
    const bool noisy = (subset >> TWIN_BY_JITTER & 1) != 0;
    const bool uneven = (subset >> own & 1) != 0;
    double sum = 0;
    for (uint32_t g = 0; g < step->gpus; g++) {
        sum += price->nominal[g];
    }
    for (uint32_t g = 0; g < step->gpus; g++) {
        double ns = uneven ? price->nominal[g] : sum / step->gpus;
        if (hardware && uneven) {
            ns = price->real[g];
        } else if (hardware && price->nominal[g] > 0) {
            ns *= price->real[g] / price->nominal[g];
        }
        out[g] = round_up(noisy ? ns * jitter[g] : ns);
    }
}

static void all_times(const struct step_twin *step, uint32_t subset, const double *scale,
                      struct twin_times *times)
{
    for (uint32_t l = 0; l < step->layers; l++) {
        const double(*jitter)[TWIN_GPUS] = step->jitter[l];
        struct prices price = before_prices(step, l, scale);
        durations(step, &price, jitter[TWIN_BEFORE], TWIN_BY_BATCH, subset, times->before[l]);
        price = part_prices(step, l, TWIN_SHARED, scale);
        durations(step, &price, jitter[TWIN_BEFORE], TWIN_BY_BATCH, subset, times->shared[l]);
        price = part_prices(step, l, TWIN_DISPATCH, scale);
        durations(step, &price, jitter[TWIN_OUT], TWIN_BY_COMM, subset, times->out[l]);
        price = part_prices(step, l, TWIN_EXPERT, scale);
        durations(step, &price, jitter[TWIN_FFN], TWIN_BY_ROUTING, subset, times->ffn[l]);
        price = part_prices(step, l, TWIN_COMBINE, scale);
        durations(step, &price, jitter[TWIN_BACK], TWIN_BY_COMM, subset, times->back[l]);
    }
    const struct prices price = after_prices(step, scale);
    durations(step, &price, step->jitter[step->layers][TWIN_BEFORE], TWIN_BY_BATCH, subset,
              times->after);
}

void step_twin_times(const struct step_twin *step, uint32_t subset, struct twin_times *times)
{
    static const double one[TWIN_PARTS] = { 1, 1, 1, 1, 1, 1, 1, 1, 1 };
    all_times(step, subset, one, times);
}

void step_twin_scaled(const struct step_twin *step, enum twin_part part, double scale,
                      struct twin_times *times)
{
    double factor[TWIN_PARTS] = { 1, 1, 1, 1, 1, 1, 1, 1, 1 };
    factor[part] = scale;
    all_times(step, TWIN_SUBSETS - 1, factor, times);
}

static struct twin_barrier barrier_of(const int64_t *arrive, uint32_t gpus)
{
    struct twin_barrier b = { arrive[0], 0, 0, 0 };
    for (uint32_t g = 0; g < gpus; g++) {
        if (arrive[g] > b.open) {
            b.open = arrive[g];
            b.last = g;
        }
    }
    int64_t second = -1;
    for (uint32_t g = 0; g < gpus; g++) {
        b.idle += b.open - arrive[g];
        if (g != b.last && arrive[g] > second) {
            second = arrive[g];
        }
    }
    b.lead = gpus == 1 ? 0 : b.open - second;
    return b;
}

/* The rank whose exit from a collective rank g waits for: the first longest one when all
 * leave together, else g. */
static uint32_t leaves_with(const struct step_twin *step, const int64_t *duration, uint32_t g)
{
    uint32_t longest = 0;
    for (uint32_t other = 1; other < step->gpus; other++) {
        longest = duration[other] > duration[longest] ? other : longest;
    }
    return step->common_exit ? longest : g;
}

static void add(int64_t path[TWIN_PARTS][TWIN_SOURCES], enum twin_part part,
                struct twin_price price, int64_t ns)
{
    path[part][price.source] += ns;
}

/* before of one rank: dense and gate in proportion, rounded down; the rest is attention. */
static void add_before(const struct step_twin *step, uint32_t layer, uint32_t g, int64_t ns,
                       int64_t path[TWIN_PARTS][TWIN_SOURCES])
{
    static const double one[TWIN_PARTS] = { 1, 1, 1, 1, 1, 1, 1, 1, 1 };
    const struct twin_price *p = step->own[g];
    const double whole = before_prices(step, layer, one).real[g];
    int64_t dense = 0;
    int64_t gate = 0;
    if (whole > 0) {
        dense = (int64_t) ((double) ns * (p[TWIN_DENSE].real * dense_before(step, layer)) / whole);
        gate = (int64_t) ((double) ns * p[TWIN_GATE].real / whole);
    }
    add(path, TWIN_DENSE, p[TWIN_DENSE], dense);
    add(path, TWIN_GATE, p[TWIN_GATE], gate);
    add(path, TWIN_ATTENTION, p[TWIN_ATTENTION], ns - dense - gate);
}

static void walk_back(const struct step_twin *step, const struct twin_times *times,
                      struct twin_played *played)
{
    uint32_t rank = played->barrier[(size_t) 2 * step->layers].last;
    int64_t host = round_up(step->own[rank][TWIN_HOST].real);
    host = host < times->after[rank] ? host : times->after[rank];
    add(played->path, TWIN_HOST, step->own[rank][TWIN_HOST], host);
    add(played->path, TWIN_HEAD, step->own[rank][TWIN_HEAD], times->after[rank] - host);
    for (uint32_t l = step->layers; l-- > 0;) {
        const uint32_t back = leaves_with(step, times->back[l], rank);
        add(played->path, TWIN_COMBINE, step->moe[l][back][TWIN_COMBINE], times->back[l][back]);
        rank = played->barrier[(size_t) 2 * l + 1].last;
        add(played->path, TWIN_EXPERT, step->moe[l][rank][TWIN_EXPERT], times->ffn[l][rank]);
        const uint32_t out = leaves_with(step, times->out[l], rank);
        const int64_t data = played->barrier[(size_t) 2 * l].open + times->out[l][out];
        const int64_t begun = played->barrier[(size_t) 2 * l + 1].open - times->ffn[l][rank];
        if (!step->serial && begun > data) {
            add(played->path, TWIN_SHARED, step->own[rank][TWIN_SHARED], times->shared[l][rank]);
        } else {
            add(played->path, TWIN_SHARED, step->own[rank][TWIN_SHARED], begun - data);
            add(played->path, TWIN_DISPATCH, step->moe[l][out][TWIN_DISPATCH], times->out[l][out]);
            rank = played->barrier[(size_t) 2 * l].last;
        }
        add_before(step, l, rank, times->before[l][rank], played->path);
    }
}

void step_twin_play(const struct step_twin *step, const struct twin_times *times,
                    struct twin_played *played)
{
    int64_t clock[TWIN_GPUS] = { 0 };
    assert(step->gpus > 0);
    memset(played, 0, sizeof *played);
    for (uint32_t l = 0; l < step->layers; l++) {
        int64_t arrive[TWIN_GPUS] = { 0 };
        int64_t finish[TWIN_GPUS] = { 0 };
        for (uint32_t g = 0; g < step->gpus; g++) {
            arrive[g] = clock[g] + times->before[l][g];
        }
        played->barrier[(size_t) 2 * l] = barrier_of(arrive, step->gpus);
        for (uint32_t g = 0; g < step->gpus; g++) {
            const uint32_t with = leaves_with(step, times->out[l], g);
            const int64_t data = played->barrier[(size_t) 2 * l].open + times->out[l][with];
            const int64_t beside = arrive[g] + times->shared[l][g];
            const int64_t begin = step->serial    ? data + times->shared[l][g]
                                  : beside > data ? beside
                                                  : data;
            finish[g] = begin + times->ffn[l][g];
        }
        played->barrier[(size_t) 2 * l + 1] = barrier_of(finish, step->gpus);
        for (uint32_t g = 0; g < step->gpus; g++) {
            const uint32_t with = leaves_with(step, times->back[l], g);
            clock[g] = played->barrier[(size_t) 2 * l + 1].open + times->back[l][with];
        }
    }
    for (uint32_t g = 0; g < step->gpus; g++) {
        clock[g] += times->after[g];
    }
    played->barrier[(size_t) 2 * step->layers] = barrier_of(clock, step->gpus);
    played->length = played->barrier[(size_t) 2 * step->layers].open;
    for (uint32_t b = 0; b <= 2 * step->layers; b++) {
        played->idle += played->barrier[b].idle;
    }
    walk_back(step, times, played);
}

/* All 120 orders, one after the other. */
static void add_orders(const int64_t *idle, uint32_t on, uint32_t *order, uint32_t placed,
                       int64_t *sum)
{
    if (placed == TWIN_CAUSES) {
        uint32_t subset = 0;
        for (uint32_t i = 0; i < TWIN_CAUSES; i++) {
            const uint32_t with = subset | 1u << order[i];
            sum[order[i]] += idle[with] - idle[subset];
            subset = with;
        }
        return;
    }
    for (uint32_t c = 0; c < TWIN_CAUSES; c++) {
        if ((on >> c & 1) == 0) {
            order[placed] = c;
            add_orders(idle, on | 1u << c, order, placed + 1, sum);
        }
    }
}

void step_twin_split(const int64_t idle[TWIN_SUBSETS], int64_t parts[TWIN_CAUSES])
{
    int64_t sum[TWIN_CAUSES] = { 0 };
    int64_t rest[TWIN_CAUSES];
    uint32_t order[TWIN_CAUSES];
    int64_t left = idle[TWIN_SUBSETS - 1] - idle[0];
    add_orders(idle, 0, order, 0, sum);
    for (uint32_t c = 0; c < TWIN_CAUSES; c++) {
        rest[c] = ((sum[c] % 120) + 120) % 120;
        parts[c] = (sum[c] - rest[c]) / 120;
        left -= parts[c];
    }
    while (left-- > 0) {
        uint32_t best = 0;
        for (uint32_t c = 1; c < TWIN_CAUSES; c++) {
            best = rest[c] > rest[best] ? c : best;
        }
        parts[best]++;
        rest[best] = -1;
    }
}
