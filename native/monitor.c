/* monitor.c: see monitor.h for which thread runs what.
 *
 * Designs that were tried and rejected: a kernel timer aimed at the thread (better lateness, but costs
 * the victim more in a virtual machine, and events need this thread anyway); Py_AddPendingCall (its busy
 * guard stays set across a switch); a condition variable per slice (two system calls per slice).
 *
 * Up to 3.12 a recomputed eval breaker can lose a wake-up, and a deferred request has to be asked again:
 * so a request that is not honoured is repeated every millisecond, tagged with the slice's number. */
#define _GNU_SOURCE
#include "monitor.h"

#include <errno.h>
#include <fcntl.h>
#include <poll.h>
#include <signal.h>
#include <stdio.h>
#include <string.h>
#include <sys/eventfd.h>
#include <sys/prctl.h>
#include <sys/syscall.h>
#include <unistd.h>

#include "clock.h"
#include "signals.h"

#define REPEAT_NS (1 * NS_PER_MS)   /* an unhonoured request is asked again */
#define BACKOFF_MAX_NS (64 * NS_PER_MS) /* ... of a blocked thread, ever more rarely, up to this */
#define NAP_NS (30 * NS_PER_US)     /* waiting for a slice to end or to begin */
#define PARK_NAPS 4                 /* naps before parking on the descriptor */
#define LOOK_NS (10 * NS_PER_MS)    /* how often the loop's ready queue is looked at: it has no descriptor */

slice_record slice;
_Atomic uint64_t request_seq, request_due_ns;
_Atomic bool monitor_running, want_verdict, eintr_ok;
_Atomic pthread_t target_thread;
monitor_counters counters;

static pthread_t monitor_thread;
static _Atomic bool stopping, parked;
static _Atomic uint64_t asleep_until_ns; /* the monitor's own deadline while it polls; 0: awake */
static int wake_fd = -1, trip, syscall_fd = -1;
static pid_t target_tid;
static _Atomic int loop_fd = -1;
static const intptr_t *_Atomic ready_length;
static _Atomic bool reading_length;

static void wake(void) {
    uint64_t one = 1;
    int saved = errno;
    if (wake_fd >= 0)
        while (write(wake_fd, &one, sizeof one) < 0 && errno == EINTR) {}
    errno = saved; /* EAGAIN: the counter is full, so the monitor is awake already */
}

static void nap(uint64_t ns) {
    struct timespec t = {(time_t)(ns / NS_PER_S), (long)(ns % NS_PER_S)};
    nanosleep(&t, NULL); /* all signals are blocked here */
}

static bool loop_has_ready(void) {
    atomic_store(&reading_length, true);
    const intptr_t *length = atomic_load(&ready_length);
    bool ready = length && __atomic_load_n(length, __ATOMIC_RELAXED) > 0; /* CPython stores it plainly */
    atomic_store(&reading_length, false);
    return ready;
}

/* Sleep until `until_ns` (NEVER_NS: for ever), a wake(), or something to read on `fd` (-1: none).
 * True if `fd` has something to read. */
static bool sleep_until(uint64_t until_ns, int fd) {
    struct pollfd p[2] = {{wake_fd, POLLIN, 0}, {fd, POLLIN, 0}};
    struct timespec t, *timeout = NULL;
    if (until_ns != NEVER_NS) {
        uint64_t now = now_ns(), left = until_ns > now ? until_ns - now : 0;
        t.tv_sec = (time_t)(left / NS_PER_S);
        t.tv_nsec = (long)(left % NS_PER_S);
        timeout = &t;
    }
    int n = ppoll(p, fd >= 0 ? 2 : 1, timeout, NULL);
    atomic_fetch_add(&counters.wakeups, 1);
    if (n > 0 && p[0].revents) {
        uint64_t count;
        if (read(wake_fd, &count, sizeof count) < 0) {} /* EAGAIN: somebody else's wake was enough */
    }
    if (n > 0 && fd >= 0 && (p[1].revents & (POLLNVAL | POLLERR)))
        atomic_compare_exchange_strong(&loop_fd, &fd, -1); /* the loop was closed: slice clock only */
    return n > 0 && fd >= 0 && (p[1].revents & POLLIN);
}

