#include "sim/calibration/sample_plot.h"

#include <assert.h>
#include <math.h>
#include <string.h>

struct canvas {
    char *cells; /* [height][width] */
    uint32_t width;
    uint32_t height;
    double x_low; /* logs */
    double x_high;
    double y_low;
    double y_high;
};

struct subject {
    const struct moe_sample_fit *fit;
    uint32_t series;
    uint32_t active;
    bool by_bytes;
};

static enum moe_status find_series(const struct moe_evidence *evidence, const char *name,
                                   uint32_t *out, struct moe_error *err)
{
    char names[300] = "";
    size_t used = 0;
    for (uint32_t i = 0; i < evidence->series_count; i++) {
        if (strcmp(evidence->series[i].name, name) == 0) {
            *out = i;
            return MOE_OK;
        }
        if (used + strlen(evidence->series[i].name) + 2 < sizeof names) {
            used += (size_t) snprintf(names + used, sizeof names - used, " %s",
                                      evidence->series[i].name);
        }
    }
    return moe_fail(err, MOE_RANGE, "%s: no series '%.60s'; there are:%s%s", evidence->name, name,
                    names, used > 200 ? " ..." : "");
}

static double abscissa(const struct subject *subject, uint32_t point)
{
    const struct moe_fitter *fitter = &subject->fit->fitter;
    return subject->by_bytes ? moe_fitter_busiest(fitter, point)
                             : fitter->evidence->points[point].tokens;
}

static bool is_shown(const struct subject *subject, uint32_t point)
{
    const struct moe_fitter *fitter = &subject->fit->fitter;
    const struct moe_evidence_point *row = &fitter->evidence->points[point];
    return row->series == subject->series && row->role != MOE_EVIDENCE_SUSTAINED &&
           row->role != MOE_EVIDENCE_BURST &&
           (subject->active == 0 || row->active == subject->active) &&
           fitter->seen.first[point] < fitter->seen.first[point + 1] &&
           abscissa(subject, point) > 0.0;
}

/* The count of active experts with the most points; 0 for what has no experts. */
static uint32_t busiest_active(const struct moe_evidence *evidence, uint32_t series)
{
    uint32_t best = 0;
    uint32_t most = 0;
    for (uint32_t p = 0; p < evidence->point_count; p++) {
        uint32_t count = 0;
        if (evidence->points[p].series != series) {
            continue;
        }
        for (uint32_t q = 0; q < evidence->point_count; q++) {
            count += evidence->points[q].series == series &&
                             evidence->points[q].active == evidence->points[p].active
                         ? 1
                         : 0;
        }
        if (count > most) {
            most = count;
            best = evidence->points[p].active;
        }
    }
    return best;
}

static void put(const struct canvas *canvas, double x, double y, char mark)
{
    const double column = (x - canvas->x_low) / (canvas->x_high - canvas->x_low);
    const double row = (y - canvas->y_low) / (canvas->y_high - canvas->y_low);
    if (column < 0.0 || column > 1.0 || row < 0.0 || row > 1.0) {
        return;
    }
    const uint32_t i = (uint32_t) lround(column * (canvas->width - 1));
    const uint32_t k = canvas->height - 1 - (uint32_t) lround(row * (canvas->height - 1));
    char *cell = &canvas->cells[(size_t) k * canvas->width + i];
    /* Points over the line, held-out ones over all. */
    if (mark == 'x' || *cell == ' ' || (*cell == '.' && mark != '.')) {
        *cell = mark;
    }
}

/* What the tables say at x on a GPU like the others; false where they do not. */
static bool line_at(const struct subject *subject, double x, double *ns)
{
    const struct moe_fitter *fitter = &subject->fit->fitter;
    const uint32_t shape_index = fitter->shape_of[subject->series];
    const uint32_t exchange_index = fitter->exchange_of[subject->series];
    if (shape_index != MOE_FITTER_NONE && fitter->shapes[shape_index].shape.count > 0) {
        const struct moe_fitter_shape *shape = &fitter->shapes[shape_index];
        const struct moe_shape_work work = {
            .tokens = x * subject->active,
            .active = subject->active,
            .tiles = subject->active * ceil(x / shape->fit.tile_tokens),
            .fullest = ceil(x),
        };
        *ns = moe_shape_ns(&shape->curve, &shape->shape, &work, 1.0, 1.0);
        return true;
    }
    if (exchange_index != MOE_FITTER_NONE && fitter->exchanges[exchange_index].fitted > 0) {
        *ns = moe_segment_fit_ns(&fitter->exchanges[exchange_index].fit, x);
        return true;
    }
    return false;
}

static void draw_line(const struct canvas *canvas, const struct subject *subject)
{
    const uint32_t steps = 2 * canvas->width;
    for (uint32_t i = 0; i <= steps; i++) {
        const double x = canvas->x_low + (canvas->x_high - canvas->x_low) * i / steps;
        double ns = 0.0;
        if (line_at(subject, exp(x), &ns)) {
            put(canvas, x, log(ns), '.');
        }
    }
}

