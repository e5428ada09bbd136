/* SPDX-License-Identifier: MIT */
#include "engine/descriptors.h"

#include <errno.h>
#include <fcntl.h>
#include <unistd.h>

/* What is opened gets the least free descriptor. That is another one if somebody was faster, and
 * then this one is taken. */
static int occupy(int wanted)
{
    int fd = open("/dev/null", (wanted == STDIN_FILENO ? O_WRONLY : O_RDONLY) | O_CLOEXEC);
    if (fd > STDERR_FILENO)
        close(fd);
    return fd < 0 ? -errno : 0;
}

int ti_descriptors_guard(void)
{
    int status = 0;
    for (int fd = STDIN_FILENO; fd <= STDERR_FILENO && !status; fd++)
        if (fcntl(fd, F_GETFD) < 0 && errno == EBADF)
            status = occupy(fd);
    return status;
}
