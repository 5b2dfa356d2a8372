/* GCoNet from C and C++: find the object that a group of photos shares.
 *
 *     gconet_detector *detector = NULL;
 *     if (gconet_load("build/gconet.gconet", NULL, &detector) != GCONET_OK) puts(gconet_last_error());
 *     gconet_detect(detector, photos, 3, maps);
 *     gconet_free(detector);
 *
 * Memory: whatever a function reads or writes is the caller's, before the call and after it. The library keeps no
 * pointer beyond the call, but for gconet_detect_device. Buffers that are written must not overlap those that are read,
 * nor each other. After a call that failed, what is in them means nothing.
 *
 * Threads: every function may be called from every thread at any time, on the same detector too. Engines on the CPU use
 * all cores for one call, so that calls on one detector mostly take turns. Freeing a detector that is at work in another
 * thread lets that call end well; calls after it fail with GCONET_ERROR_USAGE, as do those with any pointer that
 * gconet_load did not give: a detector is never looked into, and its address never used again.
 *
 * Errors: functions return a status, never throw, never print, never end the process, and leave signals alone. Pointers
 * that are null are refused. Sizes are the caller's word: buffers that are smaller than said are undefined behaviour.
 *
 * The first gconet_load of a process starts a Python interpreter inside it, with the packages of the environment that
 * the library was built in; GCONET_PYTHON names the interpreter of another, GCONET_PYTHONPATH folders that come first. It
 * stays until the process ends. A child of fork() must not use the library if its parent has. In a process that runs
 * Python already that one is used; call the library without holding its lock, as ctypes and cffi do.
 *
 * Versions: functions and fields are only ever added. A program that was compiled with an older header runs with a newer
 * library of the same GCONET_ABI_VERSION.
 */
#ifndef GCONET_H
#define GCONET_H

#include <stddef.h>
#include <stdint.h>

#define GCONET_ABI_VERSION 1

#if defined(__GNUC__)
#define GCONET_API __attribute__((visibility("default")))
#else
#define GCONET_API
#endif

