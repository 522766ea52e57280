/* The shim's frame parser alone, for libFuzzer, or for a program that sends it inputs (-DDRIVER): nothing is started, killed
 * or waited for, and the shim's end is the end of an input. */
#define _GNU_SOURCE
#include <errno.h>
#include <fcntl.h>
#include <poll.h>
#include <sched.h>
#include <setjmp.h>
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

static jmp_buf end_of_input;
static int exit_status;

static _Noreturn void end_input(int status)
{
    exit_status = status;
    longjmp(end_of_input, 1);
}

static ssize_t write_nothing_out(int fd, const void *bytes, size_t n)
{
    return fd == STDOUT_FILENO ? (ssize_t)n : write(fd, bytes, n);
}

#define _exit(status) end_input(status)
#define write(fd, bytes, n) write_nothing_out(fd, bytes, n)
#define clone(...) (1 << 23)            /* no process has such a PID */
#define fork() (-1)
#define kill(pid, number) ((void)(pid), 0)
#define waitpid(pid, status, flags) ((void)(status), -1)
#define waitid(...) ((void)&info, -1)
#define main shim_main
#include SHIM
#undef main
#undef write
#undef _exit

/* An input: how many bytes come at once, 0 for all, and what the agent says. Returns what the shim makes of it: '.' it waits
 * for more, '!' it does not understand, 'A' it ends with exit_status. */
static volatile char verdict;

static void take_input(const unsigned char *data, size_t size)
{
    for (struct delegate *d = delegates; d < delegates + DELEGATES_MAX; d++)
        if (d->pid) {
            close_fd(&d->in);
            close_fd(&d->out);
            close_fd(&d->err);
            discard(&d->frame);
            d->pid = 0;
        }
    signal(SIGPIPE, SIG_IGN);           /* as prepare_process() does */
    discard(&inbox);
    discard(&outbox);
    outbox_at = 0;
    verdict = '.';
    size_t piece = size && data[0] ? data[0] : size, at = 1;
    if (setjmp(end_of_input)) {
        verdict = 'A';
        return;
    }
    for (; at < size; at += piece) {
        append(&inbox, data + at, size - at < piece ? size - at : piece);
        if (!handle_frames()) {
            verdict = '!';
            return;
        }
    }
}

#ifndef DRIVER
int LLVMFuzzerTestOneInput(const unsigned char *data, size_t size)
{
    take_input(data, size);
    return 0;
}
#else
/* Inputs on standard input, each after its length; a line for each. */
int main(void)
{
    static unsigned char head[4];
    while (fread(head, 1, 4, stdin) == 4) {
        size_t size = u32(head);
        unsigned char *data = malloc(size + !size);     /* of its own, so that a read beyond it is seen */
        if (!data || fread(data, 1, size, stdin) != size)
            return 2;
        take_input(data, size);
        free(data);
        printf("%c %d", verdict, verdict == 'A' ? exit_status : 0);
        for (struct delegate *d = delegates; d < delegates + DELEGATES_MAX; d++)
            if (d->pid)
                printf(" %u", d->id);
        printf("\n");
        fflush(stdout);
    }
    return 0;
}
#endif
