/* Everything that a caller can do wrong, each with the code that must come of it. Under valgrind or AddressSanitizer
 * nothing may be read, written or leaked. Linked with the library of feature `panic-injection`:
 *
 *     misuse MODEL_U8 MODEL_F32
 */
#include <math.h>
#include <pthread.h>
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

static const char *u8_path, *f32_path;

static smalti_model *open_model(const char *path) {
    smalti_model *model = NULL;
    EXPECT(SMALTI_OK, smalti_open(path, NULL, &model));
    return model;
}

static smalti_session *new_session(const smalti_model *model, size_t threads) {
    smalti_session *session = NULL;
    EXPECT(SMALTI_OK, smalti_session_new(model, threads, &session));
    return session;
}

static smalti_input input_of(const smalti_model *model) {
    smalti_input input = {.size = sizeof input};
    EXPECT(SMALTI_OK, smalti_input_info(model, &input));
    return input;
}

static void null_pointers(void) {
    smalti_model *model = open_model(u8_path), *other = NULL;
    smalti_session *session = new_session(model, 1), *none = session;
    smalti_ranked ranked;
    uint8_t byte = 0;
    float value = 0;
    const char *label;
    size_t count;
    EXPECT(SMALTI_NULL, smalti_open(NULL, NULL, &other));
    EXPECT(SMALTI_NULL, smalti_open(u8_path, NULL, NULL));
    EXPECT(SMALTI_NULL, smalti_open_bytes(NULL, 10, NULL, &other));
    EXPECT(SMALTI_NULL, smalti_open_bytes(&byte, 1, NULL, NULL));
    EXPECT(SMALTI_NULL, smalti_input_info(model, NULL));
    EXPECT(SMALTI_NULL, smalti_input_info(NULL, NULL));
    EXPECT(SMALTI_NULL, smalti_class_count(model, NULL));
    EXPECT(SMALTI_NULL, smalti_class_count(NULL, &count));
    EXPECT(SMALTI_NULL, smalti_label(model, 0, NULL));
    EXPECT(SMALTI_NULL, smalti_label(NULL, 0, &label));
    EXPECT(SMALTI_NULL, smalti_embedding_length(model, NULL));
    EXPECT(SMALTI_NULL, smalti_embedding_length(NULL, &count));
    EXPECT(SMALTI_NULL, smalti_memory_bound(model, 1, 0, 0, 0, NULL));
    EXPECT(SMALTI_NULL, smalti_memory_bound(NULL, 1, 0, 0, 0, &count));
    EXPECT(SMALTI_NULL, smalti_selftest(NULL));
    EXPECT(SMALTI_NULL, smalti_session_new(model, 1, NULL));
    EXPECT(SMALTI_NULL, smalti_session_new(NULL, 1, &none));
    SAME(1, none == NULL);
    EXPECT(SMALTI_NULL, smalti_run_pixels(session, NULL, 3, 1, 1, 3, 0));
    EXPECT(SMALTI_NULL, smalti_run_pixels(NULL, &byte, 1, 1, 1, 1, 0));
    EXPECT(SMALTI_NULL, smalti_run_frame(session, NULL, 3, SMALTI_RGB8, 1, 1));
    EXPECT(SMALTI_NULL, smalti_run_frame(NULL, &byte, 1, SMALTI_GREY8, 1, 1));
    EXPECT(SMALTI_NULL, smalti_run_u8(session, NULL, 3));
    EXPECT(SMALTI_NULL, smalti_run_u8(NULL, &byte, 1));
    EXPECT(SMALTI_NULL, smalti_run_f32(session, NULL, 3));
    EXPECT(SMALTI_NULL, smalti_run_f32(NULL, &value, 1));
    EXPECT(SMALTI_NULL, smalti_logits(session, NULL, 3));
    EXPECT(SMALTI_NULL, smalti_logits(NULL, &value, 1));
    EXPECT(SMALTI_NULL, smalti_embedding(session, NULL, 3));
    EXPECT(SMALTI_NULL, smalti_embedding(NULL, &value, 1));
    EXPECT(SMALTI_NULL, smalti_top_k(session, NULL, 1));
    EXPECT(SMALTI_NULL, smalti_top_k(NULL, &ranked, 1));
    EXPECT(SMALTI_OK, smalti_close(NULL));
    EXPECT(SMALTI_OK, smalti_session_free(NULL));
    EXPECT(SMALTI_OK, smalti_close(model));
    EXPECT(SMALTI_OK, smalti_session_free(session));
}

