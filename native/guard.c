/* guard.c: see guard.h. Everything here runs on the target thread with the GIL held, but
 * guard_caller_expects_eintr (signal handler) and the gc callback (any thread that collects).
 *
 * C++ binding libraries (pybind11, PyO3), OpenMP, some of scipy and lxml keep thread-local chains of
 * pointers into the C stack that must unwind last-in first-out; greenlet moves that stack away. They
 * cannot be asked, so the live C frames are unwound from here to the first frame of greenlet (what lies
 * above belongs to whoever resumed us) and each must belong to an image that is known to be safe. */
#define _GNU_SOURCE
#include "guard.h"

#include <dlfcn.h>
#include <link.h>
#include <pthread.h>
#include <stdatomic.h>
#include <string.h>
#include <unwind.h>

#include "clock.h"
#include "monitor.h"

const char *const guard_reason[DEFER_REASONS] = {"safe",  "no_preempt", "gc",     "tracing",
                                                 "trash", "protected",  "pinned", "error"};
uint64_t guard_deferred[DEFER_REASONS];
uint64_t guard_checks_ns[HISTOGRAM_BUCKETS];

#define MAX_PREFIXES 96
#define CACHE_SIZE 1024 /* images; a power of two, several times what a process loads */
#define MAX_FRAMES 100000

typedef enum { IMAGE_UNSAFE, IMAGE_SAFE, IMAGE_BOTTOM } image_verdict;
typedef struct {
    const struct link_map *map;
    const void *dynamic; /* l_ld: with l_name, tells a reused link_map from the old one */
    const char *name;
    image_verdict verdict;
    uint64_t pinned;
} cached_image;

static char *allowed[MAX_PREFIXES], *eintr_prefixes[MAX_PREFIXES];
static cached_image cache[CACHE_SIZE];
static PyObject *protected_files, *protected_functions;
static _Atomic int collecting;
static guard_verdict last;
static char last_image[128];
static uint64_t pinned_jit;

static const char *base_name(const char *path) {
    const char *slash = strrchr(path, '/');
    return slash ? slash + 1 : path;
}

static bool has_prefix(char *const *prefixes, const char *path) {
    for (; *prefixes; prefixes++)
        if (strncmp(path, *prefixes, strlen(*prefixes)) == 0) return true;
    return false;
}

/* The image that holds `pc`. False: none (JIT code). Async-signal-safe where _dl_find_object is. */
static bool image_of(void *pc, struct link_map **map) {
#ifdef DLFO_STRUCT_HAS_EH_DBASE /* glibc >= 2.35: lock-free */
    struct dl_find_object found;
    if (_dl_find_object(pc, &found) != 0) return false;
    *map = found.dlfo_link_map;
    return true;
#else
    Dl_info info;
    return dladdr1(pc, &info, (void **)map, RTLD_DL_LINKMAP) != 0 && *map;
#endif
}

static cached_image *look_up(struct link_map *map) {
    size_t slot = ((uintptr_t)map >> 4) % CACHE_SIZE;
    for (size_t probed = 0; probed < CACHE_SIZE; probed++, slot = (slot + 1) % CACHE_SIZE) {
        cached_image *c = &cache[slot];
        if (c->map == map && c->dynamic == map->l_ld && c->name == map->l_name) return c;
        if (c->map && c->map != map) continue;
        const char *name = map->l_name ? map->l_name : "";
        c->map = map;
        c->dynamic = map->l_ld;
        c->name = map->l_name;
        c->pinned = 0;
        if (strncmp(base_name(name), "_greenlet.", 10) == 0)
            c->verdict = IMAGE_BOTTOM;
        else
            c->verdict = !name[0] || has_prefix(allowed, name) ? IMAGE_SAFE : IMAGE_UNSAFE;
        return c;
    }
    return NULL; /* more than CACHE_SIZE images: unknown is unsafe */
}

typedef struct {
    guard_verdict verdict;
    bool reached_bottom;
    int frames;
} walk;

static _Unwind_Reason_Code on_c_frame(struct _Unwind_Context *context, void *arg) {
    walk *w = arg;
    void *pc = (void *)_Unwind_GetIP(context);
    struct link_map *map;
    if (!pc || ++w->frames > MAX_FRAMES) return _URC_END_OF_STACK;
    if (!image_of((char *)pc - 1, &map)) {
        pinned_jit++;
        w->verdict = DEFER_PINNED;
        strcpy(last_image, "jit");
        return _URC_END_OF_STACK;
    }
    cached_image *image = look_up(map);
    if (image && image->verdict == IMAGE_SAFE) return _URC_NO_REASON;
    if (image && image->verdict == IMAGE_BOTTOM) {
        w->reached_bottom = true;
        return _URC_END_OF_STACK;
    }
    if (image) image->pinned++;
    w->verdict = DEFER_PINNED;
    snprintf(last_image, sizeof last_image, "%s", base_name(map->l_name));
    return _URC_END_OF_STACK;
}

static guard_verdict check_c_stack(void) {
    walk w = {SAFE, false, 0};
    _Unwind_Backtrace(on_c_frame, &w);
    if (w.verdict == SAFE && !w.reached_bottom) { /* the unwinder stopped early: we do not know */
        strcpy(last_image, "unknown");
        return DEFER_PINNED;
    }
    return w.verdict;
}

static bool is_protected(PyCodeObject *code) {
    if (PyUnicode_CompareWithASCIIString(code->co_name, "__del__") == 0) return true;
    if (protected_files && PySet_Contains(protected_files, code->co_filename) == 1) return true;
    if (!protected_functions || PyUnicode_READ_CHAR(code->co_filename, 0) != '<') return false;
    PyObject *key = PyTuple_Pack(2, code->co_filename, code->co_name);
    bool found = key && PySet_Contains(protected_functions, key) == 1;
    Py_XDECREF(key);
    return found;
}

