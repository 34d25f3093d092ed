#!/bin/sh
# The whole test command: installs what is missing, then format check, clippy with warnings denied, dependencies, every test.
# Fails on the first thing that does not hold; a missing part fails, it does not skip.
#
# With --fast it installs nothing and runs what a contributor needs between two commits: format check, clippy, unit tests, stories.
# Either way each step says how long it took.
set -eu

usage() {
    echo "usage: sh tests/run.sh [--fast]"
    echo "  --fast  format, clippy, unit tests and stories alone; installs nothing"
}

fast=no
for argument in "$@"; do
    case "$argument" in
        --fast) fast=yes ;;
        -h | --help)
            usage
            exit 0
            ;;
        *)
            echo "unknown argument: $argument" >&2
            usage >&2
            exit 2
            ;;
    esac
done
cd "$(dirname "$0")/.."

step() { # step NAME COMMAND ...
    name=$1
    shift
    echo "== $name"
    began=$(date +%s)
    if "$@"; then
        echo "== $name: held, $(($(date +%s) - began)) s"
    else
        code=$?
        echo "== $name: failed, $(($(date +%s) - began)) s" >&2
        exit "$code"
    fi
}

cargo_has() { # cargo_has SUBCOMMAND
    cargo "$1" --version >/dev/null 2>&1 || {
        echo "cargo $1 is missing: rustup component add rustfmt clippy" >&2
        exit 1
    }
}

start=$(date +%s)
if [ "$fast" = yes ]; then
    cargo_has fmt
    cargo_has clippy
    step format sh tests/step.sh fmt
    step clippy sh tests/step.sh lint
    step "unit tests" sh tests/step.sh unit
    step stories sh tests/step.sh stories
    echo "all held, $(($(date +%s) - start)) s"
    exit 0
fi

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
# Kinds of HTTP clients (tests/clients).
need wget wget
need perl perl
need java default-jdk-headless
need javac default-jdk-headless
need node nodejs
need php php-cli
need nc netcat-openbsd
perl -MLWP -e 1 2>/dev/null || missing="$missing libwww-perl"
php -r 'curl_init();' >/dev/null 2>&1 || missing="$missing php-curl"
# Several gateways on one database, with and without a pooler between (src/store/postgres).
ls /usr/lib/postgresql/*/bin/postgres >/dev/null 2>&1 || missing="$missing postgresql"
[ -x /usr/sbin/pgbouncer ] || missing="$missing pgbouncer"

# The Debian package and its life (tests/deploy).
need dpkg-deb dpkg
need strip binutils
need fakeroot fakeroot
need lintian lintian
need man man-db
# In front of real gateways (tests/deploy).
[ -x /usr/sbin/haproxy ] || missing="$missing haproxy"
[ -x /usr/sbin/nginx ] || missing="$missing nginx-light"
python3 -c 'import ensurepip, venv' >/dev/null 2>&1 || missing="$missing python3-venv"

if [ -n "$missing" ]; then
    echo "installing:$missing"
    if [ "$(id -u)" = 0 ]; then sudo=""; else sudo="sudo"; fi
    $sudo env DEBIAN_FRONTEND=noninteractive apt-get update -qq
    # shellcheck disable=SC2086
    $sudo env DEBIAN_FRONTEND=noninteractive apt-get install -y -qq --no-install-recommends $missing >/dev/null
fi

# What judges the files for containers and clusters: pinned, and installed again only when the pins change.
tools=target/deploy-tools
pins=tests/deploy/requirements.txt
if ! cmp -s "$pins" "$tools/installed.txt"; then
    echo "installing into $tools"
    rm -rf "$tools"
    python3 -m venv "$tools"
    "$tools/bin/pip" install -q --disable-pip-version-check --require-hashes --only-binary :all: -r "$pins"
    cp "$pins" "$tools/installed.txt"
fi

cargo_has fmt
cargo_has clippy
echo "== tools: there, $(($(date +%s) - start)) s"
step format sh tests/step.sh fmt
step clippy sh tests/step.sh lint
step dependencies sh tests/step.sh deny
step tests sh tests/step.sh test
echo "all held, $(($(date +%s) - start)) s"