static void bad_files(void) {
    smalti_model *model = (smalti_model *)1;
    uint8_t bytes[64] = {8, 7};
    smalti_options options = {.size = sizeof options};
    EXPECT(SMALTI_IO, smalti_open("no such file", NULL, &model));
    SAME(1, model == NULL);
    SAME(1, strstr(smalti_last_error(), "no such file") != NULL);
    EXPECT(SMALTI_IO, smalti_open("/", NULL, &model));
    EXPECT(SMALTI_REFUSED, smalti_open_bytes(bytes, 0, NULL, &model));
    EXPECT(SMALTI_REFUSED, smalti_open_bytes(bytes, sizeof bytes, NULL, &model));
    EXPECT(SMALTI_USAGE, smalti_open_bytes(bytes, SIZE_MAX, NULL, &model));
    options.max_file_bytes = 100;
    EXPECT(SMALTI_REFUSED, smalti_open(u8_path, &options, &model));
    options.max_file_bytes = 0;
    options.max_work = 1;
    EXPECT(SMALTI_REFUSED, smalti_open(u8_path, &options, &model));
    options.max_work = 0;
    options.size = 3;
    EXPECT(SMALTI_USAGE, smalti_open(u8_path, &options, &model));
    options.size = SIZE_MAX;
    EXPECT(SMALTI_USAGE, smalti_open(u8_path, &options, &model));
    options.size = sizeof options;
    /* A well-formed key (of Smalti's tests) that signed nothing here. */
    options.pubkey = "RWQ/zhgjkJwwh+fkM+03X2EfLKGFpd9/CYykQIWJ8oKnGOSZLrGjLN4n";
    EXPECT(SMALTI_REFUSED, smalti_open(u8_path, &options, &model));
    EXPECT(SMALTI_REFUSED, smalti_open_bytes(bytes, sizeof bytes, &options, &model));
    SAME(1, strstr(smalti_last_error(), "signature") != NULL);
    options.signature = "no signature";
    EXPECT(SMALTI_REFUSED, smalti_open_bytes(bytes, sizeof bytes, &options, &model));
    options.signature = "\xff";
    EXPECT(SMALTI_USAGE, smalti_open_bytes(bytes, sizeof bytes, &options, &model));
    options.pubkey = "no such key";
    EXPECT(SMALTI_IO, smalti_open(u8_path, &options, &model));
    options.pubkey = u8_path;
    EXPECT(SMALTI_IO, smalti_open(u8_path, &options, &model));
    options.pubkey = options.signature = NULL;
    options.min_version = "99";
    EXPECT(SMALTI_REFUSED, smalti_open(u8_path, &options, &model));
    options.min_version = "new";
    EXPECT(SMALTI_USAGE, smalti_open(u8_path, &options, &model));
    options.min_version = NULL;
    options.tokens = "no such value";
    EXPECT(SMALTI_USAGE, smalti_open(u8_path, &options, &model));
    options.tokens = NULL;
    options.fit = -1;
    EXPECT(SMALTI_USAGE, smalti_open(u8_path, &options, &model));
    options.fit = SMALTI_FIT_CROP;
    options.mean[0] = options.mean[1] = options.mean[2] = NAN;
    EXPECT(SMALTI_USAGE, smalti_open(u8_path, &options, &model));
    SAME(1, model == NULL);

    /* A later header's struct: refused only where it asks for what is not known. */
    struct {
        smalti_options known;
        uint64_t unknown;
    } later = {{.size = sizeof later}, 0};
    EXPECT(SMALTI_OK, smalti_open(u8_path, &later.known, &model));
    EXPECT(SMALTI_OK, smalti_close(model));
    later.unknown = 1;
    EXPECT(SMALTI_USAGE, smalti_open(u8_path, &later.known, &model));
}

