/* From gconet.c to calls.py: cffi defines these functions. All return a gconet_status + 1, or 0 if Python did not start,
 * and put the reason of an error into `message`, which has GCONET_ROOM bytes. */
#ifndef GCONET_BRIDGE_H
#define GCONET_BRIDGE_H

#include <stddef.h>
#include <stdint.h>

#include "gconet.h"

#define GCONET_ROOM 1024

/* ---- */
int32_t py_load(const char *bundle, const char *device, const char *provider, int32_t threads, int32_t no_cuda_graphs,
                const char *signature, uintptr_t *number, char *message, size_t room);
int32_t py_free(uintptr_t number, char *message, size_t room);
int32_t py_describe(uintptr_t number, gconet_info *info, char *message, size_t room);
int32_t py_manifest(uintptr_t number, char *json, size_t capacity, size_t *length, char *message, size_t room);
int32_t py_detect(uintptr_t number, const gconet_photo *photos, size_t count, float *const *maps, char *message,
                  size_t room);
int32_t py_consensus(uintptr_t number, const gconet_photo *photos, size_t count, float *consensus, size_t length,
                     char *message, size_t room);
int32_t py_read_consensus(uintptr_t number, const char *path, float *consensus, size_t length, char *message,
                          size_t room);
int32_t py_segment(uintptr_t number, const gconet_photo *photos, size_t count, const float *consensus, size_t length,
                   float *const *maps, char *message, size_t room);
int32_t py_prepare(uintptr_t number, const gconet_photo *photos, size_t count, float *images, char *message, size_t room);
int32_t py_detect_input(uintptr_t number, const float *images, size_t count, float *maps, char *message, size_t room);
int32_t py_segment_input(uintptr_t number, const float *images, size_t count, const float *consensus, size_t length,
                         float *maps, char *message, size_t room);
int32_t py_detect_device(uintptr_t number, const float *images, size_t count, float *maps, uintptr_t stream,
                         char *message, size_t room);
/* ---- */

#endif /* GCONET_BRIDGE_H */
