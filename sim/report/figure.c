#include "sim/report/figure.h"

#include <inttypes.h>
#include <math.h>
#include <stdbool.h>
#include <stdio.h>
#include <string.h>

/* digits, which may have a sign before and a fraction behind, with commas put in. */
static struct moe_figure group(const char *digits)
{
    struct moe_figure out = { "" };
    const char *p = digits;
    size_t used = 0;
    if (*p == '-' || *p == '+') {
        out.text[used++] = *p++;
    }
    size_t left = strspn(p, "0123456789");
    for (; *p != '\0' && used + 2 < sizeof out.text; p++) {
        out.text[used++] = *p;
        if (left > 0) {
            left--;
            if (left > 0 && left % 3 == 0) {
                out.text[used++] = ',';
            }
        }
    }
    out.text[used] = '\0';
    return out;
}

struct moe_figure moe_figure_count(uint64_t value)
{
    char digits[32];
    (void) snprintf(digits, sizeof digits, "%" PRIu64, value);
    return group(digits);
}

struct moe_figure moe_figure_signed(int64_t value)
{
    char digits[32];
    (void) snprintf(digits, sizeof digits, "%" PRId64, value);
    return group(digits);
}

struct moe_figure moe_figure_fixed(double value, int places)
{
    char digits[40];
    if (!isfinite(value) || fabs(value) > 1e18) {
        return (struct moe_figure){ "-" };
    }
    (void) snprintf(digits, sizeof digits, "%.*f", places, value);
    return group(digits);
}

int moe_figure_places(double value)
{
    const double size = fabs(value);
    return size >= 1000.0 ? 0 : size >= 100.0 ? 1 : size >= 10.0 ? 2 : 3;
}

struct moe_figure moe_figure_real(double value)
{
    return moe_figure_fixed(value, moe_figure_places(value));
}

struct moe_figure moe_figure_half(struct moe_estimate estimate, int places)
{
    struct moe_figure out = { "" };
    if (isfinite(estimate.half)) {
        (void) snprintf(out.text, sizeof out.text, "± %.40s",
                        moe_figure_fixed(estimate.half, places).text);
    }
    return out;
}

struct moe_figure moe_figure_share(double share)
{
    struct moe_figure out = { "-" };
    if (isfinite(share)) {
        const bool tiny = share > 0.0 && share < 0.0005;
        (void) snprintf(out.text, sizeof out.text, tiny ? "<0.1 %%" : "%.1f %%", 100.0 * share);
    }
    return out;
}

struct moe_figure moe_figure_change(double ratio)
{
    struct moe_figure out = { "-" };
    if (isfinite(ratio)) {
        char digits[40];
        (void) snprintf(digits, sizeof digits, "%+.1f", 100.0 * (ratio - 1.0));
        (void) snprintf(out.text, sizeof out.text, "%.44s %%", group(digits).text);
    }
    return out;
}

struct moe_figure moe_figure_gigabytes(double bytes)
{
    return moe_figure_fixed(bytes / 1e9, 1);
}

struct moe_figure moe_figure_hash(uint64_t hash)
{
    struct moe_figure out = { "" };
    (void) snprintf(out.text, sizeof out.text, "%016" PRIx64, hash);
    return out;
}

size_t moe_figure_width(const char *text)
{
    size_t width = 0;
    for (; *text != '\0'; text++) {
        width += ((unsigned char) *text & 0xc0) != 0x80; /* all but continuation bytes */
    }
    return width;
}