#ifdef __cplusplus
extern "C" {
#endif

/* What follows, up to the same mark, is also read by Python: declarations only. */
/* ---- */

/* A loaded bundle. */
typedef struct gconet_detector gconet_detector;

typedef enum gconet_status {
    GCONET_OK = 0,
    GCONET_ERROR_USAGE = 1,     /* an argument that makes no sense */
    GCONET_ERROR_PHOTO = 2,     /* a photo that cannot be used */
    GCONET_ERROR_BUNDLE = 3,    /* a bundle that is missing, altered, or lacks the graph for what was asked */
    GCONET_ERROR_CONSENSUS = 4, /* a file that is no consensus, or of another network */
    GCONET_ERROR_TARGET = 5,    /* an engine that cannot run on this machine, or failed */
    GCONET_ERROR_MEMORY = 6,    /* no memory left */
    GCONET_ERROR_PYTHON = 7,    /* the interpreter, or the packages it needs, cannot be started */
    GCONET_ERROR_INTERNAL = 8   /* anything else: please report it */
} gconet_status;

/* How to run a bundle; start from GCONET_OPTIONS_INIT, fields that are 0 or NULL leave the choice to the library. */
typedef struct gconet_options {
    size_t size;            /* sizeof(gconet_options) */
    const char *device;     /* "cpu", "cuda", "cuda:1"; NULL or "auto" is where the build measured it */
    const char *provider;   /* of ONNX Runtime on a GPU: "cuda" or "tensorrt"; NULL is "cuda" */
    int32_t threads;        /* of engines on the CPU */
    int32_t no_cuda_graphs; /* not 0: repeated work on a GPU is not launched as CUDA graphs */
    const char *signature;  /* file of a public key whose owner must have signed the bundle, see `gconet sign`; or NULL */
} gconet_options;

/* A bundle, told in numbers. */
typedef struct gconet_info {
    size_t size;              /* sizeof(gconet_info), set before the call */
    int32_t input_size;       /* S: network input is S x S pixels */
    int32_t max_group;        /* the most photos that a call takes; 0 is any number */
    int32_t verified_group;   /* up to how many the bundle's answers were compared with the network's */
    int32_t consensus_length; /* C, 512 in the paper's network */
    int32_t has_consensus;    /* not 0: gconet_consensus and gconet_segment work */
    float mean[3];            /* network input is (RGB / 255 - mean) / std */
    float std[3];
    char target[32];          /* "openvino", "onnxruntime", "tensorrt", "tensorrt-rtx" */
    char precision[16];       /* "fp32", "bf16", "fp16", "int8" */
    char target_version[64];  /* of the engine's library, at build time */
} gconet_info;

/* A photo: rows from top to bottom, of 3 * width bytes R G B R G B ... each. */
typedef struct gconet_photo {
    const uint8_t *rgb;
    size_t height;
    size_t width;
    size_t row_stride; /* bytes from one row to the next, at least 3 * width; 0 is 3 * width */
} gconet_photo;

/* GCONET_ABI_VERSION of the library; a program that compares it with its own needs no interpreter for that. */
GCONET_API uint32_t gconet_abi_version(void);

/* Version of the project that the library was built from, such as "0.1.0"; valid for ever. */
GCONET_API const char *gconet_version(void);

/* Why the last call of this thread that failed did: one line of UTF-8, valid until another one fails; "" if none did. */
GCONET_API const char *gconet_last_error(void);

/* A status' name, such as "GCONET_ERROR_PHOTO"; valid for ever. */
GCONET_API const char *gconet_status_name(gconet_status status);

/* Open a bundle, verify every byte of it, and load its engine. `options` may be NULL. On success *detector is to be
 * given to gconet_free; on an error it is NULL. */
GCONET_API gconet_status gconet_load(const char *bundle, const gconet_options *options, gconet_detector **detector);

/* Let go of a detector. NULL, and one that was freed before, are left alone. */
GCONET_API void gconet_free(gconet_detector *detector);

/* Fill `info`, as far as its `size` says. */
GCONET_API gconet_status gconet_describe(const gconet_detector *detector, gconet_info *info);

/* The bundle's manifest as JSON: what was measured at build, versions, hashes. Writes up to `capacity` bytes to `json`,
 * the closing 0 included, and to *length how many there are without it. With a NULL `json` and a `capacity` of 0 only
 * the latter; a `capacity` that is too small is a GCONET_ERROR_USAGE. */
GCONET_API gconet_status gconet_manifest(const gconet_detector *detector, char *json, size_t capacity, size_t *length);

/* Find what a group of `count` photos shares. maps[i] has room for height * width floats of photo i, row by row; values
 * are in [0, 1], 1 is the shared object. The photos are one group: every map depends on all of them. */
GCONET_API gconet_status gconet_detect(const gconet_detector *detector, const gconet_photo *photos, size_t count,
                                       float *const *maps);

/* What a group shares, `length` floats, which must be the info's consensus_length. */
GCONET_API gconet_status gconet_consensus(const gconet_detector *detector, const gconet_photo *photos, size_t count,
                                          float *consensus, size_t length);

/* Read what `gconet consensus` kept in a file, for a detector of the same network. */
GCONET_API gconet_status gconet_read_consensus(const gconet_detector *detector, const char *path, float *consensus,
                                               size_t length);

/* Find a known consensus, of a detector of the same network, in each of `count` photos by itself; maps as above. */
GCONET_API gconet_status gconet_segment(const gconet_detector *detector, const gconet_photo *photos, size_t count,
                                        const float *consensus, size_t length, float *const *maps);

/* Make network input of photos: `images` has room for count * 3 * S * S floats. */
GCONET_API gconet_status gconet_prepare(const gconet_detector *detector, const gconet_photo *photos, size_t count,
                                        float *images);

/* The group again, from network input to `maps` with room for count * S * S floats: nothing is copied or resized, and
 * after the first call with as many photos nothing allocated. NaN and infinities are refused. */
GCONET_API gconet_status gconet_detect_input(const gconet_detector *detector, const float *images, size_t count,
                                             float *maps);

/* The same with a known consensus. */
GCONET_API gconet_status gconet_segment_input(const gconet_detector *detector, const float *images, size_t count,
                                              const float *consensus, size_t length, float *maps);

/* gconet_detect_input in memory of the detector's GPU, for bundles that run on one. `images` is ready, and `maps` may be
 * written, once what was launched on `stream` (a CUstream or cudaStream_t of the primary context; NULL is the default
 * stream) has run; whatever is launched on it after this call finds the maps computed. The call does not wait for them:
 * both buffers stay valid, and the images unchanged, until the stream has got there. Values are not checked. */
GCONET_API gconet_status gconet_detect_device(const gconet_detector *detector, const float *images, size_t count,
                                              float *maps, void *stream);

/* ---- */

#ifdef __cplusplus
}
#endif

#define GCONET_OPTIONS_INIT {sizeof(gconet_options), NULL, NULL, 0, 0, NULL}
#define GCONET_INFO_INIT {sizeof(gconet_info), 0, 0, 0, 0, 0, {0, 0, 0}, {0, 0, 0}, {0}, {0}, {0}}

#endif /* GCONET_H */
