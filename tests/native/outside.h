/* outside: what surrounds the monitor in monitor_tsan.c (which says who runs what): checks, the hooks of the signal
 * handler, the loop's descriptor, and the threads that play the outside world. Included there only. */
#ifndef OPENCORO_OUTSIDE_H
#define OPENCORO_OUTSIDE_H

#include <errno.h>
#include <fcntl.h>
#include <pthread.h>
#include <signal.h>
#include <stdarg.h>
#include <stdatomic.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/eventfd.h>
#include <sys/wait.h>
#include <unistd.h>

#include "clock.h"
#include "monitor.h"
#include "signals.h"

#define PATIENCE_NS (20 * NS_PER_S) /* nothing here takes a second: what is not there by now is lost */
#define HANG_S 120                  /* SIGALRM kills a harness that hangs */

/* The child of a fork has a monitor of its own: by default ThreadSanitizer exits there. */
const char *__tsan_default_options(void);
const char *__tsan_default_options(void) { return "die_after_fork=0:halt_on_error=0"; }

static int failures;
static int trip_signal;
static uint64_t random_state;

#define CHECK(condition, ...)                                        \
    do {                                                             \
        if (!(condition)) failed(__LINE__, #condition, __VA_ARGS__); \
    } while (0)

__attribute__((format(printf, 3, 4))) static void failed(int line, const char *condition, const char *format, ...) {
    char what[200];
    va_list args;
    va_start(args, format);
    vsnprintf(what, sizeof what, format, args);
    va_end(args);
    fprintf(stderr, "monitor_tsan.c:%d: not %s: %s\n", line, condition, what);
    failures++;
}

static uint64_t random_below(uint64_t n) { /* xorshift64 */
    random_state ^= random_state << 13;
    random_state ^= random_state >> 7;
    random_state ^= random_state << 17;
    return random_state % n;
}

static void nap_ns(uint64_t ns) {
    struct timespec t = {(time_t)(ns / NS_PER_S), (long)(ns % NS_PER_S)};
    while (nanosleep(&t, &t) != 0 && errno == EINTR) {}
}

/* What the main thread runs: published to the monitor later than here, cleared earlier. */
static struct {
    volatile sig_atomic_t active;
    volatile uint64_t deadline_ns, floor_ns;
    volatile bool watch;
} now_in;

/* What the handlers saw. Counted there, judged by the main thread. */
static volatile sig_atomic_t tripped, expects_eintr;
static volatile uint64_t n_trips, n_outside, n_early, n_other_thread;
static _Atomic bool loop_event;   /* the loop has, or is about to have, something to read or to run */
static _Atomic uint64_t n_chained; /* the handler that was there before ours: any thread */
static pthread_t main_thread;

static int on_trip(int number) {
    (void)number;
    uint64_t now = now_ns();
    n_trips++;
    tripped = 1;
    if (!pthread_equal(pthread_self(), main_thread)) n_other_thread++;
    if (!now_in.active) n_outside++;
    else if (now < now_in.deadline_ns && !(now_in.watch && now >= now_in.floor_ns && atomic_load(&loop_event)))
        n_early++;
    return 0;
}

static bool on_verdict(void) { return expects_eintr; }

static const signals_hooks hooks = {on_trip, on_verdict};

/* CPython's handler of the trip signal: EINTR, since it has no SA_RESTART, and a flag. May be late. */
static void on_trip_signal(int number) {
    (void)number;
    tripped = 1;
}

static void on_foreign(int number, siginfo_t *info, void *context) {
    (void)number, (void)info, (void)context;
    atomic_fetch_add(&n_chained, 1);
}

/* --- the loop, and who writes to it --- */

static int event_fd = -1, pipe_fd[2];
static intptr_t *ready; /* stands for a deque's length; CPython stores it plainly, which is one aligned word */
static _Atomic uint64_t feed_event_after_ns, feed_pipe_after_ns; /* 0: nothing to do */
static _Atomic bool feeder_stopping, bystander_stopping;
static _Atomic int feed_fd;
static _Atomic uint64_t n_raised;

static void *feeder(void *unused) {
    (void)unused;
    while (!atomic_load(&feeder_stopping)) {
        uint64_t ns = atomic_exchange(&feed_event_after_ns, 0);
        if (ns) {
            nap_ns(ns);
            atomic_store(&loop_event, true);
            uint64_t one = 1;
            if (write(atomic_load(&feed_fd), &one, sizeof one) < 0) abort();
        }
        ns = atomic_exchange(&feed_pipe_after_ns, 0);
        if (ns) {
            nap_ns(ns);
            if (write(pipe_fd[1], "x", 1) != 1) abort();
        }
        nap_ns(20 * NS_PER_US);
    }
    return NULL;
}

static void *bystander(void *unused) {
    (void)unused;
    while (!atomic_load(&bystander_stopping)) {
        atomic_fetch_add(&n_raised, 1);
        raise(SIGURG);
        nap_ns(50 * NS_PER_US);
    }
    return NULL;
}

static void loop_open(void) {
    intptr_t *old = ready;
    ready = calloc(1, sizeof *ready);
    int fd = eventfd(0, EFD_CLOEXEC | EFD_NONBLOCK);
    if (!ready || fd < 0) abort();
    watch_set(fd, ready);
    free(old); /* the monitor no longer reads it */
    if (event_fd >= 0) close(event_fd);
    event_fd = fd;
    atomic_store(&feed_fd, fd);
}

static void loop_drain(void) {
    uint64_t count;
    if (read(event_fd, &count, sizeof count) < 0) CHECK(errno == EAGAIN, "%s", strerror(errno));
    __atomic_store_n(ready, 0, __ATOMIC_RELAXED);
    atomic_store(&loop_event, false);
}

static void loop_close(void) {
    watch_set(-1, NULL);
    free(ready);
    close(event_fd);
    ready = NULL;
    event_fd = -1;
}
#endif
