# The two commands a newcomer needs are `make demo` and `make test`. Both do the set-up first, where it is missing.
SHELL := /bin/bash
PREFIX ?= /usr/local
BUILD := build

.PHONY: build demo test setup setup-test install format tidy include-check clean help

help:
	@echo "make demo      set up, build, train six experts on SmolLM2, pool and compare them (minutes; then seconds)"
	@echo "make test      set up, build, run every test"
	@echo "make build     the program alone: $(BUILD)/skein"
	@echo "make install   to PREFIX (default $(PREFIX)): program, man pages, completions"
	@echo "make format | tidy | include-check | clean"

setup:
	@tools/setup.sh demo
setup-test:
	@tools/setup.sh test

$(BUILD)/build.ninja: | setup
	cmake --preset release

build: setup $(BUILD)/build.ninja
	cmake --build $(BUILD) --target skein

demo: build
	examples/demo/run.sh

test: setup-test $(BUILD)/build.ninja
	cmake --build $(BUILD)
	ctest --preset release

install: build
	cmake --install $(BUILD) --prefix "$(PREFIX)"

SOURCES := $(shell find skein tests benchmarks -name '*.h' -o -name '*.cc' -o -name '*.cu' 2>/dev/null)
format:
	clang-format-14 -i $(SOURCES)
tidy: $(BUILD)/build.ninja
	clang-tidy-14 -p $(BUILD) --quiet $(filter-out %_test.cc,$(filter %.cc,$(SOURCES)))
include-check:
	python3 tests/include_check.py .

clean:
	rm -rf $(BUILD)
