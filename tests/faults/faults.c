/* Loaded before libc (LD_PRELOAD): every call that changes a file below one folder can be made to fail, and is recorded.
 *
 *     SMALTI_FAULTS_UNDER   the folder, an absolute path; calls on other files pass untouched
 *     SMALTI_FAULTS_FROM    the number, from 1, of the first call that fails (none by default)
 *     SMALTI_FAULTS_COUNT   how many calls fail from there (all by default)
 *     SMALTI_FAULTS_ERRNO   with which errno (EIO by default)
 *     SMALTI_FAULTS_RECORD  a file to which each call that succeeded is appended
 *
 * A record is a letter, its numbers (64 bits, as the machine has them) and its byte strings, each after its length:
 *
 *     c inode path    made          t inode length        cut or grown    w inode offset bytes    written
 *     s inode         file synced   d path                folder synced   r from to               renamed
 *     l from to       linked        u path                removed         m path                  folder made
 *     x path          folder removed
 *
 * Paths are relative to the folder. What cannot be seen here (io_uring, memory maps, raw system calls) is not used by Smalti; the
 * calls that copy within the kernel are refused, so that programs fall back to writing.
 */
#define _GNU_SOURCE
#include <dlfcn.h>
#include <errno.h>
#include <fcntl.h>
#include <limits.h>
#include <pthread.h>
#include <stdarg.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <sys/uio.h>
#include <unistd.h>

static pthread_mutex_t lock = PTHREAD_MUTEX_INITIALIZER;
static char under[PATH_MAX];
static long first, count, calls;
static int error_number, record = -1;

