/* Loaded before the C library (LD_PRELOAD): tells, fails or ends the process at the nth call that changes something
 * below a directory. Nothing happens until `arm` is called in the process.
 */
#define _GNU_SOURCE
#include <dlfcn.h>
#include <errno.h>
#include <fcntl.h>
#include <limits.h>
#include <signal.h>
#include <stdarg.h>
#include <stdio.h>
#include <string.h>
#include <sys/stat.h>
#include <sys/syscall.h>
#include <sys/types.h>
#include <sys/uio.h>
#include <unistd.h>

enum { KILL_BEFORE = -1, KILL_AFTER = -2 };

static char below[PATH_MAX], counted[256];
static int armed, at, action, log_to = -1, seen;

/* Tell the calls on paths below `root`, and count those whose names stand in `calls`; `what` is an errno or a kill. */
void arm(const char *root, const char *calls, int number, int what, int descriptor)
{
    snprintf(below, sizeof below, "%s/", root);
    snprintf(counted, sizeof counted, " %s ", calls);
    at = number, action = what, log_to = descriptor, armed = 1;
}

static void place(int directory, const char *name, char *path)
{
    char link[64];
    ssize_t length = 0;
    if (!name || (name[0] != '/' && directory != AT_FDCWD)) {
        snprintf(link, sizeof link, "/proc/self/fd/%d", directory);
        length = readlink(link, path, PATH_MAX - 1);
    } else if (name[0] != '/') {
        length = getcwd(path, PATH_MAX) ? (ssize_t)strlen(path) : 0;
    }
    path[length > 0 ? length : 0] = 0;
    if (name)
        snprintf(path + strlen(path), PATH_MAX - strlen(path), "%s%s", name[0] == '/' ? "" : "/", name);
}

/* Return the errno that the call is to fail with, 0 where it is to be made; *mine says whether it is the nth. */
static int before(const char *call, int directory, const char *name, int *mine)
{
    char path[PATH_MAX * 2], word[64], line[PATH_MAX * 2 + 128];
    *mine = 0;
    if (!armed)
        return 0;
    int kept = errno;
    place(directory, name, path);
    snprintf(word, sizeof word, " %s ", call);
    if (strncmp(path, below, strlen(below)) == 0) {
        *mine = strstr(counted, word) && __atomic_add_fetch(&seen, 1, __ATOMIC_SEQ_CST) == at;
        int length = snprintf(line, sizeof line, "%s%s %s\n", *mine ? "! " : "", call, path + strlen(below));
        if (log_to >= 0)
            syscall(SYS_write, log_to, line, length);
        if (*mine && action == KILL_BEFORE)
            kill(-getpgrp(), SIGKILL);
    }
    errno = kept;
    return *mine && action > 0 ? action : 0;
}

#define CALL(type, name, told, directory, path, declared, passed)                                                      \
    type name declared                                                                                                 \
    {                                                                                                                  \
        static type(*real) declared;                                                                                   \
        int mine, error = before(told, directory, path, &mine);                                                        \
        if (error) {                                                                                                   \
            errno = error;                                                                                             \
            return -1;                                                                                                 \
        }                                                                                                              \
        if (!real)                                                                                                     \
            real = dlsym(RTLD_NEXT, #name);                                                                            \
        type result = real passed;                                                                                     \
        if (mine && action == KILL_AFTER)                                                                              \
            kill(-getpgrp(), SIGKILL);                                                                                 \
        return result;                                                                                                 \
    }

CALL(ssize_t, write, "write", fd, NULL, (int fd, const void *bytes, size_t n), (fd, bytes, n))
CALL(ssize_t, writev, "write", fd, NULL, (int fd, const struct iovec *parts, int n), (fd, parts, n))
CALL(ssize_t, pwrite, "write", fd, NULL, (int fd, const void *bytes, size_t n, off_t from), (fd, bytes, n, from))
CALL(ssize_t, pwrite64, "write", fd, NULL, (int fd, const void *bytes, size_t n, off64_t from), (fd, bytes, n, from))
CALL(int, ftruncate, "truncate", fd, NULL, (int fd, off_t length), (fd, length))
CALL(int, ftruncate64, "truncate", fd, NULL, (int fd, off64_t length), (fd, length))
CALL(int, fsync, "fsync", fd, NULL, (int fd), (fd))
CALL(int, fdatasync, "fsync", fd, NULL, (int fd), (fd))
CALL(int, rename, "rename", AT_FDCWD, to, (const char *from, const char *to), (from, to))
CALL(int, renameat, "rename", there, to, (int here, const char *from, int there, const char *to), (here, from, there, to))
CALL(int, mkdir, "mkdir", AT_FDCWD, path, (const char *path, mode_t mode), (path, mode))
CALL(int, symlink, "symlink", AT_FDCWD, path, (const char *target, const char *path), (target, path))
CALL(int, unlink, "unlink", AT_FDCWD, path, (const char *path), (path))
CALL(int, rmdir, "rmdir", AT_FDCWD, path, (const char *path), (path))
CALL(int, unlinkat, flags ? "rmdir" : "unlink", fd, path, (int fd, const char *path, int flags), (fd, path, flags))

#define OPEN(name, directory, declared, passed)                                                                        \
    int name declared                                                                                                  \
    {                                                                                                                  \
        static int (*real) declared;                                                                                   \
        mode_t mode = 0;                                                                                               \
        va_list more;                                                                                                  \
        va_start(more, flags);                                                                                         \
        if (flags & (O_CREAT | O_TMPFILE))                                                                             \
            mode = va_arg(more, mode_t);                                                                               \
        va_end(more);                                                                                                  \
        int mine = 0, error = flags & O_CREAT ? before("open", directory, path, &mine) : 0;                            \
        if (error) {                                                                                                   \
            errno = error;                                                                                             \
            return -1;                                                                                                 \
        }                                                                                                              \
        if (!real)                                                                                                     \
            real = dlsym(RTLD_NEXT, #name);                                                                            \
        int result = real passed;                                                                                      \
        if (mine && action == KILL_AFTER)                                                                              \
            kill(-getpgrp(), SIGKILL);                                                                                 \
        return result;                                                                                                 \
    }

OPEN(open, AT_FDCWD, (const char *path, int flags, ...), (path, flags, mode))
OPEN(open64, AT_FDCWD, (const char *path, int flags, ...), (path, flags, mode))
OPEN(openat, fd, (int fd, const char *path, int flags, ...), (fd, path, flags, mode))
OPEN(openat64, fd, (int fd, const char *path, int flags, ...), (fd, path, flags, mode))
