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
