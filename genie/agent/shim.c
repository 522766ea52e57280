/* The shim: the executable /opt/cni/bin/genie in agent mode, which the container runtime starts.
 *
 * The agent decides, the shim executes. It sends its environment and standard input to the agent's socket, starts the
 * delegates that the agent names (with the runtime's namespaces, cgroup and limits), reports their output, and prints the
 * agent's answer. It parses no JSON and decides nothing, so it rarely changes.
 *
 * It guarantees, even if the agent, a delegate or the shim itself fails:
 *   - one CNI result or one CNI error on standard output; code 11 ("try again later") if the agent is the reason;
 *   - no interrupted delegate outlives it, and no descendant of that delegate: after a timeout, the death of the
 *     delegate, the end of the agent's connection, or SIGTERM. A process cannot react to SIGKILL, so there are two: the
 *     runtime starts (and may kill) the keeper, which starts the worker. Each notices the other's death. Both are
 *     subreapers, so orphaned descendants become their children, and they find all of them in any session. The agent's
 *     socket stays open until these have ended, so no DEL begins earlier;
 *   - if a delegate exits by itself and leaves a process behind, such as a daemon, that process stays;
 *   - bounded memory and time: see the limits below.
 *
 * With the call, it sends a descriptor of the pod's network namespace (SCM_RIGHTS), because the agent may be unable to
 * open its path: it can name a process of another PID namespace, or a mount that the agent does not have.
 *
 * A frame is: length of the rest (4 bytes, big-endian), kind (1 byte), then integers of 4 bytes and blobs. A blob is a
 * length of 4 bytes and that many bytes. genie/agent/protocol.py is the other end, and describes the fields of each kind.
 */
#define _GNU_SOURCE
#include <errno.h>
#include <fcntl.h>
#include <poll.h>
#include <sched.h>
#include <signal.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/prctl.h>
#include <sys/signalfd.h>
#include <sys/socket.h>
#include <sys/syscall.h>
#include <sys/un.h>
#include <sys/wait.h>
#include <time.h>
#include <unistd.h>

#ifndef GENIE_SOCKET
#define GENIE_SOCKET "/run/genie/agent.sock"
#endif
#ifndef GENIE_VERSION
#define GENIE_VERSION "unknown"
#endif
#ifndef CALL_MS
#define CALL_MS 225000          /* the kubelet's limit for a sandbox is 4 minutes: end before, with an error */
#endif

enum {
    PROTOCOL = 1,
    CALL = 'C', RUN = 'R', RESULT = 'D', ANSWER = 'A',              /* kinds of frame */
    EXITED = 0, NOT_STARTED = 1, TIMED_OUT = 2, TOO_MUCH = 3,       /* how a delegate ended */

    STDIN_MAX = 1 << 20,        /* a network configuration with its prevResult is some KiB */
    ENV_MAX = 1 << 20,
    FRAME_MAX = 3 << 20,        /* a RUN frame: an environment, a standard input, a path */
    STDOUT_MAX = 1 << 20,
    STDERR_MAX = 64 << 10,      /* the rest is read and dropped: much output is not a failure */
    BACKLOG_MAX = 4 << 20,      /* results that the agent has not read: above this, accept no more work */
    DELEGATES_MAX = 16,

    CONNECT_MS = 850,           /* how long to wait for a missing agent: the runtime has an answer within a second */
    CONNECT_STEP_MS = 10,
    STDIN_MS = 10000,
    END_MS = 1000,              /* how long to wait for killed processes: one that hangs in the kernel does not end */
    RECONNECTS = 3,
    MEANT_MAX = 64,             /* daemons that delegates have left behind in one call */
};

enum { TRY_AGAIN = 11, BAD_ENVIRONMENT = 4, IO_FAILURE = 5, NOT_AVAILABLE = 50 };       /* CNI error codes */

struct buffer { unsigned char *at; size_t len, room; };

struct delegate {
    uint32_t id;
    pid_t pid;                          /* 0: this slot is free */
    int in, out, err;                   /* our ends of its pipes, -1 if closed */
    struct buffer frame;                /* its RUN frame, which holds its standard input */
    size_t in_at, in_end;               /* the range of it that is not written yet */
    struct buffer output, errors;
    int64_t started, deadline;          /* microseconds; deadline 0: only the call's */
    uint32_t how;
};

