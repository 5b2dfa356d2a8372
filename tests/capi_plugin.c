/* A host that knows nothing of the library until it runs: `capi_plugin LIBRARY BUNDLE`. Loads it as plugins are, its
 * symbols for itself only, and prints the status of loading a bundle, and why. */
#include <dlfcn.h>
#include <gconet.h>
#include <stdio.h>
#include <string.h>

static void *look_up(void *library, const char *name) {
    void *found = dlsym(library, name);
    if (found == NULL) fprintf(stderr, "no %s\n", name);
    return found;
}

int main(int argc, char **argv) {
    if (argc != 3) return 2;
    void *library = dlopen(argv[1], RTLD_NOW | RTLD_LOCAL);
    if (library == NULL) return fprintf(stderr, "%s\n", dlerror()), 2;
    gconet_status (*load)(const char *, const gconet_options *, gconet_detector **);
    const char *(*last_error)(void), *(*name)(gconet_status);
    void *functions[] = {look_up(library, "gconet_load"), look_up(library, "gconet_last_error"),
                         look_up(library, "gconet_status_name")};
    if (dlsym(library, "py_load") != NULL || dlsym(library, "PyInit_gconet_native") != NULL)
        return fprintf(stderr, "what is internal can be seen\n"), 2;
    memcpy(&load, &functions[0], sizeof load);
    memcpy(&last_error, &functions[1], sizeof last_error);
    memcpy(&name, &functions[2], sizeof name);
    gconet_detector *detector = NULL;
    gconet_status status = load(argv[2], NULL, &detector);
    printf("%s %s\n", name(status), last_error());
    return status == GCONET_OK ? 0 : 1;
}
