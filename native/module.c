/* module.c: opencoro_ipy._native, the boundary to Python (see opencoro_ipy/_native.pyi), and the one
 * place where a coroutine is switched away from: trip().
 *
 * All of it runs on the target thread with the GIL held, but ident() and RLock, which any thread may use,
 * and the child handler of fork. `top` is the stack of running coroutines: a coroutine that resumes
 * another one lies below it. */
#define _GNU_SOURCE
#include <Python.h>
#include <pthread.h>
#include <signal.h>

#include "clock.h"
#include "greenlet.h"
#include "guard.h"
#include "monitor.h"
#include "rlock.h"
#include "signals.h"

typedef struct running {
    struct running *below;
    PyGreenlet *hub; /* whoever resumed it: where a preempted coroutine switches to */
    unsigned long ident;
    uint64_t cpu_start_ns, cpu_nested_ns;
    uint64_t deadline_ns, floor_ns;
    bool watch;
    int inhibited; /* depth of no_preempt */
} running;

static running *top;
static PyObject *watched; /* the loop's ready queue; its length is read by the monitor */
static uint64_t n_preempted, n_stale, overshoot_ns[HISTOGRAM_BUCKETS];
static int trip_signal;

unsigned long owner_ident(void) {
    if (top && pthread_equal(pthread_self(), target_thread)) return top->ident;
    return PyThread_get_thread_ident();
}

static PyObject *error_from(int err) {
    errno = err;
    return PyErr_SetFromErrno(PyExc_OSError);
}

static const signals_hooks hooks = {PyErr_SetInterruptEx, guard_caller_expects_eintr};

static PyObject *py_start(PyObject *module, PyObject *args) {
    (void)module;
    if (!PyArg_ParseTuple(args, "i", &trip_signal)) return NULL;
    int err = signals_install(trip_signal, &hooks);
    if (err) return error_from(err);
    err = monitor_start(trip_signal);
    if (err) {
        signals_uninstall();
        return error_from(err);
    }
    Py_RETURN_NONE;
}

static PyObject *py_stop(PyObject *module, PyObject *unused) {
    (void)module, (void)unused;
    int err;
    Py_BEGIN_ALLOW_THREADS
    err = monitor_stop();
    Py_END_ALLOW_THREADS
    int restored = signals_uninstall();
    watch_set(-1, NULL);
    Py_CLEAR(watched);
    if (err || restored) return error_from(err ? err : restored);
    Py_RETURN_NONE;
}

static PyObject *py_watch(PyObject *module, PyObject *args) {
    (void)module;
    int fd;
    PyObject *queue;
    if (!PyArg_ParseTuple(args, "iO", &fd, &queue)) return NULL;
    const intptr_t *length = NULL;
    _Static_assert(sizeof(intptr_t) == sizeof(Py_ssize_t), "the monitor reads a Py_ssize_t");
    if (queue != Py_None) {
        if (Py_TYPE(queue)->tp_itemsize == 0 && strcmp(Py_TYPE(queue)->tp_name, "collections.deque") != 0) {
            PyErr_SetString(PyExc_TypeError, "queue must be a collections.deque or None");
            return NULL;
        }
        length = (const intptr_t *)&((PyVarObject *)queue)->ob_size;
    }
    watch_set(fd, length);
    Py_XSETREF(watched, Py_NewRef(queue));
    Py_RETURN_NONE;
}

static PyObject *py_begin(PyObject *module, PyObject *const *args, Py_ssize_t n) {
    (void)module;
    if (n != 5) return PyErr_Format(PyExc_TypeError, "begin takes 5 arguments, not %zd", n);
    unsigned long ident = PyLong_AsUnsignedLong(args[0]);
    uint64_t slice_ns = PyLong_AsUnsignedLongLong(args[1]), floor_ns = PyLong_AsUnsignedLongLong(args[2]),
             until_ns = PyLong_AsUnsignedLongLong(args[3]);
    int inhibited = (int)PyLong_AsLong(args[4]);
    if (PyErr_Occurred()) return NULL;
    running *r = PyMem_Calloc(1, sizeof *r);
    if (!r) return PyErr_NoMemory();
    r->hub = PyGreenlet_GetCurrent();
    if (!r->hub) {
        PyMem_Free(r);
        return NULL;
    }
    uint64_t now = now_ns();
    r->below = top;
    r->ident = ident;
    r->cpu_start_ns = thread_cpu_ns();
    r->deadline_ns = slice_ns ? now + slice_ns : NEVER_NS;
    if (until_ns && until_ns < r->deadline_ns) r->deadline_ns = until_ns;
    r->watch = floor_ns != 0;
    r->floor_ns = now + floor_ns;
    if (r->watch && r->deadline_ns < r->floor_ns) r->deadline_ns = r->floor_ns;
    r->inhibited = inhibited;
    top = r;
    slice_publish(r->deadline_ns, r->floor_ns, r->watch);
    Py_RETURN_NONE;
}