static void wrong_handles(void) {
    smalti_model *model = open_model(u8_path), *twin = open_model(u8_path), *none = NULL;
    smalti_session *session = new_session(model, 1), *second = NULL;
    uint8_t bytes[64] = {0};
    size_t count = 0;
    int local = 0;
    float value = 0;
    smalti_ranked ranked;
    const char *label = NULL;

    /* Sessions outlive their model, and so do labels. */
    EXPECT(SMALTI_OK, smalti_label(model, 0, &label));
    EXPECT(SMALTI_OK, smalti_close(model));
    EXPECT(SMALTI_OK, smalti_run_pixels(session, bytes, 27, 3, 3, 3, 0));
    EXPECT(SMALTI_OK, smalti_top_k(session, &ranked, 1));
    SAME(1, strlen(label) > 0 && strlen(ranked.label) > 0);

    EXPECT(SMALTI_HANDLE, smalti_close(model));
    EXPECT(SMALTI_HANDLE, smalti_class_count(model, &count));
    EXPECT(SMALTI_HANDLE, smalti_label(model, 0, &label));
    EXPECT(SMALTI_HANDLE, smalti_embedding_length(model, &count));
    EXPECT(SMALTI_HANDLE, smalti_memory_bound(model, 1, 0, 0, 0, &count));
    EXPECT(SMALTI_HANDLE, smalti_selftest(model));
    EXPECT(SMALTI_HANDLE, smalti_session_new(model, 1, &second));
    SAME(1, second == NULL);
    smalti_input input = {.size = sizeof input};
    EXPECT(SMALTI_HANDLE, smalti_input_info(model, &input));

    EXPECT(SMALTI_OK, smalti_session_free(session));
    EXPECT(SMALTI_HANDLE, smalti_session_free(session));
    EXPECT(SMALTI_HANDLE, smalti_run_pixels(session, bytes, 27, 3, 3, 3, 0));
    EXPECT(SMALTI_HANDLE, smalti_run_frame(session, bytes, 27, SMALTI_RGB8, 3, 3));
    EXPECT(SMALTI_HANDLE, smalti_run_u8(session, bytes, 1));
    EXPECT(SMALTI_HANDLE, smalti_run_f32(session, &value, 1));
    EXPECT(SMALTI_HANDLE, smalti_logits(session, &value, 1));
    EXPECT(SMALTI_HANDLE, smalti_embedding(session, &value, 1));
    EXPECT(SMALTI_HANDLE, smalti_top_k(session, &ranked, 1));

    /* Another kind, an address, a number. */
    session = new_session(twin, 1);
    EXPECT(SMALTI_HANDLE, smalti_close((smalti_model *)session));
    EXPECT(SMALTI_HANDLE, smalti_session_free((smalti_session *)twin));
    EXPECT(SMALTI_HANDLE, smalti_selftest((smalti_model *)&local));
    EXPECT(SMALTI_HANDLE, smalti_selftest((smalti_model *)(uintptr_t)-1));
    EXPECT(SMALTI_OK, smalti_session_free(session));
    EXPECT(SMALTI_OK, smalti_close(twin));
    EXPECT(SMALTI_OK, smalti_close(none));
}

