/* SPDX-License-Identifier: MIT */
#include "jitter.h"

#include "engine/inbox.h"

#include "check.h"

enum { SENDERS = 3, MOST_TAKERS = 3, LONGEST = 5 };

static ti_inbox inbox;

static void what_is_sent_is_taken_newest_first(void)
{
    ti_node nodes[5] = {{0}};
    CHECK(ti_inbox_empty(&inbox));
    CHECK(ti_inbox_take(&inbox) == NULL);
    ti_inbox_send(&inbox, &nodes[0], &nodes[0]);
    nodes[1].next = &nodes[2]; /* a chain keeps its order */
    nodes[2].next = &nodes[3];
    ti_inbox_send(&inbox, &nodes[1], &nodes[3]);
    ti_inbox_send(&inbox, &nodes[4], &nodes[4]);
    CHECK(!ti_inbox_empty(&inbox));
    static const int order[] = {4, 1, 2, 3, 0};
    ti_node *node = ti_inbox_take(&inbox);
    for (int i = 0; i < 5; i++, node = node->next)
        REQUIRE(node == &nodes[order[i]]);
    CHECK(node == NULL);
    CHECK(ti_inbox_empty(&inbox));
}

/* `source` is a node's number among its sender's; `root` the sender; `pending` how often it was
 * taken. */
typedef struct tt_post {
    ti_node *nodes[SENDERS];
    uint32_t count, takers, longest;
    atomic_uint taken;
} tt_post;

static void send_all(tt_post *post, uint32_t sender)
{
    ti_node *nodes = post->nodes[sender];
    uint32_t seed = sender, next = 0;
    while (next < post->count) {
        uint32_t size = 1 + check_random(&seed) % post->longest;
        if (size > post->count - next)
            size = post->count - next;
        for (uint32_t i = next; i < next + size; i++) {
            nodes[i].source = i;
            nodes[i].root = sender;
            nodes[i].next = &nodes[i + 1];
        }
        ti_inbox_send(&inbox, &nodes[next], &nodes[next + size - 1]);
        next += size;
    }
}

/* In one chain, a sender's later sends come before its earlier ones. */
static void check_chain(const tt_post *post, ti_node *node)
{
    uint32_t above[SENDERS];
    for (uint32_t i = 0; i < SENDERS; i++)
        above[i] = post->count;
    for (; node; node = node->next) {
        if (post->longest == 1)
            CHECK(node->source < above[node->root]);
        above[node->root] = node->source;
    }
}

static void take_all(tt_post *post)
{
    uint32_t below[SENDERS] = {0};
    while (ti_load_acquire(&post->taken) < SENDERS * post->count) {
        ti_node *node = ti_inbox_take(&inbox);
        check_chain(post, node);
        uint32_t taken = 0, latest[SENDERS] = {0};
        for (ti_node *next; node; node = next, taken++) {
            next = node->next;
            CHECK_INT(atomic_fetch_add(&node->pending, 1), 0);
            CHECK(post->takers > 1 || node->source >= below[node->root]);
            if (node->source > latest[node->root])
                latest[node->root] = node->source;
            node->next = NULL; /* it is ours now */
        }
        for (uint32_t i = 0; i < SENDERS; i++)
            below[i] = latest[i] > below[i] ? latest[i] : below[i];
        atomic_fetch_add(&post->taken, taken);
    }
}

static void send_or_take(void *data, unsigned index)
{
    if (index < SENDERS)
        send_all(data, index);
    else
        take_all(data);
}

static void check_post(uint32_t takers, uint32_t longest)
{
    tt_post all = {.count = ROUNDS(40000), .takers = takers, .longest = longest};
    for (int i = 0; i < SENDERS; i++)
        REQUIRE((all.nodes[i] = calloc(all.count + 1, sizeof(ti_node))));
    check_threads(SENDERS + takers, send_or_take, &all);
    for (int i = 0; i < SENDERS; i++) {
        for (uint32_t n = 0; n < all.count; n++)
            CHECK_INT(all.nodes[i][n].pending, 1);
        free(all.nodes[i]);
    }
    CHECK(ti_inbox_empty(&inbox));
}

static void one_taker_gets_everything_in_order(void)
{
    check_post(1, 1);
    check_post(1, LONGEST);
}

static void several_takers_get_everything_once(void)
{
    check_post(MOST_TAKERS, 1);
    check_post(MOST_TAKERS, LONGEST);
}

int main(void)
{
    RUN(what_is_sent_is_taken_newest_first);
    RUN(one_taker_gets_everything_in_order);
    RUN(several_takers_get_everything_once);
    return check_report();
}
