#include "sim/base/wall_clock.h"

#include <time.h>

double moe_wall_clock_s(void)
{
    struct timespec now;
    (void) clock_gettime(CLOCK_MONOTONIC, &now);
    return (double) now.tv_sec + (double) now.tv_nsec * 1e-9;
}
