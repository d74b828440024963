/*
 * Fetch options: the keys under `fetch:` of a scenario: where dispatch policies that fetch
 * temporary copies of experts put them, and what of their way is hidden. Other policies pass them
 * over.
 *
 * Published choices:
 *   slots    UltraEP's tests and launch scripts reserve 2 on each rank, used by all layers one
 *            after the other (arXiv 2606.04101; github Dots-Infra/UltraEP); LLEP and HarMoEny name
 *            no number
 *   overlap  0: UltraEP knows what to fetch after the gate only, so the whole way lies on the
 *            critical path; HarMoEny loads beside attention and the experts that are there (arXiv
 *            2506.12417), which its authors find to hide nearly all: towards 1
 *   relay    UltraEP streams an expert through some of those who get it where many do; LLEP sends
 *            each from its owner
 */
#ifndef MOE_SIM_SCENARIO_FETCH_OPTIONS_H
#define MOE_SIM_SCENARIO_FETCH_OPTIONS_H

#include <stdbool.h>
#include <stdint.h>

struct moe_fetch_options { /* fetch: */
    uint32_t slots;        /*   slots: 2 (temporary ones of a GPU, the same for every layer) */
    double overlap;        /*   overlap: 0 (share of the transfers that is hidden) */
    bool relay;            /*   relay: false (who gets a copy passes it on while it comes) */
};

#endif
