/* SPDX-License-Identifier: MIT */
/* Errors of the C interface. */
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "engine/api.h"

#define X(code, name, text)                                                                        \
    _Static_assert((int)TIDE_E_##code == (int)TI_E_##code, "tidemill.h lists the codes in order");
TI_ERROR_MAP(X)
#undef X

static tide_error out_of_memory = {.code = TIDE_E_MEMORY_LIMIT};

static bool is_engine_code(tide_code code)
{
    return code > TIDE_OK && code <= TIDE_E_INTERNAL;
}

const char *tide_code_name(tide_code code)
{
    if (code == TIDE_E_MISUSE)
        return "misuse";
    return code == TIDE_OK || is_engine_code(code) ? ti_code_name((ti_code)code) : "unknown";
}

static char *copy_text(ti_text text)
{
    char *copy = text.bytes ? malloc(text.size + 1) : NULL;
    if (!copy)
        return NULL;
    memcpy(copy, text.bytes, text.size);
    copy[text.size] = '\0';
    return copy;
}

/* "code: processor 'id': message" */
static char *make_text(const tide_error *error)
{
    const char *name = tide_code_name(error->code), *message = error->record->message;
    const char *format = error->processor ? "%s: processor '%s': %s" : "%s%s: %s";
    const char *id = error->processor ? error->processor : "";
    int size = snprintf(NULL, 0, format, name, id, message);
    char *text = size < 0 ? NULL : malloc((size_t)size + 1);
    if (text)
        snprintf(text, (size_t)size + 1, format, name, id, message);
    return text;
}

tide_error *ti_api_error_new(tide_code code, ti_error *record, ti_text processor, ti_text root)
{
    tide_error *error = calloc(1, sizeof *error);
    if (!error) {
        ti_error_free(record);
        return &out_of_memory;
    }
    error->code = code;
    error->record = record;
    error->processor = copy_text(processor);
    error->root = copy_text(root);
    error->text = make_text(error);
    return error;
}

tide_error *ti_api_error_copy(const ti_error *record, ti_text processor)
{
    ti_error *copy =
        ti_error_new(record->code, record->message, record->message_size, record->traceback,
                     record->traceback_size, ti_value_retain(record->cause));
    copy = ti_error_chain(copy, NULL, record->attempt);
    return ti_api_error_new((tide_code)copy->code, copy, processor, (ti_text){NULL, 0});
}

static tide_error *plain(tide_code code, ti_error *record)
{
    return ti_api_error_new(code, record, (ti_text){NULL, 0}, (ti_text){NULL, 0});
}

/* A record whose message is as long as it is. */
static ti_error *format_record(ti_code code, const char *format, va_list arguments)
{
    va_list again;
    va_copy(again, arguments);
    int size = vsnprintf(NULL, 0, format, again);
    va_end(again);
    char *message = size < 0 ? NULL : malloc((size_t)size + 1);
    if (!message)
        return ti_error_new(size < 0 ? code : TI_E_MEMORY_LIMIT, NULL, 0, NULL, 0, NULL);
    vsnprintf(message, (size_t)size + 1, format, arguments);
    ti_error *record = ti_error_new(code, message, (size_t)size, NULL, 0, NULL);
    free(message);
    return record;
}

tide_error *tide_error_new(tide_code code, const char *format, ...)
{
    va_list arguments;
    ti_code known = is_engine_code(code) ? (ti_code)code : TI_E_PROCESSOR_FAILED;
    if (!format)
        return plain((tide_code)known, ti_error_new(known, NULL, 0, NULL, 0, NULL));
    va_start(arguments, format);
    ti_error *record = format_record(known, format, arguments);
    va_end(arguments);
    return plain((tide_code)record->code, record);
}

void tide_error_free(tide_error *error)
{
    if (!error || error == &out_of_memory)
        return;
    ti_error_free(error->record);
    ti_problems_clear(&error->problems);
    free(error->processor);
    free(error->root);
    free(error->text);
    free(error);
}

ti_error *ti_api_error_take(tide_error *error)
{
    if (error == &out_of_memory)
        return ti_error_new(TI_E_MEMORY_LIMIT, NULL, 0, NULL, 0, NULL);
    ti_error *record = error->record;
    error->record = NULL;
    tide_error_free(error);
    return record;
}

ti_error *ti_api_error_prefix(tide_error *why, const char *format, ...)
{
    va_list arguments;
    bool memory = why && tide_error_code(why) == TIDE_E_MEMORY_LIMIT;
    va_start(arguments, format);
    ti_error *record =
        format_record(memory ? TI_E_MEMORY_LIMIT : TI_E_INVALID_DAG, format, arguments);
    va_end(arguments);
    tide_error_free(why);
    return record;
}

void ti_api_fail(tide_error **error, ti_error *record)
{
    if (error)
        *error = plain((tide_code)record->code, record);
    else
        ti_error_free(record);
}

void ti_api_fail_format(tide_error **error, ti_code code, const char *format, ...)
{
    va_list arguments;
    va_start(arguments, format);
    if (error)
        ti_api_fail(error, format_record(code, format, arguments));
    va_end(arguments);
}

void ti_api_misuse(tide_error **error, const char *format, ...)
{
    va_list arguments;
    va_start(arguments, format);
    if (error)
        *error = plain(TIDE_E_MISUSE, format_record(TI_E_INTERNAL, format, arguments));
    va_end(arguments);
}

void ti_api_fail_code(tide_error **error, ti_code code)
{
    if (code == TI_E_CLOSED)
        ti_api_fail_format(error, code, "the engine is closed");
    else if (code == TI_E_INTERNAL)
        ti_api_fail_format(error, code, TI_NO_THREAD);
    else
        ti_api_fail(error, ti_error_new(code, NULL, 0, NULL, 0, NULL));
}

tide_code tide_error_code(const tide_error *error)
{
    return error ? error->code : TIDE_OK;
}

const char *tide_error_message(const tide_error *error)
{
    if (!error || !error->record)
        return error ? "not enough memory" : "no error";
    return error->record->message;
}

const char *tide_error_processor(const tide_error *error)
{
    return error ? error->processor : NULL;
}

const char *tide_error_root(const tide_error *error)
{
    return error ? error->root : NULL;
}

const char *tide_error_traceback(const tide_error *error)
{
    return error && error->record ? error->record->traceback : NULL;
}

uint32_t tide_error_attempt(const tide_error *error)
{
    return error && error->record && error->processor ? error->record->attempt : 0;
}

const char *tide_error_text(const tide_error *error)
{
    return error && error->text ? error->text : tide_error_message(error);
}

const tide_value *tide_error_cause(const tide_error *error)
{
    return error && error->record ? ti_value_out(error->record->cause) : NULL;
}

size_t tide_error_problems(const tide_error *error)
{
    return error ? error->problems.count : 0;
}

const char *tide_error_problem(const tide_error *error, size_t index)
{
    return index < tide_error_problems(error) ? error->problems.list[index].text : NULL;
}
