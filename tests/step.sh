#!/bin/sh
# One step of what a change must pass: tests/run.sh, .ci/run and the justfile run these same lines.
set -eu
cd "$(dirname "$0")/.."

usage() {
    echo "usage: sh tests/step.sh fmt|lint|unit|stories|test|deny|docs|fuzz-smoke|bench|demo" >&2
}

# From target/deploy-tools, where tests/run.sh installs it, or from the PATH.
cargo_deny() {
    if [ -x target/deploy-tools/bin/cargo-deny ]; then
        target/deploy-tools/bin/cargo-deny "$@"
    else
        cargo deny "$@"
    fi
}

case "${1-}" in
    fmt) cargo fmt --all --check ;;
    lint) cargo clippy --locked --all-targets --quiet -- -D warnings ;;
    unit) cargo test --locked --lib --quiet ;;
    stories) cargo test --locked --test stories --quiet ;;
    test) cargo test --locked --no-fail-fast ;;
    # Licences, sources and banned crates. Advisories change by themselves: `cargo deny check advisories` asks for them.
    deny) cargo_deny --locked check licenses bans sources ;;
    docs) cargo test --locked --quiet --test docs --test architecture ;;
    # A minute for each target; needs cargo-fuzz and a nightly toolchain.
    fuzz-smoke)
        for target in $(cargo +nightly fuzz list); do
            cargo +nightly fuzz run "$target" -- -max_total_time=60
        done
        ;;
    bench) cargo bench --locked --bench hot_path ;;
    demo) cargo run --release --locked -- demo --once ;;
    *)
        usage
        exit 2
        ;;
esac
