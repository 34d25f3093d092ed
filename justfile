# `just` lists the recipes; `just --list` says what each is for. The steps are those of tests/run.sh and .ci/run.

_default:
    @just --list

# Format the code
fmt:
    cargo fmt --all

# Format check, clippy with warnings denied
lint:
    sh tests/step.sh fmt
    sh tests/step.sh lint

# What a contributor runs between two commits: format, clippy, unit tests, stories
test-fast:
    sh tests/run.sh --fast

# Everything that a change must pass; installs what is missing
test:
    sh tests/run.sh

# Licences, sources and banned crates of the dependencies
deny:
    sh tests/step.sh deny

# Each fuzz target for a minute
fuzz-smoke:
    sh tests/step.sh fuzz-smoke

# Whether documents, import table and source agree
docs:
    sh tests/step.sh docs

# The hot path in process; docs/benchmarks.md says how to read it
bench:
    sh tests/step.sh bench

# The main job once, on the release build
demo:
    sh tests/step.sh demo
