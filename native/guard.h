/* guard: may the coroutine be switched away from here? Asked by the trip handler, only when a switch is
 * wanted, on the target thread with the GIL held. One function for a C signal handler, marked below. */
#ifndef OPENCORO_GUARD_H
#define OPENCORO_GUARD_H

#include <Python.h>
#include <stdbool.h>
#include <stdint.h>

typedef enum {
    SAFE,
    DEFER_NO_PREEMPT, /* with no_preempt(): */
    DEFER_GC,         /* the collector keeps list heads on the C stack */
    DEFER_TRACING,    /* inside a trace, profile or monitoring callback */
    DEFER_TRASH,      /* 3.13: greenlet miscounts tstate->delete_later */
    DEFER_PROTECTED,  /* a protected Python frame, or __del__ */
    DEFER_PINNED,     /* a C frame of an image that is not known to be safe */
    DEFER_ERROR,      /* an exception is set: C code is in the middle of something */
    DEFER_REASONS
} guard_verdict;

extern const char *const guard_reason[DEFER_REASONS];
extern uint64_t guard_deferred[DEFER_REASONS];
extern uint64_t guard_checks_ns[]; /* histogram, clock.h */

/* The verdict for the Python frame `frame` (may be NULL). Never raises. Sets guard_last. */
guard_verdict guard_check(PyObject *frame, int inhibited);
/* "gc", "Pinned(lib.so)", ...: what deferred last, as a new str. */
PyObject *guard_last_reason(void);
/* {image: count} of the images that pinned, as a new dict. */
PyObject *guard_pinned_images(void);
/* allow: prefixes of paths of images that may be on the C stack; eintr: ... whose system calls expect
 * EINTR; files: set of co_filename; functions: set of (co_filename, co_name). 0 or -1 with an exception. */
int guard_configure(PyObject *allow, PyObject *eintr, PyObject *files, PyObject *functions);
/* gc.callbacks entry */
PyObject *guard_gc_callback(PyObject *module, PyObject *const *args, Py_ssize_t n);
/* Async-signal-safe. Would the code that made the system call cope with EINTR? */
bool guard_caller_expects_eintr(void);
#endif
