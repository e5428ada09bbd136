/* SPDX-License-Identifier: MIT */
#include "engine/error.h"

#include "check.h"

/* An error of this code without a text of its own has the text of the code. */
static void check_code(ti_code code, const char *name)
{
    CHECK_TEXT(ti_code_name(code), name);
    CHECK(strlen(ti_code_text(code)) > 0);
    ti_error *error = ti_error_new(code, NULL, 0, NULL, 0, NULL);
    CHECK_INT(error->code, code);
    CHECK_TEXT(error->message, ti_code_text(code));
    CHECK_INT(error->message_size, strlen(error->message));
    ti_error_free(error);
}

static void every_code_has_a_name_and_a_text(void)
{
    CHECK_TEXT(ti_code_name(TI_OK), "ok");
#define X(code, name, text) check_code(TI_E_##code, name);
    TI_ERROR_MAP(X)
#undef X
}

static void a_record_keeps_copies_of_any_bytes(void)
{
    char message[] = "a\0b", traceback[] = "stack:\0\xff";
    ti_error *error = ti_error_new(TI_E_PROCESSOR_FAILED, message, 3, traceback, 8, NULL);
    memset(message, 'x', sizeof message);
    memset(traceback, 'x', sizeof traceback);
    CHECK_INT(error->message_size, 3);
    CHECK(memcmp(error->message, "a\0b", 4) == 0);
    CHECK_INT(error->traceback_size, 8);
    CHECK(memcmp(error->traceback, "stack:\0\xff", 9) == 0);
    CHECK_INT(error->attempt, 1);
    CHECK(error->cause == NULL);
    ti_error_free(error);
}

static void empty_texts_are_not_missing_ones(void)
{
    ti_error *error = ti_error_new(TI_E_INTERNAL, "", 0, "", 0, NULL);
    CHECK_TEXT(error->message, "");
    CHECK(error->traceback && *error->traceback == '\0');
    ti_error_free(error);
    error = ti_error_new(TI_E_INTERNAL, "m", 1, NULL, 0, NULL);
    CHECK(error->traceback == NULL);
    CHECK_INT(error->traceback_size, 0);
    ti_error_free(error);
}

static void a_record_owns_its_cause(void)
{
    ti_value *cause = ti_value_integer(7);
    ti_value_retain(cause);
    ti_error *error = ti_error_new(TI_E_PROCESSOR_FAILED, NULL, 0, NULL, 0, cause);
    CHECK(error->cause == cause);
    ti_error_free(error);
    CHECK_INT(atomic_load(&cause->references), 1);
    ti_value_release(cause);
}

static void format_prints_and_cuts_what_is_too_long(void)
{
    ti_error *error = ti_error_format(TI_E_CLOSED, "%s is %d%%", "it", 100);
    CHECK_TEXT(error->message, "it is 100%");
    ti_error_free(error);
    error = ti_error_format(TI_E_CLOSED, "%5000d", 1);
    CHECK(error->message_size >= 1000);
    CHECK_INT(strlen(error->message), error->message_size);
    ti_error_free(error);
}

static void freeing_nothing_is_fine(void)
{
    ti_error_free(NULL);
}

int main(void)
{
    RUN(every_code_has_a_name_and_a_text);
    RUN(a_record_keeps_copies_of_any_bytes);
    RUN(empty_texts_are_not_missing_ones);
    RUN(a_record_owns_its_cause);
    RUN(format_prints_and_cuts_what_is_too_long);
    RUN(freeing_nothing_is_fine);
    return check_report();
}
