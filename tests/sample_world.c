/* sample_world FILE [plain|switch|slow|second]: writes made-up samples for the script tests. */
#include <stdio.h>
#include <string.h>

#include "tests/sample_fixture.h"

int main(int argc, char **argv)
{
    struct sample_world world = sample_world_plain(1);
    const char *kind = argc > 2 ? argv[2] : "plain";
    if (argc < 2) {
        (void) fputs("usage: sample_world FILE [plain|switch|slow|second]\n", stderr);
        return 2;
    }
    world.gpu_count = 2;
    world.slow_gpu = 2;
    if (strcmp(kind, "switch") == 0) {
        world.kernel_switch = true;
    } else if (strcmp(kind, "slow") == 0) {
        world.slow_gpu = 1;
        world.slow_factor = 1.08;
    } else if (strcmp(kind, "second") == 0) {
        world.seed = 2;
        world.started_at = "2026-02-02T00:00:00Z";
        world.driver = "590.2";
    }
    sample_world_write(&world, argv[1]);
    return 0;
}
