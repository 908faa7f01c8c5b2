/* As misuse.c, of class banks and anomaly detectors:
 *
 *     misuse_learned MODEL_U8 MODEL_F32 BANK DETECTOR
 */
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "smalti.h"

void smalti_test_panic(const char *entry);

static int cases, failures;

static void expect(int line, const char *call, int found, int wanted) {
    cases++;
    if (found == wanted) return;
    failures++;
    fprintf(stderr, "line %d: %s: %s, expected %s; last error: %s\n", line, call, smalti_code_name(found),
            smalti_code_name(wanted), smalti_last_error());
}

#define EXPECT(wanted, call) expect(__LINE__, #call, call, wanted)
#define SAME(wanted, value) expect(__LINE__, #value, (int)(value), (int)(wanted))

/* A file's bytes; the caller frees them. */
static uint8_t *bytes_of(const char *path, size_t *length) {
    FILE *file = fopen(path, "rb");
    uint8_t *bytes = malloc(1 << 20);
    if (!file || !bytes) exit(2);
    *length = fread(bytes, 1, 1 << 20, file);
    fclose(file);
    return bytes;
}

int main(int count, char **arguments) {
    if (count != 5) return 2;
    const char *bank_path = arguments[3], *detector_path = arguments[4];
    smalti_options with_tokens = {.size = sizeof with_tokens, .tokens = ""};
    smalti_model *model = NULL, *other = NULL;
    EXPECT(SMALTI_OK, smalti_open(arguments[1], &with_tokens, &model));
    EXPECT(SMALTI_OK, smalti_open(arguments[2], NULL, &other));
    smalti_session *session = NULL;
    EXPECT(SMALTI_OK, smalti_session_new(model, 1, &session));
    smalti_bank *bank = NULL, *no_bank = NULL;
    smalti_anomaly *anomaly = NULL, *no_anomaly = NULL;
    EXPECT(SMALTI_OK, smalti_bank_open(model, bank_path, NULL, &bank));
    EXPECT(SMALTI_OK, smalti_anomaly_open(model, detector_path, NULL, &anomaly));

    size_t n = 0, m = 0;
    float map[4];
    const char *label;
    smalti_ranked ranked[4];
    smalti_score score = {.size = sizeof score};
    uint8_t pixels[27] = {0};

    /* Null. */
    EXPECT(SMALTI_NULL, smalti_bank_open(NULL, bank_path, NULL, &no_bank));
    EXPECT(SMALTI_NULL, smalti_bank_open(model, NULL, NULL, &no_bank));
    EXPECT(SMALTI_NULL, smalti_bank_open(model, bank_path, NULL, NULL));
    EXPECT(SMALTI_NULL, smalti_bank_open_bytes(model, NULL, 9, NULL, &no_bank));
    EXPECT(SMALTI_NULL, smalti_bank_class_count(bank, NULL));
    EXPECT(SMALTI_NULL, smalti_bank_class_count(NULL, &n));
    EXPECT(SMALTI_NULL, smalti_bank_label(bank, 0, NULL));
    EXPECT(SMALTI_NULL, smalti_bank_memory_bound(bank, NULL));
    EXPECT(SMALTI_NULL, smalti_bank_top_k(bank, session, NULL, 1));
    EXPECT(SMALTI_NULL, smalti_bank_top_k(bank, NULL, ranked, 1));
    EXPECT(SMALTI_NULL, smalti_bank_top_k(NULL, session, ranked, 1));
    EXPECT(SMALTI_NULL, smalti_anomaly_open(NULL, detector_path, NULL, &no_anomaly));
    EXPECT(SMALTI_NULL, smalti_anomaly_open(model, detector_path, NULL, NULL));
    EXPECT(SMALTI_NULL, smalti_anomaly_open_bytes(model, NULL, 9, NULL, &no_anomaly));
    EXPECT(SMALTI_NULL, smalti_anomaly_grid(anomaly, NULL, &n));
    EXPECT(SMALTI_NULL, smalti_anomaly_grid(anomaly, &n, NULL));
    EXPECT(SMALTI_NULL, smalti_anomaly_memory_bound(anomaly, NULL));
    EXPECT(SMALTI_NULL, smalti_anomaly_score(NULL, session, &score, NULL, 0));
    EXPECT(SMALTI_OK, smalti_bank_close(NULL));
    EXPECT(SMALTI_OK, smalti_anomaly_close(NULL));

    /* Before the first run there is nothing to answer. */
    EXPECT(SMALTI_USAGE, smalti_bank_top_k(bank, session, ranked, 1));
    EXPECT(SMALTI_USAGE, smalti_anomaly_score(anomaly, session, &score, NULL, 0));
    EXPECT(SMALTI_OK, smalti_run_pixels(session, pixels, 27, 3, 3, 3, 0));

    /* Sizes. */
    EXPECT(SMALTI_OK, smalti_bank_class_count(bank, &n));
    SAME(4, n);
    EXPECT(SMALTI_USAGE, smalti_bank_label(bank, n, &label));
    EXPECT(SMALTI_OK, smalti_bank_label(bank, n - 1, &label));
    SAME(0, strcmp("white", label));
    EXPECT(SMALTI_USAGE, smalti_bank_top_k(bank, session, ranked, 5));
    EXPECT(SMALTI_USAGE, smalti_bank_top_k(bank, session, ranked, SIZE_MAX));
    EXPECT(SMALTI_OK, smalti_bank_top_k(bank, session, ranked, 0));
    EXPECT(SMALTI_OK, smalti_anomaly_grid(anomaly, &n, &m));
    SAME(4, n * m);
    EXPECT(SMALTI_USAGE, smalti_anomaly_score(anomaly, session, &score, map, 3));
    EXPECT(SMALTI_USAGE, smalti_anomaly_score(anomaly, session, &score, NULL, 4));
    score.size = 3;
    EXPECT(SMALTI_USAGE, smalti_anomaly_score(anomaly, session, &score, map, 4));
    score.size = sizeof score;
    EXPECT(SMALTI_NULL, smalti_anomaly_score(anomaly, session, NULL, map, 4));
    smalti_learned_options options = {.size = 3};
    EXPECT(SMALTI_USAGE, smalti_bank_open(model, bank_path, &options, &no_bank));
    options.size = sizeof options;
    options.pubkey = "no such key";
    EXPECT(SMALTI_IO, smalti_anomaly_open(model, detector_path, &options, &no_anomaly));
    options.pubkey = "RWQ/zhgjkJwwh+fkM+03X2EfLKGFpd9/CYykQIWJ8oKnGOSZLrGjLN4n";
    EXPECT(SMALTI_REFUSED, smalti_bank_open(model, bank_path, &options, &no_bank));

    /* Handles of other kinds, and closed ones. */
    EXPECT(SMALTI_HANDLE, smalti_bank_class_count((smalti_bank *)anomaly, &n));
    EXPECT(SMALTI_HANDLE, smalti_anomaly_grid((smalti_anomaly *)bank, &n, &m));
    EXPECT(SMALTI_HANDLE, smalti_bank_top_k(bank, (smalti_session *)bank, ranked, 1));
    EXPECT(SMALTI_HANDLE, smalti_bank_open((smalti_model *)session, bank_path, NULL, &no_bank));

    /* Files: of other models, of the other kind, none, cut off anywhere. */
    EXPECT(SMALTI_REFUSED, smalti_bank_open(other, bank_path, NULL, &no_bank));
    EXPECT(SMALTI_REFUSED, smalti_anomaly_open(other, detector_path, NULL, &no_anomaly));
    EXPECT(SMALTI_REFUSED, smalti_bank_open(model, detector_path, NULL, &no_bank));
    EXPECT(SMALTI_REFUSED, smalti_anomaly_open(model, bank_path, NULL, &no_anomaly));
    EXPECT(SMALTI_IO, smalti_bank_open(model, "no such file", NULL, &no_bank));
    EXPECT(SMALTI_IO, smalti_anomaly_open(model, "no such file", NULL, &no_anomaly));
    size_t bank_length, detector_length;
    uint8_t *bank_bytes = bytes_of(bank_path, &bank_length), *bytes = bytes_of(detector_path, &detector_length);
    for (size_t length = 0; length < bank_length; length += 7)
        EXPECT(SMALTI_REFUSED, smalti_bank_open_bytes(model, bank_bytes, length, NULL, &no_bank));
    for (size_t length = 0; length < detector_length; length += 7)
        EXPECT(SMALTI_REFUSED, smalti_anomaly_open_bytes(model, bytes, length, NULL, &no_anomaly));
    EXPECT(SMALTI_REFUSED, smalti_bank_open_bytes(model, bank_bytes, bank_length, &options, &no_bank));
    SAME(1, no_bank == NULL && no_anomaly == NULL);

    /* A bug in each entry. */
#define PANIC(entry, call) \
    do { \
        smalti_test_panic(entry); \
        EXPECT(SMALTI_INTERNAL, call); \
        SAME(1, strstr(smalti_last_error(), entry) != NULL); \
    } while (0)
    PANIC("smalti_bank_open", smalti_bank_open(model, bank_path, NULL, &no_bank));
    PANIC("smalti_bank_open_bytes", smalti_bank_open_bytes(model, bank_bytes, bank_length, NULL, &no_bank));
    PANIC("smalti_bank_class_count", smalti_bank_class_count(bank, &n));
    PANIC("smalti_bank_label", smalti_bank_label(bank, 0, &label));
    PANIC("smalti_bank_memory_bound", smalti_bank_memory_bound(bank, &n));
    PANIC("smalti_bank_top_k", smalti_bank_top_k(bank, session, ranked, 1));
    PANIC("smalti_bank_close", smalti_bank_close(bank));
    PANIC("smalti_anomaly_open", smalti_anomaly_open(model, detector_path, NULL, &no_anomaly));
    PANIC("smalti_anomaly_open_bytes", smalti_anomaly_open_bytes(model, bytes, detector_length, NULL, &no_anomaly));
    PANIC("smalti_anomaly_grid", smalti_anomaly_grid(anomaly, &n, &m));
    PANIC("smalti_anomaly_score", smalti_anomaly_score(anomaly, session, &score, map, 4));
    PANIC("smalti_anomaly_memory_bound", smalti_anomaly_memory_bound(anomaly, &n));
    PANIC("smalti_anomaly_close", smalti_anomaly_close(anomaly));

    EXPECT(SMALTI_OK, smalti_bank_top_k(bank, session, ranked, 4));
    EXPECT(SMALTI_OK, smalti_anomaly_score(anomaly, session, &score, map, 4));
    EXPECT(SMALTI_OK, smalti_bank_close(bank));
    EXPECT(SMALTI_HANDLE, smalti_bank_close(bank));
    EXPECT(SMALTI_OK, smalti_anomaly_close(anomaly));
    EXPECT(SMALTI_HANDLE, smalti_anomaly_score(anomaly, session, &score, map, 4));
    EXPECT(SMALTI_OK, smalti_session_free(session));
    EXPECT(SMALTI_OK, smalti_close(model));
    EXPECT(SMALTI_OK, smalti_close(other));
    free(bank_bytes);
    free(bytes);
    printf("misuse_learned: %d cases, %d failures\n", cases, failures);
    return failures != 0;
}