static void wrong_sizes(void) {
    smalti_model *model = open_model(u8_path), *floats = open_model(f32_path);
    smalti_session *session = new_session(model, 1), *float_session = new_session(floats, 1);
    smalti_input input = input_of(model);
    size_t values = input.width * input.height * input.channels, classes = 0, count = 0;
    uint8_t *bytes = calloc(values + 1, 1);
    float *tensor = calloc(values + 1, sizeof *tensor), logits[64];
    smalti_ranked ranked[64];
    const char *label = "";
    EXPECT(SMALTI_OK, smalti_class_count(model, &classes));

    input.size = 0;
    EXPECT(SMALTI_USAGE, smalti_input_info(model, &input));
    input.size = sizeof(size_t) + 1;
    EXPECT(SMALTI_OK, smalti_input_info(model, &input));
    EXPECT(SMALTI_USAGE, smalti_label(model, classes, &label));
    SAME(1, label == NULL);
    EXPECT(SMALTI_USAGE, smalti_label(model, SIZE_MAX, &label));

    /* No result yet. */
    EXPECT(SMALTI_USAGE, smalti_logits(session, logits, classes));
    EXPECT(SMALTI_USAGE, smalti_embedding(session, logits, 1));
    EXPECT(SMALTI_USAGE, smalti_top_k(session, ranked, 1));

    EXPECT(SMALTI_USAGE, smalti_run_u8(session, bytes, values - 1));
    EXPECT(SMALTI_USAGE, smalti_run_u8(session, bytes, values + 1));
    EXPECT(SMALTI_USAGE, smalti_run_u8(session, bytes, 0));
    EXPECT(SMALTI_USAGE, smalti_run_u8(session, bytes, SIZE_MAX));
    EXPECT(SMALTI_USAGE, smalti_run_f32(session, tensor, values));
    EXPECT(SMALTI_USAGE, smalti_run_f32(float_session, tensor, values - 1));
    EXPECT(SMALTI_USAGE, smalti_run_f32(float_session, tensor, SIZE_MAX / 2));
    EXPECT(SMALTI_USAGE, smalti_run_f32(float_session, (float *)(void *)((char *)tensor + 1), values));

    EXPECT(SMALTI_OK, smalti_run_u8(session, bytes, values));
    EXPECT(SMALTI_OK, smalti_logits(session, logits, classes));
    EXPECT(SMALTI_USAGE, smalti_logits(session, logits, classes + 1));
    EXPECT(SMALTI_USAGE, smalti_logits(session, logits, 0));
    EXPECT(SMALTI_USAGE, smalti_embedding(session, logits, 63));
    EXPECT(SMALTI_OK, smalti_top_k(session, ranked, classes));
    EXPECT(SMALTI_OK, smalti_top_k(session, ranked, 0));
    EXPECT(SMALTI_USAGE, smalti_top_k(session, ranked, classes + 1));
    EXPECT(SMALTI_USAGE, smalti_top_k(session, ranked, SIZE_MAX));

    /* Images. */
    EXPECT(SMALTI_DATA, smalti_run_pixels(session, bytes, 0, 0, 0, 3, 0));
    EXPECT(SMALTI_DATA, smalti_run_pixels(session, bytes, 12, 2, 2, 2, 0));
    EXPECT(SMALTI_DATA, smalti_run_pixels(session, bytes, 12, 2, 2, 4, 0));
    EXPECT(SMALTI_DATA, smalti_run_pixels(session, bytes, 11, 2, 2, 3, 0));
    EXPECT(SMALTI_DATA, smalti_run_pixels(session, bytes, 12, 2, 2, 3, 5));
    EXPECT(SMALTI_DATA, smalti_run_pixels(session, bytes, 13, 2, 2, 3, 8));
    EXPECT(SMALTI_OK, smalti_run_pixels(session, bytes, 14, 2, 2, 3, 8));
    /* Widths, heights and strides whose products do not fit. */
    EXPECT(SMALTI_DATA, smalti_run_pixels(session, bytes, 12, SIZE_MAX, 1, 3, 0));
    EXPECT(SMALTI_DATA, smalti_run_pixels(session, bytes, 12, SIZE_MAX / 3, 4, 3, 0));
    EXPECT(SMALTI_DATA, smalti_run_pixels(session, bytes, 12, 2, SIZE_MAX, 3, 0));
    EXPECT(SMALTI_DATA, smalti_run_pixels(session, bytes, 12, 2, 2, SIZE_MAX, 0));
    EXPECT(SMALTI_DATA, smalti_run_pixels(session, bytes, 12, 2, 3, 3, SIZE_MAX));
    EXPECT(SMALTI_DATA, smalti_run_pixels(session, bytes, 12, 2, 3, 3, SIZE_MAX / 2 + 1));
    EXPECT(SMALTI_USAGE, smalti_run_pixels(session, bytes, SIZE_MAX, 2, 2, 3, 0));
    size_t wide = ((size_t)1 << 20) + 1;
    uint8_t *long_row = calloc(wide, 1);
    EXPECT(SMALTI_DATA, smalti_run_pixels(session, long_row, wide, wide, 1, 1, 0));
    EXPECT(SMALTI_DATA, smalti_run_pixels(session, long_row, wide, 1, wide, 1, 0));
    free(long_row);

    /* Frames. */
    static const int32_t formats[] = {SMALTI_RGB8, SMALTI_BGR8, SMALTI_GREY8, SMALTI_RGB565, SMALTI_YUYV,
                                      SMALTI_UYVY, SMALTI_NV12, SMALTI_NV21, SMALTI_I420, SMALTI_BAYER_RGGB8,
                                      SMALTI_BAYER_BGGR8, SMALTI_BAYER_GBRG8, SMALTI_BAYER_GRBG8};
    static const size_t halves[] = {6, 6, 2, 4, 4, 4, 3, 3, 3, 2, 2, 2, 2};
    for (size_t i = 0; i < sizeof formats / sizeof *formats; i++) {
        /* Of its own size, so that a read beyond the end is seen. */
        size_t size = 4 * 2 * halves[i] / 2;
        uint8_t *frame = calloc(size, 1);
        EXPECT(SMALTI_OK, smalti_run_frame(session, frame, size, formats[i], 4, 2));
        EXPECT(SMALTI_DATA, smalti_run_frame(session, frame, size - 1, formats[i], 4, 2));
        EXPECT(SMALTI_DATA, smalti_run_frame(session, frame, size, formats[i], 4, 4));
        EXPECT(SMALTI_DATA, smalti_run_frame(session, frame, size, formats[i], 0, 2));
        EXPECT(SMALTI_DATA, smalti_run_frame(session, frame, size, formats[i], 4, 0));
        EXPECT(SMALTI_DATA, smalti_run_frame(session, frame, size, formats[i], SIZE_MAX, SIZE_MAX));
        EXPECT(SMALTI_DATA, smalti_run_frame(session, frame, size, formats[i], SIZE_MAX - 1, 2));
        EXPECT(SMALTI_USAGE, smalti_run_frame(session, frame, SIZE_MAX, formats[i], 4, 2));
        free(frame);
    }
    EXPECT(SMALTI_DATA, smalti_run_frame(session, bytes, 12, SMALTI_YUYV, 3, 2));
    EXPECT(SMALTI_DATA, smalti_run_frame(session, bytes, 9, SMALTI_NV12, 2, 3));
    EXPECT(SMALTI_USAGE, smalti_run_frame(session, bytes, 12, 0, 2, 2));
    EXPECT(SMALTI_USAGE, smalti_run_frame(session, bytes, 12, 14, 2, 2));
    EXPECT(SMALTI_USAGE, smalti_run_frame(session, bytes, 12, -1, 2, 2));
    /* The failed run took the result with it. */
    EXPECT(SMALTI_USAGE, smalti_logits(session, logits, classes));

    EXPECT(SMALTI_DATA, smalti_memory_bound(model, 1, 0, 1, 3, &count));
    EXPECT(SMALTI_DATA, smalti_memory_bound(model, 1, SIZE_MAX, SIZE_MAX, 3, &count));
    EXPECT(SMALTI_OK, smalti_memory_bound(model, SIZE_MAX, 0, 0, 0, &count));

    /* Numbers that are none. */
    tensor[values / 2] = NAN;
    EXPECT(SMALTI_DATA, smalti_run_f32(float_session, tensor, values));
    tensor[values / 2] = -INFINITY;
    EXPECT(SMALTI_DATA, smalti_run_f32(float_session, tensor, values));
    tensor[values / 2] = 0;
    EXPECT(SMALTI_OK, smalti_run_f32(float_session, tensor, values));
    EXPECT(SMALTI_OK, smalti_run_u8(float_session, bytes, values));

    free(bytes);
    free(tensor);
    EXPECT(SMALTI_OK, smalti_session_free(session));
    EXPECT(SMALTI_OK, smalti_session_free(float_session));
    EXPECT(SMALTI_OK, smalti_close(model));
    EXPECT(SMALTI_OK, smalti_close(floats));
}

