/* signals.c: see signals.h for which thread runs what. */
#define _GNU_SOURCE
#include "signals.h"

#include <Python.h>
#include <errno.h>
#include <signal.h>
#include <string.h>
#include <unistd.h>

#include "guard.h"
#include "monitor.h"

static struct sigaction previous;
static bool installed;
static volatile sig_atomic_t trip;

static void chain(int number, siginfo_t *info, void *context) {
    if (previous.sa_flags & SA_SIGINFO) {
        if (previous.sa_sigaction) previous.sa_sigaction(number, info, context);
    } else if (previous.sa_handler != SIG_DFL && previous.sa_handler != SIG_IGN) {
        previous.sa_handler(number); /* SIGURG's default is to be ignored */
    }
}

static void on_sigurg(int number, siginfo_t *info, void *context) {
    int saved = errno;
    bool ours = info->si_code == SI_TKILL && info->si_pid == getpid() && atomic_load(&monitor_running) &&
                pthread_equal(pthread_self(), target_thread);
    if (ours) {
        uint64_t seq = atomic_load(&slice.seq);
        if ((seq & 1) && atomic_load(&request_seq) == seq) {
            if (atomic_load(&want_verdict)) {
                atomic_store(&eintr_ok, guard_caller_expects_eintr());
                atomic_store(&want_verdict, false);
            }
            PyErr_SetInterruptEx(trip);
        }
    } else {
        chain(number, info, context);
    }
    errno = saved;
}

int signals_install(int trip_signal) {
    trip = trip_signal;
    if (installed) return 0;
    struct sigaction action;
    memset(&action, 0, sizeof action);
    action.sa_sigaction = on_sigurg;
    sigemptyset(&action.sa_mask);
    action.sa_flags = SA_SIGINFO | SA_RESTART | SA_ONSTACK;
    if (sigaction(SIGURG, &action, &previous) != 0) return errno;
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