static void park(void) {
    for (int i = 0; i < PARK_NAPS; i++) {
        nap(NAP_NS);
        if ((atomic_load(&slice.seq) & 1) || atomic_load(&stopping)) return;
    }
    atomic_store(&parked, true);
    if (!(atomic_load(&slice.seq) & 1) && !atomic_load(&stopping)) sleep_until(NEVER_NS, -1);
    atomic_store(&parked, false);
}

/* Is the target inside a system call that sleeps? `state` gets the kernel's line about it. */
static bool target_blocked(char *state, size_t size) {
    ssize_t n = syscall_fd >= 0 ? pread(syscall_fd, state, size - 1, 0) : -1;
    state[n > 0 ? n : 0] = 0;
    return n > 0 && state[0] >= '0' && state[0] <= '9';
}

/* Not pthread_kill: glibc takes a lock of the target in it, and the child of a fork in that moment would keep it
 * locked, so that its own monitor hangs. */
static void send_signal(int number) { syscall(SYS_tgkill, getpid(), target_tid, number); }

static void send_sigurg(void) {
    atomic_fetch_add(&counters.signals, 1);
    send_signal(SIGURG);
}

/* Ask slice `seq` to end, and go on asking until it has. */
static void request(uint64_t seq, uint64_t due_ns) {
    atomic_store(&request_due_ns, due_ns);
    atomic_store(&request_seq, seq);
    atomic_store(&want_verdict, false);
    atomic_fetch_add(&counters.requests, 1);
    send_sigurg();
    uint64_t sent = now_ns(), wait_ns = REPEAT_NS;
    char state[160], judged[160] = "";
    while (atomic_load(&slice.seq) == seq && !atomic_load(&stopping)) {
        nap(NAP_NS);
        uint64_t now = now_ns();
        if (now - sent < wait_ns) {
            if (now - sent > REPEAT_NS / 4) nap(REPEAT_NS / 8);
            continue;
        }
        if (atomic_load(&slice.seq) != seq) return;
        sent = now;
        if (!target_blocked(state, sizeof state)) { /* it runs: deferred, or a lost wake-up */
            wait_ns = REPEAT_NS;
            judged[0] = 0;
            send_sigurg();
        } else if (strcmp(state, judged) != 0) { /* newly blocked: the handler looks who made the call */
            memcpy(judged, state, sizeof judged);
            atomic_store(&eintr_ok, false);
            atomic_store(&want_verdict, true);
            send_sigurg();
        } else if (atomic_load(&eintr_ok)) { /* the trip signal has no SA_RESTART: this is EINTR */
            atomic_fetch_add(&counters.eintr, 1);
            send_signal(trip);
            wait_ns = wait_ns < BACKOFF_MAX_NS ? wait_ns * 2 : BACKOFF_MAX_NS;
        } /* else: a C library that does not expect EINTR is left alone until it returns */
    }
}

static void *monitor_main(void *unused) {
    (void)unused;
    prctl(PR_SET_TIMERSLACK, 1UL, 0UL, 0UL, 0UL); /* halves the overshoot; failing changes nothing else */
    while (!atomic_load(&stopping)) {
        uint64_t seq = atomic_load(&slice.seq);
        if (!(seq & 1)) {
            park();
            continue;
        }
        uint64_t deadline = atomic_load(&slice.deadline_ns), floor = atomic_load(&slice.floor_ns);
        bool watch = atomic_load(&slice.watch);
        if (atomic_load(&slice.seq) != seq) continue;
        uint64_t now = now_ns(), until = deadline;
        if (now >= deadline) {
            request(seq, deadline);
            continue;
        }
        int fd = -1;
        if (watch && now < floor) {
            until = floor < deadline ? floor : deadline;
        } else if (watch) {
            if (loop_has_ready()) {
                request(seq, now);
                continue;
            }
            fd = atomic_load(&loop_fd);
            if (now + LOOK_NS < until) until = now + LOOK_NS;
        }
        atomic_store(&asleep_until_ns, until);
        bool event = false;
        if (atomic_load(&slice.seq) == seq) event = sleep_until(until, fd);
        atomic_store(&asleep_until_ns, 0);
        if (event && atomic_load(&slice.seq) == seq) request(seq, now_ns());
    }
    return NULL;
}

