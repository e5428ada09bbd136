/* SPDX-License-Identifier: MIT */
/* unload LIBRARY SCRIPT TIMES: a host that loads a plugin with Lua in it, has it run a script, and
 * unloads it, again and again. (RTLD_GLOBAL: modules in C take Lua's symbols from the process.) */
#include <dlfcn.h>
#include <stdio.h>
#include <stdlib.h>

int main(int count, char **arguments)
{
    int failed = count != 4;
    for (int i = 0; !failed && i < atoi(arguments[3]); i++) {
        void *library = dlopen(arguments[1], RTLD_NOW | RTLD_GLOBAL);
        if (!library) {
            fprintf(stderr, "%s\n", dlerror());
            return 1;
        }
        int (*run)(const char *) = (int (*)(const char *))dlsym(library, "guest_run");
        failed = !run || run(arguments[2]);
        dlclose(library);
    }
    return failed;
}
