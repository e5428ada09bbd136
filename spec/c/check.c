/* SPDX-License-Identifier: MIT */
#include "check.h"

#include <signal.h>
#include <stdarg.h>
#include <time.h>
#include <unistd.h>
#include <uv.h>

#define MOST_THREADS 16
#define PATIENCE 60 /* seconds */

static atomic_uint checks_failed;
static const char *running = "";

static void fail(const char *file, int line, const char *format, va_list arguments)
{
    char text[512];
    vsnprintf(text, sizeof text, format, arguments);
    if (atomic_fetch_add(&checks_failed, 1) < 20)
        fprintf(stderr, "%s:%d: %s: failed: %s\n", file, line, running, text);
}

void check_fail(const char *file, int line, const char *format, ...)
{
    va_list arguments;
    va_start(arguments, format);
    fail(file, line, format, arguments);
    va_end(arguments);
}

void check_int(const char *file, int line, const char *what, long long actual, long long expected)
{
    if (actual != expected)
        check_fail(file, line, "%s is %lld, not %lld", what, actual, expected);
}

void check_text(const char *file, int line, const char *what, const char *actual,
                const char *expected)
{
    if (strcmp(actual, expected) != 0)
        check_fail(file, line, "%s is \"%s\", not \"%s\"", what, actual, expected);
}

static void hung(int signal)
{
    static const char text[] = ": still running after a minute\n";
    (void)signal;
    if (write(STDERR_FILENO, running, strlen(running)) > 0 &&
        write(STDERR_FILENO, text, sizeof text - 1) > 0)
        _exit(EXIT_FAILURE);
    _exit(EXIT_FAILURE);
}

void check_run(const char *name, void (*test)(void))
{
    running = name;
    signal(SIGALRM, hung);
    alarm(PATIENCE);
    double began = check_seconds();
    test();
    alarm(0);
    printf("%-50s %6.2f s\n", name, check_seconds() - began);
    fflush(stdout);
}

void check_extend(void)
{
    alarm(PATIENCE);
}

unsigned check_failures(void)
{
    return atomic_load(&checks_failed);
}

int check_report(void)
{
    unsigned failed = atomic_load(&checks_failed);
    if (failed)
        fprintf(stderr, "%u checks failed\n", failed);
    return failed ? EXIT_FAILURE : EXIT_SUCCESS;
}

uint32_t check_random(uint32_t *state)
{
    *state = *state * 1664525u + 1013904223u;
    uint32_t mixed = (*state ^ *state >> 15) * 2246822519u;
    return mixed ^ mixed >> 13;
}

typedef struct part {
    void (*work)(void *data, unsigned index);
    void *data;
    unsigned index;
    uv_barrier_t *start;
    uv_thread_t thread;
} part;

static void run_part(void *data)
{
    part *self = data;
    uv_barrier_wait(self->start);
    self->work(self->data, self->index);
}

void check_threads(unsigned threads, void (*work)(void *data, unsigned index), void *data)
{
    part parts[MOST_THREADS];
    uv_barrier_t start;
    REQUIRE(threads <= MOST_THREADS && uv_barrier_init(&start, threads) == 0);
    for (unsigned i = 0; i < threads; i++) {
        parts[i] = (part){.work = work, .data = data, .index = i, .start = &start};
        REQUIRE(uv_thread_create(&parts[i].thread, run_part, &parts[i]) == 0);
    }
    for (unsigned i = 0; i < threads; i++)
        uv_thread_join(&parts[i].thread);
    uv_barrier_destroy(&start);
}

double check_seconds(void)
{
    return (double)uv_hrtime() / 1e9;
}
