/* SPDX-License-Identifier: MIT */
#include "engine/error.h"

#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

static const struct {
    const char *name, *text;
} codes[] = {{"ok", "no error"},
#define X(code, name, text) {name, text},
             TI_ERROR_MAP(X)
#undef X
};

static ti_error out_of_memory = {
    .code = TI_E_MEMORY_LIMIT,
    .attempt = 1,
    .message = "not enough memory",
    .message_size = sizeof "not enough memory" - 1,
};

const char *ti_code_name(ti_code code)
{
    return codes[code].name;
}

const char *ti_code_text(ti_code code)
{
    return codes[code].text;
}

ti_error *ti_error_new(ti_code code, const char *message, size_t message_size,
                       const char *traceback, size_t traceback_size, ti_value *cause)
{
    if (!message) {
        message = ti_code_text(code);
        message_size = strlen(message);
    }
    ti_error *error = malloc(sizeof *error + message_size + traceback_size + 2);
    if (!error) {
        ti_value_release(cause);
        return &out_of_memory;
    }
    char *text = (char *)(error + 1);
    memcpy(text, message, message_size);
    text[message_size] = '\0';
    *error = (ti_error){
        .code = code, .attempt = 1, .message = text, .message_size = message_size, .cause = cause};
    if (traceback) {
        text += message_size + 1;
        memcpy(text, traceback, traceback_size);
        text[traceback_size] = '\0';
        error->traceback = text;
        error->traceback_size = traceback_size;
    }
    return error;
}

ti_error *ti_error_format(ti_code code, const char *format, ...)
{
    char text[1024];
    va_list arguments;
    va_start(arguments, format);
    int size = vsnprintf(text, sizeof text, format, arguments);
    va_end(arguments);
    if (size < 0)
        return ti_error_new(code, NULL, 0, NULL, 0, NULL);
    if ((size_t)size >= sizeof text)
        size = sizeof text - 1;
    return ti_error_new(code, text, (size_t)size, NULL, 0, NULL);
}

size_t ti_error_bytes(const ti_error *error)
{
    size_t bytes = 0;
    for (; error; error = error->previous)
        bytes += sizeof *error + error->message_size + error->traceback_size +
                 (error->cause ? error->cause->bytes : 0);
    return bytes;
}

void ti_error_free(ti_error *error)
{
    while (error && error != &out_of_memory) {
        ti_error *previous = error->previous;
        ti_value_release(error->cause);
        free(error);
        error = previous;
    }
}

ti_error *ti_error_chain(ti_error *error, ti_error *previous, uint32_t attempt)
{
    if (error == &out_of_memory) {
        ti_error_free(previous);
        return error;
    }
    error->attempt = attempt;
    ti_error *last = error; /* it may have one behind it already: see `decide` in state.c */
    while (last->previous)
        last = last->previous;
    if (last == &out_of_memory)
        ti_error_free(previous);
    else
        last->previous = previous;
    return error;
}
