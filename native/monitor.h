/* monitor: the thread that watches the slice clock, and the record through which it is told who runs.
 *
 * Who runs what:
 *   main thread, GIL held   monitor_start, monitor_stop, slice_publish, slice_clear, watch_set
 *   monitor thread          monitor.c's loop; never takes the GIL, all signals blocked
 *   signal handler          reads `slice` and `request_seq`, writes `eintr_ok` (signals.c)
 *
 * The hand-over is a sequence lock with one writer: `seq` is odd while a slice runs, and every slice has
 * a number of its own, so a late request can never hit the next slice. */
#ifndef OPENCORO_MONITOR_H
#define OPENCORO_MONITOR_H

#include <pthread.h>
#include <stdatomic.h>
#include <stdbool.h>
#include <stdint.h>

#define NEVER_NS UINT64_MAX

typedef struct {
    _Atomic uint64_t seq;         /* odd: a slice runs */
    _Atomic uint64_t deadline_ns; /* the slice is over; NEVER_NS: no deadline */
    _Atomic uint64_t floor_ns;    /* an event of the loop may preempt from here on */
    _Atomic bool watch;           /* preempt when the loop has something to do */
} slice_record;

extern slice_record slice;
extern _Atomic uint64_t request_seq;    /* the slice that was asked to end */
extern _Atomic uint64_t request_due_ns; /* when it should have ended: what overshoot is measured from */
extern _Atomic bool monitor_running;
extern _Atomic bool want_verdict;       /* the monitor asks the handler: may the caller be given EINTR? */
extern _Atomic bool eintr_ok;           /* the handler's answer */
extern _Atomic pthread_t target_thread; /* the thread that runs coroutines; set by monitor_start */

typedef struct {
    _Atomic uint64_t requests; /* slices asked to end */
    _Atomic uint64_t signals;  /* SIGURG sent, repeats included */
    _Atomic uint64_t eintr;    /* EINTR flavour sent */
    _Atomic uint64_t wakeups;  /* times the monitor thread woke up */
} monitor_counters;
extern monitor_counters counters;

/* 0, or an errno. The calling thread becomes the target. `trip_signal`: the Python-level signal. */
int monitor_start(int trip_signal);
/* Joins the thread. 0, or an errno. Idempotent. The caller must not hold the GIL. */
int monitor_stop(void);
/* The slice that starts now. deadline_ns and floor_ns are absolute. */
void slice_publish(uint64_t deadline_ns, uint64_t floor_ns, bool watch);
void slice_clear(void);
/* What to watch: a pollable descriptor (or -1), and the address of a queue's length (or NULL).
 * Returns when the monitor no longer reads the old address. */
void watch_set(int fd, const intptr_t *length);
/* In the child of a fork: there is no monitor thread. Async-signal-safe. */
void monitor_forked(void);
#endif
