/* SPDX-License-Identifier: MIT */
#include "engine/settled.h"

#include <errno.h>
#include <unistd.h>

#include "engine/descriptors.h"

void ti_settled_add(ti_settled *list, ti_run *run)
{
    run->next_settled = NULL;
    if (list->first)
        list->last->next_settled = run;
    else
        list->first = run;
    list->last = run;
}

ti_run *ti_settled_take(ti_settled *list)
{
    ti_run *run = list->first;
    if (run)
        list->first = run->next_settled;
    return run;
}

int ti_descriptor_open(ti_descriptor *descriptor, bool readable)
{
    if (descriptor->ends[0] >= 0)
        return descriptor->ends[0];
    if (ti_descriptors_guard() || uv_pipe(descriptor->ends, UV_NONBLOCK_PIPE, UV_NONBLOCK_PIPE)) {
        *descriptor = TI_NO_DESCRIPTOR;
        return -1;
    }
    if (readable)
        ti_descriptor_signal(descriptor);
    return descriptor->ends[0];
}

/* Neither call can block or fail: the pipe holds one byte at most. A signal handler of the host may
 * still interrupt them before they begin. */
void ti_descriptor_signal(ti_descriptor *descriptor)
{
    if (descriptor->ends[1] < 0 || descriptor->readable)
        return;
    while (write(descriptor->ends[1], "", 1) < 0 && errno == EINTR)
        ;
    descriptor->readable = true;
}

void ti_descriptor_clear(ti_descriptor *descriptor)
{
    char byte;
    if (!descriptor->readable)
        return;
    while (read(descriptor->ends[0], &byte, 1) < 0 && errno == EINTR)
        ;
    descriptor->readable = false;
}

void ti_descriptor_close(ti_descriptor *descriptor)
{
    for (int i = 0; i < 2; i++)
        if (descriptor->ends[i] >= 0)
            close(descriptor->ends[i]);
    *descriptor = TI_NO_DESCRIPTOR;
}