static struct delegate delegates[DELEGATES_MAX];
static struct buffer config, inbox, outbox;
static size_t outbox_at;
static int agent = -1, signals = -1, namespace = -1;
static int handed;                      /* the agent has the namespace */
static pid_t keeper;                    /* the process that the runtime started, after the fork */
static pid_t meant[MEANT_MAX];
static const char *command = "";
static int64_t call_deadline;           /* microseconds */
static sigset_t runtime_mask;           /* the mask from the runtime, restored for the delegates */
static struct sigaction runtime_pipe;

static _Noreturn void fail(int code, const char *msg, const char *details);

/* ---- small things ---- */

static int64_t now(void)
{
    struct timespec t;
    clock_gettime(CLOCK_MONOTONIC, &t);
    return (int64_t)t.tv_sec * 1000000 + t.tv_nsec / 1000;
}

static void reserve(struct buffer *b, size_t more)
{
    if (b->room - b->len >= more)
        return;
    size_t room = b->room ? b->room : 4096;
    while (room - b->len < more)
        room *= 2;
    unsigned char *at = realloc(b->at, room);
    if (!at)
        fail(TRY_AGAIN, "genie: out of memory", "");
    b->at = at;
    b->room = room;
}

static void append(struct buffer *b, const void *bytes, size_t n)
{
    if (!n)
        return;
    reserve(b, n);
    memcpy(b->at + b->len, bytes, n);
    b->len += n;
}

static void append_u32(struct buffer *b, uint32_t v)
{
    append(b, (unsigned char[]){v >> 24, v >> 16 & 255, v >> 8 & 255, v & 255}, 4);
}

static void append_blob(struct buffer *b, const void *bytes, size_t n)
{
    append_u32(b, (uint32_t)n);
    append(b, bytes, n);
}

static void discard(struct buffer *b)
{
    free(b->at);
    *b = (struct buffer){0};
}

static uint32_t u32(const unsigned char *p)
{
    return (uint32_t)p[0] << 24 | (uint32_t)p[1] << 16 | (uint32_t)p[2] << 8 | p[3];
}

static void close_fd(int *fd)
{
    if (*fd >= 0)
        close(*fd);
    *fd = -1;
}

/* Reads up to n bytes into b; 0 at the end or on an error, -1 if there is nothing now. */
static ssize_t read_some(int fd, struct buffer *b, size_t n)
{
    reserve(b, n);
    ssize_t got = read(fd, b->at + b->len, n);
    if (got > 0)
        b->len += (size_t)got;
    else if (got < 0)
        got = errno == EAGAIN || errno == EINTR ? -1 : 0;
    return got;
}

static void write_all(int fd, const void *bytes, size_t n)
{
    const char *p = bytes;
    while (n) {
        ssize_t done = write(fd, p, n);
        if (done < 0 && errno == EINTR)
            continue;
        if (done < 0)
            _exit(1);                   /* the runtime no longer reads */
        p += done;
        n -= (size_t)done;
    }
}

/* ---- answers of the shim without the agent ---- */

/* The caller's cniVersion, because an error must name the version in use ("Error", CNI specification, section 5). It is
 * searched, not parsed: libcni writes it before nested objects that could have another, and only digits and dots are
 * copied. */
static const char *cni_version(void)
{
    static char found[16];
    static const char key[] = "\"cniVersion\"";
    const unsigned char *end = config.at + config.len;
    const unsigned char *p = config.len ? memmem(config.at, config.len, key, sizeof key - 1) : NULL;
    if (!p)
        return "1.0.0";
    p += sizeof key - 1;
    while (p < end && (*p == ' ' || *p == '\t' || *p == '\r' || *p == '\n' || *p == ':'))
        p++;
    if (p == end || *p++ != '"')
        return "1.0.0";
    size_t n = 0;
    while (p < end && n < sizeof found - 1 && ((*p >= '0' && *p <= '9') || *p == '.'))
        found[n++] = (char)*p++;
    return n && p < end && *p == '"' ? found : "1.0.0";
}

/* ---- descendants of delegates, and their end ---- */

struct child { pid_t pid, group; };

