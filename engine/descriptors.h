/* SPDX-License-Identifier: MIT */
/* Descriptors 0, 1 and 2 belong to the host, even while it has them closed: it reads and writes
 * there without asking what is behind, and libuv never closes one of them. */
#ifndef TI_DESCRIPTORS_H
#define TI_DESCRIPTORS_H

/* To be called before the engine opens a descriptor: it will be none of these. Where one is closed,
 * /dev/null is put, opened so that reading 0 and writing 1 and 2 still fail with EBADF, and stays
 * until the host puts something else there: it must not be free while another thread, of another
 * engine, opens its own. Programs that are executed do not inherit it. 0, or a negative errno. Any
 * thread. */
int ti_descriptors_guard(void);

#endif
