/* SPDX-License-Identifier: MIT */
/* The harness: checks that say where they failed, tests that say which one hung, random numbers
 * that a seed repeats, and threads that start together. */
#ifndef CHECK_H
#define CHECK_H

#include <stdatomic.h>
#include <stdbool.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

/* Sanitizers make everything several times slower: stress loops do a share of their rounds. */
#if defined(HELGRIND_H)
#define ROUNDS(n) ((n) / 100 + 1)
#elif defined(__SANITIZE_THREAD__)
#define ROUNDS(n) ((n) / 8 + 1)
#elif defined(__SANITIZE_ADDRESS__)
#define ROUNDS(n) ((n) / 4 + 1)
#else
#define ROUNDS(n) (n)
#endif

/* Fails the program, which goes on to its next check. From any thread. */
#define CHECK(condition) ((condition) ? (void)0 : check_fail(__FILE__, __LINE__, "%s", #condition))

#define CHECK_INT(actual, expected)                                                                \
    check_int(__FILE__, __LINE__, #actual, (long long)(actual), (long long)(expected))

#define CHECK_TEXT(actual, expected) check_text(__FILE__, __LINE__, #actual, (actual), (expected))

/* Ends the program at once: what follows would make no sense. */
#define REQUIRE(condition)                                                                         \
    ((condition) ? (void)0 : (check_fail(__FILE__, __LINE__, "%s", #condition), exit(EXIT_FAILURE)))

/* Runs a function, and kills the program by name if it takes longer than a minute. */
#define RUN(test) check_run(#test, test)

void check_fail(const char *file, int line, const char *format, ...)
    __attribute__((format(printf, 3, 4)));
void check_int(const char *file, int line, const char *what, long long actual, long long expected);
void check_text(const char *file, int line, const char *what, const char *actual,
                const char *expected);
void check_run(const char *name, void (*test)(void));

/* For what takes long on purpose: another minute from now. And checks that failed so far. */
void check_extend(void);
unsigned check_failures(void);

/* What main returns. */
int check_report(void);

/* The next of a sequence; `state` is any seed. */
uint32_t check_random(uint32_t *state);

/* Runs `work(data, 0)` ... `work(data, threads - 1)`, each on a thread of its own, all starting at
 * the same moment, and waits for them. */
void check_threads(unsigned threads, void (*work)(void *data, unsigned index), void *data);

double check_seconds(void);

#endif