/* The parent and the group of a process: "PID (name) state parent group …". */
static int is_child(pid_t pid, pid_t *group)
{
    char path[32], text[256];
    snprintf(path, sizeof path, "/proc/%d/stat", pid);
    int fd = open(path, O_RDONLY | O_CLOEXEC);
    if (fd < 0)
        return 0;
    ssize_t len = read(fd, text, sizeof text - 1);
    close(fd);
    text[len > 0 ? len : 0] = 0;
    char *at = strrchr(text, ')');
    if (!at || strlen(at) < 4 || strtol(at + 3, &at, 10) != getpid())
        return 0;
    *group = (pid_t)strtol(at, NULL, 10);
    return 1;
}

/* Finds up to max children of this process; none without a /proc of this PID namespace. It allocates no memory, because
 * the worker may have been killed during an allocation. */
static int children(struct child *found, int max)
{
    static struct { uint64_t inode; int64_t offset; uint16_t size; uint8_t type; char name[]; } *entry;
    static char entries[16 << 10] __attribute__((aligned(8)));
    char self[16] = "";
    int n = 0, proc = open("/proc", O_RDONLY | O_DIRECTORY | O_CLOEXEC);
    if (readlink("/proc/self", self, sizeof self - 1) > 0 && atoi(self) == getpid())
        for (long got; n < max && (got = syscall(SYS_getdents64, proc, entries, sizeof entries)) > 0;)
            for (char *at = entries; n < max && at < entries + got; at += entry->size) {
                entry = (void *)at;
                found[n].pid = atoi(entry->name);
                n += found[n].pid > 0 && is_child(found[n].pid, &found[n].group);
            }
    close_fd(&proc);
    return n;
}

static int has_children(void)
{
    siginfo_t info;
    return !waitid(P_ALL, 0, &info, WEXITED | WNOHANG | WNOWAIT);
}

/* Whether a process is a running delegate, or in the group of one. */
static int runs(struct child child, const struct delegate *besides)
{
    for (struct delegate *d = delegates; d < delegates + DELEGATES_MAX; d++)
        if (d != besides && d->pid && (d->pid == child.pid || d->pid == child.group))
            return 1;
    return 0;
}

static pid_t *find_meant(pid_t pid)
{
    for (pid_t *one = meant; one < meant + MEANT_MAX; one++)
        if (*one == pid)
            return one;
    return NULL;
}

/* Kills all children except those that are meant to stay, until there are none: when a process dies, its children become
 * children of this one. With an ended delegate as argument, it spares descendants of the other delegates. Returns false
 * after END_MS. */
static int end_children(const struct delegate *of)
{
    struct child found[256];
    for (int64_t until = now() + END_MS * 1000; has_children();) {
        int left = 0, n = children(found, 256);
        for (int i = 0; i < n; i++)
            if (!find_meant(found[i].pid) && !(of && runs(found[i], of))) {
                kill(found[i].pid, SIGKILL);
                waitpid(found[i].pid, NULL, WNOHANG);
                left++;
            }
        if (!left)
            return 1;
        if (now() > until)
            return 0;
        nanosleep(&(struct timespec){.tv_nsec = 200000}, NULL);
    }
    return 1;
}

/* All delegates have exited by themselves, so their remaining processes are meant to stay. */
static void spare_children(void)
{
    struct child found[MEANT_MAX];
    for (struct delegate *d = delegates; d < delegates + DELEGATES_MAX; d++)
        if (d->pid)
            return;
    if (!has_children())
        return;
    memset(meant, 0, sizeof meant);
    for (int n = children(found, MEANT_MAX); n--;)
        meant[n] = found[n].pid;
}

/* A killed process hangs in the kernel. The runtime need not wait for it. But the agent waits for it before the
 * container's next call: the socket stays open. */
static _Noreturn void linger(int status)
{
    for (int fd = 0; fd < 3; fd++)
        close(fd);
    sigqueue(keeper, SIGUSR1, (union sigval){.sival_int = status});
    while (!end_children(NULL))
        ;
    _exit(0);
}

/* Prints the answer and exits. All interrupted processes have ended before. */
static _Noreturn void leave(int status, int cut_off, const void *text, size_t len)
{
    for (struct delegate *d = delegates; d < delegates + DELEGATES_MAX; d++)
        if (d->pid) {
            kill(-d->pid, SIGKILL);
            cut_off = 1;
        }
    int ended = !cut_off || end_children(NULL);
    write_all(STDOUT_FILENO, text, len);
    if (!ended && keeper && keeper != getpid())
        linger(status);
    _exit(status);
}

