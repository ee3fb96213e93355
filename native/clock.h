/* clock: the two clocks everything else uses. Any thread; async-signal-safe. Unit: nanoseconds. */
#ifndef OPENCORO_CLOCK_H
#define OPENCORO_CLOCK_H

#include <stdint.h>
#include <time.h>

#define NS_PER_S 1000000000ULL
#define NS_PER_MS 1000000ULL
#define NS_PER_US 1000ULL

static inline uint64_t clock_read_ns(clockid_t id) {
    struct timespec t;
    if (clock_gettime(id, &t) != 0) return 0; /* cannot fail for the ids below */
    return (uint64_t)t.tv_sec * NS_PER_S + (uint64_t)t.tv_nsec;
}
static inline uint64_t now_ns(void) { return clock_read_ns(CLOCK_MONOTONIC); }
static inline uint64_t thread_cpu_ns(void) { return clock_read_ns(CLOCK_THREAD_CPUTIME_ID); }

/* Bucket i of a histogram counts values in [2^i, 2^(i+1)) ns; bucket 0 also counts 0. */
#define HISTOGRAM_BUCKETS 40
static inline int histogram_bucket(uint64_t ns) {
    int b = ns ? 63 - __builtin_clzll(ns) : 0;
    return b < HISTOGRAM_BUCKETS ? b : HISTOGRAM_BUCKETS - 1;
}
#endif
