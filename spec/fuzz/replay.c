/* SPDX-License-Identifier: MIT */
/* In place of libFuzzer: hands the files that are named to a target, one after the other. */
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>

int LLVMFuzzerInitialize(int *count, char ***arguments);
int LLVMFuzzerTestOneInput(const uint8_t *bytes, size_t size);

enum { MOST = 4096 };

int main(int count, char **names)
{
    LLVMFuzzerInitialize(&count, &names);
    for (int i = 1; i < count; i++) {
        uint8_t bytes[MOST];
        FILE *file = fopen(names[i], "rb");
        if (!file) {
            perror(names[i]);
            return EXIT_FAILURE;
        }
        size_t size = fread(bytes, 1, MOST, file);
        fclose(file);
        fprintf(stderr, "%s\n", names[i]); /* the last one, should it fail */
        LLVMFuzzerTestOneInput(bytes, size);
    }
    return EXIT_SUCCESS;
}
