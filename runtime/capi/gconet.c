/* The C side of libgconet.so: starts Python once, keeps errors by thread, checks pointers. gconet.h says what each
 * function does, calls.py does it; functions named py_ are the bridge between them, made by cffi. They return 0 where
 * Python did not start, which gconet_status has no room for, so a status comes as status + 1. */
#define _GNU_SOURCE /* of dlfcn.h: RTLD_NOLOAD */
#include <Python.h>

#include <dlfcn.h>
#include <pthread.h>
#include <stdarg.h>
#include <stdio.h>
#include <string.h>
#include <unistd.h>

#include "bridge.h"
#include "config.h"
#include "gconet.h"

static _Thread_local char last_error[GCONET_ROOM];
static pthread_once_t started = PTHREAD_ONCE_INIT;
static char start_error[GCONET_ROOM]; /* why Python cannot be used; "" if it can */

#define MEND "; set GCONET_PYTHON to the interpreter of an environment that has gconet-deploy[capi]"

static gconet_status fail(gconet_status status, const char *format, ...) {
    va_list values;
    va_start(values, format);
    vsnprintf(last_error, sizeof last_error, format, values);
    va_end(values);
    return status;
}

/* How many bytes of a text a message has room for, as `%.*s` takes them: up to 400, and none of UTF-8's characters cut. */
static int shown(const char *text) {
    size_t length = strnlen(text, 401);
    if (length > 400)
        for (length = 400; length > 0 && (text[length] & 0xC0) == 0x80;) length--;
    return (int)length;
}

/* Python cannot be used, and this is why: in one line. */
static void cannot_start(const char *format, ...) {
    va_list values;
    va_start(values, format);
    vsnprintf(start_error, sizeof start_error, format, values);
    va_end(values);
    for (char *at = start_error; *at != '\0'; at++)
        if (*at == '\n' || *at == '\r') *at = ' ';
}

/* Extension modules look Python's symbols up in the global scope, where they are not if a host loaded us as a plugin. */
static void make_python_global(void) { dlopen(GCONET_LIBPYTHON, RTLD_LAZY | RTLD_GLOBAL | RTLD_NOLOAD); }

static PyStatus initialise(const char *executable) {
    PyPreConfig before;
    PyPreConfig_InitIsolatedConfig(&before); /* the host's locale, PYTHON... variables and arguments are its own */
    before.utf8_mode = 1;
    PyStatus status = Py_PreInitialize(&before);
    if (PyStatus_Exception(status)) return status;
    PyConfig config;
    PyConfig_InitIsolatedConfig(&config);
    config.install_signal_handlers = 0;
    config.pathconfig_warnings = 0;
    /* An environment is found by where its interpreter lies. */
    status = PyConfig_SetBytesString(&config, &config.program_name, executable);
    if (!PyStatus_Exception(status)) status = PyConfig_SetBytesString(&config, &config.executable, executable);
    if (!PyStatus_Exception(status)) status = PyWideStringList_Append(&config.warnoptions, L"ignore");
    if (!PyStatus_Exception(status)) status = Py_InitializeFromConfig(&config);
    PyConfig_Clear(&config);
    return status;
}

/* Put folders, separated by colons, at the front of sys.path. */
static void put_first(const char *folders) {
    PyObject *path = PySys_GetObject("path"); /* borrowed */
    for (Py_ssize_t place = 0; path != NULL && *folders != '\0';) {
        size_t length = strcspn(folders, ":");
        if (length > 0) {
            PyObject *folder = PyUnicode_DecodeFSDefaultAndSize(folders, (Py_ssize_t)length);
            if (folder != NULL && PyList_Insert(path, place, folder) == 0) place += 1;
            Py_XDECREF(folder);
        }
        folders += length + (folders[length] == ':');
    }
    PyErr_Clear();
}

/* Import what the bridge needs, so that it cannot fail, and print, later. */
static void import_packages(const char *executable) {
    PyObject *backend = PyImport_ImportModule("_cffi_backend");
    PyObject *calls = backend == NULL ? NULL : PyImport_ImportModule("gconet.runtime.capi.calls");
    PyObject *abi = calls == NULL ? NULL : PyObject_GetAttrString(calls, "ABI_VERSION");
    if (abi == NULL) {
        PyObject *type, *value, *traceback;
        PyErr_Fetch(&type, &value, &traceback);
        PyObject *text = value == NULL ? NULL : PyObject_Str(value);
        const char *reason = text == NULL ? NULL : PyUnicode_AsUTF8(text);
        if (reason == NULL) reason = "no reason given";
        cannot_start("%.*s has no usable gconet-deploy[capi] (%.*s)" MEND, shown(executable), executable, shown(reason),
                     reason);
        Py_XDECREF(text);
        Py_XDECREF(type);
        Py_XDECREF(value);
        Py_XDECREF(traceback);
        PyErr_Clear();
    } else if (PyLong_AsLong(abi) != GCONET_ABI_VERSION) {
        PyErr_Clear();
        cannot_start("gconet-deploy in %.*s is for another version of this library: build it again with "
                     "`gconet build-capi`", shown(executable), executable);
    }
    Py_XDECREF(abi);
    Py_XDECREF(calls);
    Py_XDECREF(backend);
}

