#include "calibrate/collective/watchdog.h"

#include <errno.h>
#include <math.h>
#include <pthread.h>
#include <stdbool.h>
#include <stdio.h>
#include <stdlib.h>
#include <time.h>

struct moe_watchdog {
    pthread_t thread;
    pthread_mutex_t mutex;
    pthread_cond_t changed;
    bool armed;
    bool ended;
    double patience_s;
    struct timespec deadline; /* CLOCK_MONOTONIC */
    char what[200];
};

static void bark(const struct moe_watchdog *dog)
{
    (void) fprintf(stderr, "moecal: %s did not come back within %g s\n", dog->what,
                   dog->patience_s);
    (void) fflush(NULL);
    _Exit(EXIT_FAILURE);
}

static void *watch(void *argument)
{
    struct moe_watchdog *dog = argument;
    (void) pthread_mutex_lock(&dog->mutex);
    while (!dog->ended) {
        if (!dog->armed) {
            (void) pthread_cond_wait(&dog->changed, &dog->mutex);
            continue;
        }
        const struct timespec until = dog->deadline;
        const int code = pthread_cond_timedwait(&dog->changed, &dog->mutex, &until);
        const bool same =
            until.tv_sec == dog->deadline.tv_sec && until.tv_nsec == dog->deadline.tv_nsec;
        if (code == ETIMEDOUT && dog->armed && !dog->ended && same) {
            bark(dog);
        }
    }
    (void) pthread_mutex_unlock(&dog->mutex);
    return NULL;
}

enum moe_status moe_watchdog_create(struct moe_watchdog **out, struct moe_error *err)
{
    pthread_condattr_t attributes;
    struct moe_watchdog *dog = calloc(1, sizeof *dog);
    if (dog == NULL) {
        return moe_fail(err, MOE_LIMIT, "no memory for a watchdog");
    }
    (void) pthread_mutex_init(&dog->mutex, NULL);
    (void) pthread_condattr_init(&attributes);
    (void) pthread_condattr_setclock(&attributes, CLOCK_MONOTONIC);
    (void) pthread_cond_init(&dog->changed, &attributes);
    (void) pthread_condattr_destroy(&attributes);
    if (pthread_create(&dog->thread, NULL, watch, dog) != 0) {
        (void) pthread_cond_destroy(&dog->changed);
        (void) pthread_mutex_destroy(&dog->mutex);
        free(dog);
        return moe_fail(err, MOE_LIMIT, "cannot start the watchdog's thread");
    }
    *out = dog;
    return MOE_OK;
}

void moe_watchdog_destroy(struct moe_watchdog *dog)
{
    if (dog == NULL) {
        return;
    }
    (void) pthread_mutex_lock(&dog->mutex);
    dog->ended = true;
    (void) pthread_cond_signal(&dog->changed);
    (void) pthread_mutex_unlock(&dog->mutex);
    (void) pthread_join(dog->thread, NULL);
    (void) pthread_cond_destroy(&dog->changed);
    (void) pthread_mutex_destroy(&dog->mutex);
    free(dog);
}

void moe_watchdog_arm(struct moe_watchdog *dog, double patience_s, const char *what)
{
    struct timespec now;
    (void) clock_gettime(CLOCK_MONOTONIC, &now);
    const double whole = floor(patience_s);
    const long nanoseconds = now.tv_nsec + (long) ((patience_s - whole) * 1e9);
    (void) pthread_mutex_lock(&dog->mutex);
    dog->deadline.tv_sec = now.tv_sec + (time_t) whole + nanoseconds / 1000000000;
    dog->deadline.tv_nsec = nanoseconds % 1000000000;
    dog->patience_s = patience_s;
    (void) snprintf(dog->what, sizeof dog->what, "%s", what);
    dog->armed = true;
    (void) pthread_cond_signal(&dog->changed);
    (void) pthread_mutex_unlock(&dog->mutex);
}

void moe_watchdog_disarm(struct moe_watchdog *dog)
{
    (void) pthread_mutex_lock(&dog->mutex);
    dog->armed = false;
    (void) pthread_mutex_unlock(&dog->mutex);
}
