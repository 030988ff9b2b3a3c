/* Loaded into the broker with LD_PRELOAD by tests/crash: faults of the disk and death at named points, none of which
 * the broker's own code knows about. What it does comes from the environment:
 *
 *   SHIM_SYNCED=FILE     append "SIZE PATH" whenever a file was synced: what a power cut would leave of it
 *   SHIM_KILL=POINT:N    SIGKILL at the Nth time of a point
 *   SHIM_EIO=N           the Nth sync of a log file fails with EIO, without syncing
 *   SHIM_SLOW=US         every sync takes so many microseconds longer
 *   SHIM_FAIL=KIND:N:E   from the Nth on, every write to files of a kind (wal, table, manifest, mark, any) fails with errno E
 *   SHIM_DENY=1          no file may be opened for writing
 *   SHIM_DIR=DIR         only files below DIR are looked at
 *
 * Points: wal-write, wal-written, wal-synced, table-synced (tables and blobs), manifest-write, manifest-synced,
 * mark-write, renamed, unlinked. */
#define _GNU_SOURCE
#include <dlfcn.h>
#include <errno.h>
#include <fcntl.h>
#include <limits.h>
#include <signal.h>
#include <stdarg.h>
#include <stdatomic.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

static ssize_t (*real_write)(int, const void *, size_t);
static ssize_t (*real_pwrite64)(int, const void *, size_t, off64_t);
static int (*real_fdatasync)(int);
static int (*real_fsync)(int);
static int (*real_open64)(const char *, int, ...);
static int (*real_rename)(const char *, const char *);
static int (*real_unlink)(const char *);

static const char *kill_point = "", *dir = "";
static long kill_at, eio_at, slow_us;
static int synced_fd = -1;
static atomic_long reached, log_syncs, fail_count;
static long fail_at;
static int fail_errno, deny;
static const char *fail_kind = "";

__attribute__((constructor)) static void begin(void) {
    real_write = dlsym(RTLD_NEXT, "write");
    real_pwrite64 = dlsym(RTLD_NEXT, "pwrite64");
    real_fdatasync = dlsym(RTLD_NEXT, "fdatasync");
    real_fsync = dlsym(RTLD_NEXT, "fsync");
    real_open64 = dlsym(RTLD_NEXT, "open64");
    real_rename = dlsym(RTLD_NEXT, "rename");
    real_unlink = dlsym(RTLD_NEXT, "unlink");
    char *text = getenv("SHIM_KILL");
    if (text) {
        char *copy = strdup(text), *colon = strchr(copy, ':');
        if (colon) {
            *colon = 0;
            kill_point = copy;
            kill_at = atol(colon + 1);
        }
    }
    if ((text = getenv("SHIM_EIO"))) eio_at = atol(text);
    if ((text = getenv("SHIM_SLOW"))) slow_us = atol(text);
    deny = getenv("SHIM_DENY") != NULL;
    if ((text = getenv("SHIM_FAIL"))) {
        fail_kind = strtok(strdup(text), ":");
        fail_at = atol(strtok(NULL, ":"));
        fail_errno = atoi(strtok(NULL, ":"));
    }
    if ((text = getenv("SHIM_DIR"))) dir = strdup(text);
    if ((text = getenv("SHIM_SYNCED"))) synced_fd = open(text, O_WRONLY | O_CREAT | O_APPEND | O_CLOEXEC, 0600);
}

static void at(const char *point) {
    if (*kill_point && !strcmp(point, kill_point) && atomic_fetch_add(&reached, 1) + 1 == kill_at) kill(getpid(), SIGKILL);
}

enum kind { OUTSIDE, OTHER, WAL, TABLE, MANIFEST, MARK };

