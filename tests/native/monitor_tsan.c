/* monitor_tsan: native/monitor.c and native/signals.c without Python, for the sanitizers.
 *
 * usage: monitor_tsan ROUNDS [SEED]. test_tsan.py compiles it, once for each sanitizer, and runs it.
 * It fails (exit 1, one line for each failure) on wrong behaviour: a slice that is over and is not asked to
 * end, a request before its time or after the end of its slice, a signal of others that is lost or made up.
 * A sanitizer fails it on a race or a bad access.
 *
 * Who runs what:
 *   main thread       plays the Python thread: slices, start and stop, watch_set, fork; the signal handlers
 *   feeder thread     plays the outside world: writes to the loop's descriptor and to pipes
 *   bystander thread  raises SIGURG at itself: signals of others, on a thread that is not the target
 *   monitor thread    the one under test
 * `now_in` says what the main thread runs. Only that thread and its handlers touch it, so what a handler
 * reads there is what it interrupted. */
#define _GNU_SOURCE
#include "outside.h"

/* --- slices, as py_begin, py_end and py_trip make them --- */

static uint64_t n_published, n_honoured;

static void begin(uint64_t slice_ns, uint64_t floor_ns, bool watch) {
    uint64_t now = now_ns();
    now_in.deadline_ns = slice_ns ? now + slice_ns : NEVER_NS;
    now_in.floor_ns = now + floor_ns;
    now_in.watch = watch;
    now_in.active = 1;
    tripped = 0;
    n_published++;
    slice_publish(now_in.deadline_ns, now_in.floor_ns, now_in.watch);
}

static void end(void) {
    slice_clear();
    now_in.active = 0;
}

static bool requested(void) {
    uint64_t seq = atomic_load(&slice.seq);
    if (!tripped) return false;
    tripped = 0;
    return (seq & 1) && atomic_load(&request_seq) == seq;
}

/* Run until the slice is asked to end. */
static void honour(const char *what) {
    uint64_t give_up = now_ns() + PATIENCE_NS;
    while (!requested()) {
        if (now_ns() > give_up) {
            CHECK(false, "%s: slice %llu was not asked to end", what, (unsigned long long)atomic_load(&slice.seq));
            return;
        }
    }
    n_honoured++;
    CHECK(atomic_load(&request_due_ns) <= now_ns(), "%s", what);
}

static void run_ns(uint64_t ns) {
    for (uint64_t until = now_ns() + ns; now_ns() < until;) atomic_load(&slice.seq);
}

static uint64_t some_slice_ns(void) { return 200 * NS_PER_US + random_below(800 * NS_PER_US); }

static void slice_to_its_deadline(void) {
    begin(some_slice_ns(), 0, false);
    honour("deadline");
    CHECK(now_ns() >= now_in.deadline_ns, "asked too early");
    end();
}

static void slice_that_ends_itself(void) { /* about when the monitor asks */
    uint64_t ns = some_slice_ns();
    begin(ns, 0, false);
    run_ns(ns - 100 * NS_PER_US + random_below(200 * NS_PER_US));
    end();
}

static void slice_without_a_deadline(void) { /* the monitor sleeps for ever: the next slice has to wake it */
    begin(0, 0, false);
    run_ns(random_below(400 * NS_PER_US));
    end();
}

static void slice_that_defers(void) {
    begin(some_slice_ns(), 0, false);
    for (int i = 0; i < 3; i++) honour("deferred");
    end();
}

/* A nested slice begins, or ends: the number changes without a pause. */
static void change_to(uint64_t deadline_ns) {
    uint64_t seq = atomic_load(&slice.seq);
    if (deadline_ns < now_in.deadline_ns) now_in.deadline_ns = deadline_ns;
    n_published++;
    slice_publish(deadline_ns, deadline_ns, false);
    now_in.deadline_ns = deadline_ns;
    CHECK(atomic_load(&slice.seq) == seq + 2, "each slice has a number of its own");
}

static void nested_slices(void) {
    begin(some_slice_ns(), 0, false);
    uint64_t outer_deadline = now_in.deadline_ns;
    run_ns(random_below(400 * NS_PER_US));
    change_to(now_ns() + some_slice_ns());
    honour("nested");
    change_to(outer_deadline);
    honour("outer");
    end();
}

static void tickless_slice_with_an_event(void) {
    begin(0, 200 * NS_PER_US, true);
    atomic_store(&feed_event_after_ns, 1 + random_below(600 * NS_PER_US));
    honour("event");
    end();
    loop_drain();
}

