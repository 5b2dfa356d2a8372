/* Finds what a group of photos shares, from C.
 *
 *     cc detect.c -o detect $(pkg-config --cflags --libs gconet)
 *     ./detect build/gconet.gconet maps a.ppm b.ppm c.ppm
 *
 * Photos are binary PPM (P6, 8 bits), as `convert a.jpg a.ppm` writes them. For each, the folder `maps`, which must be
 * there, gets NAME.pfm with the map as it is, floats from bottom to top, and NAME.pgm with 8 bits, cut off as
 * `gconet detect` does. Exit code 0, or 2 with one line on standard error.
 */
#include <gconet.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

static const char *problem; /* of a file, for main to tell */

/* Read a number of a PPM's header, past white space and comments; -1 if there is none. */
static long read_number(FILE *file) {
    int character = getc(file);
    while (character == ' ' || character == '\t' || character == '\n' || character == '\r' || character == '#') {
        if (character == '#')
            while (character != '\n' && character != EOF) character = getc(file);
        character = getc(file);
    }
    long number = -1;
    for (; character >= '0' && character <= '9' && number < 100000; character = getc(file))
        number = (number < 0 ? 0 : number) * 10 + (character - '0');
    return number;
}

/* The photo's pixels are the caller's to free. */
static int read_photo(const char *path, gconet_photo *photo) {
    FILE *file = fopen(path, "rb");
    problem = "cannot be opened";
    if (file == NULL) return 0;
    uint8_t *pixels = NULL;
    int done = 0;
    problem = "is no binary PPM of 8 bits";
    if (getc(file) == 'P' && getc(file) == '6') {
        long width = read_number(file), height = read_number(file), largest = read_number(file);
        if (width > 0 && height > 0 && width < 100000 && height < 100000 && largest == 255) {
            size_t size = (size_t)width * (size_t)height * 3;
            pixels = malloc(size);
            problem = pixels == NULL ? "is too large" : "ends too early";
            done = pixels != NULL && fread(pixels, 1, size, file) == size;
            photo->width = (size_t)width;
            photo->height = (size_t)height;
            photo->row_stride = 0; /* rows without gaps */
            photo->rgb = pixels;
        }
    }
    fclose(file);
    if (!done) {
        free(pixels);
        photo->rgb = NULL;
    }
    return done;
}

/* FOLDER/NAME.SUFFIX of a photo FOLDER2/NAME.ppm. */
static FILE *create(const char *folder, const char *photo, const char *suffix) {
    const char *slash = strrchr(photo, '/');
    const char *name = slash == NULL ? photo : slash + 1;
    const char *dot = strrchr(name, '.');
    int length = (int)(dot == NULL ? strlen(name) : (size_t)(dot - name));
    char path[4096];
    int needed = snprintf(path, sizeof path, "%s/%.*s.%s", folder, length, name, suffix);
    return needed > 0 && (size_t)needed < sizeof path ? fopen(path, "wb") : NULL;
}

/* Whether all that was written has arrived; that fclose() went well says it of the last bytes only. */
static int close_whole(FILE *file) {
    int failed = ferror(file);
    return fclose(file) == 0 && !failed;
}

static int write_map(const char *folder, const gconet_photo *photo, const char *name, const float *map) {
    const int one = 1;
    problem = "has a map that cannot be written";
    FILE *file = create(folder, name, "pfm");
    if (file == NULL) return 0;
    fprintf(file, "Pf\n%zu %zu\n%s\n", photo->width, photo->height, *(const char *)&one ? "-1.0" : "1.0");
    for (size_t row = photo->height; row-- > 0;) fwrite(map + row * photo->width, sizeof *map, photo->width, file);
    if (!close_whole(file)) return 0;
    file = create(folder, name, "pgm");
    if (file == NULL) return 0;
    fprintf(file, "P5\n%zu %zu\n255\n", photo->width, photo->height);
    for (size_t pixel = 0; pixel < photo->width * photo->height; pixel++) putc((int)(map[pixel] * 255), file);
    return close_whole(file);
}

static int detect(const char *bundle, const char *folder, char **names, size_t count, gconet_photo *photos,
                  float **maps) {
    for (size_t index = 0; index < count; index++) {
        const char *name = names[index];
        if (!read_photo(name, &photos[index])) return fprintf(stderr, "detect: %s %s\n", name, problem), 2;
        maps[index] = malloc(photos[index].width * photos[index].height * sizeof *maps[index]);
        if (maps[index] == NULL) return fprintf(stderr, "detect: no memory for the map of %s\n", name), 2;
    }
    gconet_detector *detector = NULL;
    gconet_status status = gconet_load(bundle, NULL, &detector);
    if (status == GCONET_OK) status = gconet_detect(detector, photos, count, maps);
    gconet_free(detector);
    if (status != GCONET_OK) return fprintf(stderr, "detect: %s\n", gconet_last_error()), 2;
    for (size_t index = 0; index < count; index++)
        if (!write_map(folder, &photos[index], names[index], maps[index]))
            return fprintf(stderr, "detect: %s %s\n", names[index], problem), 2;
    return 0;
}

int main(int argc, char **argv) {
    if (argc < 4) return fprintf(stderr, "usage: detect BUNDLE FOLDER PHOTO.ppm...\n"), 2;
    if (gconet_abi_version() != GCONET_ABI_VERSION) return fprintf(stderr, "detect: compile it again\n"), 2;
    size_t count = (size_t)argc - 3;
    gconet_photo *photos = calloc(count, sizeof *photos);
    float **maps = calloc(count, sizeof *maps);
    int code = 2;
    if (photos != NULL && maps != NULL) code = detect(argv[1], argv[2], argv + 3, count, photos, maps);
    for (size_t index = 0; index < count && photos != NULL && maps != NULL; index++) {
        free((void *)photos[index].rgb);
        free(maps[index]);
    }
    free(photos);
    free(maps);
    return code;
}
