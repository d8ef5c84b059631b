/* A disk that fails: preloaded (ld.so(8), LD_PRELOAD), it counts the calls that change something below a folder, over
 * all processes, and fails the one with a given number, or all from that one on.
 *
 * FAULT_ROOT    the folder, a real path
 * FAULT_COUNT   a file of 8 bytes, shared by all processes: the number of calls so far
 * FAULT_LOG     gets a line for each call: number, name, path
 * FAULT_AT      the number of the call that fails; 0 is none
 * FAULT_KEEP    1: all calls from that one on fail too
 * FAULT_ERRNO   the error; 0: a write does only the first half of what it was asked for
 */
#define _GNU_SOURCE
#include <dlfcn.h>
#include <errno.h>
#include <fcntl.h>
#include <limits.h>
#include <stdarg.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/stat.h>
#include <sys/syscall.h>
#include <sys/uio.h>
#include <unistd.h>

static const char *root;
static uint64_t *count;
static uint64_t fault_at;
static int keep, fault, log_fd = -1;

__attribute__((constructor)) static void begin(void)
{
    const char *file = getenv("FAULT_COUNT"), *log = getenv("FAULT_LOG");
    if (!getenv("FAULT_ROOT") || !file || !log)
        return;
    int fd = syscall(SYS_openat, AT_FDCWD, file, O_RDWR | O_CLOEXEC, 0);
    if (fd < 0)
        return; /* in a sandbox that does not see the folder either */
    count = mmap(NULL, 8, PROT_READ | PROT_WRITE, MAP_SHARED, fd, 0);
    close(fd);
    if (count == MAP_FAILED)
        return;
    log_fd = syscall(SYS_openat, AT_FDCWD, log, O_WRONLY | O_APPEND | O_CLOEXEC, 0);
    fault_at = strtoull(getenv("FAULT_AT") ? getenv("FAULT_AT") : "0", NULL, 10);
    keep = getenv("FAULT_KEEP") && *getenv("FAULT_KEEP") == '1';
    fault = atoi(getenv("FAULT_ERRNO") ? getenv("FAULT_ERRNO") : "0");
    root = getenv("FAULT_ROOT");
}

static int below(const char *path)
{
    size_t size = root ? strlen(root) : 0;
    return size && !strncmp(path, root, size) && (path[size] == '/' || !path[size]);
}

/* The path of a name in a folder that is open; the links on the way are followed nowhere. */
static void full(int folder, const char *name, char *path)
{
    char link[64];
    *path = 0;
    if (*name == '/') {
        snprintf(path, PATH_MAX, "%s", name);
        return;
    }
    if (folder == AT_FDCWD)
        snprintf(link, sizeof link, "/proc/self/cwd");
    else
        snprintf(link, sizeof link, "/proc/self/fd/%d", folder);
    ssize_t size = readlink(link, path, PATH_MAX - 1);
    if (size < 0)
        size = 0;
    snprintf(path + size, PATH_MAX - size, "%s%s", *name ? "/" : "", name);
}

/* 0: go on; 1: fail with errno set; 2: do half of it. */
static int fails(const char *call, int folder, const char *name)
{
    char path[PATH_MAX], line[PATH_MAX + 64];
    int before = errno;
    if (!root)
        return 0;
    full(folder, name, path);
    errno = before;
    if (!below(path))
        return 0;
    uint64_t number = __sync_add_and_fetch(count, 1);
    int hit = fault_at && (number == fault_at || (keep && number > fault_at));
    int size = snprintf(line, sizeof line, "%lu %s %s%s\n", (unsigned long)number, call, path, hit ? " !" : "");
    syscall(SYS_write, log_fd, line, size);
    errno = before;
    if (!hit)
        return 0;
    if (!fault)
        return 2;
    errno = fault;
    return 1;
}

#define REAL(type, name, ...) \
    static type (*real)(__VA_ARGS__); \
    if (!real) \
        real = (type (*)(__VA_ARGS__))dlsym(RTLD_NEXT, name)
#define HALF(size) ((size) > 1 ? (size) / 2 : (size))

ssize_t write(int fd, const void *data, size_t size)
{
    REAL(ssize_t, "write", int, const void *, size_t);
    int how = fails("write", fd, "");
    return how == 1 ? -1 : real(fd, data, how == 2 ? HALF(size) : size);
}