#define THREADS 32
#define RUNS 20

struct work {
    smalti_model *model;
    smalti_session *session;
    int codes[RUNS];
    float logits[64];
    int message_is_own;
};

/* One model, a session each: all the same answers. */
static void *own_session(void *argument) {
    struct work *work = argument;
    uint8_t pixels[30 * 20 * 3];
    size_t classes = 0;
    for (size_t i = 0; i < sizeof pixels; i++) pixels[i] = (uint8_t)(i * 7);
    smalti_session *session = NULL;
    work->codes[0] = smalti_session_new(work->model, 1, &session);
    for (int i = 1; i < RUNS; i++) work->codes[i] = smalti_run_pixels(session, pixels, sizeof pixels, 30, 20, 3, 0);
    smalti_class_count(work->model, &classes);
    work->codes[1] |= smalti_logits(session, work->logits, classes);
    smalti_label(work->model, SIZE_MAX, &(const char *){NULL});
    work->message_is_own = strstr(smalti_last_error(), "class") != NULL;
    work->codes[2] |= smalti_session_free(session);
    return NULL;
}

/* One session for all: each run is done or refused, never both. */
static void *shared_session(void *argument) {
    struct work *work = argument;
    static const uint8_t pixels[200 * 200 * 3];
    for (int i = 0; i < RUNS; i++)
        work->codes[i] = smalti_run_pixels(work->session, pixels, sizeof pixels, 200, 200, 3, 0);
    return NULL;
}