static _Noreturn void fail(int code, const char *msg, const char *details)
{
    char text[1024], safe[256];
    size_t n = 0;
    for (; details[n] && n < sizeof safe - 1; n++)      /* a path from the environment could break out of the string */
        safe[n] = details[n] < ' ' || details[n] == '"' || details[n] == '\\' || details[n] > '~' ? '?' : details[n];
    safe[n] = 0;
    int len = snprintf(text, sizeof text, "{\"cniVersion\": \"%s\", \"code\": %d, \"msg\": \"%s\", \"details\": \"%s\"}\n",
                       cni_version(), code, msg, safe);
    leave(1, 1, text, (size_t)len);
}

static _Noreturn void fail_without_agent(const char *details)
{
    if (!strcmp(command, "VERSION")) {                  /* the only answer that needs no agent */
        char text[256];
        int len = snprintf(text, sizeof text, "{\"cniVersion\": \"%s\", \"supportedVersions\": [\"0.1.0\", \"0.2.0\", \"0.3.0\", "
                           "\"0.3.1\", \"0.4.0\", \"1.0.0\", \"1.1.0\"]}\n", cni_version());
        leave(0, 0, text, (size_t)len);
    }
    /* STATUS has a separate code for "cannot service ADD requests". */
    fail(strcmp(command, "STATUS") ? TRY_AGAIN : NOT_AVAILABLE, "genie: its agent on this node is not running; try again later", details);
}

/* ---- two processes ---- */

/* Waits for the worker, and exits with its status. If the worker was killed, its descendants are killed first. */
static _Noreturn void keep(pid_t worker, const sigset_t *mask)
{
    for (;;) {
        siginfo_t info;
        int status, number = sigwaitinfo(mask, &info);
        if (number == SIGUSR1 && info.si_code == SI_QUEUE)
            _exit(info.si_value.sival_int);
        if (number > 0 && number != SIGCHLD)
            kill(worker, number);
        if (waitpid(worker, &status, WNOHANG) != worker)
            continue;
        if (WIFEXITED(status))
            _exit(WEXITSTATUS(status));
        fail(TRY_AGAIN, "genie: the process that served this call was killed; try again later", strsignal(WTERMSIG(status)));
    }
}

/* The worker shares memory and descriptors with this process, which takes a quarter of a fork's time. They never run at
 * the same time: this one sleeps until the worker has ended. */
static _Noreturn void split(int (*work)(void *), const sigset_t *mask)
{
    unsigned char stack[256 << 10] __attribute__((aligned(16)));
    keeper = getpid();
    prctl(PR_SET_CHILD_SUBREAPER, 1, 0, 0, 0);
    pid_t worker = clone(work, stack + sizeof stack, CLONE_VM | CLONE_FILES | SIGCHLD, NULL);
    if (worker < 0 && !(worker = fork()))       /* emulators of other architectures cannot share memory */
        _exit(work(NULL));
    if (worker < 0)
        fail(TRY_AGAIN, "genie: cannot start its second process", strerror(errno));
    keep(worker, mask);
}

/* In the worker. */
static void be_worker(void)
{
    setpgid(0, 0);                      /* a kill of the runtime's process group reaches only the keeper */
    prctl(PR_SET_NAME, "genie-worker", 0, 0, 0);
    prctl(PR_SET_CHILD_SUBREAPER, 1, 0, 0, 0);
    prctl(PR_SET_PDEATHSIG, SIGTERM, 0, 0, 0);
    if (getppid() != keeper)            /* it died before the request took effect */
        _exit(1);
}

/* ---- the agent ---- */

static const char *socket_path(void)
{
    const char *path = getenv("GENIE_SOCKET");
    return path && *path ? path : GENIE_SOCKET;
}

/* There may be no agent for a moment during an update: try for CONNECT_MS. */
static void connect_agent(void)
{
    struct sockaddr_un to = {.sun_family = AF_UNIX};
    const char *path = socket_path();
    if (strlen(path) >= sizeof to.sun_path)
        fail(BAD_ENVIRONMENT, "genie: GENIE_SOCKET is too long for a socket's path", "");
    strcpy(to.sun_path, path);
    for (int64_t until = now() + CONNECT_MS * 1000;;) {
        agent = socket(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC | SOCK_NONBLOCK, 0);
        if (agent < 0)
            fail(TRY_AGAIN, "genie: no socket", strerror(errno));
        if (!connect(agent, (struct sockaddr *)&to, sizeof to))
            return;
        int why = errno;
        close_fd(&agent);
        if (now() > until) {
            char details[200];
            snprintf(details, sizeof details, "%s: %s", path, strerror(why));
            fail_without_agent(details);
        }
        nanosleep(&(struct timespec){.tv_nsec = CONNECT_STEP_MS * 1000000}, NULL);
    }
}

