/* One detector in eight threads: `capi_threads BUNDLE`. Every answer is that of the same call alone, every thread has its
 * own errors, no byte beside a buffer changes, and the host keeps its signals. Prints "ok", or what is wrong. */
#include <gconet.h>
#include <pthread.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

enum { THREADS = 8, ROUNDS = 6, MOST = 4, HEIGHT = 40, WIDTH = 50, GAP = 7, FENCE = 64 };

static gconet_detector *detector;
static int side;
static float *alone[MOST + 1], *alone_input[MOST + 1]; /* answers by group size */

static void complain(const char *what) {
    fprintf(stderr, "%s: %s\n", what, gconet_last_error());
    exit(1);
}

/* A buffer with a fence on either side. */
static void *fenced(size_t size) {
    unsigned char *memory = malloc(size + 2 * FENCE);
    if (memory == NULL) complain("no memory");
    memset(memory, 0xA5, size + 2 * FENCE);
    return memory + FENCE;
}

static void check_and_free(void *buffer, size_t size) {
    unsigned char *memory = (unsigned char *)buffer - FENCE;
    for (size_t byte = 0; byte < FENCE; byte++)
        if (memory[byte] != 0xA5 || memory[FENCE + size + byte] != 0xA5) complain("a fence was broken");
    free(memory);
}

/* Maps of a group of `count` photos, each at its size, one after the other. */
static float *detect(size_t count) {
    gconet_photo photos[MOST];
    float *maps[MOST];
    size_t stride = 3 * WIDTH + GAP, size = HEIGHT * WIDTH * sizeof(float);
    float *answer = fenced(count * size);
    for (size_t index = 0; index < count; index++) {
        uint8_t *pixels = fenced(stride * HEIGHT);
        for (size_t byte = 0; byte < stride * HEIGHT; byte++)
            pixels[byte] = (uint8_t)(byte * (index + 3) ^ (byte >> (index + 5)));
        photos[index] = (gconet_photo){pixels, HEIGHT, WIDTH, stride};
        maps[index] = answer + index * HEIGHT * WIDTH;
    }
    if (gconet_detect(detector, photos, count, maps) != GCONET_OK) complain("gconet_detect");
    for (size_t index = 0; index < count; index++) check_and_free((void *)photos[index].rgb, stride * HEIGHT);
    return answer;
}

static float *detect_input(size_t count) {
    size_t pixels = (size_t)side * (size_t)side;
    float *images = fenced(count * 3 * pixels * sizeof *images);
    float *maps = fenced(count * pixels * sizeof *maps);
    for (size_t index = 0; index < count * 3 * pixels; index++)
        images[index] = (float)(index * 7919 % 1000) / 300 - 1.6f;
    if (gconet_detect_input(detector, images, count, maps) != GCONET_OK) complain("gconet_detect_input");
    check_and_free(images, count * 3 * pixels * sizeof *images);
    return maps;
}

static void *work(void *argument) {
    size_t own = (size_t)argument;
    char expected[64];
    snprintf(expected, sizeof expected, "%#zx is no detector", own + 1);
    for (size_t round = 0; round < ROUNDS; round++) {
        size_t count = 1 + (own + round) % MOST, pixels = (size_t)side * (size_t)side;
        if (gconet_describe((gconet_detector *)(own + 1), &(gconet_info)GCONET_INFO_INIT) != GCONET_ERROR_USAGE)
            complain("a number that is no detector was taken for one");
        float *maps = detect(count), *small = detect_input(count);
        if (memcmp(maps, alone[count], count * HEIGHT * WIDTH * sizeof *maps) != 0) complain("another map");
        if (memcmp(small, alone_input[count], count * pixels * sizeof *small) != 0) complain("another small map");
        if (strstr(gconet_last_error(), expected) == NULL) complain("an error of another thread");
        check_and_free(maps, count * HEIGHT * WIDTH * sizeof *maps);
        check_and_free(small, count * pixels * sizeof *small);
    }
    return NULL;
}

static void host_handler(int number) { (void)number; }

int main(int argc, char **argv) {
    if (argc != 2) return 2;
    struct sigaction ours, found;
    memset(&ours, 0, sizeof ours);
    ours.sa_handler = host_handler;
    sigaction(SIGINT, &ours, NULL);
    if (gconet_load(argv[1], NULL, &detector) != GCONET_OK) complain("gconet_load");
    gconet_info info = GCONET_INFO_INIT;
    if (gconet_describe(detector, &info) != GCONET_OK) complain("gconet_describe");
    side = info.input_size;
    for (size_t count = 1; count <= MOST; count++) {
        alone[count] = detect(count);
        alone_input[count] = detect_input(count);
    }
    pthread_t threads[THREADS];
    for (size_t index = 0; index < THREADS; index++)
        if (pthread_create(&threads[index], NULL, work, (void *)index) != 0) complain("no thread");
    for (size_t index = 0; index < THREADS; index++) pthread_join(threads[index], NULL);
    for (size_t count = 1; count <= MOST; count++) {
        check_and_free(alone[count], count * HEIGHT * WIDTH * sizeof(float));
        check_and_free(alone_input[count], count * (size_t)side * (size_t)side * sizeof(float));
    }
#ifdef LEAKY
    alone[1] = NULL;
    if (malloc(1000) == NULL) return 1;
#endif
    gconet_free(detector);
    if (gconet_describe(detector, &info) != GCONET_ERROR_USAGE) complain("a detector that was freed answers");
    gconet_free(detector);
    for (const int *number = (int[]){SIGINT, SIGPIPE, SIGTERM, SIGSEGV, 0}; *number != 0; number++) {
        sigaction(*number, NULL, &found);
        if (found.sa_handler != (*number == SIGINT ? host_handler : SIG_DFL)) complain("a signal was taken");
    }
    puts("ok");
    return 0;
}
