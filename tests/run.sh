#!/bin/sh
# The whole test command: installs what is missing, then format check, clippy with warnings denied, every test.
# Fails on the first thing that does not hold; a missing part fails, it does not skip.
set -eu
cd "$(dirname "$0")/.."

missing=""
need() { # need COMMAND PACKAGE
    command -v "$1" >/dev/null 2>&1 || missing="$missing $2"
}
need gcc gcc
need curl curl
need chromium chromium
need chromedriver chromium-driver
need python3 python3
need systemd-analyze systemd
[ -x /usr/lib/postgresql/15/bin/postgres ] || [ -n "$(ls /usr/lib/postgresql/*/bin/postgres 2>/dev/null)" ] || missing="$missing postgresql"

if [ -n "$missing" ]; then
    echo "installing:$missing"
    if [ "$(id -u)" = 0 ]; then sudo=""; else sudo="sudo"; fi
    $sudo env DEBIAN_FRONTEND=noninteractive apt-get update -qq
    # shellcheck disable=SC2086
    $sudo env DEBIAN_FRONTEND=noninteractive apt-get install -y -qq --no-install-recommends $missing >/dev/null
fi

for part in fmt clippy; do
    cargo "$part" --version >/dev/null 2>&1 || {
        echo "cargo $part is missing: rustup component add rustfmt clippy" >&2
        exit 1
    }
done

echo "== format"
cargo fmt --check
echo "== clippy"
cargo clippy --locked --all-targets --quiet -- -D warnings
echo "== tests"
cargo test --locked --no-fail-fast
