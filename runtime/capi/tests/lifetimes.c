/* What becomes of the library over many threads, after fork, and when it is loaded and unloaded again and again. It is loaded
 * with dlopen, as a program with plug-ins does:
 *
 *     lifetimes LIBSMALTI_SO MODEL_U8 [ROUNDS]
 *
 * A hang ends it by SIGALRM.
 */
#include <dirent.h>
#include <dlfcn.h>
#include <pthread.h>
#include <stdatomic.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/wait.h>
#include <unistd.h>

#include "smalti.h"

enum { THREADS = 64, RUNS = 50, SIDE = 24, PIXELS = SIDE * SIDE * 3, CLASSES = 3 };

static int failures;

#define CHECK(condition) \
    do { \
        if (!(condition)) { \
            failures++; \
            fprintf(stderr, "line %d: %s; last error: %s\n", __LINE__, #condition, last_error ? last_error() : ""); \
        } \
    } while (0)

#define ENTRY(result, name, ...) static result (*name)(__VA_ARGS__)
ENTRY(int, open_model, const char *, const smalti_options *, smalti_model **);
ENTRY(int, close_model, smalti_model *);
ENTRY(int, new_session, const smalti_model *, size_t, smalti_session **);
ENTRY(int, free_session, smalti_session *);
ENTRY(int, run_pixels, smalti_session *, const uint8_t *, size_t, size_t, size_t, size_t, size_t);
ENTRY(int, logits, const smalti_session *, float *, size_t);
ENTRY(const char *, last_error, void);

static const char *library_path, *model_path;
static void *library;
static uint8_t pixels[PIXELS];

static void load(void) {
    library = dlopen(library_path, RTLD_NOW | RTLD_LOCAL);
    if (!library) {
        fprintf(stderr, "%s\n", dlerror());
        exit(2);
    }
#define FIND(variable, name) *(void **)&variable = dlsym(library, name)
    FIND(open_model, "smalti_open");
    FIND(close_model, "smalti_close");
    FIND(new_session, "smalti_session_new");
    FIND(free_session, "smalti_session_free");
    FIND(run_pixels, "smalti_run_pixels");
    FIND(logits, "smalti_logits");
    FIND(last_error, "smalti_last_error");
}

static int run(smalti_session *session, float *found) {
    int code = run_pixels(session, pixels, PIXELS, SIDE, SIDE, 3, 0);
    return code ? code : logits(session, found, CLASSES);
}

static int same(const float *a, const float *b) { return memcmp(a, b, CLASSES * sizeof *a) == 0; }

/* Entries of a folder of /proc, or a number of /proc/self/status. */
static long entries(const char *path) {
    DIR *folder = opendir(path);
    long count = 0;
    while (folder && readdir(folder)) count++;
    if (folder) closedir(folder);
    return count;
}

static long status(const char *name) {
    FILE *file = fopen("/proc/self/status", "r");
    char line[200];
    long value = -1;
    while (file && fgets(line, sizeof line, file))
        if (!strncmp(line, name, strlen(name))) value = atol(line + strlen(name));
    if (file) fclose(file);
    return value;
}

/* 64 threads, a session each, one of them with helpers, and one that opens and closes. */
struct work {
    smalti_model *model;
    int number, wrong;
    float found[CLASSES];
};

static void *at_work(void *argument) {
    struct work *work = argument;
    smalti_session *session = NULL;
    work->wrong += new_session(work->model, work->number % 8 == 0 ? 3 : 1, &session) != SMALTI_OK;
    for (int i = 0; i < RUNS; i++) work->wrong += run(session, work->found) != SMALTI_OK;
    work->wrong += free_session(session) != SMALTI_OK;
    for (int i = 0; i < 3; i++) {
        smalti_model *model = NULL;
        work->wrong += open_model(model_path, NULL, &model) != SMALTI_OK;
        work->wrong += close_model(model) != SMALTI_OK;
    }
    return NULL;
}

static void many_threads(smalti_model *model, const float *wanted) {
    static struct work works[THREADS];
    pthread_t threads[THREADS];
    for (int t = 0; t < THREADS; t++) {
        works[t] = (struct work){.model = model, .number = t};
        if (pthread_create(&threads[t], NULL, at_work, &works[t])) abort();
    }
    for (int t = 0; t < THREADS; t++) {
        pthread_join(threads[t], NULL);
        CHECK(works[t].wrong == 0);
        CHECK(same(works[t].found, wanted));
    }
    printf("%d threads: %d runs, all with the same bits\n", THREADS, THREADS * RUNS);
}

/* A child's exit code; a hang or a crash is a failure. */
static int child(int (*body)(smalti_model *, smalti_session *, const float *), smalti_model *model, smalti_session *session,
                 const float *wanted) {
    fflush(NULL);
    pid_t process = fork();
    if (process == 0) {
        alarm(20);
        _exit(body(model, session, wanted));
    }
    int status = 0;
    waitpid(process, &status, 0);
    if (!WIFEXITED(status)) {
        failures++;
        fprintf(stderr, "a child ended by signal %d\n", WTERMSIG(status));
        return -1;
    }
    return WEXITSTATUS(status);
}

/* Goes on with what was opened before, and begins anew. */
static int go_on(smalti_model *model, smalti_session *session, const float *wanted) {
    float found[CLASSES];
    smalti_session *other = NULL;
    if (run(session, found) || !same(found, wanted)) return 1;
    if (new_session(model, 4, &other) || run(other, found) || !same(found, wanted)) return 2;
    if (free_session(other) || free_session(session) || close_model(model)) return 3;
    if (open_model(model_path, NULL, &model) || new_session(model, 2, &session)) return 4;
    if (run(session, found) || !same(found, wanted)) return 5;
    return free_session(session) || close_model(model) ? 6 : 0;
}

/* Forked while other threads are at work: an answer or an error, each in time. */
static int try_all(smalti_model *model, smalti_session *session, const float *wanted) {
    float found[CLASSES];
    smalti_model *other = NULL;
    smalti_session *own = NULL;
    int code = run(session, found);
    if (code != SMALTI_OK && code != SMALTI_BUSY) return 1;
    code = new_session(model, 2, &own);
    if (code == SMALTI_BUSY) return 0;
    if (code || run(own, found) || !same(found, wanted)) return 2;
    code = open_model(model_path, NULL, &other);
    return code != SMALTI_OK && code != SMALTI_BUSY ? 3 : 0;
}

static atomic_int over;

static void *busy(void *argument) {
    smalti_session *session = argument;
    float found[CLASSES];
    while (!over) {
        smalti_model *model = NULL;
        run(session, found);
        if (open_model(model_path, NULL, &model) == SMALTI_OK) close_model(model);
    }
    return NULL;
}

static void forks(smalti_model *model, const float *wanted, int rounds) {
    smalti_session *session = NULL;
    float found[CLASSES];
    CHECK(new_session(model, 4, &session) == SMALTI_OK);
    CHECK(run(session, found) == SMALTI_OK);
    for (int i = 0; i < rounds; i++) CHECK(child(go_on, model, session, wanted) == 0);

    pthread_t threads[4];
    for (int t = 0; t < 4; t++)
        if (pthread_create(&threads[t], NULL, busy, session)) abort();
    for (int i = 0; i < rounds; i++) CHECK(child(try_all, model, session, wanted) == 0);
    over = 1;
    for (int t = 0; t < 4; t++) pthread_join(threads[t], NULL);
    CHECK(run(session, found) == SMALTI_OK && same(found, wanted));
    CHECK(free_session(session) == SMALTI_OK);
    printf("%d forks, half of them while others were at work: no hang\n", 2 * rounds);
}

/* Unloaded with a session's helpers asleep in it, and loaded again. */
static void reloads(int rounds) {
    float first[CLASSES], found[CLASSES];
    long memory = 0, files = 0, threads = 0;
    for (int i = 0; i < rounds; i++) {
        if (i == rounds / 2) {
            memory = status("VmRSS:");
            files = entries("/proc/self/fd");
            threads = entries("/proc/self/task");
        }
        smalti_model *model = NULL;
        smalti_session *session = NULL;
        CHECK(open_model(model_path, NULL, &model) == SMALTI_OK);
        CHECK(new_session(model, 3, &session) == SMALTI_OK);
        CHECK(run(session, i ? found : first) == SMALTI_OK);
        CHECK(!i || same(first, found));
        CHECK(dlclose(library) == 0);
        usleep(100);
        load();
        CHECK(run(session, found) == SMALTI_OK && same(first, found));
        CHECK(free_session(session) == SMALTI_OK && close_model(model) == SMALTI_OK);
    }
    long grown = status("VmRSS:") - memory;
    printf("%d times unloaded and loaded: %ld KiB grown in the second half\n", rounds, grown);
    CHECK(grown <= 1024);
    CHECK(entries("/proc/self/fd") == files && entries("/proc/self/task") == threads);
}

int main(int count, char **arguments) {
    if (count < 3) return 2;
    library_path = arguments[1];
    model_path = arguments[2];
    int rounds = count > 3 ? atoi(arguments[3]) : 20;
    for (int i = 0; i < PIXELS; i++) pixels[i] = (uint8_t)(i * 7);
    load();
    smalti_model *model = NULL;
    smalti_session *session = NULL;
    float wanted[CLASSES] = {0};
    CHECK(open_model(model_path, NULL, &model) == SMALTI_OK);
    CHECK(new_session(model, 1, &session) == SMALTI_OK);
    CHECK(run(session, wanted) == SMALTI_OK);
    many_threads(model, wanted);
    forks(model, wanted, rounds);
    reloads(5 * rounds);
    CHECK(run(session, wanted) == SMALTI_OK && free_session(session) == SMALTI_OK && close_model(model) == SMALTI_OK);
    printf("lifetimes: %d failures\n", failures);
    return failures != 0;
}
