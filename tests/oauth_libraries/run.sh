#!/bin/sh
# Legacy applications on stock OAuth libraries (Python, Node, Java) against the gateway: installs the libraries into
# target/oauth-libraries, and Debian's packages where they are missing, then runs the stories. Not part of tests/run.sh.
# Arguments go to the test program: a part of a test's name, say.
set -eu
cd "$(dirname "$0")/../.."

missing=""
need() { # need COMMAND PACKAGE
    command -v "$1" >/dev/null 2>&1 || missing="$missing $2"
}
need python3 python3
need java default-jdk-headless
need javac default-jdk-headless
need node nodejs
need npm npm
python3 -c 'import ensurepip, venv' >/dev/null 2>&1 || missing="$missing python3-venv"
[ -f /usr/share/java/google-oauth-client.jar ] || missing="$missing libgoogle-oauth-client-java"
if [ -n "$missing" ]; then
    echo "installing:$missing"
    if [ "$(id -u)" = 0 ]; then sudo=""; else sudo="sudo"; fi
    $sudo env DEBIAN_FRONTEND=noninteractive apt-get update -qq
    # shellcheck disable=SC2086
    $sudo env DEBIAN_FRONTEND=noninteractive apt-get install -y -qq --no-install-recommends $missing >/dev/null
fi
node -e 'process.exit(globalThis.crypto && globalThis.fetch ? 0 : 1)' || {
    echo "oauth4webapi needs Node 20 or newer, and this is $(node --version)" >&2
    exit 1
}

# Pinned, and installed again only when the pins change.
here=tests/oauth_libraries
tools=$PWD/target/oauth-libraries
pins=$(cat "$here/requirements.txt" "$here/package-lock.json" | sha256sum)
if [ "$(cat "$tools/installed" 2>/dev/null)" != "$pins" ]; then
    echo "installing into $tools"
    rm -rf "$tools"
    python3 -m venv "$tools"
    "$tools/bin/pip" install -q --disable-pip-version-check --require-hashes --only-binary :all: -r "$here/requirements.txt"
    cp "$here/package.json" "$here/package-lock.json" "$tools/"
    npm ci --prefix "$tools" --ignore-scripts --no-audit --no-fund --silent
    echo "$pins" >"$tools/installed"
fi

OAUTH_LIBRARIES=$tools cargo test --locked --test oauth_libraries -- "$@"