#define REAL(name) \
    static __typeof__(name) *real; \
    if (!real) *(void **)&real = dlsym(RTLD_NEXT, #name)

static int real_open(const char *path, int flags, mode_t mode) {
    REAL(openat);
    return real(AT_FDCWD, path, flags, mode);
}

static ssize_t real_write(int fd, const void *bytes, size_t length) {
    REAL(write);
    return real(fd, bytes, length);
}

static long number(const char *name, long otherwise) {
    const char *text = getenv(name);
    return text ? atol(text) : otherwise;
}

__attribute__((constructor)) static void begin(void) {
    const char *folder = getenv("SMALTI_FAULTS_UNDER"), *file = getenv("SMALTI_FAULTS_RECORD");
    if (!folder || !realpath(folder, under)) return;
    first = number("SMALTI_FAULTS_FROM", 0);
    count = number("SMALTI_FAULTS_COUNT", LONG_MAX);
    error_number = (int)number("SMALTI_FAULTS_ERRNO", EIO);
    if (file) record = real_open(file, O_WRONLY | O_CREAT | O_APPEND | O_CLOEXEC, 0644);
}

/* The path relative to the folder, in `found`; 0 if it lies elsewhere. */
static int below(int at, const char *path, char *found) {
    char whole[2 * PATH_MAX] = "";
    if (!*under || !path) return 0;
    if (path[0] != '/') {
        char link[40];
        ssize_t length = 0;
        if (at == AT_FDCWD) {
            if (!getcwd(whole, PATH_MAX)) return 0;
            length = (ssize_t)strlen(whole);
        } else {
            snprintf(link, sizeof link, "/proc/self/fd/%d", at);
            length = readlink(link, whole, PATH_MAX - 1);
        }
        if (length <= 0) return 0;
        whole[length] = '/';
        whole[length + 1] = 0;
    }
    strncat(whole, path, PATH_MAX - 1);
    size_t length = strlen(under);
    if (strncmp(whole, under, length) || (whole[length] && whole[length] != '/')) return 0;
    const char *rest = whole + length;
    char *end = found;
    /* Without doubled slashes and dots. */
    while (*rest) {
        while (*rest == '/') rest++;
        size_t part = strcspn(rest, "/");
        if (part && !(part == 1 && *rest == '.')) {
            if (end != found) *end++ = '/';
            memcpy(end, rest, part);
            end += part;
        }
        rest += part;
    }
    *end = 0;
    return 1;
}

static int of_file(int fd, char *found) {
    char link[40], path[PATH_MAX];
    if (!*under) return 0;
    snprintf(link, sizeof link, "/proc/self/fd/%d", fd);
    ssize_t length = readlink(link, path, sizeof path - 1);
    if (length <= 0) return 0;
    path[length] = 0;
    return below(AT_FDCWD, path, found);
}

/* Whether this call is one that fails. The caller holds the lock. */
static int fails(void) {
    calls++;
    if (!first || calls < first || calls - first >= count) return 0;
    errno = error_number;
    return 1;
}

struct entry {
    char *bytes;
    size_t length;
};

static void add(struct entry *entry, const void *bytes, size_t length) {
    entry->bytes = realloc(entry->bytes, entry->length + length);
    if (!entry->bytes) abort();
    memcpy(entry->bytes + entry->length, bytes, length);
    entry->length += length;
}

static void add_number(struct entry *entry, uint64_t value) { add(entry, &value, sizeof value); }

static void add_bytes(struct entry *entry, const void *bytes, size_t length) {
    add_number(entry, length);
    add(entry, bytes, length);
}

/* Appends a record: "n" a number, "s" a path, "b" bytes and their length. */
static void note(char kind, const char *form, ...) {
    if (record < 0) return;
    int kept = errno;
    struct entry entry = {0};
    va_list rest;
    va_start(rest, form);
    add(&entry, &kind, 1);
    for (; *form; form++) {
        if (*form == 'n') add_number(&entry, va_arg(rest, uint64_t));
        else {
            const char *bytes = va_arg(rest, const char *);
            add_bytes(&entry, bytes, *form == 's' ? strlen(bytes) : va_arg(rest, size_t));
        }
    }
    va_end(rest);
    for (size_t done = 0; done < entry.length;) {
        ssize_t more = real_write(record, entry.bytes + done, entry.length - done);
        if (more <= 0) abort();
        done += (size_t)more;
    }
    free(entry.bytes);
    errno = kept;
}

static uint64_t inode(int fd) {
    struct stat about;
    return fstat(fd, &about) ? 0 : (uint64_t)about.st_ino;
}

static int open_file(int at, const char *path, int flags, mode_t mode) {
    REAL(openat);
    char name[2 * PATH_MAX];
    if (!((flags & O_ACCMODE) != O_RDONLY || flags & (O_CREAT | O_TRUNC)) || (flags & O_TMPFILE) == O_TMPFILE || !below(at, path, name))
        return real(at, path, flags, mode);
    pthread_mutex_lock(&lock);
    int fd = -1;
    if (!fails()) {
        struct stat about;
        int is_new = flags & O_CREAT && fstatat(at, path, &about, 0);
        fd = real(at, path, flags, mode);
        if (fd >= 0 && is_new) note('c', "ns", inode(fd), name);
        else if (fd >= 0 && flags & O_TRUNC) note('t', "nn", inode(fd), (uint64_t)0);
    }
    pthread_mutex_unlock(&lock);
    return fd;
}

#define OPEN(name, at, ...) \
    int name(__VA_ARGS__, int flags, ...) { \
        va_list rest; \
        va_start(rest, flags); \
        mode_t mode = flags & (O_CREAT | O_TMPFILE) ? va_arg(rest, mode_t) : 0; \
        va_end(rest); \
        return open_file(at, path, flags, mode); \
    }
OPEN(open, AT_FDCWD, const char *path)
OPEN(open64, AT_FDCWD, const char *path)
OPEN(openat, at, int at, const char *path)
OPEN(openat64, at, int at, const char *path)

int creat(const char *path, mode_t mode) { return open_file(AT_FDCWD, path, O_WRONLY | O_CREAT | O_TRUNC, mode); }

static ssize_t write_file(int fd, const void *bytes, size_t length, off_t offset, int has_offset) {
    REAL(pwrite);
    char name[2 * PATH_MAX];
    if (!of_file(fd, name)) return has_offset ? real(fd, bytes, length, offset) : real_write(fd, bytes, length);
    pthread_mutex_lock(&lock);
    ssize_t done = -1;
    if (!fails()) {
        struct stat about = {0};
        if (fcntl(fd, F_GETFL) & O_APPEND) offset = fstat(fd, &about) ? 0 : about.st_size;
        else if (!has_offset) offset = lseek(fd, 0, SEEK_CUR);
        done = has_offset ? real(fd, bytes, length, offset) : real_write(fd, bytes, length);
        if (done > 0) note('w', "nnb", inode(fd), (uint64_t)offset, bytes, (size_t)done);
    }
    pthread_mutex_unlock(&lock);
    return done;
}

ssize_t write(int fd, const void *bytes, size_t length) { return write_file(fd, bytes, length, 0, 0); }
ssize_t pwrite(int fd, const void *bytes, size_t length, off_t offset) { return write_file(fd, bytes, length, offset, 1); }
ssize_t pwrite64(int fd, const void *bytes, size_t length, off64_t offset) { return write_file(fd, bytes, length, offset, 1); }

/* As much as the first piece that holds anything: less than asked for is allowed. */
ssize_t writev(int fd, const struct iovec *pieces, int number) {
    REAL(writev);
    char name[2 * PATH_MAX];
    if (!of_file(fd, name)) return real(fd, pieces, number);
    for (int i = 0; i < number; i++)
        if (pieces[i].iov_len) return write(fd, pieces[i].iov_base, pieces[i].iov_len);
    return 0;
}

ssize_t copy_file_range(int in, off64_t *from, int out, off64_t *to, size_t length, unsigned flags) {
    (void)in, (void)from, (void)out, (void)to, (void)length, (void)flags;
    errno = ENOSYS;
    return -1;
}

ssize_t sendfile64(int out, int in, off64_t *offset, size_t length) {
    (void)out, (void)in, (void)offset, (void)length;
    errno = EINVAL;
    return -1;
}

ssize_t sendfile(int out, int in, off_t *offset, size_t length) { return sendfile64(out, in, offset, length); }

/* A call on an open file: what it does, and what is noted of it. */
#define ON_FILE(call, noted) \
    char name[2 * PATH_MAX]; \
    if (!of_file(fd, name)) return call; \
    pthread_mutex_lock(&lock); \
    int result = fails() ? -1 : call; \
    if (result == 0) noted; \
    pthread_mutex_unlock(&lock); \
    return result

static void note_sync(int fd, const char *name) {
    struct stat about;
    if (fstat(fd, &about)) return;
    if (S_ISDIR(about.st_mode)) note('d', "s", name);
    else note('s', "n", (uint64_t)about.st_ino);
}

int fsync(int fd) {
    REAL(fsync);
    ON_FILE(real(fd), note_sync(fd, name));
}

int fdatasync(int fd) {
    REAL(fdatasync);
    ON_FILE(real(fd), note_sync(fd, name));
}

int ftruncate(int fd, off_t length) {
    REAL(ftruncate);
    ON_FILE(real(fd, length), note('t', "nn", inode(fd), (uint64_t)length));
}

int ftruncate64(int fd, off64_t length) { return ftruncate(fd, length); }

/* A call on a name. */
#define ON_NAME(at, path, call, kind) \
    char name[2 * PATH_MAX]; \
    if (!below(at, path, name)) return call; \
    pthread_mutex_lock(&lock); \
    int result = fails() ? -1 : call; \
    if (result == 0) note(kind, "s", name); \
    pthread_mutex_unlock(&lock); \
    return result

int unlinkat(int at, const char *path, int flags) {
    REAL(unlinkat);
    ON_NAME(at, path, real(at, path, flags), flags & AT_REMOVEDIR ? 'x' : 'u');
}

int unlink(const char *path) { return unlinkat(AT_FDCWD, path, 0); }
int rmdir(const char *path) { return unlinkat(AT_FDCWD, path, AT_REMOVEDIR); }

int mkdirat(int at, const char *path, mode_t mode) {
    REAL(mkdirat);
    ON_NAME(at, path, real(at, path, mode), 'm');
}

int mkdir(const char *path, mode_t mode) { return mkdirat(AT_FDCWD, path, mode); }

/* A call on two names. */
#define ON_NAMES(call, kind) \
    char source[2 * PATH_MAX], name[2 * PATH_MAX]; \
    int both = below(from_at, from, source); \
    if (!below(to_at, to, name) && !both) return call; \
    pthread_mutex_lock(&lock); \
    int result = fails() ? -1 : call; \
    if (result == 0) note(kind, "ss", source, name); \
    pthread_mutex_unlock(&lock); \
    return result

int renameat2(int from_at, const char *from, int to_at, const char *to, unsigned flags) {
    REAL(renameat2);
    ON_NAMES(real(from_at, from, to_at, to, flags), 'r');
}

int renameat(int from_at, const char *from, int to_at, const char *to) { return renameat2(from_at, from, to_at, to, 0); }
int rename(const char *from, const char *to) { return renameat2(AT_FDCWD, from, AT_FDCWD, to, 0); }

int linkat(int from_at, const char *from, int to_at, const char *to, int flags) {
    REAL(linkat);
    ON_NAMES(real(from_at, from, to_at, to, flags), 'l');
}

int link(const char *from, const char *to) { return linkat(AT_FDCWD, from, AT_FDCWD, to, 0); }