int monitor_start(int trip_signal) {
    if (atomic_load(&monitor_running)) return 0;
    trip = trip_signal;
    target_thread = pthread_self();
    target_tid = (pid_t)syscall(SYS_gettid);
    wake_fd = eventfd(0, EFD_CLOEXEC | EFD_NONBLOCK);
    if (wake_fd < 0) return errno;
    char path[64];
    snprintf(path, sizeof path, "/proc/self/task/%ld/syscall", (long)target_tid);
    syscall_fd = open(path, O_RDONLY | O_CLOEXEC); /* -1: blocked calls are left alone */
    atomic_store(&stopping, false);
    atomic_store(&parked, false);
    atomic_store(&asleep_until_ns, 0);
    atomic_store(&request_seq, 0);

    sigset_t all, old;
    sigfillset(&all);
    int err = pthread_sigmask(SIG_SETMASK, &all, &old); /* the new thread inherits a full mask */
    if (!err) {
        err = pthread_create(&monitor_thread, NULL, monitor_main, NULL);
        int restored = pthread_sigmask(SIG_SETMASK, &old, NULL);
        if (!err && restored) err = restored; /* cannot happen: the set came from the kernel */
    }
    if (err) {
        close(wake_fd);
        wake_fd = -1;
        if (syscall_fd >= 0) close(syscall_fd);
        syscall_fd = -1;
        return err;
    }
    pthread_setname_np(monitor_thread, "opencoro-mon");
    atomic_store(&monitor_running, true);
    return 0;
}

int monitor_stop(void) {
    if (!atomic_exchange(&monitor_running, false)) return 0;
    atomic_store(&stopping, true);
    wake();
    int err = pthread_join(monitor_thread, NULL);
    close(wake_fd);
    if (syscall_fd >= 0) close(syscall_fd);
    wake_fd = syscall_fd = -1;
    return err;
}

void slice_publish(uint64_t deadline_ns, uint64_t floor_ns, bool watch) {
    uint64_t seq = atomic_load(&slice.seq);
    if (seq & 1) atomic_store(&slice.seq, ++seq); /* a nested slice begins or ends: close the old number */
    atomic_store(&slice.deadline_ns, deadline_ns);
    atomic_store(&slice.floor_ns, floor_ns);
    atomic_store(&slice.watch, watch);
    atomic_store(&slice.seq, seq + 1);
    uint64_t asleep = atomic_load(&asleep_until_ns);
    uint64_t first = watch && floor_ns < deadline_ns ? floor_ns : deadline_ns;
    if (atomic_load(&parked) || (asleep && asleep > first)) wake();
}

void slice_clear(void) {
    uint64_t seq = atomic_load(&slice.seq);
    if (seq & 1) atomic_store(&slice.seq, seq + 1);
}

void watch_set(int fd, const intptr_t *length) {
    if (atomic_load(&loop_fd) == fd && atomic_load(&ready_length) == length) return; /* no system call */
    atomic_store(&loop_fd, fd);
    atomic_store(&ready_length, length);
    while (atomic_load(&reading_length)) {} /* a few nanoseconds: the monitor reads one word */
    wake();
}

void monitor_forked(void) {
    if (wake_fd >= 0) close(wake_fd);
    if (syscall_fd >= 0) close(syscall_fd);
    wake_fd = syscall_fd = -1;
    atomic_store(&monitor_running, false);
    atomic_store(&parked, false);
    atomic_store(&asleep_until_ns, 0);
    atomic_store(&reading_length, false);
    atomic_store(&ready_length, NULL);
    atomic_store(&loop_fd, -1);
    atomic_store(&request_seq, 0);
    slice_clear();
}