static void queue_call(void)
{
    extern char **environ;
    size_t env = 0;
    for (char **e = environ; *e; e++)
        env += strlen(*e) + 1;
    if (env > ENV_MAX)
        fail(BAD_ENVIRONMENT, "genie: the environment is larger than 1 MiB", "");
    outbox.len = outbox_at = inbox.len = 0;
    handed = 0;
    append_u32(&outbox, (uint32_t)(1 + 4 + 4 + env + 4 + config.len));
    append(&outbox, (unsigned char[]){CALL}, 1);
    append_u32(&outbox, PROTOCOL);
    append_u32(&outbox, (uint32_t)env);
    for (char **e = environ; *e; e++)
        append(&outbox, *e, strlen(*e) + 1);
    append_blob(&outbox, config.at, config.len);
}

/* Opens the namespace that the runtime names, if possible; otherwise the agent reports the error. */
static void open_namespace(void)
{
    const char *path = getenv("CNI_NETNS");
    if (path && *path)
        namespace = open(path, O_RDONLY | O_CLOEXEC | O_NONBLOCK | O_NOCTTY);
}

/* Returns false if the agent is gone. */
static int flush_outbox(void)
{
    while (outbox_at < outbox.len) {
        struct iovec piece = {.iov_base = outbox.at + outbox_at, .iov_len = outbox.len - outbox_at};
        struct msghdr message = {.msg_iov = &piece, .msg_iovlen = 1};
        union { struct cmsghdr head; char room[CMSG_SPACE(sizeof namespace)]; } rights;
        if (!handed && namespace >= 0) {        /* with the first byte of the call */
            message.msg_control = memset(&rights, 0, sizeof rights);
            message.msg_controllen = sizeof rights;
            rights.head = (struct cmsghdr){
                .cmsg_level = SOL_SOCKET, .cmsg_type = SCM_RIGHTS, .cmsg_len = CMSG_LEN(sizeof namespace)};
            memcpy(CMSG_DATA(&rights.head), &namespace, sizeof namespace);
        }
        ssize_t n = sendmsg(agent, &message, MSG_NOSIGNAL);
        if (n < 0 && errno == EINTR)
            continue;
        if (n < 0)
            return errno == EAGAIN;
        handed = 1;
        outbox_at += (size_t)n;
    }
    outbox.len = outbox_at = 0;
    return 1;
}

/* ---- delegates ---- */

struct plan { const char *binary; char **env; int in, out, err, error; pid_t parent; };

/* Runs in the parent's memory until exec (like vfork, but by clone, which is the same in musl and glibc): system calls
 * only. */
static int become_delegate(void *given)
{
    struct plan *plan = given;
    setpgid(0, 0);
    prctl(PR_SET_PDEATHSIG, SIGKILL, 0, 0, 0);
    if (getppid() == plan->parent               /* otherwise the shim died before the request took effect */
        && dup2(plan->in, 0) == 0 && dup2(plan->out, 1) == 1 && dup2(plan->err, 2) == 2) {
        sigaction(SIGPIPE, &runtime_pipe, NULL);
        sigprocmask(SIG_SETMASK, &runtime_mask, NULL);
        execve(plan->binary, (char *const[]){(char *)plan->binary, NULL}, plan->env);
    }
    plan->error = errno ? errno : ECHILD;
    _exit(127);
}

static void report(struct delegate *d, int32_t status, uint32_t error)
{
    append_u32(&outbox, (uint32_t)(1 + 5 * 4 + 4 + d->output.len + 4 + d->errors.len));
    append(&outbox, (unsigned char[]){RESULT}, 1);
    append_u32(&outbox, d->id);
    append_u32(&outbox, d->how);
    append_u32(&outbox, (uint32_t)status);
    append_u32(&outbox, error);
    append_u32(&outbox, (uint32_t)(now() - d->started));
    append_blob(&outbox, d->output.at, d->output.len);
    append_blob(&outbox, d->errors.at, d->errors.len);
    close_fd(&d->in);
    close_fd(&d->out);
    close_fd(&d->err);
    discard(&d->frame);
    discard(&d->output);
    discard(&d->errors);
    d->pid = 0;
}