static void tickless_slice_with_a_ready_callback(void) { /* call_soon in the slice: nothing wakes the monitor */
    begin(0, 200 * NS_PER_US, true);
    atomic_store(&loop_event, true);
    __atomic_store_n(ready, 1, __ATOMIC_RELAXED);
    honour("ready");
    end();
    loop_drain();
}

static void tickless_slice_with_a_timer(void) { /* the loop's next timer is the deadline */
    begin(some_slice_ns() + 300 * NS_PER_US, 200 * NS_PER_US, true);
    honour("timer");
    CHECK(now_ns() >= now_in.deadline_ns, "asked too early");
    end();
}

static void tickless_slice_on_another_loop(void) { /* the descriptor and the length change while they are watched */
    begin(0, 100 * NS_PER_US, true);
    run_ns(random_below(400 * NS_PER_US));
    loop_open();
    atomic_store(&feed_event_after_ns, 1);
    honour("another loop");
    end();
    loop_drain();
}

static void tickless_slice_with_a_closed_loop(void) { /* the slice clock is left */
    close(event_fd);
    begin(some_slice_ns() + 300 * NS_PER_US, 100 * NS_PER_US, true);
    honour("closed loop");
    end();
    event_fd = -1;
    loop_open();
}

/* Blocked in a call whose caller expects EINTR, or does not: only the first is interrupted. */
static void slice_that_blocks(bool interruptible) {
    char c;
    uint64_t before = atomic_load(&counters.eintr);
    expects_eintr = interruptible;
    begin(some_slice_ns(), 0, false);
    if (!interruptible) atomic_store(&feed_pipe_after_ns, 20 * NS_PER_MS);
    ssize_t n = read(pipe_fd[0], &c, 1);
    int err = errno;
    honour("blocked");
    end();
    uint64_t sent = atomic_load(&counters.eintr) - before;
    if (interruptible) CHECK(n < 0 && err == EINTR && sent > 0, "read %zd, errno %d, sent %d", n, err, (int)sent);
    else CHECK(n == 1 && sent == 0, "read %zd, errno %d, sent %d", n, err, (int)sent);
}

static void signal_of_others(void) { /* to the process: the kernel picks the thread; main() counts */
    atomic_fetch_add(&n_raised, 1);
    if (kill(getpid(), SIGURG) != 0) abort();
}

/* --- start, stop, fork --- */

static void start(void) {
    int err = signals_install(trip_signal, &hooks);
    CHECK(err == 0 && signals_installed(), "%s", strerror(err));
    err = monitor_start(trip_signal);
    CHECK(err == 0 && atomic_load(&monitor_running), "%s", strerror(err));
}

static void stop(void) {
    int err = monitor_stop();
    CHECK(err == 0 && !atomic_load(&monitor_running), "%s", strerror(err));
    err = signals_uninstall();
    CHECK(err == 0 && !signals_installed(), "%s", strerror(err));
}

static void stop_somewhere(uint64_t where) {
    if (where == 0) nap_ns(2 * NS_PER_MS); /* long enough to be parked */
    if (where == 1) begin(50 * NS_PER_MS, 0, false); /* polling */
    if (where == 2) begin(0, 0, true); /* polling the loop */
    if (where == 3) { /* asking */
        begin(some_slice_ns(), 0, false);
        honour("stop");
    }
    if (where == 4) { /* about to ask */
        begin(200 * NS_PER_US, 0, false);
        run_ns(100 * NS_PER_US + random_below(200 * NS_PER_US));
    }
    stop(); /* where > 4: a moment after the last slice */
    if (where >= 1 && where <= 4) end();
}

/* ThreadSanitizer goes on counting the parent's threads in the child of a fork, and exits if a new thread has the
 * address of one of them. A larger stack is not taken from their memory. */
static void larger_stacks(void) {
    pthread_attr_t attributes;
    size_t size;
    if (pthread_getattr_default_np(&attributes) != 0 || pthread_attr_getstacksize(&attributes, &size) != 0) abort();
    if (pthread_attr_setstacksize(&attributes, 2 * size) != 0 || pthread_setattr_default_np(&attributes) != 0) abort();
    pthread_attr_destroy(&attributes);
}