/* Closed under the runs of others. */
static void *vanishing_session(void *argument) {
    struct work *work = argument;
    static const uint8_t pixels[200 * 200 * 3];
    for (int i = 0; i < RUNS; i++) {
        if (i == RUNS / 2) work->codes[i] = smalti_session_free(work->session);
        else work->codes[i] = smalti_run_pixels(work->session, pixels, sizeof pixels, 200, 200, 3, 0);
    }
    return NULL;
}

static struct work *on_threads(void *(*body)(void *), smalti_model *model, smalti_session *session) {
    static struct work works[THREADS];
    pthread_t threads[THREADS];
    for (int t = 0; t < THREADS; t++) {
        works[t] = (struct work){.model = model, .session = session};
        if (pthread_create(&threads[t], NULL, body, &works[t]) != 0) abort();
    }
    for (int t = 0; t < THREADS; t++) pthread_join(threads[t], NULL);
    return works;
}

static void threads(void) {
    smalti_model *model = open_model(u8_path);
    struct work *works = on_threads(own_session, model, NULL);
    for (int t = 0; t < THREADS; t++) {
        for (int i = 0; i < RUNS; i++) SAME(SMALTI_OK, works[t].codes[i]);
        SAME(0, memcmp(works[t].logits, works[0].logits, sizeof works[0].logits));
        SAME(1, works[t].message_is_own);
    }

    smalti_session *session = new_session(model, 1);
    int done = 0, busy = 0;
    works = on_threads(shared_session, model, session);
    for (int t = 0; t < THREADS; t++)
        for (int i = 0; i < RUNS; i++) {
            done += works[t].codes[i] == SMALTI_OK;
            busy += works[t].codes[i] == SMALTI_BUSY;
        }
    SAME(THREADS * RUNS, done + busy);
    SAME(1, done > 0);
    printf("one session on %d threads: %d runs done, %d refused as busy\n", THREADS, done, busy);
    EXPECT(SMALTI_OK, smalti_session_free(session));

    session = new_session(model, 1);
    works = on_threads(vanishing_session, model, session);
    int closed = 0;
    for (int t = 0; t < THREADS; t++)
        for (int i = 0; i < RUNS; i++) {
            int code = works[t].codes[i];
            if (i == RUNS / 2) closed += code == SMALTI_OK;
            else SAME(1, code == SMALTI_OK || code == SMALTI_BUSY || code == SMALTI_HANDLE);
        }
    SAME(1, closed);

    /* A session with helpers, more than the machine has. */
    session = new_session(model, 5);
    uint8_t pixels[12] = {0};
    EXPECT(SMALTI_OK, smalti_run_pixels(session, pixels, sizeof pixels, 2, 2, 3, 0));
    EXPECT(SMALTI_OK, smalti_session_free(session));
    EXPECT(SMALTI_OK, smalti_close(model));
}