static void start_delegate(struct delegate *d, const char *binary, char **env)
{
    static char stack[64 << 10] __attribute__((aligned(16)));
    int in[2] = {-1, -1}, out[2] = {-1, -1}, err[2] = {-1, -1};
    struct plan plan = {.binary = binary, .env = env, .parent = getpid()};
    pid_t pid = -1;
    errno = 0;
    if (!pipe2(in, O_CLOEXEC) && !pipe2(out, O_CLOEXEC) && !pipe2(err, O_CLOEXEC)) {
        plan.in = in[0], plan.out = out[1], plan.err = err[1];
        pid = clone(become_delegate, stack + sizeof stack, CLONE_VM | CLONE_VFORK | SIGCHLD, &plan);
    }
    if (pid < 0)
        plan.error = errno;
    close_fd(&in[0]);
    close_fd(&out[1]);
    close_fd(&err[1]);
    d->in = in[1], d->out = out[0], d->err = err[0];
    if (plan.error) {
        if (pid > 0)
            waitpid(pid, NULL, 0);
        d->how = NOT_STARTED;
        report(d, -1, (uint32_t)plan.error);
        return;
    }
    d->pid = pid;
    fcntl(d->in, F_SETFL, O_NONBLOCK);
    fcntl(d->out, F_SETFL, O_NONBLOCK);
    fcntl(d->err, F_SETFL, O_NONBLOCK);
}

static void feed(struct delegate *d)
{
    while (d->in >= 0 && d->in_at < d->in_end) {
        ssize_t n = write(d->in, d->frame.at + d->in_at, d->in_end - d->in_at);
        if (n < 0 && errno == EINTR)
            continue;
        if (n < 0 && errno == EAGAIN)
            return;
        if (n < 0)
            break;                      /* it closed its standard input without reading it: not an error */
        d->in_at += (size_t)n;
    }
    close_fd(&d->in);
}

static void drain(struct delegate *d)
{
    unsigned char dropped[4096];
    while (d->out >= 0) {
        ssize_t n = read_some(d->out, &d->output, 8192);
        if (n < 0)
            break;
        if (!n)
            close_fd(&d->out);
        if (d->output.len > STDOUT_MAX && d->how == EXITED) {
            d->how = TOO_MUCH;
            d->output.len = 0;
            kill(-d->pid, SIGKILL);
        }
        if (d->how == TOO_MUCH) {       /* do not read to the end: another process may hold the pipe and write more */
            close_fd(&d->out);
            d->output.len = 0;
        }
    }
    while (d->err >= 0) {
        ssize_t n = d->errors.len < STDERR_MAX ? read_some(d->err, &d->errors, STDERR_MAX - d->errors.len)
                                               : read(d->err, dropped, sizeof dropped);
        if (!n)
            close_fd(&d->err);
        if (n <= 0 || d->errors.len >= STDERR_MAX)      /* drop one piece at a time, to return to the loop */
            break;
    }
}

static void reap(void)
{
    int status;
    pid_t pid, *daemon;
    while ((pid = waitpid(-1, &status, WNOHANG)) > 0) {
        if ((daemon = find_meant(pid)))
            *daemon = 0;
        for (struct delegate *d = delegates; d < delegates + DELEGATES_MAX; d++)
            if (d->pid == pid) {
                /* All its output is in the pipes now; do not wait for remaining processes that hold the pipes. */
                drain(d);
                int cut_off = WIFSIGNALED(status) || d->how != EXITED;
                if (cut_off)
                    end_children(d);    /* they would continue a half-done task */
                report(d, WIFSIGNALED(status) ? -WTERMSIG(status) : WEXITSTATUS(status), 0);
                if (!cut_off)
                    spare_children();
            }
    }
}

/* ---- frames from the agent ---- */

struct reader { const unsigned char *at; size_t left; int bad; };

static uint32_t take_u32(struct reader *r)
{
    if (r->left < 4) {
        r->bad = 1;
        return 0;
    }
    uint32_t v = u32(r->at);
    r->at += 4;
    r->left -= 4;
    return v;
}

static const unsigned char *take_blob(struct reader *r, size_t *len)
{
    *len = take_u32(r);
    if (r->bad || *len > r->left) {
        r->bad = 1;
        *len = 0;
        return NULL;
    }
    const unsigned char *at = r->at;
    r->at += *len;
    r->left -= *len;
    return at;
}