static guard_verdict check_python_stack(PyObject *frame) {
    PyFrameObject *f = (PyFrameObject *)Py_XNewRef(frame == Py_None ? NULL : frame);
    guard_verdict verdict = SAFE;
    while (f && verdict == SAFE) {
        PyCodeObject *code = PyFrame_GetCode(f);
        if (is_protected(code)) verdict = DEFER_PROTECTED;
        Py_DECREF(code);
        PyFrameObject *back = PyFrame_GetBack(f);
        Py_DECREF(f);
        f = back;
    }
    Py_XDECREF(f);
    if (PyErr_Occurred()) PyErr_Clear(); /* out of memory while walking: ask again */
    return verdict;
}

guard_verdict guard_check(PyObject *frame, int inhibited) {
    uint64_t start = now_ns();
    PyThreadState *ts = PyThreadState_Get();
    guard_verdict verdict = SAFE;
    if (PyErr_Occurred()) verdict = DEFER_ERROR;
    else if (inhibited) verdict = DEFER_NO_PREEMPT;
    else if (atomic_load(&collecting)) verdict = DEFER_GC;
    else if (ts->tracing > 0) verdict = DEFER_TRACING;
#if PY_VERSION_HEX >= 0x030D0000
    else if (ts->delete_later) verdict = DEFER_TRASH;
#endif
    else if ((verdict = check_python_stack(frame)) == SAFE) verdict = check_c_stack();
    if (verdict != SAFE) {
        guard_deferred[verdict]++;
        last = verdict;
    }
    guard_checks_ns[histogram_bucket(now_ns() - start)]++;
    return verdict;
}

PyObject *guard_last_reason(void) {
    if (last == DEFER_PINNED) return PyUnicode_FromFormat("Pinned(%s)", last_image);
    return PyUnicode_FromString(guard_reason[last]);
}

PyObject *guard_pinned_images(void) {
    PyObject *result = PyDict_New();
    for (size_t i = 0; result && i <= CACHE_SIZE; i++) {
        uint64_t n = i < CACHE_SIZE ? cache[i].pinned : pinned_jit;
        if (!n) continue;
        PyObject *count = PyLong_FromUnsignedLongLong(n);
        const char *name = i < CACHE_SIZE ? base_name(cache[i].name) : "jit";
        if (!count || PyDict_SetItemString(result, name, count) < 0) Py_CLEAR(result);
        Py_XDECREF(count);
    }
    return result;
}

static int set_prefixes(char **to, PyObject *from) {
    Py_ssize_t n = PySequence_Size(from);
    if (n < 0) return -1;
    if (n >= MAX_PREFIXES) {
        PyErr_Format(PyExc_ValueError, "at most %d image prefixes", MAX_PREFIXES - 1);
        return -1;
    }
    char *fresh[MAX_PREFIXES] = {NULL};
    for (Py_ssize_t i = 0; i < n; i++) {
        PyObject *item = PySequence_GetItem(from, i);
        const char *text = item ? PyUnicode_AsUTF8(item) : NULL;
        fresh[i] = text ? strdup(text) : NULL;
        Py_XDECREF(item);
        if (!fresh[i]) {
            if (text) PyErr_NoMemory();
            for (Py_ssize_t k = 0; k < i; k++) free(fresh[k]);
            return -1;
        }
    }
    for (char **p = to; *p; p++) free(*p);
    memcpy(to, fresh, sizeof fresh);
    return 0;
}

int guard_configure(PyObject *allow, PyObject *eintr, PyObject *files, PyObject *functions) {
    if (set_prefixes(allowed, allow) < 0 || set_prefixes(eintr_prefixes, eintr) < 0) return -1;
    memset(cache, 0, sizeof cache);
    Py_XSETREF(protected_files, Py_NewRef(files));
    Py_XSETREF(protected_functions, Py_NewRef(functions));
    walk warm_up = {SAFE, false, 0}; /* the first unwind may allocate; never let that be in a handler */
    _Unwind_Backtrace(on_c_frame, &warm_up);
    memset(cache, 0, sizeof cache);
    pinned_jit = 0;
    return 0;
}

PyObject *guard_gc_callback(PyObject *module, PyObject *const *args, Py_ssize_t n) {
    (void)module;
    if (n >= 1 && pthread_equal(pthread_self(), target_thread)) {
        bool start = PyUnicode_CompareWithASCIIString(args[0], "start") == 0;
        atomic_store(&collecting, start ? 1 : 0);
    }
    Py_RETURN_NONE;
}

static _Unwind_Reason_Code on_caller(struct _Unwind_Context *context, void *arg) {
    bool *ok = arg;
    void *pc = (void *)_Unwind_GetIP(context);
    struct link_map *map;
    if (!pc) return _URC_NO_REASON;
    if (!image_of((char *)pc - 1, &map)) return _URC_END_OF_STACK;
    const char *name = map->l_name ? map->l_name : "", *base = base_name(name);
    static const char *const transparent[] = {"libc.so", "ld-linux", "_native.", "linux-vdso", "libgcc_s",
                                              "libpthread", NULL};
    for (const char *const *t = transparent; *t; t++)
        if (strncmp(base, *t, strlen(*t)) == 0) return _URC_NO_REASON;
    *ok = !name[0] || has_prefix(eintr_prefixes, name);
    return _URC_END_OF_STACK;
}

bool guard_caller_expects_eintr(void) {
    bool ok = false;
    _Unwind_Backtrace(on_caller, &ok);
    return ok;
}
