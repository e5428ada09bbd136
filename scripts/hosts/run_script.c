/* SPDX-License-Identifier: MIT */
/* run_script SCRIPT TEXT...
 * Runs a DAG script on each text, and prints what comes out.
 *
 *     cc -o run_script run_script.c $(pkg-config --cflags --libs tidemill-lua) */
#include <stdio.h>
#include <stdlib.h>

#include <tidemill_lua.h>

/* Prints an error and frees it. */
static int complain(tide_error *error)
{
    fprintf(stderr, "run_script: %s\n", tide_error_text(error));
    tide_error_free(error);
    return EXIT_FAILURE;
}

static int print_result(const tide_result *result)
{
    size_t size;
    const tide_value *payload = tide_result_payload(result);
    const char *text = tide_value_string(payload, &size);
    tide_error *error = tide_result_error(result);
    if (error)
        return complain(error);
    if (text)
        printf("%.*s\n", (int)size, text);
    else
        printf("(%g)\n", tide_view_number(tide_value_view(payload)));
    return EXIT_SUCCESS;
}

static int run_one(tide_dag *dag, const char *text)
{
    tide_error *error = NULL;
    tide_result *result = tide_dag_run(dag, tide_text(text), NULL, &error);
    if (!result)
        return complain(error);
    int status = print_result(result);
    tide_result_release(result);
    return status;
}

int main(int argc, char **argv)
{
    tide_error *error = NULL;
    int status = EXIT_SUCCESS;
    if (argc < 2) {
        fprintf(stderr, "usage: run_script SCRIPT TEXT...\n");
        return EXIT_FAILURE;
    }
    tide_engine *engine = tide_lua_open(NULL, NULL, &error);
    tide_dag *dag = engine ? tide_lua_load(engine, argv[1], &error) : NULL;
    if (!dag)
        status = complain(error);
    for (int i = 2; dag && i < argc; i++)
        if (run_one(dag, argv[i]))
            status = EXIT_FAILURE;
    tide_dag_release(dag);
    tide_engine_release(engine);
    return status;
}