static enum kind kind_of(int fd, char *path) {
    char link[64];
    snprintf(link, sizeof link, "/proc/self/fd/%d", fd);
    ssize_t len = readlink(link, path, PATH_MAX - 1);
    if (len <= 0) return OUTSIDE;
    path[len] = 0;
    if (!*dir || strncmp(path, dir, strlen(dir))) return OUTSIDE;
    const char *name = strrchr(path, '/') + 1, *dot = strrchr(name, '.');
    if (dot && !strcmp(dot, ".log")) return WAL;
    if (dot && (!strcmp(dot, ".sst") || !strcmp(dot, ".blob"))) return TABLE;
    if (!strncmp(name, "MANIFEST-", 9)) return MANIFEST;
    if (!strcmp(name, "synced")) return MARK;
    return OTHER;
}

/* Whether this write is one of those that fail; errno is set then. */
static int fails(enum kind kind) {
    static const char *names[] = {"", "other", "wal", "table", "manifest", "mark"};
    if (kind == OUTSIDE || (strcmp(fail_kind, "any") && strcmp(fail_kind, names[kind]))) return 0;
    if (atomic_fetch_add(&fail_count, 1) + 1 < fail_at) return 0;
    errno = fail_errno;
    return 1;
}

ssize_t write(int fd, const void *data, size_t len) {
    char path[PATH_MAX];
    enum kind kind = *kill_point || *fail_kind ? kind_of(fd, path) : OUTSIDE;
    if (*fail_kind && fails(kind)) return -1;
    if (kind == WAL) at("wal-write");
    if (kind == MANIFEST) at("manifest-write");
    ssize_t done = real_write(fd, data, len);
    if (kind == WAL) at("wal-written");
    return done;
}

ssize_t pwrite64(int fd, const void *data, size_t len, off64_t offset) {
    char path[PATH_MAX];
    enum kind kind = *kill_point || *fail_kind ? kind_of(fd, path) : OUTSIDE;
    if (*fail_kind && fails(kind)) return -1;
    if (kind == MARK) at("mark-write");
    return real_pwrite64(fd, data, len, offset);
}

static int synced(int fd, int (*sync)(int)) {
    char path[PATH_MAX];
    enum kind kind = kind_of(fd, path);
    if (kind == OTHER || kind == OUTSIDE) return sync(fd);
    if (slow_us) usleep(slow_us);
    if (kind == WAL && eio_at && atomic_fetch_add(&log_syncs, 1) + 1 == eio_at) {
        errno = EIO;
        return -1;
    }
    struct stat before; /* what is appended during the sync may not be covered by it */
    int known = synced_fd >= 0 && !fstat(fd, &before);
    int result = sync(fd);
    if (!result && known) {
        char line[PATH_MAX + 32];
        /* behind its last record a log may have room that was made ahead */
        if (kind == WAL) before.st_size = lseek(fd, 0, SEEK_CUR);
        int len = snprintf(line, sizeof line, "%lld %s\n", (long long)before.st_size, path);
        if (real_write(synced_fd, line, len) != len) abort();
    }
    at(kind == WAL ? "wal-synced" : kind == TABLE ? "table-synced" : kind == MANIFEST ? "manifest-synced" : "mark-synced");
    return result;
}

int fdatasync(int fd) { return synced(fd, real_fdatasync); }
int fsync(int fd) { return synced(fd, real_fsync); }

int open64(const char *path, int flags, ...) {
    va_list rest;
    va_start(rest, flags);
    mode_t mode = va_arg(rest, mode_t);
    va_end(rest);
    if (deny && (flags & O_ACCMODE) != O_RDONLY && *dir && !strncmp(path, dir, strlen(dir))) {
        errno = EACCES;
        return -1;
    }
    return real_open64(path, flags, mode);
}

int rename(const char *from, const char *to) {
    int result = real_rename(from, to);
    if (*dir && !strncmp(to, dir, strlen(dir))) at("renamed");
    return result;
}

int unlink(const char *path) {
    int result = real_unlink(path);
    if (*dir && !strncmp(path, dir, strlen(dir))) at("unlinked");
    return result;
}
