#include "sim/arrival/arrival_gap.h"

#include <assert.h>
#include <math.h>

#include "sim/base/random.h"
#include "sim/cost/logarithm.h"

#include "sim/base/no_malloc.h"

static const double ln2 = 0.69314718055994531;

static double natural_log(double x)
{
    return moe_log2(x) * ln2;
}

/* x^y; 0 where it is too small to matter to a gap. */
static double power(double x, double y)
{
    const double exponent = moe_log2(x) * y;
    return exponent < -1000.0 ? 0.0 : moe_exp2(exponent);
}

/* ln Gamma(x) for x >= 1: Stirling's series after shifting x to 12 or more; off by < 1e-13. */
static double log_gamma(double x)
{
    double product = 1.0;
    while (x < 12.0) {
        product *= x;
        x += 1.0;
    }
    const double r = 1.0 / x;
    const double r2 = r * r;
    const double series =
        r * (1.0 / 12 - r2 * (1.0 / 360 - r2 * (1.0 / 1260 - r2 * (1.0 / 1680 - r2 / 1188))));
    return (x - 0.5) * natural_log(x) - x + 0.91893853320467274 + series - natural_log(product);
}

/* Weibull's squared coefficient of variation, falling in the shape k. */
static double weibull_cv2(double k)
{
    return moe_exp2((log_gamma(1.0 + 2.0 / k) - 2.0 * log_gamma(1.0 + 1.0 / k)) / ln2) - 1.0;
}

static struct moe_gap_family weibull_of(double cv)
{
    double low = 0.1;  /* cv 429 */
    double high = 64.; /* cv 0.02 */
    for (int i = 0; i < 60; i++) {
        const double middle = 0.5 * (low + high);
        if (weibull_cv2(middle) > cv * cv) {
            low = middle;
        } else {
            high = middle;
        }
    }
    return (struct moe_gap_family){
        .kind = MOE_ARRIVAL_WEIBULL,
        .shape = high,
        .scale = moe_exp2(-log_gamma(1.0 + 1.0 / high) / ln2),
    };
}

struct moe_gap_family moe_gap_family_of(enum moe_arrival_kind kind, double cv)
{
    assert(cv >= 0.05);
    assert(cv <= 20.0);
    if (kind == MOE_ARRIVAL_WEIBULL) {
        return weibull_of(cv);
    }
    return (struct moe_gap_family){ .kind = kind, .shape = 1.0 / (cv * cv), .scale = cv * cv };
}

double moe_gap_exponential(uint64_t key, uint64_t counter)
{
    return -natural_log(moe_random_inside(key, counter));
}

/* From two counters on: pairs until one lies inside the unit circle (each does with 0.785). */
static double normal_from(uint64_t key, uint64_t counter, uint64_t *used)
{
    for (uint64_t i = 0;; i += 2) {
        const double x = 2.0 * moe_random_inside(key, counter + i) - 1.0;
        const double y = 2.0 * moe_random_inside(key, counter + i + 1) - 1.0;
        const double s = x * x + y * y;
        if (s < 1.0 && s > 0x1p-500) {
            *used = i + 2;
            return x * sqrt(-2.0 * natural_log(s) / s);
        }
    }
}

double moe_gap_normal(uint64_t key, uint64_t n)
{
    uint64_t used = 0;
    return normal_from(key, n * MOE_GAP_DRAWS, &used);
}

static double gamma_from(double shape, uint64_t key, uint64_t counter)
{
    const double boost = shape < 1.0 ? power(moe_random_inside(key, counter), 1.0 / shape) : 1.0;
    const double d = (shape < 1.0 ? shape + 1.0 : shape) - 1.0 / 3.0;
    const double c = 1.0 / sqrt(9.0 * d);
    for (counter++;;) {
        uint64_t used = 0;
        const double x = normal_from(key, counter, &used);
        const double u = moe_random_inside(key, counter + used);
        const double w = 1.0 + c * x;
        const double v = w * w * w;
        counter += used + 1;
        if (v > 0.0 && natural_log(u) < 0.5 * x * x + d - d * v + d * natural_log(v)) {
            return boost * d * v;
        }
    }
}

double moe_gap_draw(const struct moe_gap_family *family, uint64_t key, uint64_t n)
{
    const uint64_t counter = n * MOE_GAP_DRAWS;
    const double least = 0x1p-100; /* a gap is positive, if short beyond measure */
    double gap = 0.0;
    if (family->kind == MOE_ARRIVAL_GAMMA) {
        gap = family->scale * gamma_from(family->shape, key, counter);
    } else if (family->kind == MOE_ARRIVAL_WEIBULL) {
        gap = family->scale * power(moe_gap_exponential(key, counter), 1.0 / family->shape);
    } else {
        gap = moe_gap_exponential(key, counter);
    }
    return gap < least ? least : gap;
}

uint32_t moe_length_draw(double mean, double cv, uint32_t longest, uint64_t key, uint64_t n)
{
    double length = mean;
    if (cv > 0.0) {
        const double variance = natural_log(1.0 + cv * cv);
        const double exponent =
            natural_log(mean) - 0.5 * variance + sqrt(variance) * moe_gap_normal(key, n);
        length = moe_exp2(exponent / ln2);
    }
    length = floor(length + 0.5);
    return length < 1.0 ? 1 : length > longest ? longest : (uint32_t) length;
}
