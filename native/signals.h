/* signals: SIGURG. Install keeps the previous disposition, foreign signals are chained to it, and
 * uninstall restores it.
 *
 * Who runs what: signals_install and signals_uninstall on the main thread; the handler on whichever
 * thread the kernel picks (ours go to the target thread). The handler is async-signal-safe: it saves
 * errno, touches atomics, trips a Python-level signal, returns. It never runs on the alternate stack
 * alone: it does not switch, so SA_ONSTACK is safe and kind to deep stacks. */
#ifndef OPENCORO_SIGNALS_H
#define OPENCORO_SIGNALS_H

#include <stdbool.h>

/* What the handler calls on the target thread, so async-signal-safe. CPython's part, given by module.c:
 * the handler and the monitor are tested without it (tests/native/monitor_tsan.c). */
typedef struct {
    int (*trip)(int trip_signal);        /* the running slice was asked to end */
    bool (*caller_expects_eintr)(void);  /* would the code that made the system call cope with EINTR? */
} signals_hooks;

/* 0, or an errno. `trip_signal` is what `hooks->trip` is called with; `hooks` stays in use. */
int signals_install(int trip_signal, const signals_hooks *hooks);
/* 0, or an errno. Leaves the disposition alone if somebody else replaced ours meanwhile. */
int signals_uninstall(void);
/* Is SIGURG still ours? */
bool signals_installed(void);
#endif
