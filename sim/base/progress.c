#include "sim/base/progress.h"

#include <unistd.h>

#include "sim/base/wall_clock.h"

void moe_progress_begin(struct moe_progress *progress, FILE *stream, const char *what,
                        const char *unit, uint64_t first, uint64_t total)
{
    const bool terminal = stream != NULL && isatty(fileno(stream)) == 1;
    *progress = (struct moe_progress){
        .stream = terminal ? stream : NULL,
        .what = what,
        .unit = unit,
        .first = first,
        .total = total,
    };
    if (terminal) {
        progress->begin_s = moe_wall_clock_s();
        progress->shown_s = progress->begin_s + 0.25;
    }
}

void moe_progress_update(struct moe_progress *progress, uint64_t done)
{
    if (progress == NULL || progress->stream == NULL || progress->total == 0) {
        return;
    }
    const double now_s = moe_wall_clock_s();
    if (now_s - progress->shown_s < 0.25) {
        return;
    }
    progress->shown_s = now_s;
    progress->shown = true;
    const double rate = (double) (done - progress->first) / (now_s - progress->begin_s);
    const double left_s = rate > 0.0 ? (double) (progress->total - done) / rate : 0.0;
    const unsigned long left = (unsigned long) (left_s + 0.5);
    /* \r and "erase to the end of the line": the line is rewritten in place. */
    (void) fprintf(progress->stream,
                   "\r%s: %5.1f %% of %llu %s, %.3g %s/s, %lu:%02lu:%02lu left\x1b[K",
                   progress->what, 100.0 * (double) done / (double) progress->total,
                   (unsigned long long) progress->total, progress->unit, rate, progress->unit,
                   left / 3600, left / 60 % 60, left % 60);
    (void) fflush(progress->stream);
}

void moe_progress_end(struct moe_progress *progress)
{
    if (progress != NULL && progress->shown) {
        (void) fputs("\r\x1b[K", progress->stream);
        (void) fflush(progress->stream);
        progress->shown = false;
    }
}
