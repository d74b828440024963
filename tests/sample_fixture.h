/*
 * Sample fixture: the store of a made-up calibration run, whose truth is known. Times follow a
 * planted roofline, planted lines between GPUs and a planted factor of one GPU, with noise and
 * drift drawn under a seed; written through the store that moecal itself uses.
 */
#ifndef TESTS_SAMPLE_FIXTURE_H
#define TESTS_SAMPLE_FIXTURE_H

#include <stdbool.h>
#include <stdint.h>

struct sample_world {
    uint64_t seed;
    uint32_t gpu_count;
    uint32_t slow_gpu;   /* its arithmetic takes slow_factor times as long; gpu_count: none */
    double slow_factor;  /* 1: none */
    double run_factor;   /* of the arithmetic of all GPUs: a soaked node, a warm day */
    double noise;        /* sd of the log of a sample */
    double drift;        /* sd of a slow wave in arithmetic, of 120 s; 0: none */
    double clock_spread; /* half the range of log clocks around 1500 MHz; 0: not known */
    bool settled;        /* the run says that it waited for clocks: one for all visits of a point */
    bool kernel_switch;  /* between 66 and 95 rows 25 % slower, where no anchor lies */
    bool experts_only;   /* no other series */
    const char *decode_csv; /* decode attention besides, as such a table has it; NULL: none */
    double
        fullest_weight;   /* what the fullest expert's rows, up to 128, count besides; 0: nothing */
    bool uneven;          /* four uneven anchors, and one that looks like the skewed point */
    double heldout_scale; /* multiplies held-out and skew times; 1: honest */
    const char *started_at;
    uint32_t first_gpu; /* number in the made-up UUIDs */
    const char *driver;
    const char *gpu_kind;
};

/* The planted figures. */
enum { SAMPLE_HIDDEN = 4096, SAMPLE_INTER = 1536, SAMPLE_UNITS = 32, SAMPLE_TILE = 64 };
#define SAMPLE_T0_NS        12e3
#define SAMPLE_BANDWIDTH    4.0e12
#define SAMPLE_PEAK         600e12
#define SAMPLE_P            2.5
#define SAMPLE_COPY_RATE    3.6e12
#define SAMPLE_READ_CEILING 4.5e12
#define SAMPLE_KNEE_BYTES   1048576.0
/* Of uneven all-to-alls, as sim/cost/cost.h has it. */
#define SAMPLE_ONE_WAY_SAVING 0.3
#define SAMPLE_OWN_RATE       0.7e12

struct sample_world sample_world_plain(uint64_t seed);

/* The true time of an even expert point on a GPU like the others. */
double sample_expert_ns(double tokens, uint32_t active, double compute_factor);
/* Of an all-to-all of 2 ranks: 9 us + bytes / 100 GB/s up to the knee, then 16 us + / 280 GB/s. */
double sample_exchange_ns(double bytes);

/* Writes (or adds to) the store at path; asserts that it works. */
void sample_world_write(const struct sample_world *world, const char *path);

#endif
