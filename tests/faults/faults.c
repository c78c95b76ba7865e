/* Makes one call to the kernel fail, or be the end: preloaded into tailraced (LD_PRELOAD), steered through a file that
 * both map.
 *
 * Counted are the calls about the data plane: bpf(2), and whatever is done with a netlink socket or with the socket of
 * a userspace WireGuard. When the count reaches `fail_at` that call fails instead of being made, once; or, with
 * `kills`, the process is killed instead. A send that fails is a request that the kernel never saw; a receive that
 * fails leaves an answer unread, to what the kernel has done. */
#include <dlfcn.h>
#include <errno.h>
#include <fcntl.h>
#include <signal.h>
#include <stdarg.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/socket.h>
#include <sys/syscall.h>
#include <sys/un.h>
#include <unistd.h>

/* tests/lab/faults.py has the same. */
struct faults {
    uint32_t fail_at; /* 0: none */
    uint32_t counted; /* set to 0 by the test, with fail_at */
    uint32_t fired;
    char what[52];
    char word[16]; /* every message to the kernel that has it in it fails, as in a kernel that lacks something; or empty
                    */
    uint32_t kills;
};

static struct faults* page;

__attribute__((constructor)) static void map_page(void) {
    const char* path = getenv("TAILRACE_FAULTS");
    if (!path || strcmp(program_invocation_short_name, "tailraced") != 0) return;
    int fd = open(path, O_RDWR | O_CLOEXEC);
    if (fd < 0) return;
    void* mapped = mmap(NULL, sizeof *page, PROT_READ | PROT_WRITE, MAP_SHARED, fd, 0);
    if (mapped != MAP_FAILED) page = mapped;
    close(fd);
}

/* The errno to fail with, 0: make the call. */
static int fails(const char* what, long detail, int code) {
    if (!page) return 0;
    uint32_t number = __atomic_add_fetch(&page->counted, 1, __ATOMIC_SEQ_CST);
    if (number != __atomic_load_n(&page->fail_at, __ATOMIC_SEQ_CST)) return 0;
    snprintf(page->what, sizeof page->what, "%s %ld", what, detail);
    __atomic_store_n(&page->fired, 1, __ATOMIC_SEQ_CST);
    if (page->kills) kill(getpid(), SIGKILL);
    return code;
}

static int is_ours(int fd) {
    int domain = 0;
    socklen_t size = sizeof domain;
    if (!page || syscall(SYS_getsockopt, fd, SOL_SOCKET, SO_DOMAIN, &domain, &size) != 0) return 0;
    if (domain != AF_UNIX) return domain == AF_NETLINK;
    struct sockaddr_un peer = {0};
    size = sizeof peer - 1;
    return syscall(SYS_getpeername, fd, &peer, &size) == 0 && strstr(peer.sun_path, "/wireguard/") != NULL;
}

static int is_wireguard(const struct sockaddr* to) {
    const struct sockaddr_un* path = (const struct sockaddr_un*)to;
    return page && to && to->sa_family == AF_UNIX && strstr(path->sun_path, "/wireguard/") != NULL;
}

static int is_lacking(int fd, const void* data, size_t size) {
    size_t length = page ? strnlen(page->word, sizeof page->word) : 0;
    return length > 0 && is_ours(fd) && memmem(data, size, page->word, length) != NULL;
}

#define REAL(name) ((__typeof__(&name))dlsym(RTLD_NEXT, #name))
#define FAIL_IF(counts, what, detail, code)                                                                            \
    do {                                                                                                               \
        int failure = (counts) ? fails(what, detail, code) : 0;                                                        \
        if (failure) {                                                                                                 \
            errno = failure;                                                                                           \
            return -1;                                                                                                 \
        }                                                                                                              \
    } while (0)

long syscall(long number, ...) {
    static long (*real)(long, ...);
    va_list list;
    long a[6];
    va_start(list, number);
    for (int i = 0; i < 6; ++i) a[i] = va_arg(list, long);
    va_end(list);
    if (!real) real = (long (*)(long, ...))dlsym(RTLD_NEXT, "syscall");
    FAIL_IF(number == SYS_bpf, "bpf", a[0], ENOMEM);
    return real(number, a[0], a[1], a[2], a[3], a[4], a[5]);
}

int socket(int domain, int type, int protocol) {
    FAIL_IF(domain == AF_NETLINK, "socket of netlink", protocol, EMFILE);
    return REAL(socket)(domain, type, protocol);
}

int bind(int fd, const struct sockaddr* address, socklen_t size) {
    FAIL_IF(is_ours(fd), "bind", fd, ENOMEM);
    return REAL(bind)(fd, address, size);
}

int setsockopt(int fd, int level, int name, const void* value, socklen_t size) {
    FAIL_IF(is_ours(fd), "setsockopt", name, ENOMEM);
    return REAL(setsockopt)(fd, level, name, value, size);
}

int connect(int fd, const struct sockaddr* to, socklen_t size) {
    FAIL_IF(is_wireguard(to), "connect to WireGuard", fd, ECONNREFUSED);
    return REAL(connect)(fd, to, size);
}

ssize_t send(int fd, const void* data, size_t size, int flags) {
    FAIL_IF(is_ours(fd), "send", fd, ENOBUFS);
    return REAL(send)(fd, data, size, flags);
}

ssize_t sendto(int fd, const void* data, size_t size, int flags, const struct sockaddr* to, socklen_t to_size) {
    FAIL_IF(is_ours(fd), "sendto", fd, ENOBUFS);
    if (is_lacking(fd, data, size)) {
        errno = EOPNOTSUPP;
        return -1;
    }
    return REAL(sendto)(fd, data, size, flags, to, to_size);
}

ssize_t sendmsg(int fd, const struct msghdr* message, int flags) {
    FAIL_IF(is_ours(fd), "sendmsg", fd, ENOBUFS);
    return REAL(sendmsg)(fd, message, flags);
}

ssize_t recv(int fd, void* into, size_t size, int flags) {
    FAIL_IF(is_ours(fd), "recv", fd, ENOMEM);
    return REAL(recv)(fd, into, size, flags);
}

ssize_t recvfrom(int fd, void* into, size_t size, int flags, struct sockaddr* from, socklen_t* from_size) {
    FAIL_IF(is_ours(fd), "recvfrom", fd, ENOMEM);
    return REAL(recvfrom)(fd, into, size, flags, from, from_size);
}

ssize_t recvmsg(int fd, struct msghdr* message, int flags) {
    FAIL_IF(is_ours(fd), "recvmsg", fd, ENOBUFS);
    return REAL(recvmsg)(fd, message, flags);
}