/* RUN: id, timeout in ms (0: no timeout), binary with its NUL, environment as NUL-terminated strings, standard input. */
static int handle_run(const unsigned char *body, size_t len)
{
    struct delegate *d = delegates;
    while (d < delegates + DELEGATES_MAX && d->pid)
        d++;
    if (d == delegates + DELEGATES_MAX)
        return 0;                       /* the agent knows the limit */
    *d = (struct delegate){.in = -1, .out = -1, .err = -1, .started = now()};
    append(&d->frame, body, len);       /* a copy, which lives as long as the delegate */

    struct reader r = {.at = d->frame.at, .left = len};
    size_t binary_len, env_len, in_len, count = 0;
    d->id = take_u32(&r);
    int64_t limit = take_u32(&r);
    const char *binary = (const char *)take_blob(&r, &binary_len);
    char *env = (char *)take_blob(&r, &env_len);
    const unsigned char *in = take_blob(&r, &in_len);
    if (r.bad || r.left || !binary_len || binary[binary_len - 1] || (env_len && env[env_len - 1])) {
        discard(&d->frame);
        return 0;
    }
    d->deadline = limit ? d->started + limit * 1000 : 0;
    d->in_at = (size_t)(in - d->frame.at);
    d->in_end = d->in_at + in_len;
    for (size_t i = 0; i < env_len; i++)
        count += !env[i];
    char **strings = calloc(count + 1, sizeof *strings);
    if (!strings)
        fail(TRY_AGAIN, "genie: out of memory", "");
    for (size_t i = 0; i < count; i++, env += strlen(env) + 1)
        strings[i] = env;
    start_delegate(d, binary, strings);
    free(strings);
    if (d->pid)
        feed(d);
    return 1;
}

/* ANSWER: exit status, standard output. */
static int handle_answer(const unsigned char *body, size_t len)
{
    struct reader r = {.at = body, .left = len};
    size_t text_len;
    uint32_t status = take_u32(&r);
    const unsigned char *text = take_blob(&r, &text_len);
    if (r.bad || r.left || status > 255)
        return 0;
    leave((int)status, 0, text, text_len);
}

/* Handles each complete frame of the inbox; returns false if a frame is invalid. */
static int handle_frames(void)
{
    size_t at = 0;
    int ok = 1;
    while (ok && inbox.len - at >= 4) {
        size_t len = u32(inbox.at + at);
        if (len < 1 || len > FRAME_MAX)
            return 0;
        if (inbox.len - at < 4 + len)
            break;
        const unsigned char *frame = inbox.at + at + 4;
        ok = *frame == RUN ? handle_run(frame + 1, len - 1) : *frame == ANSWER ? handle_answer(frame + 1, len - 1) : 0;
        at += 4 + len;
    }
    memmove(inbox.at, inbox.at + at, inbox.len - at);
    inbox.len -= at;
    return ok;
}

/* ---- the loop ---- */

static void read_config(void)
{
    int64_t until = now() + STDIN_MS * 1000;
    for (;;) {
        struct pollfd p = {.fd = STDIN_FILENO, .events = POLLIN};
        int64_t left = (until - now()) / 1000;
        int ready = left > 0 ? poll(&p, 1, (int)left) : 0;
        if (!ready)
            fail(IO_FAILURE, "genie: the runtime did not finish writing the network configuration", "");
        if (ready < 0)
            continue;
        if (!read_some(STDIN_FILENO, &config, 16384))
            return;
        if (config.len > STDIN_MAX)
            fail(IO_FAILURE, "genie: the network configuration is larger than 1 MiB", "");
    }
}

static void prepare_process(sigset_t *mask)
{
    for (int fd = open("/dev/null", O_RDWR); fd >= 0; fd = dup(fd))
        if (fd > 2) {                   /* 0, 1 and 2 are open now, so no pipe or socket gets one of these numbers */
            close(fd);
            break;
        }
    sigemptyset(mask);
    sigaddset(mask, SIGCHLD);
    sigaddset(mask, SIGTERM);
    sigaddset(mask, SIGINT);
    sigaddset(mask, SIGHUP);
    sigaddset(mask, SIGUSR1);           /* from the worker, see linger() */
    sigprocmask(SIG_BLOCK, mask, &runtime_mask);
    sigaction(SIGPIPE, &(struct sigaction){.sa_handler = SIG_IGN}, &runtime_pipe);
    signal(SIGCHLD, SIG_DFL);           /* if the inherited action is to ignore it, ends of children would not be reported */
    signals = signalfd(-1, mask, SFD_CLOEXEC | SFD_NONBLOCK);
    if (signals < 0)
        fail(TRY_AGAIN, "genie: no signalfd", strerror(errno));
}