static PyObject *py_end(PyObject *module, PyObject *unused) {
    (void)module, (void)unused;
    running *r = top;
    if (!r) return PyErr_Format(PyExc_RuntimeError, "end without begin");
    top = r->below;
    if (top)
        slice_publish(top->deadline_ns, top->floor_ns, top->watch);
    else
        slice_clear();
    uint64_t cpu_ns = thread_cpu_ns() - r->cpu_start_ns;
    if (top) top->cpu_nested_ns += cpu_ns;
    cpu_ns -= r->cpu_nested_ns;
    int inhibited = r->inhibited;
    Py_DECREF(r->hub);
    PyMem_Free(r);
    return Py_BuildValue("Ki", (unsigned long long)cpu_ns, inhibited);
}

/* The Python-level handler of the trip signal. Returning means: not now, or not ours; the monitor asks
 * again. It is last in CPython's loop over tripped signals (the highest number), so that no other
 * signal's handler waits for this coroutine to be resumed. */
static PyObject *py_trip(PyObject *module, PyObject *const *args, Py_ssize_t n) {
    (void)module;
    uint64_t seq = atomic_load(&slice.seq);
    if (!top || !(seq & 1) || atomic_load(&request_seq) != seq ||
        !pthread_equal(pthread_self(), target_thread)) {
        n_stale++;
        Py_RETURN_NONE;
    }
    PyGreenlet *current = PyGreenlet_GetCurrent();
    if (!current) return NULL;
    if (current == top->hub) { /* between begin and the switch, or after it */
        n_stale++;
        Py_DECREF(current);
        Py_RETURN_NONE;
    }
    if (guard_check(n > 1 ? args[1] : NULL, top->inhibited) != SAFE) {
        Py_DECREF(current);
        Py_RETURN_NONE;
    }
    uint64_t due = atomic_load(&request_due_ns), now = now_ns();
    overshoot_ns[histogram_bucket(now > due ? now - due : 0)]++;
    n_preempted++;
    PyGreenlet *hub = (PyGreenlet *)Py_NewRef(top->hub);
    PyObject *leaf = PyTuple_Pack(1, current); /* whom to resume: user code may run greenlets of its own */
    PyObject *sent = leaf ? PyGreenlet_Switch(hub, leaf, NULL) : NULL;
    Py_XDECREF(leaf);
    Py_DECREF(hub);
    Py_DECREF(current);
    if (!sent) return NULL; /* thrown into: raised at the bytecode that was preempted */
    Py_DECREF(sent);
    Py_RETURN_NONE;
}

static PyObject *py_inhibit(PyObject *module, PyObject *arg) {
    (void)module;
    long delta = PyLong_AsLong(arg);
    if (delta == -1 && PyErr_Occurred()) return NULL;
    if (!top || !pthread_equal(pthread_self(), target_thread)) Py_RETURN_FALSE;
    top->inhibited += (int)delta;
    uint64_t seq = atomic_load(&slice.seq);
    if (!top->inhibited && (seq & 1) && atomic_load(&request_seq) == seq) PyErr_SetInterruptEx(trip_signal);
    Py_RETURN_TRUE;
}

static PyObject *py_ident(PyObject *module, PyObject *unused) {
    (void)module, (void)unused;
    return PyLong_FromUnsignedLong(owner_ident());
}

