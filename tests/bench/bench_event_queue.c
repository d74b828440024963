/* Hold model: pop one, push one, with N pending. Prints ns per pair, best of 5.
 * Source: D. W. Jones, "An empirical comparison of priority-queue and event-set
 * implementations", CACM 29(4), 1986. */
#include <stdio.h>

#include "sim/base/wall_clock.h"
#include "sim/engine/event_queue.h"

int main(void)
{
    enum { PAIRS = 1000000 };
    for (size_t pending = 64; pending <= 65536; pending *= 4) {
        double best = 1e9;
        for (int repeat = 0; repeat < 5; repeat++) {
            struct moe_arena arena;
            struct moe_event_queue queue;
            struct moe_event event;
            uint64_t x = 88172645463325252u;
            if (moe_arena_init(&arena, 8 << 20, NULL) != MOE_OK ||
                moe_event_queue_init(&queue, &arena, pending + 1, NULL) != MOE_OK) {
                return 1;
            }
            double begin = 0.0;
            for (size_t i = 0; i < pending + PAIRS; i++) {
                x ^= x << 13, x ^= x >> 7, x ^= x << 17;
                if (i == pending) {
                    begin = moe_wall_clock_s();
                }
                if (i >= pending && !moe_event_queue_pop(&queue, &event)) {
                    return 1;
                }
                if (moe_event_queue_push(&queue, queue.now_ns + (moe_time_ns) (x % 1000000),
                                         MOE_EVENT_COMPUTE_DONE, 0, 0, NULL) != MOE_OK) {
                    return 1;
                }
            }
            const double ns = (moe_wall_clock_s() - begin) / PAIRS * 1e9;
            best = ns < best ? ns : best;
            moe_arena_finish(&arena);
        }
        (void) printf("pending %6zu  %6.1f ns\n", pending, best);
    }
    return 0;
}
