/* Preloaded before libc: the n-th write, fsync or rename below a folder fails.

   FAIL_UNDER  the folder; all else is left alone
   FAIL_CALL   "write", "fsync" or "rename"
   FAIL_AT     n, from 1; 0 fails none
   FAIL_WITH   errno
   FAIL_ON     1: and so does every later one, as on a full disk
   FAIL_COUNT  a file to which each process adds a line of how many it made: writes fsyncs renames
*/
#define _GNU_SOURCE
#include <dlfcn.h>
#include <errno.h>
#include <fcntl.h>
#include <limits.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/uio.h>
#include <unistd.h>

enum { WRITE, FSYNC, RENAME };
static const char *const NAMES[] = {"write", "fsync", "rename"};
static long made[3];

static int below(const char *path) {
    const char *folder = getenv("FAIL_UNDER");
    return folder && path && strncmp(path, folder, strlen(folder)) == 0;
}

static int of_folder(int fd) {
    char link[64], path[PATH_MAX];
    snprintf(link, sizeof link, "/proc/self/fd/%d", fd);
    ssize_t length = readlink(link, path, sizeof path - 1);
    if (length < 0) return 0;
    path[length] = 0;
    return below(path);
}

static int fails(int call) {
    const char *which = getenv("FAIL_CALL"), *at = getenv("FAIL_AT"), *with = getenv("FAIL_WITH");
    long n = __sync_add_and_fetch(&made[call], 1), wanted = at ? atol(at) : 0;
    if (!which || !wanted || strcmp(which, NAMES[call])) return 0;
    if (n != wanted && !(getenv("FAIL_ON") && n > wanted)) return 0;
    errno = with ? atoi(with) : EIO;
    return 1;
}

#define NEXT(name) static __typeof__(&name) next; if (!next) next = dlsym(RTLD_NEXT, #name)

ssize_t write(int fd, const void *data, size_t size) {
    NEXT(write);
    return of_folder(fd) && fails(WRITE) ? -1 : next(fd, data, size);
}

ssize_t pwrite(int fd, const void *data, size_t size, off_t at) {
    NEXT(pwrite);
    return of_folder(fd) && fails(WRITE) ? -1 : next(fd, data, size, at);
}

ssize_t pwrite64(int fd, const void *data, size_t size, off64_t at) {
    NEXT(pwrite64);
    return of_folder(fd) && fails(WRITE) ? -1 : next(fd, data, size, at);
}

ssize_t writev(int fd, const struct iovec *parts, int count) {
    NEXT(writev);
    return of_folder(fd) && fails(WRITE) ? -1 : next(fd, parts, count);
}

int fsync(int fd) {
    NEXT(fsync);
    return of_folder(fd) && fails(FSYNC) ? -1 : next(fd);
}

static int renames(const char *to) {
    char path[PATH_MAX];
    if (to[0] == '/') return below(to);
    if (!getcwd(path, sizeof path)) return 0;
    return below(path);
}

int rename(const char *from, const char *to) {
    NEXT(rename);
    return renames(to) && fails(RENAME) ? -1 : next(from, to);
}

int renameat(int a, const char *from, int b, const char *to) {
    NEXT(renameat);
    return renames(to) && fails(RENAME) ? -1 : next(a, from, b, to);
}

__attribute__((destructor)) static void count(void) {
    const char *file = getenv("FAIL_COUNT");
    FILE *out = file ? fopen(file, "a") : NULL;
    if (!out) return;
    fprintf(out, "%ld %ld %ld\n", made[WRITE], made[FSYNC], made[RENAME]);
    fclose(out);
}
