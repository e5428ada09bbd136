/* SPDX-License-Identifier: MIT */
/* Keeps LD_PRELOAD from the programs that Lua starts: dash, for one, crashes under TSan's runtime.
 */
#include <stdlib.h>

__attribute__((constructor)) static void forget_preload(void)
{
    unsetenv("LD_PRELOAD");
}
