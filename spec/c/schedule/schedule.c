/* SPDX-License-Identifier: MIT */
/* One thread at a time has the baton. Everything here is touched only with it. */
#define SCHEDULE_ITSELF
#include "schedule.h"

#include <semaphore.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#define MOST_THREADS 32
#define MOST_LOOPS 4
#define MOST_STEPS 3000000 /* nothing takes that long: a livelock */
#define NEVER UINT64_MAX

typedef enum state { NONE, READY, WAITING, ENDED } state;

typedef struct thread {
    state state;
    const void *object; /* what it waits for */
    const char *what;   /* for people */
    uint64_t until;     /* and how long */
    bool timed_out;
    sem_t baton;
    uv_thread_t id;
    uv_thread_cb work;
    void *data;
} thread;

typedef struct loop {
    uv_loop_t *loop;
    uv_timer_t *timer;
    uv_async_t *async;
    uv_timer_cb on_timer;
    uv_async_cb on_async;
    uint64_t due;
    bool sent, timer_open, async_open;
} loop;

static thread threads[MOST_THREADS];
static loop loops[MOST_LOOPS];
static unsigned current, count;
static uint32_t seed, state_of_random, reluctance;
static uint64_t now, step_time, steps, hash;
static bool active;
static _Thread_local bool scheduled;

static uint32_t random_number(void)
{
    state_of_random = state_of_random * 1664525u + 1013904223u;
    uint32_t mixed = (state_of_random ^ state_of_random >> 15) * 2246822519u;
    return mixed ^ mixed >> 13;
}

static void crashed(int number)
{
    fprintf(stderr, "seed %u: signal %d after %llu steps\n", seed, number,
            (unsigned long long)steps);
    _Exit(EXIT_FAILURE);
}

void sched_begin(uint32_t new_seed)
{
    memset(threads, 0, sizeof threads);
    memset(loops, 0, sizeof loops);
    seed = state_of_random = new_seed;
    random_number();
    reluctance = 1u << random_number() % 6;
    step_time = 1 + random_number() % 500;
    now = 1000000000;
    steps = hash = 0;
    current = 0;
    count = 1;
    threads[0] = (thread){.state = READY};
    sem_init(&threads[0].baton, 0, 0);
    active = scheduled = true;
    signal(SIGSEGV, crashed);
    signal(SIGABRT, crashed);
}

uint64_t sched_end(void)
{
    for (unsigned i = 0; i < count; i++)
        sem_destroy(&threads[i].baton);
    active = scheduled = false;
    return hash;
}

static void give_up(const char *why)
{
    fprintf(stderr, "seed %u: %s after %llu steps\n", seed, why, (unsigned long long)steps);
    for (unsigned i = 0; i < count; i++)
        if (threads[i].state != ENDED)
            fprintf(stderr, "  thread %u %s %s\n", i,
                    threads[i].state == READY ? "is ready" : "waits for",
                    threads[i].state == READY ? "" : threads[i].what);
    _Exit(EXIT_FAILURE);
}

static void wake(thread *one, bool timed_out)
{
    one->state = READY;
    one->timed_out = timed_out;
    one->until = NEVER;
}

static void wake_all(const void *object)
{
    for (unsigned i = 0; i < count; i++)
        if (threads[i].state == WAITING && threads[i].object == object)
            wake(&threads[i], false);
}

static uint64_t wake_due(void)
{
    uint64_t next = NEVER;
    for (unsigned i = 0; i < count; i++)
        if (threads[i].state == WAITING && threads[i].until <= now)
            wake(&threads[i], true);
        else if (threads[i].state == WAITING && threads[i].until < next)
            next = threads[i].until;
    return next;
}

static unsigned ready_threads(unsigned *list)
{
    unsigned ready = 0;
    for (unsigned i = 0; i < count; i++)
        if (threads[i].state == READY)
            list[ready++] = i;
    return ready;
}

/* Who goes on. */
static unsigned choose(void)
{
    unsigned list[MOST_THREADS], ready;
    uint64_t next = wake_due();
    while (!(ready = ready_threads(list))) {
        if (next == NEVER)
            give_up("everybody waits");
        now = next;
        next = wake_due();
    }
    if (threads[current].state == READY && random_number() % reluctance)
        return current;
    return list[random_number() % ready];
}

static void hand_over(void)
{
    unsigned self = current, next = choose();
    hash = (hash ^ next) * UINT64_C(0x100000001b3) + 1;
    if (next == self)
        return;
    current = next;
    sem_post(&threads[next].baton);
    if (threads[self].state == ENDED)
        return;
    while (sem_wait(&threads[self].baton))
        ; /* a signal */
}

void sched_point(void)
{
    if (!scheduled || !active)
        return;
    now += step_time;
    if (++steps > MOST_STEPS)
        give_up("no end");
    hand_over();
}

/* True: it took until `until`. */
static bool wait_for(const void *object, const char *what, uint64_t until)
{
    thread *self = &threads[current];
    self->state = WAITING;
    self->object = object;
    self->what = what;
    self->until = until;
    if (++steps > MOST_STEPS)
        give_up("no end");
    hand_over();
    return self->timed_out;
}

uint64_t sched_hrtime(void)
{
    if (!scheduled)
        return uv_hrtime();
    return now += step_time;
}