/* Let cffi run what the library carries; needs the GIL. Before Python 3.12 cffi takes a field of a type, where a running
 * interpreter may keep a number, for a lock that is free at 0: else it would wait for ever. */
static void start_bridge(void) {
    char unused[GCONET_ROOM];
    if (start_error[0] != '\0') return;
#if PY_VERSION_HEX < 0x030C0000
    PyType_Modified(&PyCapsule_Type);
#endif
    if (py_free(0, unused, sizeof unused) == 0)
        cannot_start("Python's part of libgconet does not start: see standard error");
}

static void start(void) {
    const char *folders = getenv("GCONET_PYTHONPATH");
    if (folders == NULL) folders = GCONET_FOLDERS;
    if (Py_IsInitialized()) { /* the host has a Python of its own: that one it is */
        PyGILState_STATE state = PyGILState_Ensure();
        put_first(folders);
        import_packages("this process's Python");
        start_bridge();
        PyGILState_Release(state);
        return;
    }
    const char *executable = getenv("GCONET_PYTHON");
    if (executable == NULL || *executable == '\0') executable = GCONET_EXECUTABLE;
    if (access(executable, X_OK) != 0) {
        cannot_start("there is no Python at %.*s" MEND, shown(executable), executable);
        return;
    }
    make_python_global();
    PyStatus status = initialise(executable);
    if (PyStatus_Exception(status)) {
        const char *reason = status.err_msg == NULL ? "no reason given" : status.err_msg;
        cannot_start("Python " PY_VERSION " of %.*s does not start (%.*s)" MEND, shown(executable), executable,
                     shown(reason), reason);
        return;
    }
    put_first(folders);
    import_packages(executable);
    start_bridge();
    PyEval_SaveThread();
}

static gconet_status begin(void) {
    pthread_once(&started, start);
    return start_error[0] == '\0' ? GCONET_OK : fail(GCONET_ERROR_PYTHON, "%s", start_error);
}

static gconet_status end(int32_t answer) {
    return answer > 0 ? (gconet_status)(answer - 1) : fail(GCONET_ERROR_INTERNAL, "Python's part of libgconet is gone");
}

