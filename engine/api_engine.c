/* SPDX-License-Identifier: MIT */
/* Engines of the C interface. */
#include <stdlib.h>
#include <string.h>

#include "engine/api.h"
#include "engine/native.h"

const char *tide_version(void)
{
    return TIDE_VERSION;
}

bool ti_api_read(void *into, size_t known, const void *from, const char *type, tide_error **error)
{
    size_t given;
    memcpy(&given, from, sizeof given);
    if (given < 2 * sizeof given || given > 64 * known) {
        ti_api_misuse(error,
                      "%s.size is not set: begin with the initializer in tidemill.h, or "
                      "sizeof",
                      type);
        return false;
    }
    for (size_t i = known; i < given; i++)
        if (((const char *)from)[i]) {
            ti_api_misuse(error, "%s is of a newer version than this library (%s)", type,
                          TIDE_VERSION);
            return false;
        }
    memcpy(into, from, given < known ? given : known);
    return true;
}

bool ti_api_may_wait(ti_engine *engine, const char *function, tide_error **error)
{
    if (!ti_engine_inside(engine))
        return true;
    ti_api_misuse(error, "%s would wait for the callback it is called from", function);
    return false;
}

uint64_t ti_api_patience(double seconds)
{
    return seconds >= 0 && seconds <= 1e9 ? (uint64_t)(seconds * 1e9) : UINT64_MAX;
}

static bool check_options(const tide_options *options, tide_error **error)
{
    if (options->workers > TI_MOST_WORKERS)
        ti_api_misuse(error, "workers is more than %d", TI_MOST_WORKERS);
    else if ((unsigned)options->preempt > TIDE_PREEMPT_NONE)
        ti_api_misuse(error, "preempt is none of tide_preempt");
    else if (!(options->kill_grace >= 0 && options->kill_grace <= 1e9))
        ti_api_misuse(error, "kill_grace is no number of seconds");
    else if ((unsigned)options->pool > TIDE_POOL_SHARED)
        ti_api_misuse(error, "pool is none of tide_pool");
    else if (options->pool == TIDE_POOL_SHARED && options->kill_grace > 0)
        ti_api_misuse(error, "kill_grace does not go with a shared pool: its threads cannot be "
                             "given up");
    else
        return true;
    return false;
}

bool ti_api_read_options(tide_options *options, const tide_options *from, tide_error **error)
{
    *options = (tide_options)TIDE_OPTIONS;
    return (!from || ti_api_read(options, sizeof *options, from, "tide_options", error)) &&
           check_options(options, error);
}

tide_engine *tide_engine_open(const tide_options *from, tide_error **error)
{
    tide_options options;
    if (!ti_api_read_options(&options, from, error))
        return NULL;
    /* Nobody reaches into a callback in C, which looks at the flag itself. */
    const ti_engine_config config = {
        .workers = options.workers ? options.workers : ti_engine_default_workers(),
        .preempt = TI_PREEMPT_HOOK,
        .shared = options.pool == TIDE_POOL_SHARED,
    };
    ti_natives *natives = ti_natives_new();
    if (!natives) {
        ti_api_fail_code(error, TI_E_MEMORY_LIMIT);
        return NULL;
    }
    ti_error *why = NULL;
    const ti_backend_choice choice = {&ti_native_backend, natives};
    ti_engine *engine = ti_engine_open(&config, &choice, 1, &why);
    if (!engine) {
        ti_natives_free(natives);
        ti_api_fail(error, why);
        return NULL;
    }
    ti_natives_attach(natives, engine);
    return ti_engine_out(engine);
}

bool tide_engine_close(tide_engine *engine, tide_error **error)
{
    if (!engine)
        return true;
    if (!ti_api_may_wait(ti_engine_in(engine), "tide_engine_close", error))
        return false;
    ti_engine_close(ti_engine_in(engine));
    return true;
}

tide_engine *tide_engine_retain(tide_engine *engine)
{
    if (engine) {
        ti_engine_retain(ti_engine_in(engine));
        ti_engine_add_handle(ti_engine_in(engine));
    }
    return engine;
}

void tide_engine_release(tide_engine *engine)
{
    if (!engine)
        return;
    ti_engine_drop_handle(ti_engine_in(engine));
    ti_engine_release(ti_engine_in(engine));
}

uint32_t tide_engine_workers(const tide_engine *engine)
{
    return engine ? ti_engine_in(engine)->workers : 0;
}

static bool check_name(const char *name, tide_error **error)
{
    if (name && *name)
        return true;
    ti_api_misuse(error, "a native processor needs a name");
    return false;
}

bool tide_engine_register(tide_engine *engine, const char *name, const tide_processor *from,
                          tide_error **error)
{
    tide_processor processor = {0};
    ti_natives *natives = engine ? ti_natives_of(ti_engine_in(engine)) : NULL;
    if (!natives || !from) {
        ti_api_misuse(error, "tide_engine_register needs an engine and a processor");
        return false;
    }
    if (!check_name(name, error) ||
        !ti_api_read(&processor, sizeof processor, from, "tide_processor", error))
        return false;
    if (!processor.call) {
        ti_api_misuse(error, "native processor '%s' has no call function", name);
        return false;
    }
    ti_native *native = ti_native_new(&processor);
    ti_code code = native ? ti_natives_register(natives, name, native) : TI_E_MEMORY_LIMIT;
    if (!code)
        return true;
    ti_native_disown(native);
    if (code == TI_E_INTERNAL)
        ti_api_misuse(error, "there is a native processor '%s' already", name);
    else
        ti_api_fail_code(error, code);
    return false;
}

int tide_engine_pollfd(tide_engine *engine, tide_error **error)
{
    if (!engine) {
        ti_api_misuse(error, "tide_engine_pollfd needs an engine");
        return -1;
    }
    int descriptor = ti_engine_pollfd(ti_engine_in(engine));
    if (descriptor < 0)
        ti_api_fail_format(error, TI_E_INTERNAL, "the system gives no descriptor");
    return descriptor;
}

tide_result *tide_engine_next_settled(tide_engine *engine)
{
    return engine ? ti_result_out(ti_engine_next_settled(ti_engine_in(engine))) : NULL;
}

uint32_t tide_engine_pending(tide_engine *engine)
{
    return engine ? ti_engine_pending(ti_engine_in(engine)) : 0;
}
