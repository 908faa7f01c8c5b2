/* Answers an image with learned classes, and says whether it looks unlike good ones:
 *
 *     learned MODEL.onnx CLASSES.bank GOOD.anomaly IMAGE.ppm
 *
 * `smalti-run learn add` writes the bank, `smalti-run anomaly fit` the detector. The image is a binary PPM; a camera's frame
 * goes in the same way. Nothing is allocated after the second image of one size. */
#include <stdio.h>
#include <stdlib.h>

#include <smalti.h>

static void check(int code) {
    if (code == SMALTI_OK) return;
    fprintf(stderr, "%s: %s\n", smalti_code_name(code), smalti_last_error());
    exit(code);
}

int main(int count, char **arguments) {
    if (count != 5) {
        fprintf(stderr, "usage: %s MODEL.onnx CLASSES.bank GOOD.anomaly IMAGE.ppm\n", arguments[0]);
        return SMALTI_USAGE;
    }
    size_t width, height;
    FILE *file = fopen(arguments[4], "rb");
    if (!file || fscanf(file, "P6 %zu %zu 255", &width, &height) != 2 || fgetc(file) == EOF || width > 10000
        || height > 10000) {
        fprintf(stderr, "%s: expected a binary PPM file\n", arguments[4]);
        return SMALTI_DATA;
    }
    size_t length = width * height * 3;
    unsigned char *pixels = malloc(length + 1);
    if (!pixels || fread(pixels, 1, length, file) != length) {
        fprintf(stderr, "%s: the file is cut off\n", arguments[4]);
        return SMALTI_DATA;
    }
    fclose(file);

    /* Detectors look at values inside the model. */
    smalti_options options = {.size = sizeof options, .tokens = ""};
    smalti_model *model;
    smalti_bank *bank;
    smalti_anomaly *anomaly;
    smalti_session *session;
    check(smalti_open(arguments[1], &options, &model));
    check(smalti_bank_open(model, arguments[2], NULL, &bank));
    check(smalti_anomaly_open(model, arguments[3], NULL, &anomaly));
    check(smalti_session_new(model, 1, &session));

    check(smalti_run_pixels(session, pixels, length, width, height, 3, 0));
    smalti_ranked best;
    smalti_score score = {.size = sizeof score};
    check(smalti_bank_top_k(bank, session, &best, 1));
    check(smalti_anomaly_score(anomaly, session, &score, NULL, 0));
    printf("%s %.3f, %s %.2f\n", best.label, best.probability, score.score > 1 ? "unusual" : "good", score.score);

    check(smalti_session_free(session));
    check(smalti_anomaly_close(anomaly));
    check(smalti_bank_close(bank));
    check(smalti_close(model));
    free(pixels);
    return 0;
}
