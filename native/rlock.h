/* rlock: a re-entrant lock whose owner is a coroutine, or a thread where there is none. */
#ifndef OPENCORO_RLOCK_H
#define OPENCORO_RLOCK_H

#include <Python.h>

/* Who runs: the thread's identity, or on the target thread the running coroutine's. Never 0. */
unsigned long owner_ident(void);
/* Adds the type RLock to the module. 0, or -1 with an exception. */
int rlock_register(PyObject *module);
#endif
