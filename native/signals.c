/* signals.c: see signals.h for which thread runs what. */
#define _GNU_SOURCE
#include "signals.h"

#include <errno.h>
#include <signal.h>
#include <stdatomic.h>
#include <string.h>
#include <unistd.h>

#include "monitor.h"

typedef void (*handler)(int number, siginfo_t *info, void *context);

static struct sigaction previous; /* main thread only */
static _Atomic(handler) chained;  /* what it calls, for handlers on any thread; NULL: SIGURG is ignored by default */
static bool installed;
static volatile sig_atomic_t trip;
static const signals_hooks *hooks;

static void on_sigurg(int number, siginfo_t *info, void *context) {
    int saved = errno;
    /* Whether the monitor runs does not matter here: its last signal may come when it is being stopped. */
    bool ours = info->si_code == SI_TKILL && info->si_pid == getpid() &&
                pthread_equal(pthread_self(), target_thread);
    if (ours) {
        uint64_t seq = atomic_load(&slice.seq);
        if ((seq & 1) && atomic_load(&request_seq) == seq && atomic_load(&monitor_running)) {
            if (atomic_load(&want_verdict)) {
                atomic_store(&eintr_ok, hooks->caller_expects_eintr());
                atomic_store(&want_verdict, false);
            }
            hooks->trip(trip);
        }
    } else {
        handler next = atomic_load(&chained);
        if (next) next(number, info, context); /* with three arguments in any case, as the kernel calls it */
    }
    errno = saved;
}

int signals_install(int trip_signal, const signals_hooks *to_call) {
    trip = trip_signal;
    hooks = to_call;
    if (installed) return 0;
    /* Known before ours is in place, since a signal may come at once, on any thread. */
    if (sigaction(SIGURG, NULL, &previous) != 0) return errno;
    bool calls = previous.sa_handler != SIG_DFL && previous.sa_handler != SIG_IGN;
    atomic_store(&chained, calls ? previous.sa_sigaction : NULL);
    struct sigaction action;
    memset(&action, 0, sizeof action);
    action.sa_sigaction = on_sigurg;
    sigemptyset(&action.sa_mask);
    action.sa_flags = SA_SIGINFO | SA_RESTART | SA_ONSTACK;
    if (sigaction(SIGURG, &action, NULL) != 0) return errno;
    installed = true;
    return 0;
}

bool signals_installed(void) {
    struct sigaction now;
    return installed && sigaction(SIGURG, NULL, &now) == 0 && (now.sa_flags & SA_SIGINFO) &&
           now.sa_sigaction == on_sigurg;
}

int signals_uninstall(void) {
    if (!installed) return 0;
    bool ours = signals_installed();
    installed = false;
    if (ours && sigaction(SIGURG, &previous, NULL) != 0) return errno;
    return 0;
}
