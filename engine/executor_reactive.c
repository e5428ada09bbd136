/* SPDX-License-Identifier: MIT */
/* reactive: a processor starts the moment its last dependency has finished. */
#include <string.h>

#include "engine/executor.h"
#include "engine/worker.h"

const ti_executor *const ti_executors[] = {
    [TI_REACTIVE] = &ti_executor_reactive,
    [TI_WORK_QUEUE] = &ti_executor_work_queue,
    [TI_LEVEL] = &ti_executor_level,
    NULL,
};

ti_strategy ti_strategy_named(const char *name)
{
    for (int i = 0; name && ti_executors[i]; i++)
        if (strcmp(ti_executors[i]->name, name) == 0)
            return (ti_strategy)i;
    return TI_REACTIVE;
}

ti_node *ti_executor_queue(ti_node *chain, ti_node **last)
{
    ti_node *tickets = NULL, **end = &tickets;
    while (chain) {
        ti_node *node = chain;
        chain = node->next;
        node->status = TI_READY;
        if (node->run->executor->queue)
            node = node->run->executor->queue(node);
        *end = *last = node;
        end = &node->next;
    }
    *end = NULL;
    return tickets;
}

const ti_executor ti_executor_reactive = {
    .name = "reactive",
};