#define PWRITE(name, offset_type) \
    ssize_t name(int fd, const void *data, size_t size, offset_type at) \
    { \
        REAL(ssize_t, #name, int, const void *, size_t, offset_type); \
        int how = fails("pwrite", fd, ""); \
        return how == 1 ? -1 : real(fd, data, how == 2 ? HALF(size) : size, at); \
    }
PWRITE(pwrite, off_t)
PWRITE(pwrite64, off64_t)

ssize_t writev(int fd, const struct iovec *parts, int number)
{
    REAL(ssize_t, "writev", int, const struct iovec *, int);
    int how = fails("writev", fd, "");
    return how == 1 ? -1 : real(fd, parts, how == 2 ? HALF(number) : number);
}

#define ON_FD(name) \
    int name(int fd) \
    { \
        REAL(int, #name, int); \
        return fails(#name, fd, "") == 1 ? -1 : real(fd); \
    }
ON_FD(fsync)
ON_FD(fdatasync)

#define CUT(name, offset_type) \
    int name(int fd, offset_type size) \
    { \
        REAL(int, #name, int, offset_type); \
        return fails("ftruncate", fd, "") == 1 ? -1 : real(fd, size); \
    }
CUT(ftruncate, off_t)
CUT(ftruncate64, off64_t)

#define CHANGES(flags) ((flags) & (O_CREAT | O_WRONLY | O_RDWR))
#define MODE(flags) \
    mode_t mode = 0; \
    if ((flags) & (O_CREAT | __O_TMPFILE)) { \
        va_list more; \
        va_start(more, flags); \
        mode = va_arg(more, mode_t); \
        va_end(more); \
    }
#define OPEN(name) \
    int name(const char *path, int flags, ...) \
    { \
        REAL(int, #name, const char *, int, ...); \
        MODE(flags) \
        return CHANGES(flags) && fails("open", AT_FDCWD, path) == 1 ? -1 : real(path, flags, mode); \
    }
OPEN(open)
OPEN(open64)
#define OPENAT(name) \
    int name(int folder, const char *path, int flags, ...) \
    { \
        REAL(int, #name, int, const char *, int, ...); \
        MODE(flags) \
        return CHANGES(flags) && fails("open", folder, path) == 1 ? -1 : real(folder, path, flags, mode); \
    }
OPENAT(openat)
OPENAT(openat64)

#define FOPEN(name) \
    FILE *name(const char *path, const char *mode) \
    { \
        REAL(FILE *, #name, const char *, const char *); \
        return strpbrk(mode, "wa+") && fails("open", AT_FDCWD, path) == 1 ? NULL : real(path, mode); \
    }
FOPEN(fopen)
FOPEN(fopen64)

#define ON_PATH(name) \
    int name(const char *path) \
    { \
        REAL(int, #name, const char *); \
        return fails(#name, AT_FDCWD, path) == 1 ? -1 : real(path); \
    }
ON_PATH(unlink)
ON_PATH(rmdir)

int unlinkat(int folder, const char *path, int flags)
{
    REAL(int, "unlinkat", int, const char *, int);
    return fails("unlink", folder, path) == 1 ? -1 : real(folder, path, flags);
}

int mkdir(const char *path, mode_t mode)
{
    REAL(int, "mkdir", const char *, mode_t);
    return fails("mkdir", AT_FDCWD, path) == 1 ? -1 : real(path, mode);
}

int mkdirat(int folder, const char *path, mode_t mode)
{
    REAL(int, "mkdirat", int, const char *, mode_t);
    return fails("mkdir", folder, path) == 1 ? -1 : real(folder, path, mode);
}

int chmod(const char *path, mode_t mode)
{
    REAL(int, "chmod", const char *, mode_t);
    return fails("chmod", AT_FDCWD, path) == 1 ? -1 : real(path, mode);
}

int rename(const char *from, const char *to)
{
    REAL(int, "rename", const char *, const char *);
    return fails("rename", AT_FDCWD, to) == 1 ? -1 : real(from, to);
}

int renameat(int from_folder, const char *from, int folder, const char *to)
{
    REAL(int, "renameat", int, const char *, int, const char *);
    return fails("rename", folder, to) == 1 ? -1 : real(from_folder, from, folder, to);
}

int renameat2(int from_folder, const char *from, int folder, const char *to, unsigned int flags)
{
    REAL(int, "renameat2", int, const char *, int, const char *, unsigned int);
    return fails("rename", folder, to) == 1 ? -1 : real(from_folder, from, folder, to, flags);
}

int link(const char *from, const char *to)
{
    REAL(int, "link", const char *, const char *);
    return fails("link", AT_FDCWD, to) == 1 ? -1 : real(from, to);
}

int symlink(const char *target, const char *path)
{
    REAL(int, "symlink", const char *, const char *);
    return fails("symlink", AT_FDCWD, path) == 1 ? -1 : real(target, path);
}
