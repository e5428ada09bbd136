# SPDX-License-Identifier: MIT
# A thin front to CMake, busted and LuaRocks. `make help` lists what there is.
#
# A variant is a Lua, or a Lua with a kind of build before it, and owns build/<variant>:
#   5.4  5.3  5.1  luajit  asan-5.4  tsan-5.4  tsanlua-5.4 (on a Lua of its own, for TSan)  release-5.4
VARIANT ?= 5.4
DOCUMENT := $(firstword $(wildcard /usr/share/common-licenses/GPL-3) README.md)
LUA_SOURCES := $(wildcard bindings bin bin/tidemill scripts spec bench)
C_SOURCES := $(wildcard $(foreach room, \
  engine engine/include bindings spec/c spec/c/schedule spec/fuzz spec/host bench scripts/hosts tools,$(room)/*.[ch]) bench/*.cpp)
CHECKS := lint check-5.4 spec-luajit spec-5.3 spec-5.1 check-asan-5.4 check-tsan-5.4 soak rock installed

flags_asan := -DTIDEMILL_ASAN=ON
flags_tsan := -DTIDEMILL_TSAN=ON
flags_tsanlua := -DTIDEMILL_TSAN=ON -DCMAKE_PREFIX_PATH=$(CURDIR)/build/tsan_lua
flags_helgrind := "-DCMAKE_C_FLAGS=-include $(CURDIR)/spec/c/helgrind.h"
flags_release := -DCMAKE_BUILD_TYPE=Release

MAKEFLAGS += --no-print-directory
.DELETE_ON_ERROR:
.PHONY: build deps run test check asan tsan lint format bench bench-quick bench-count bench-stop bench-deps rock \
  installed trust soak fuzz clean help

build: ## build the module into build/$VARIANT (default 5.4)
	@tools/deps.sh --check
	@$(MAKE) build-$(VARIANT)

deps: ## install what building and testing need
	@tools/deps.sh

run: deps ## run a report on a document
	@$(MAKE) build-5.4
	tools/with 5.4 tidemill run scripts/report.dag.lua --input $(DOCUMENT)

test: deps ## everything CI checks, on every Lua and under the sanitizers
	@tools/test.sh $(CHECKS)

check: check-$(VARIANT) ## quick: C tests and specs on one Lua

asan: check-asan-5.4 ## C tests and specs under ASan and UBSan
tsan: check-tsan-5.4 ## C tests and specs under TSan

# Leaks are LeakSanitizer's to find: cppcheck takes a pointer in a compound literal for one.
# Longer than `make test` has time for.
TRUST_MINUTES ?= 10

trust: ## the promises of docs/trust.md, each for longer: TRUST_MINUTES=10
	@tools/deps.sh --trust
	@$(MAKE) build-5.4 build-asan-5.4 build-tsanlua-5.4 build-helgrind-5.4
	@tools/trust.sh $(TRUST_MINUTES)

# A threshold that is set stays; the allocator's own rises with what is freed, and then it keeps that much.
SOAK_MINUTES ?= 0.5

soak: build-$(VARIANT) ## streams, failures, cancels, reloads for SOAK_MINUTES=0.5 (SEED=1): nothing grows or is lost
	MALLOC_TRIM_THRESHOLD_=131072 tools/with $(VARIANT) lua spec/soak.lua $(SOAK_MINUTES) $(SEED)

FUZZ_SECONDS ?= 20

fuzz: build-5.4 ## what libFuzzer makes up, for FUZZ_SECONDS=20 per target
	@tools/deps.sh --trust
	@tools/fuzz.sh $(FUZZ_SECONDS)

lint: ## luacheck, clang-format, cppcheck
	luacheck --quiet --no-color $(LUA_SOURCES)
	clang-format --dry-run -Werror $(C_SOURCES)
	cppcheck --quiet --std=c11 -j4 -I. -Iengine/include --enable=warning,performance,portability \
	  --suppress=missingIncludeSystem --suppress=memleak --inline-suppr --error-exitcode=1 \
	  engine bindings scripts/hosts

format: ## rewrite the C sources in the project's style
	clang-format -i $(C_SOURCES)

bench: bench-deps ## what a processor costs, against the bare call and peers; rewrites docs/performance.md
	@$(MAKE) bench-5.4 bench-luajit
	@lua5.4 bench/report.lua build/bench/5.4.json build/bench/luajit.json

bench-quick: bench-program-$(VARIANT) ## 40 seconds of it; WORKLOADS="chain stream" SECONDS=20 BASE=saved.json
	@tools/with release-$(VARIANT) build/release-$(VARIANT)/bench/bench bench/quick.lua $(WORKLOADS)

bench-count: bench-deps bench-program-5.4 ## instructions per processor, as callgrind counts them; WORKLOADS
	@rm -f build/bench/callgrind.out*
	@tools/with release-5.4 valgrind --tool=callgrind --quiet --instr-atstart=no \
	  --callgrind-out-file=build/bench/callgrind.out \
	  build/release-5.4/bench/bench bench/count.lua $(WORKLOADS)

bench-stop: bench-program-5.4 ## how long stopping a callback takes
	tools/with release-5.4 build/release-5.4/bench/bench bench/stop.lua

bench-deps:
	@tools/deps.sh --bench

rock: ## install the rock offline for every Lua, and run its command elsewhere
	@tools/rock.sh

installed: ## install into an empty prefix, and build and run the example hosts with what is there
	@tools/install_check.sh

clean: ## remove everything built
	rm -rf build

help: ## this list
	@sed -n 's/^\([a-z-]*\):.*## \(.*\)/\1\t\2/p' Makefile | expand -t 12

# By variant: build, C tests, specs, and both.

build-%: build/%/build.ninja
	@cmake --build build/$* -- --quiet

build/%/build.ninja:
	@cmake -G Ninja -S . -B build/$* -DTIDEMILL_LUA=$(lastword $(subst -, ,$*)) \
	  $(flags_$(firstword $(subst -, ,$*))) --log-level=NOTICE

build/tsanlua-5.4/build.ninja: build/tsan_lua/bin/lua5.4

build/tsan_lua/bin/lua5.4: tools/tsan_lua.sh tools/tsan_lua.h
	tools/tsan_lua.sh build/tsan_lua

unit-%: build-%
	ctest --test-dir build/$* --output-on-failure --no-tests=error

spec-tsan-%: build-tsan-%
	tools/apart.sh tsan-$*

spec-tsanlua-%: build-tsanlua-%
	tools/apart.sh tsanlua-$*

spec-%: build-%
	tools/with $* lua -v
	timeout --foreground -k 10 900 tools/with $* busted

bench-program-%: build-release-%
	@cmake build/release-$* --log-level=NOTICE >build/release-$*/configure.log
	@cmake --build build/release-$* --target bench -- --quiet
	@mkdir -p build/bench

bench-%: bench-program-%
	@tools/with release-$* build/release-$*/bench/bench bench/suite.lua build/bench/$*.json $(ONLY)

check-%:
	@$(MAKE) unit-$* spec-$*

.PRECIOUS: build/%/build.ninja
