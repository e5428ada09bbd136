/* SPDX-License-Identifier: MIT */
#include "jitter.h"

#include "engine/deque.h"

#include "check.h"

/* What the deque holds here: it never looks inside. */
struct ti_node {
    atomic_uint taken;
};

enum { THIEVES = 3 };

static ti_deque deque;

static void reset(int64_t position)
{
    atomic_init(&deque.top, position);
    atomic_init(&deque.bottom, position);
}

static void the_owner_takes_the_newest(void)
{
    struct ti_node nodes[3];
    reset(0);
    CHECK(ti_deque_pop(&deque) == NULL);
    for (int i = 0; i < 3; i++)
        CHECK(ti_deque_push(&deque, &nodes[i]));
    CHECK_INT(ti_deque_count(&deque), 3);
    for (int i = 2; i >= 0; i--)
        CHECK(ti_deque_pop(&deque) == &nodes[i]);
    CHECK(ti_deque_pop(&deque) == NULL);
    CHECK_INT(ti_deque_count(&deque), 0);
}

static void a_thief_takes_the_oldest(void)
{
    struct ti_node nodes[3];
    reset(0);
    CHECK(ti_deque_steal(&deque) == NULL);
    for (int i = 0; i < 3; i++)
        CHECK(ti_deque_push(&deque, &nodes[i]));
    CHECK(ti_deque_steal(&deque) == &nodes[0]);
    CHECK(ti_deque_pop(&deque) == &nodes[2]);
    CHECK(ti_deque_steal(&deque) == &nodes[1]);
    CHECK(ti_deque_steal(&deque) == NULL);
    CHECK(ti_deque_pop(&deque) == NULL);
}

static void a_full_ring_refuses_and_loses_nothing(void)
{
    static struct ti_node nodes[TI_DEQUE_SIZE + 1];
    reset(0);
    for (int i = 0; i < TI_DEQUE_SIZE; i++)
        CHECK(ti_deque_push(&deque, &nodes[i]));
    CHECK(!ti_deque_push(&deque, &nodes[TI_DEQUE_SIZE]));
    CHECK_INT(ti_deque_count(&deque), TI_DEQUE_SIZE);
    CHECK(ti_deque_steal(&deque) == &nodes[0]);
    CHECK(ti_deque_push(&deque, &nodes[TI_DEQUE_SIZE]));
    CHECK(!ti_deque_push(&deque, &nodes[0]));
    for (int i = TI_DEQUE_SIZE; i > 0; i--)
        CHECK(ti_deque_pop(&deque) == &nodes[i]);
    CHECK(ti_deque_pop(&deque) == NULL);
}

/* Against a plain array, one thread, from positions where a narrower counter would wrap. */
static void does_what_an_array_would(void)
{
    static const int64_t starts[] = {0, INT32_MAX - 100, (int64_t)UINT32_MAX - 100};
    static struct ti_node nodes[20000];
    uint32_t seed = 3;
    for (size_t k = 0; k < sizeof starts / sizeof *starts; k++) {
        struct ti_node *model[20000];
        size_t first = 0, end = 0;
        reset(starts[k]);
        for (size_t i = 0; i < sizeof nodes / sizeof *nodes; i++) {
            uint32_t choice = check_random(&seed) % 7;
            if (choice < 4) {
                bool room = end - first < TI_DEQUE_SIZE;
                CHECK_INT(ti_deque_push(&deque, &nodes[i]), room);
                if (room)
                    model[end++] = &nodes[i];
            } else if (choice < 6) {
                CHECK(ti_deque_pop(&deque) == (end > first ? model[--end] : NULL));
            } else {
                CHECK(ti_deque_steal(&deque) == (end > first ? model[first++] : NULL));
            }
            CHECK_INT(ti_deque_count(&deque), end - first);
        }
    }
}

typedef struct tt_robbery {
    struct ti_node *nodes;
    uint32_t count, burst;
    atomic_uint taken;
} tt_robbery;

static void take(tt_robbery *robbery, struct ti_node *node)
{
    CHECK_INT(atomic_fetch_add(&node->taken, 1), 0);
    atomic_fetch_add(&robbery->taken, 1);
}

/* Pushes a burst, pops about half of it, and so on; what the ring has no room for it takes itself.
 */
static void own(tt_robbery *robbery)
{
    uint32_t seed = robbery->burst, next = 0;
    struct ti_node *node;
    while (next < robbery->count) {
        uint32_t pushes = 1 + check_random(&seed) % robbery->burst;
        for (; pushes > 0 && next < robbery->count; pushes--, next++)
            if (!ti_deque_push(&deque, &robbery->nodes[next]))
                take(robbery, &robbery->nodes[next]);
        for (uint32_t pops = check_random(&seed) % robbery->burst + 1; pops > 0; pops--)
            if ((node = ti_deque_pop(&deque)))
                take(robbery, node);
    }
    while ((node = ti_deque_pop(&deque)))
        take(robbery, node);
}

static void rob(tt_robbery *robbery)
{
    const struct ti_node *last = NULL;
    while (atomic_load(&robbery->taken) < robbery->count) {
        struct ti_node *node = ti_deque_steal(&deque);
        if (!node)
            continue;
        CHECK(last == NULL || node > last); /* the oldest first, whatever the owner does */
        last = node;
        take(robbery, node);
    }
}

static void own_or_rob(void *data, unsigned index)
{
    if (index == 0)
        own(data);
    else
        rob(data);
}

/* With a burst of 1 nearly every take is of the last item, where owner and thieves meet; large
 * bursts fill the ring, where the owner must not overwrite what a thief is reading. */
static void every_item_is_taken_once(void)
{
    static const uint32_t bursts[] = {1, 2, 16, 3 * TI_DEQUE_SIZE};
    for (size_t i = 0; i < sizeof bursts / sizeof *bursts; i++) {
        tt_robbery all = {.count = ROUNDS(60000), .burst = bursts[i]};
        all.nodes = calloc(all.count, sizeof *all.nodes);
        REQUIRE(all.nodes);
        reset((int64_t)UINT32_MAX - all.count / 2);
        check_threads(1 + THIEVES, own_or_rob, &all);
        for (uint32_t n = 0; n < all.count; n++)
            CHECK_INT(all.nodes[n].taken, 1);
        CHECK_INT(ti_deque_count(&deque), 0);
        free(all.nodes);
    }
}

int main(void)
{
    RUN(the_owner_takes_the_newest);
    RUN(a_thief_takes_the_oldest);
    RUN(a_full_ring_refuses_and_loses_nothing);
    RUN(does_what_an_array_would);
    RUN(every_item_is_taken_once);
    return check_report();
}