static void draw_points(const struct canvas *canvas, const struct subject *subject)
{
    const struct moe_fitter *fitter = &subject->fit->fitter;
    for (uint32_t p = 0; p < fitter->evidence->point_count; p++) {
        if (!is_shown(subject, p)) {
            continue;
        }
        const enum moe_evidence_role role = fitter->evidence->points[p].role;
        char mark = 'o';
        if (role == MOE_EVIDENCE_HELDOUT) {
            mark = 'x';
        } else if (role == MOE_EVIDENCE_SKEW) {
            mark = 's';
        }
        for (uint32_t i = fitter->seen.first[p]; i < fitter->seen.first[p + 1]; i++) {
            put(canvas, log(abscissa(subject, p)), fitter->seen.items[i].log_ns, mark);
        }
    }
}

static uint32_t find_range(struct canvas *canvas, const struct subject *subject)
{
    const struct moe_fitter *fitter = &subject->fit->fitter;
    uint32_t shown = 0;
    canvas->x_low = canvas->y_low = INFINITY;
    canvas->x_high = canvas->y_high = -INFINITY;
    for (uint32_t p = 0; p < fitter->evidence->point_count; p++) {
        if (!is_shown(subject, p)) {
            continue;
        }
        shown++;
        canvas->x_low = fmin(canvas->x_low, log(abscissa(subject, p)));
        canvas->x_high = fmax(canvas->x_high, log(abscissa(subject, p)));
        for (uint32_t i = fitter->seen.first[p]; i < fitter->seen.first[p + 1]; i++) {
            canvas->y_low = fmin(canvas->y_low, fitter->seen.items[i].log_ns);
            canvas->y_high = fmax(canvas->y_high, fitter->seen.items[i].log_ns);
        }
    }
    canvas->x_high = fmax(canvas->x_high, canvas->x_low + 0.1);
    canvas->y_high = fmax(canvas->y_high, canvas->y_low + 0.1);
    return shown;
}

static void print_canvas(const struct canvas *canvas, const struct subject *subject, FILE *out)
{
    const struct moe_evidence *evidence = subject->fit->fitter.evidence;
    (void) fprintf(out, "%s", evidence->series[subject->series].name);
    if (subject->active > 1) {
        (void) fprintf(out, ", %u active", subject->active);
    }
    (void) fprintf(out, "   o fitted  x held out  s uneven  . tables\n");
    for (uint32_t k = 0; k < canvas->height; k++) {
        const double y =
            canvas->y_high - (canvas->y_high - canvas->y_low) * k / (canvas->height - 1);
        if (k % 4 == 0 || k + 1 == canvas->height) {
            (void) fprintf(out, "%9.1f us |", exp(y) * 1e-3);
        } else {
            (void) fprintf(out, "%12s |", "");
        }
        (void) fprintf(out, "%.*s\n", (int) canvas->width,
                       canvas->cells + (size_t) k * canvas->width);
    }
    (void) fprintf(out, "%12s +", "");
    for (uint32_t i = 0; i < canvas->width; i++) {
        (void) fputc('-', out);
    }
    (void) fprintf(out, "\n%14s%-12g%*s%12g %s\n", "", exp(canvas->x_low), (int) canvas->width - 24,
                   "", exp(canvas->x_high), subject->by_bytes ? "bytes" : "tokens");
}

enum moe_status moe_sample_plot(const struct moe_sample_fit *fit, const char *series,
                                uint32_t active, uint32_t width, uint32_t height, FILE *out,
                                struct moe_error *err)
{
    const struct moe_evidence *evidence = fit->fitter.evidence;
    struct subject subject = { .fit = fit };
    struct canvas canvas = { .width = width, .height = height };
    assert(width >= 20 && height >= 5);
    MOE_TRY(find_series(evidence, series, &subject.series, err));
    const enum moe_evidence_kind kind = evidence->series[subject.series].kind;
    subject.by_bytes = moe_evidence_is_collective(kind) || kind == MOE_EVIDENCE_HOST_TO_DEVICE;
    subject.active = subject.by_bytes ? 0
                     : active != 0    ? active
                                      : busiest_active(evidence, subject.series);
    canvas.cells = MOE_NEW(fit->fitter.arena, char, (size_t) width *height);
    if (canvas.cells == NULL) {
        return moe_fail(err, MOE_LIMIT, "no memory for a plot of %u x %u", width, height);
    }
    memset(canvas.cells, ' ', (size_t) width * height);
    if (find_range(&canvas, &subject) == 0) {
        return moe_fail(err, MOE_RANGE, "%s: %s has no points with %u active", evidence->name,
                        series, subject.active);
    }
    draw_line(&canvas, &subject);
    draw_points(&canvas, &subject);
    print_canvas(&canvas, &subject, out);
    return MOE_OK;
}