static void handle_signals(void)
{
    struct signalfd_siginfo info;
    while (read(signals, &info, sizeof info) == sizeof info)
        if (info.ssi_signo != SIGCHLD)
            fail(TRY_AGAIN, "genie: stopped before the call was done", strsignal((int)info.ssi_signo));
    reap();
}

static int poll_timeout(int64_t next)
{
    for (struct delegate *d = delegates; d < delegates + DELEGATES_MAX; d++)
        if (d->pid && d->deadline && d->deadline < next)
            next = d->deadline;
    int64_t left = (next - now() + 999) / 1000;
    return left < 0 ? 0 : (int)left;
}

/* Handles the call to its end. */
static int work(void *unused)
{
    (void)unused;
    be_worker();
    int heard = 0, reconnects = 0;      /* heard: the agent has started to act on this call */
    for (;;) {
        struct pollfd fds[2 + 3 * DELEGATES_MAX];
        nfds_t n = 2;
        size_t backlog = outbox.len - outbox_at;
        fds[0] = (struct pollfd){.fd = agent, .events = (short)((backlog < BACKLOG_MAX ? POLLIN : 0) | (backlog ? POLLOUT : 0))};
        fds[1] = (struct pollfd){.fd = signals, .events = POLLIN};
        for (struct delegate *d = delegates; d < delegates + DELEGATES_MAX; d++)
            if (d->pid) {               /* poll ignores an fd of -1 */
                fds[n++] = (struct pollfd){.fd = d->in, .events = POLLOUT};
                fds[n++] = (struct pollfd){.fd = d->out, .events = POLLIN};
                fds[n++] = (struct pollfd){.fd = d->err, .events = POLLIN};
            }
        if (poll(fds, n, poll_timeout(call_deadline)) < 0 && errno != EINTR)
            fail(TRY_AGAIN, "genie: poll", strerror(errno));

        for (struct delegate *d = delegates; d < delegates + DELEGATES_MAX; d++)
            if (d->pid) {
                if (d->in >= 0)
                    feed(d);
                drain(d);
                if (d->deadline && d->how == EXITED && now() >= d->deadline) {
                    d->how = TIMED_OUT;
                    d->deadline = 0;
                    kill(-d->pid, SIGKILL);
                }
            }
        if (fds[1].revents)
            handle_signals();
        if (now() >= call_deadline)
            fail(TRY_AGAIN, "genie: the call took too long", "");

        int gone = !flush_outbox();
        if (!gone && fds[0].revents & (POLLIN | POLLHUP | POLLERR)) {
            ssize_t got = read_some(agent, &inbox, 65536);
            gone = !got;
            heard |= got > 0;
            if (got > 0 && !handle_frames())
                fail(TRY_AGAIN, "genie: its agent sent an invalid frame", "");
            if (!flush_outbox())        /* a delegate that could not be started is reported at once */
                gone = 1;
        }
        if (gone) {
            close_fd(&agent);
            /* The agent has not started, so a new agent repeats nothing. */
            if (heard || reconnects++ == RECONNECTS)
                fail(TRY_AGAIN, "genie: its agent went away before the call was done; try again later", "");
            connect_agent();
            queue_call();
        }
    }
}

int main(void)
{
    const char *given = getenv("CNI_COMMAND");
    if (!given || !*given) {
        fprintf(stderr, "genie %s: a CNI meta-plugin. Container runtimes start this program, with CNI_COMMAND in its environment;\n"
                        "it hands the call to genie's agent on %s.\n", GENIE_VERSION, socket_path());
        return 2;
    }
    command = given;
    call_deadline = now() + (int64_t)CALL_MS * 1000;
    sigset_t mask;
    prepare_process(&mask);
    read_config();
    open_namespace();
    connect_agent();
    queue_call();
    flush_outbox();                     /* the loop sends the rest */
    split(work, &mask);                 /* while the agent works */
}
