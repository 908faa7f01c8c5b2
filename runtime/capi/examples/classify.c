/* Classifies an image: classify MODEL.onnx IMAGE.ppm
 *
 * The image is a binary PPM or PGM, which is easy to read here; a camera's frame goes in the same way. */
#include <stdio.h>
#include <stdlib.h>

#include <smalti.h>

static void check(int code) {
    if (code == SMALTI_OK) return;
    fprintf(stderr, "%s: %s\n", smalti_code_name(code), smalti_last_error());
    exit(code);
}

/* Reads an image; the caller frees the pixels. */
static unsigned char *read_image(const char *path, size_t *width, size_t *height, size_t *channels) {
    FILE *file = fopen(path, "rb");
    char kind;
    if (!file || fscanf(file, "P%c %zu %zu 255", &kind, width, height) != 3 || (kind != '5' && kind != '6')
        || fgetc(file) == EOF || *width > 10000 || *height > 10000) {
        fprintf(stderr, "%s: expected a binary PPM or PGM file\n", path);
        exit(SMALTI_DATA);
    }
    *channels = kind == '6' ? 3 : 1;
    size_t length = *width * *height * *channels;
    unsigned char *pixels = malloc(length + 1);
    if (!pixels || fread(pixels, 1, length, file) != length) {
        fprintf(stderr, "%s: the file is cut off\n", path);
        exit(SMALTI_DATA);
    }
    fclose(file);
    return pixels;
}

int main(int count, char **arguments) {
    if (count != 3) {
        fprintf(stderr, "usage: %s MODEL.onnx IMAGE.ppm\n", arguments[0]);
        return SMALTI_USAGE;
    }
    size_t width, height, channels;
    unsigned char *pixels = read_image(arguments[2], &width, &height, &channels);

    smalti_model *model;
    check(smalti_open(arguments[1], NULL, &model));
    check(smalti_selftest(model));

    size_t bytes;
    check(smalti_memory_bound(model, 1, width, height, channels, &bytes));
    fprintf(stderr, "smalti %s, at most %zu kB of heap\n", smalti_version(), (bytes + 1023) / 1024);

    smalti_session *session;
    check(smalti_session_new(model, 1, &session));
    check(smalti_run_pixels(session, pixels, width * height * channels, width, height, channels, 0));

    smalti_ranked best;
    check(smalti_top_k(session, &best, 1));
    printf("%s %.3f\n", best.label, best.probability);

    check(smalti_session_free(session));
    check(smalti_close(model));
    free(pixels);
    return 0;
}