void sched_sleep(unsigned ms)
{
    wait_for(&now, "time", now + ms * UINT64_C(1000000));
}

void sched_mutex_lock(uv_mutex_t *mutex)
{
    if (!scheduled) {
        uv_mutex_lock(mutex);
        return;
    }
    sched_point();
    while (uv_mutex_trylock(mutex))
        wait_for(mutex, "a mutex", NEVER);
}

void sched_mutex_unlock(uv_mutex_t *mutex)
{
    uv_mutex_unlock(mutex);
    if (!scheduled)
        return;
    wake_all(mutex);
    sched_point();
}

static bool wait_cond(uv_cond_t *cond, uv_mutex_t *mutex, uint64_t until)
{
    uv_mutex_unlock(mutex);
    wake_all(mutex);
    bool late = wait_for(cond, "a condition", until);
    sched_mutex_lock(mutex);
    return late;
}

void sched_cond_wait(uv_cond_t *cond, uv_mutex_t *mutex)
{
    wait_cond(cond, mutex, NEVER);
}

int sched_cond_timedwait(uv_cond_t *cond, uv_mutex_t *mutex, uint64_t nanoseconds)
{
    return wait_cond(cond, mutex, now + nanoseconds) ? UV_ETIMEDOUT : 0;
}

void sched_cond_broadcast(uv_cond_t *cond)
{
    sched_point();
    wake_all(cond);
}

void sched_sem_wait(uv_sem_t *sem)
{
    sched_point();
    while (uv_sem_trywait(sem))
        wait_for(sem, "a semaphore", NEVER);
}

void sched_sem_post(uv_sem_t *sem)
{
    sched_point();
    uv_sem_post(sem);
    wake_all(sem);
}

static void run_thread(void *data)
{
    thread *self = data;
    while (sem_wait(&self->baton))
        ;
    scheduled = true;
    self->work(self->data);
    self->state = ENDED;
    wake_all(self);
    hand_over();
}

int sched_thread_create(uv_thread_t *id, const uv_thread_options_t *options, uv_thread_cb work,
                        void *data)
{
    (void)options;
    if (count == MOST_THREADS)
        return UV_EAGAIN;
    thread *made = &threads[count];
    *made = (thread){.work = work, .data = data, .until = NEVER};
    sem_init(&made->baton, 0, 0);
    int status = uv_thread_create(&made->id, run_thread, made);
    if (status)
        return status;
    *id = made->id;
    made->state = READY;
    count++;
    sched_point();
    return 0;
}

int sched_thread_join(uv_thread_t *id)
{
    /* Identifiers of threads that were joined may be used again: the latest has it. */
    for (unsigned i = count; i-- > 1;)
        if (uv_thread_equal(&threads[i].id, id)) {
            while (threads[i].state != ENDED)
                wait_for(&threads[i], "a thread's end", NEVER);
            break;
        }
    return uv_thread_join(id);
}

static loop *find_loop(const void *handle)
{
    for (int i = 0; i < MOST_LOOPS; i++)
        if (loops[i].loop && (loops[i].loop == handle || (void *)loops[i].timer == handle ||
                              (void *)loops[i].async == handle))
            return &loops[i];
    give_up("no such loop");
    return NULL;
}

int sched_loop_init(uv_loop_t *handle)
{
    for (int i = 0; i < MOST_LOOPS; i++)
        if (!loops[i].loop) {
            loops[i] = (loop){.loop = handle, .due = NEVER};
            return 0;
        }
    return UV_ENOMEM;
}

int sched_timer_init(uv_loop_t *handle, uv_timer_t *timer)
{
    loop *it = find_loop(handle);
    it->timer = timer;
    it->timer_open = true;
    return 0;
}

int sched_timer_start(uv_timer_t *timer, uv_timer_cb work, uint64_t ms, uint64_t repeat)
{
    loop *it = find_loop(timer);
    (void)repeat;
    it->on_timer = work;
    it->due = now + ms * 1000000;
    return 0;
}

int sched_async_init(uv_loop_t *handle, uv_async_t *async, uv_async_cb work)
{
    loop *it = find_loop(handle);
    it->async = async;
    it->on_async = work;
    it->async_open = true;
    return 0;
}

int sched_async_send(uv_async_t *async)
{
    loop *it = find_loop(async);
    sched_point();
    it->sent = true;
    wake_all(it);
    return 0;
}

void sched_close(uv_handle_t *handle, uv_close_cb work)
{
    loop *it = find_loop(handle);
    (void)work;
    if ((void *)it->timer == (void *)handle)
        it->timer_open = false;
    else
        it->async_open = false;
}

int sched_run(uv_loop_t *handle, uv_run_mode mode)
{
    loop *it = find_loop(handle);
    (void)mode;
    while (it->timer_open || it->async_open) {
        sched_point();
        if (it->sent) {
            it->sent = false;
            it->on_async(it->async);
        } else if (it->timer_open && it->due <= now) {
            it->due = NEVER;
            it->on_timer(it->timer);
        } else {
            wait_for(it, "its loop", it->due);
        }
    }
    return 0;
}

int sched_loop_close(uv_loop_t *handle)
{
    *find_loop(handle) = (loop){0};
    return 0;
}
