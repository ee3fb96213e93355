/* rlock.c: threading.RLock's interface (CPython's Lib/threading.py documents it), with a coroutine as
 * owner. In C, so that tracers and debuggers see no frame of ours. Built on a _thread.lock, which knows
 * timeouts and lets signal handlers run (and so coroutines be preempted) while it blocks.
 *
 * Any thread, GIL held. `owner` and `count` are written by the owner only. */
#include "rlock.h"

#include <structmember.h>

typedef struct {
    PyObject_HEAD
    PyObject *block; /* _thread.lock */
    PyObject *weakrefs;
    unsigned long owner; /* 0: nobody */
    Py_ssize_t count;
} rlock;

static PyObject *allocate_lock;

static PyObject *rlock_new(PyTypeObject *type, PyObject *args, PyObject *kwargs) {
    if (PyTuple_GET_SIZE(args) || (kwargs && PyDict_GET_SIZE(kwargs))) {
        if (PyErr_WarnEx(PyExc_DeprecationWarning, "RLock takes no arguments", 1) < 0) return NULL;
    }
    rlock *self = (rlock *)type->tp_alloc(type, 0);
    if (!self) return NULL;
    self->block = PyObject_CallNoArgs(allocate_lock);
    if (!self->block) Py_CLEAR(self);
    return (PyObject *)self;
}

static void rlock_dealloc(rlock *self) {
    PyTypeObject *type = Py_TYPE(self);
    if (self->weakrefs) PyObject_ClearWeakRefs((PyObject *)self);
    Py_XDECREF(self->block);
    type->tp_free(self);
    Py_DECREF(type);
}

static PyObject *rlock_acquire(rlock *self, PyObject *args, PyObject *kwargs) {
    unsigned long me = owner_ident();
    if (self->owner == me) {
        /* arguments are checked by the inner lock the first time; here they can only be re-entrant */
        self->count++;
        Py_RETURN_TRUE;
    }
    PyObject *method = PyObject_GetAttrString(self->block, "acquire");
    PyObject *got = method ? PyObject_Call(method, args, kwargs) : NULL;
    Py_XDECREF(method);
    if (got == Py_True) {
        self->owner = me;
        self->count = 1;
    }
    return got;
}

static PyObject *rlock_enter(rlock *self, PyObject *unused) {
    (void)unused;
    PyObject *empty = PyTuple_New(0);
    PyObject *result = empty ? rlock_acquire(self, empty, NULL) : NULL;
    Py_XDECREF(empty);
    return result;
}

static PyObject *not_owned(void) {
    PyErr_SetString(PyExc_RuntimeError, "cannot release un-acquired lock");
    return NULL;
}

static PyObject *rlock_release(rlock *self, PyObject *unused) {
    (void)unused;
    if (self->owner != owner_ident() || !self->count) return not_owned();
    if (--self->count) Py_RETURN_NONE;
    self->owner = 0;
    return PyObject_CallMethod(self->block, "release", NULL);
}

static PyObject *rlock_exit(rlock *self, PyObject *args) {
    (void)args;
    return rlock_release(self, NULL);
}

static PyObject *rlock_is_owned(rlock *self, PyObject *unused) {
    (void)unused;
    return PyBool_FromLong(self->count && self->owner == owner_ident());
}

static PyObject *rlock_recursion_count(rlock *self, PyObject *unused) {
    (void)unused;
    return PyLong_FromSsize_t(self->owner == owner_ident() ? self->count : 0);
}

/* For Condition.wait: give the lock up altogether; the state takes it back. */
static PyObject *rlock_release_save(rlock *self, PyObject *unused) {
    (void)unused;
    if (!self->count || self->owner != owner_ident()) return not_owned();
    PyObject *state = Py_BuildValue("nk", self->count, self->owner);
    if (!state) return NULL;
    self->owner = 0;
    self->count = 0;
    PyObject *released = PyObject_CallMethod(self->block, "release", NULL);
    if (!released) Py_CLEAR(state);
    Py_XDECREF(released);
    return state;
}

static PyObject *rlock_acquire_restore(rlock *self, PyObject *state) {
    Py_ssize_t count;
    unsigned long owner;
    if (!PyArg_ParseTuple(state, "(nk):_acquire_restore", &count, &owner)) return NULL;
    PyObject *got = PyObject_CallMethod(self->block, "acquire", NULL);
    if (!got) return NULL;
    Py_DECREF(got);
    self->owner = owner;
    self->count = count;
    Py_RETURN_NONE;
}

static PyObject *rlock_at_fork_reinit(rlock *self, PyObject *unused) {
    (void)unused;
    self->owner = 0;
    self->count = 0;
    return PyObject_CallMethod(self->block, "_at_fork_reinit", NULL);
}

static PyObject *rlock_locked(rlock *self, PyObject *unused) {
    (void)unused;
    return PyBool_FromLong(self->count != 0);
}

static PyObject *rlock_repr(rlock *self) {
    return PyUnicode_FromFormat("<%s %s object owner=%lu count=%zd at %p>", self->count ? "locked" : "unlocked",
                                Py_TYPE(self)->tp_name, self->owner, self->count, (void *)self);
}

static PyMethodDef methods[] = {
    {"acquire", (PyCFunction)(void (*)(void))rlock_acquire, METH_VARARGS | METH_KEYWORDS,
     "acquire(blocking=True, timeout=-1) -> bool"},
    {"release", (PyCFunction)rlock_release, METH_NOARGS, "RuntimeError if the caller does not own the lock"},
    {"__enter__", (PyCFunction)rlock_enter, METH_NOARGS, NULL},
    {"__exit__", (PyCFunction)rlock_exit, METH_VARARGS, NULL},
    {"locked", (PyCFunction)rlock_locked, METH_NOARGS, "is the lock held by anybody?"},
    {"_is_owned", (PyCFunction)rlock_is_owned, METH_NOARGS, NULL},
    {"_recursion_count", (PyCFunction)rlock_recursion_count, METH_NOARGS, NULL},
    {"_release_save", (PyCFunction)rlock_release_save, METH_NOARGS, NULL},
    {"_acquire_restore", (PyCFunction)rlock_acquire_restore, METH_VARARGS, NULL},
    {"_at_fork_reinit", (PyCFunction)rlock_at_fork_reinit, METH_NOARGS, NULL},
    {0}};

static PyMemberDef members[] = {
    {"__weaklistoffset__", T_PYSSIZET, offsetof(rlock, weakrefs), READONLY, NULL}, {0}};

static PyType_Slot slots[] = {{Py_tp_new, rlock_new},
                              {Py_tp_dealloc, rlock_dealloc},
                              {Py_tp_repr, rlock_repr},
                              {Py_tp_methods, methods},
                              {Py_tp_members, members},
                              {Py_tp_doc, "A re-entrant lock owned by a coroutine, or by a thread."},
                              {0}};

static PyType_Spec spec = {"opencoro_ipy._native.RLock", sizeof(rlock), 0,
                           Py_TPFLAGS_DEFAULT | Py_TPFLAGS_BASETYPE, slots};

int rlock_register(PyObject *module) {
    PyObject *thread = PyImport_ImportModule("_thread");
    allocate_lock = thread ? PyObject_GetAttrString(thread, "allocate_lock") : NULL;
    Py_XDECREF(thread);
    PyObject *type = allocate_lock ? PyType_FromSpec(&spec) : NULL;
    int err = type ? PyModule_AddObjectRef(module, "RLock", type) : -1;
    Py_XDECREF(type);
    return err;
}