/* A bug in each entry: its code, its message, and everything works afterwards. */
static void panics(void) {
    smalti_model *model = open_model(u8_path), *other = NULL;
    smalti_session *session = new_session(model, 1), *second = NULL;
    uint8_t pixels[27] = {0};
    float values[64] = {0};
    smalti_ranked ranked;
    smalti_input input = {.size = sizeof input};
    const char *label = NULL;
    size_t count = 0;
    EXPECT(SMALTI_OK, smalti_run_pixels(session, pixels, 27, 3, 3, 3, 0));

#define PANIC(entry, call) \
    do { \
        smalti_test_panic(entry); \
        EXPECT(SMALTI_INTERNAL, call); \
        SAME(1, strstr(smalti_last_error(), entry) != NULL); \
    } while (0)

    PANIC("smalti_open", smalti_open(u8_path, NULL, &other));
    PANIC("smalti_open_bytes", smalti_open_bytes(pixels, 27, NULL, &other));
    PANIC("smalti_input_info", smalti_input_info(model, &input));
    PANIC("smalti_class_count", smalti_class_count(model, &count));
    PANIC("smalti_label", smalti_label(model, 0, &label));
    PANIC("smalti_embedding_length", smalti_embedding_length(model, &count));
    PANIC("smalti_memory_bound", smalti_memory_bound(model, 1, 0, 0, 0, &count));
    PANIC("smalti_selftest", smalti_selftest(model));
    PANIC("smalti_session_new", smalti_session_new(model, 1, &second));
    PANIC("smalti_run_pixels", smalti_run_pixels(session, pixels, 27, 3, 3, 3, 0));
    PANIC("smalti_run_frame", smalti_run_frame(session, pixels, 27, SMALTI_RGB8, 3, 3));
    PANIC("smalti_run_u8", smalti_run_u8(session, pixels, 27));
    PANIC("smalti_run_f32", smalti_run_f32(session, values, 64));
    PANIC("smalti_logits", smalti_logits(session, values, 3));
    PANIC("smalti_embedding", smalti_embedding(session, values, 3));
    PANIC("smalti_top_k", smalti_top_k(session, &ranked, 1));
    PANIC("smalti_session_free", smalti_session_free(session));
    PANIC("smalti_close", smalti_close(model));
    const char *texts[] = {"smalti_version", "smalti_code_name", "smalti_last_error"};
    for (int i = 0; i < 3; i++) {
        smalti_test_panic(texts[i]);
        SAME(0, strlen(i == 0 ? smalti_version() : i == 1 ? smalti_code_name(0) : smalti_last_error()));
        SAME(1, strstr(smalti_last_error(), texts[i]) != NULL);
    }
    SAME(0, strcmp(smalti_version(), SMALTI_VERSION));

    /* A panic in the middle of a run, behind the session's lock. */
    smalti_test_panic("run");
    EXPECT(SMALTI_INTERNAL, smalti_run_pixels(session, pixels, 27, 3, 3, 3, 0));
    EXPECT(SMALTI_USAGE, smalti_top_k(session, &ranked, 1));

    EXPECT(SMALTI_OK, smalti_run_pixels(session, pixels, 27, 3, 3, 3, 0));
    EXPECT(SMALTI_OK, smalti_top_k(session, &ranked, 1));
    EXPECT(SMALTI_OK, smalti_selftest(model));
    EXPECT(SMALTI_OK, smalti_session_free(session));
    EXPECT(SMALTI_OK, smalti_close(model));
    SAME(0, strcmp("SMALTI_BUSY", smalti_code_name(SMALTI_BUSY)));
    SAME(0, strcmp("unknown code", smalti_code_name(12345)));
}

int main(int count, char **arguments) {
    if (count != 3) return 2;
    u8_path = arguments[1];
    f32_path = arguments[2];
    SAME(0, strlen(smalti_last_error()));
    null_pointers();
    bad_files();
    wrong_handles();
    wrong_sizes();
    threads();
    panics();
    printf("misuse: %d cases, %d failures\n", cases, failures);
    return failures != 0;
}
