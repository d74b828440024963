/* Started by mpirun as several processes: hosts, ranks, the exchange of an id, and errors of one
 * that all must hear of. Plain program: exit code 0 when all is right. */
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "calibrate/collective/bootstrap.h"

static void require(int good, const struct moe_bootstrap *boot, const char *what)
{
    if (!good) {
        (void) fprintf(stderr, "process %u of %u: %s\n", (unsigned) boot->process,
                       (unsigned) boot->process_count, what);
        abort();
    }
}

int main(int argc, char **argv)
{
    struct moe_error err = { 0 };
    struct moe_bootstrap boot = { 0 };
    char id[128] = "not mine";
    uint32_t all[64] = { 0 };
    uint32_t first = 9;
    uint32_t count = 0;
    const uint32_t wanted = argc > 1 ? (uint32_t) strtoul(argv[1], NULL, 10) : 1;
    require(moe_bootstrap_start(&boot, &err) == MOE_OK, &boot, err.text);
    require(boot.process_count == wanted && wanted <= 64, &boot, "a wrong number of processes");
    require(boot.host_count == 1 && boot.host == 0, &boot, "a host too many");
    require(boot.local == boot.process && boot.local_count == wanted, &boot, "not all are local");
    if (boot.process == 0) {
        (void) snprintf(id, sizeof id, "the id of process 0");
    }
    require(moe_bootstrap_broadcast(&boot, id, sizeof id, &err) == MOE_OK, &boot, err.text);
    require(strcmp(id, "the id of process 0") == 0, &boot, "another id");
    const uint32_t mine = 100 + boot.process;
    require(moe_bootstrap_gather(&boot, &mine, sizeof mine, all, &err) == MOE_OK, &boot, err.text);
    for (uint32_t i = 0; i < wanted; i++) {
        require(all[i] == 100 + i, &boot, "a wrong place in what was gathered");
    }
    /* One GPU fewer than processes: the last has none, and all hear it from that one. */
    enum moe_status status = MOE_OK;
    if (wanted > 1) {
        status = moe_bootstrap_share(&boot, wanted - 1, &first, &count, &err);
        require((status == MOE_RANGE) == (boot.process == wanted - 1), &boot, "a wrong share");
        status = moe_bootstrap_agree(&boot, status, &err);
        require(status == MOE_RANGE && strstr(err.text, "has no GPU: there") != NULL, &boot,
                err.text);
    }
    require(moe_bootstrap_agree(&boot, MOE_OK, &err) == MOE_OK, &boot, "no agreement");
    moe_bootstrap_end(&boot);
    if (boot.process == 0) {
        (void) printf("%u processes agree\n", (unsigned) wanted);
    }
    return 0;
}