static void fork_in_a_slice(void) {
    begin(NS_PER_MS, 0, false);
    run_ns(random_below(1500 * NS_PER_US));
    pid_t pid = fork();
    if (pid == 0) {
        now_in.active = 0;
        failures = 0;
        alarm(HANG_S);
        larger_stacks();
        CHECK(!atomic_load(&monitor_running) && !(atomic_load(&slice.seq) & 1), "the child of a fork");
        nap_ns(NS_PER_MS);
        start();
        for (int i = 0; i < 5; i++) {
            slice_to_its_deadline();
            slice_that_defers();
        }
        stop();
        CHECK(n_outside == 0 && n_early == 0 && n_other_thread == 0, "the child of a fork");
        _exit(failures ? 1 : 0);
    }
    CHECK(pid > 0, "%s", strerror(errno));
    honour("after a fork");
    end();
    int status = -1;
    while (waitpid(pid, &status, 0) < 0 && errno == EINTR) {}
    CHECK(status == 0, "the child of a fork: status %x", (unsigned)status);
}

static void one_round(uint64_t i) {
    start();
    if (i % 3 == 0) loop_open();
    for (int k = 0; k < 2; k++) {
        slice_to_its_deadline();
        slice_that_ends_itself();
        slice_without_a_deadline();
        slice_that_ends_itself();
        slice_without_a_deadline();
        slice_that_defers();
        nested_slices();
        tickless_slice_with_an_event();
        tickless_slice_with_a_timer();
        if (random_below(2)) nap_ns(random_below(400 * NS_PER_US)); /* parked, or about to be */
    }
    signal_of_others();
    tickless_slice_on_another_loop();
    if (i % 4 == 0) tickless_slice_with_a_ready_callback();
    if (i % 8 == 1) slice_that_blocks(false);
#ifndef __SANITIZE_THREAD__ /* it keeps a signal that comes in read() until the call returns: no verdict */
    if (i % 8 == 2) slice_that_blocks(true);
#endif
    if (i % 8 == 3) tickless_slice_with_a_closed_loop();
    if (i % 8 == 4) fork_in_a_slice();
    stop_somewhere(i % 6);
    for (int k = 0; k < 3; k++) { /* nothing between start and stop */
        start();
        stop();
    }
}

int main(int argc, char **argv) {
    uint64_t rounds = argc > 1 ? strtoull(argv[1], NULL, 10) : 100;
    random_state = argc > 2 ? strtoull(argv[2], NULL, 10) : 88172645463325252ULL;
    alarm(HANG_S);
    main_thread = pthread_self();
    trip_signal = SIGRTMAX;
    struct sigaction action = {.sa_handler = on_trip_signal};
    struct sigaction foreign = {.sa_sigaction = on_foreign, .sa_flags = SA_SIGINFO | SA_RESTART};
    if (sigaction(trip_signal, &action, NULL) != 0 || sigaction(SIGURG, &foreign, NULL) != 0) abort();
    if (pipe2(pipe_fd, O_CLOEXEC) != 0 || pthread_atfork(NULL, NULL, monitor_forked) != 0) abort();
    loop_open();
    pthread_t feeder_thread, bystander_thread;
    if (pthread_create(&feeder_thread, NULL, feeder, NULL) != 0) abort();
    if (pthread_create(&bystander_thread, NULL, bystander, NULL) != 0) abort();

    for (uint64_t i = 0; i < rounds && failures < 20; i++) one_round(i);

    atomic_store(&feeder_stopping, true);
    atomic_store(&bystander_stopping, true);
    pthread_join(feeder_thread, NULL);
    pthread_join(bystander_thread, NULL);
    loop_close();
    struct sigaction now;
    sigaction(SIGURG, NULL, &now);
    CHECK(now.sa_sigaction == on_foreign, "the handler that was there before is not restored");
    CHECK(n_outside == 0, "%d times", (int)n_outside);
    CHECK(n_early == 0, "%d times", (int)n_early);
    CHECK(n_other_thread == 0, "%d times", (int)n_other_thread);
    uint64_t requests = atomic_load(&counters.requests), chained = atomic_load(&n_chained);
    CHECK(requests <= n_published, "%d of %d: a slice is asked once, and then again", (int)requests, (int)n_published);
    CHECK(chained == atomic_load(&n_raised), "%d of %d signals of others", (int)chained, (int)atomic_load(&n_raised));
    printf("%d rounds, %d slices, %d requests, %d honoured, %d signals, %d of others, %d EINTR: %d failures\n",
           (int)rounds, (int)n_published, (int)requests, (int)n_honoured, (int)atomic_load(&counters.signals),
           (int)chained, (int)atomic_load(&counters.eintr), failures);
    return failures ? 1 : 0;
}