static PyObject *py_configure(PyObject *module, PyObject *args) {
    (void)module;
    PyObject *allow, *eintr, *files, *functions;
    if (!PyArg_ParseTuple(args, "OOO!O!", &allow, &eintr, &PySet_Type, &files, &PySet_Type, &functions))
        return NULL;
    if (guard_configure(allow, eintr, files, functions) < 0) return NULL;
    Py_RETURN_NONE;
}

static PyObject *py_immortalise(PyObject *module, PyObject *object) {
    (void)module;
    Py_INCREF(object);
    Py_RETURN_NONE;
}

static PyObject *histogram(const uint64_t *buckets) {
    PyObject *list = PyList_New(HISTOGRAM_BUCKETS);
    for (int i = 0; list && i < HISTOGRAM_BUCKETS; i++) {
        PyObject *n = PyLong_FromUnsignedLongLong(buckets[i]);
        if (!n) Py_CLEAR(list);
        else PyList_SET_ITEM(list, i, n);
    }
    return list;
}

static PyObject *py_stats(PyObject *module, PyObject *unused) {
    (void)module, (void)unused;
    PyObject *deferred = PyDict_New();
    for (int i = 1; deferred && i < DEFER_REASONS; i++) {
        PyObject *n = PyLong_FromUnsignedLongLong(guard_deferred[i]);
        if (!n || PyDict_SetItemString(deferred, guard_reason[i], n) < 0) Py_CLEAR(deferred);
        Py_XDECREF(n);
    }
    if (!deferred) return NULL;
    return Py_BuildValue(
        "{s:K,s:K,s:K,s:K,s:K,s:K,s:N,s:N,s:N,s:N,s:N}", "preempted", (unsigned long long)n_preempted, "stale",
        (unsigned long long)n_stale, "requests", (unsigned long long)atomic_load(&counters.requests), "signals",
        (unsigned long long)atomic_load(&counters.signals), "eintr",
        (unsigned long long)atomic_load(&counters.eintr), "wakeups",
        (unsigned long long)atomic_load(&counters.wakeups), "deferred", deferred, "pinned",
        guard_pinned_images(), "last_deferral", guard_last_reason(), "overshoot_ns", histogram(overshoot_ns),
        "check_ns", histogram(guard_checks_ns));
}

static PyObject *py_state(PyObject *module, PyObject *unused) {
    (void)module, (void)unused;
    return Py_BuildValue("{s:O,s:O,s:O}", "monitor", atomic_load(&monitor_running) ? Py_True : Py_False,
                         "handler", signals_installed() ? Py_True : Py_False, "slice",
                         atomic_load(&slice.seq) & 1 ? Py_True : Py_False);
}

static PyMethodDef methods[] = {
    {"start", py_start, METH_VARARGS, NULL},
    {"stop", py_stop, METH_NOARGS, NULL},
    {"watch", py_watch, METH_VARARGS, NULL},
    {"begin", (PyCFunction)(void (*)(void))py_begin, METH_FASTCALL, NULL},
    {"end", py_end, METH_NOARGS, NULL},
    {"trip", (PyCFunction)(void (*)(void))py_trip, METH_FASTCALL, NULL},
    {"inhibit", py_inhibit, METH_O, NULL},
    {"ident", py_ident, METH_NOARGS, NULL},
    {"configure", py_configure, METH_VARARGS, NULL},
    {"gc_callback", (PyCFunction)(void (*)(void))guard_gc_callback, METH_FASTCALL, NULL},
    {"immortalise", py_immortalise, METH_O, NULL},
    {"stats", py_stats, METH_NOARGS, NULL},
    {"state", py_state, METH_NOARGS, NULL},
    {0}};

static struct PyModuleDef definition = {PyModuleDef_HEAD_INIT, "opencoro_ipy._native",
                                        "The monitor, the guard and the switch. See _native.pyi.", -1, methods,
                                        NULL, NULL, NULL, NULL};

PyMODINIT_FUNC PyInit__native(void) {
    PyGreenlet_Import();
    if (!_PyGreenlet_API) return NULL;
    int err = pthread_atfork(NULL, NULL, monitor_forked);
    if (err) return error_from(err);
    PyObject *module = PyModule_Create(&definition);
    if (module && rlock_register(module) < 0) Py_CLEAR(module);
    return module;
}