#define WANTED(pointer)                                                                                      \
    if ((pointer) == NULL) return fail(GCONET_ERROR_USAGE, "%s: %s is NULL", __func__, #pointer)

/* Calls py_NAME(values..., last_error, its size). */
#define CALL(name, ...)                                                                                      \
    gconet_status ready = begin();                                                                           \
    return ready == GCONET_OK ? end(py_##name(__VA_ARGS__, last_error, sizeof last_error)) : ready

uint32_t gconet_abi_version(void) { return GCONET_ABI_VERSION; }

const char *gconet_version(void) { return GCONET_VERSION; }

const char *gconet_last_error(void) { return last_error; }

const char *gconet_status_name(gconet_status status) {
    static const char *const names[] = {
        "GCONET_OK",           "GCONET_ERROR_USAGE",  "GCONET_ERROR_PHOTO",
        "GCONET_ERROR_BUNDLE", "GCONET_ERROR_CONSENSUS", "GCONET_ERROR_TARGET",
        "GCONET_ERROR_MEMORY", "GCONET_ERROR_PYTHON", "GCONET_ERROR_INTERNAL",
    };
    size_t index = (size_t)status;
    return index < sizeof names / sizeof *names ? names[index] : "unknown status";
}

/* A struct as this library knows it: what the caller's has of it, the rest as by default. */
static gconet_status take_options(const gconet_options *given, gconet_options *taken) {
    static const gconet_options usual = GCONET_OPTIONS_INIT;
    *taken = usual;
    if (given == NULL) return GCONET_OK;
    if (given->size < sizeof given->size)
        return fail(GCONET_ERROR_USAGE, "gconet_load: options have size %zu: start from GCONET_OPTIONS_INIT",
                    given->size);
    memcpy(taken, given, given->size < sizeof *taken ? given->size : sizeof *taken);
    return GCONET_OK;
}

static gconet_status load(const char *bundle, const gconet_options *options, uintptr_t *number) {
    CALL(load, bundle, options->device, options->provider, options->threads, options->no_cuda_graphs,
         options->signature, number);
}

gconet_status gconet_load(const char *bundle, const gconet_options *options, gconet_detector **detector) {
    WANTED(detector);
    *detector = NULL;
    WANTED(bundle);
    gconet_options taken;
    gconet_status status = take_options(options, &taken);
    if (status != GCONET_OK) return status;
    uintptr_t number = 0;
    status = load(bundle, &taken, &number);
    if (status == GCONET_OK) *detector = (gconet_detector *)number; /* a number, not an address: see calls.py */
    return status;
}

static gconet_status release(const gconet_detector *detector) { CALL(free, (uintptr_t)detector); }

void gconet_free(gconet_detector *detector) {
    if (detector != NULL) (void)release(detector);
}

static gconet_status describe(const gconet_detector *detector, gconet_info *info) {
    CALL(describe, (uintptr_t)detector, info);
}

gconet_status gconet_describe(const gconet_detector *detector, gconet_info *info) {
    WANTED(detector);
    WANTED(info);
    size_t size = info->size;
    if (size < sizeof size)
        return fail(GCONET_ERROR_USAGE, "gconet_describe: info has size %zu: start from GCONET_INFO_INIT", size);
    gconet_info all = GCONET_INFO_INIT;
    gconet_status status = describe(detector, &all);
    if (status != GCONET_OK) return status;
    if (size < sizeof all) all.size = size;
    memcpy(info, &all, all.size);
    return GCONET_OK;
}

gconet_status gconet_manifest(const gconet_detector *detector, char *json, size_t capacity, size_t *length) {
    WANTED(detector);
    if (capacity > 0) WANTED(json);
    if (json == NULL) WANTED(length);
    size_t whole = 0;
    if (length == NULL) length = &whole;
    CALL(manifest, (uintptr_t)detector, json, capacity, length);
}

gconet_status gconet_detect(const gconet_detector *detector, const gconet_photo *photos, size_t count,
                            float *const *maps) {
    WANTED(detector);
    WANTED(photos);
    WANTED(maps);
    CALL(detect, (uintptr_t)detector, photos, count, maps);
}

gconet_status gconet_consensus(const gconet_detector *detector, const gconet_photo *photos, size_t count,
                               float *consensus, size_t length) {
    WANTED(detector);
    WANTED(photos);
    WANTED(consensus);
    CALL(consensus, (uintptr_t)detector, photos, count, consensus, length);
}

gconet_status gconet_read_consensus(const gconet_detector *detector, const char *path, float *consensus,
                                    size_t length) {
    WANTED(detector);
    WANTED(path);
    WANTED(consensus);
    CALL(read_consensus, (uintptr_t)detector, path, consensus, length);
}

gconet_status gconet_segment(const gconet_detector *detector, const gconet_photo *photos, size_t count,
                             const float *consensus, size_t length, float *const *maps) {
    WANTED(detector);
    WANTED(photos);
    WANTED(consensus);
    WANTED(maps);
    CALL(segment, (uintptr_t)detector, photos, count, consensus, length, maps);
}

gconet_status gconet_prepare(const gconet_detector *detector, const gconet_photo *photos, size_t count,
                             float *images) {
    WANTED(detector);
    WANTED(photos);
    WANTED(images);
    CALL(prepare, (uintptr_t)detector, photos, count, images);
}

gconet_status gconet_detect_input(const gconet_detector *detector, const float *images, size_t count, float *maps) {
    WANTED(detector);
    WANTED(images);
    WANTED(maps);
    CALL(detect_input, (uintptr_t)detector, images, count, maps);
}

gconet_status gconet_segment_input(const gconet_detector *detector, const float *images, size_t count,
                                   const float *consensus, size_t length, float *maps) {
    WANTED(detector);
    WANTED(images);
    WANTED(consensus);
    WANTED(maps);
    CALL(segment_input, (uintptr_t)detector, images, count, consensus, length, maps);
}

gconet_status gconet_detect_device(const gconet_detector *detector, const float *images, size_t count, float *maps,
                                   void *stream) {
    WANTED(detector);
    WANTED(images);
    WANTED(maps);
    CALL(detect_device, (uintptr_t)detector, images, count, maps, (uintptr_t)stream);
}
