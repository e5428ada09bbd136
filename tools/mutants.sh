#!/bin/sh
# SPDX-License-Identifier: MIT
# tools/mutants.sh
# Breaks a copy of the engine in one place after the other, and fails if schedule_test does not find it. Mutants that
# only delay what threads of its own would do are not among them: Relacy has those (spec/models/check.sh), on threads
# that are borrowed.
set -eu
root=$(cd "$(dirname "$0")/.." && pwd)
copy=$root/build/mutants/source
build=$root/build/mutants/build
seeds=${TIDEMILL_SCHEDULES-20000}

mkdir -p "$copy"
(cd "$root" && tar cf - CMakeLists.txt ./*.rockspec engine bindings bin bench spec tools) | tar xmf - -C "$copy"
cmake -G Ninja -S "$copy" -B "$build" --log-level=NOTICE
cmake --build "$build" --target schedule_test -- --quiet
"$build/spec/schedule_test" 1 200 >/dev/null || { echo "it fails without a mutant" >&2; exit 1; }

survivors=0
# what goes wrong; file; what is replaced, and by what: both plain, within one line
while IFS="$(printf '\t')" read -r what file from to; do
    [ -n "$file" ] || continue
    FROM=$from TO=$to awk '
        BEGIN { from = ENVIRON["FROM"]; to = ENVIRON["TO"] }
        (at = index($0, from)) && !done {
            $0 = substr($0, 1, at - 1) to substr($0, at + length(from)); done = 1 }
        { print }
        END { exit !done }' "$root/$file" >"$copy/$file" || { echo "$what: not in $file" >&2; exit 1; }
    cmake --build "$build" --target schedule_test -- --quiet
    status=0
    said=$(timeout 300 "$build/spec/schedule_test" 1 "$seeds" 2>&1 >/dev/null) || status=$?
    found=$(echo "$said" | sed -n 's/^seed \([0-9]*\).*/\1/p' | tail -1)
    [ "$status" = 0 ] || found=${found:-?}
    cp "$root/$file" "$copy/$file"
    if [ -n "$found" ]; then
        echo "$what: found by seed $found"
    else
        echo "$what: SURVIVES" >&2
        survivors=$((survivors + 1))
    fi
done <<'MUTANTS'
no second look before parking	engine/parking.h	bool beckons = parking->calls->beckons(parking->pool);	bool beckons = false;
nobody is woken on leaving a seat	engine/engine.c	if (ti_engine_beckons(engine))	if (0)
a parked thread is posted no semaphore	engine/parking.h	ti_semaphore_post(&place->wake);	(void)0;
an event is lost where two meet	engine/worker.h	ti_sub_acq_rel(&node->pending, 1) == 1	(ti_store_relaxed(&node->pending, ti_load_relaxed(&node->pending) - 1), ti_load_relaxed(&node->pending) == 0)
an inbox that forgets what was sent	engine/inbox.h	while (!ti_cas_sc(&inbox->newest, &newest, first));	while (ti_store_sc(&inbox->newest, first), 0);
two take the last of a deque	engine/deque.h	if (top == bottom && !ti_cas_sc(&deque->top, &top, top + 1))	if (0)
a run counted twice	engine/worker.c	ti_sub_acq_rel(&run->remaining, tally) == tally	(ti_store_relaxed(&run->remaining, ti_load_relaxed(&run->remaining) - tally), ti_load_relaxed(&run->remaining) == 0)
a waiter that nobody knows of	engine/engine.c	ti_cas_sc(&run->phase, &phase, TI_AWAITED);	(void)phase;
a settler that tells nobody	engine/engine.c	if (awaited || ti_load_sc(&engine->closing))	if ((void)awaited, ti_load_sc(&engine->closing))
a run that starts while the engine closes	engine/engine.c	if (!ti_load_sc(&engine->closing))	if (1)
permits that are not given back	engine/limits.c	count(limits->available, freed, 1);	(void)freed;
a stopped run leaves its retries waiting	engine/engine.c	ti_engine_queue(engine, ti_control_flush(&engine->control));	(void)engine;
two strategies stop a run twice	engine/worker.c	if (!ti_cas_sc(&run->stop, &go, TI_STOP_FAILED))	if (ti_store_sc(&run->stop, TI_STOP_FAILED), (void)go, 0)
two sit on one seat	engine/engine.c	if (!ti_cas_sc(&worker->seated, &nobody, 1))	if (ti_load_sc(&worker->seated) != nobody || (ti_store_sc(&worker->seated, 1), 0))
MUTANTS
exit "$((survivors > 0))"
