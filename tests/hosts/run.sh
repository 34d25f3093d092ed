#!/bin/sh
# Programs with the old https:// addresses compiled in, against a gateway and a sandbox on this machine: each by a hosts
# entry and through the forward proxy, trusting the private CA in its own way. docs/hosts.md rests on it.
#
#   sudo sh tests/hosts/run.sh [BINARY [--rsa]]      default: target/debug/genapi-gateway; --rsa: with an RSA CA
#
# It needs root for port 443 and /etc/hosts, whose lines it takes out again however it ends; Debian 12 or later with
#   apt-get install curl default-jdk-headless fp-compiler fp-units-fcl fp-units-net fp-units-web haproxy mono-mcs mono-runtime nodejs \
#     php-cli php-curl python3-requests
# A program that is not installed is a failure: nothing is skipped. Nothing but loopback is ever asked: while the proxy is
# tried, the hosts file leads the old names to an address where nobody listens.

set -u
cd "$(dirname "$0")/../.." || exit 1
gateway=$(realpath "${1:-target/debug/genapi-gateway}")
rsa=${2:-}
programs=$(realpath tests/hosts/programs)
front=$(realpath deploy/front/haproxy-old-tls.cfg)
work=$(mktemp -d)
mark='# genapi-gateway tests/hosts'
old_names='identity-cus.aligntech.com api-proxy.aligntech.com gateway-cus.aligntech.com'
failures=0
started=

# Written in place: a container's hosts file cannot be replaced.
forget_hosts() {
    grep -v "$mark\$" /etc/hosts > "$work/hosts"
    cat "$work/hosts" > /etc/hosts
}
lead_hosts_to() {
    forget_hosts
    echo "$1 $old_names $mark" >> /etc/hosts
}
clean_up() {
    code=$?
    trap - EXIT
    forget_hosts
    for process in $started; do
        kill "$process"
        wait "$process"
    done 2>/dev/null
    rm -rf "$work"
    exit $code
}
give_up() {
    echo "$1" >&2
    cat "$work"/*.log >&2
    exit 1
}
wait_for() {
    for _ in $(seq 100); do
        grep -q "$2" "$work/$1.log" && return
        sleep 0.1
    done
    give_up "$1 does not start"
}

[ "$(id -u)" = 0 ] || { echo "has to run as root" >&2; exit 1; }
[ -x "$gateway" ] || { echo "$gateway does not exist: cargo build" >&2; exit 1; }
trap clean_up EXIT
trap 'exit 130' INT TERM HUP

# What this machine presets would decide instead of what is tried here.
for variable in $(env | sed -n 's/^\([A-Za-z_]*\(CA_BUNDLE\|CA_CERTS\|CERT_FILE\|CERT_DIR\|_[Pp][Rr][Oo][Xx][Yy]\|_proxy\|JAVA_TOOL_OPTIONS\|NODE_OPTIONS\|OPENSSL_CONF\)\)=.*/\1/p'); do
    unset "$variable"
done

# Gateway and sandbox.
"$gateway" sandbox --write "$work/try" --port 0 --accounts 1 --gateway 127.0.0.1:18480 --admin 127.0.0.1:18481 \
    > "$work/sandbox.log" 2>&1 &
started=$!
wait_for sandbox '^ready'
(cd "$work/try" && "$gateway" -c config.toml ca init ${rsa:+--rsa}) > "$work/ca.log" || give_up "no CA"
proxy=127.0.0.1:13128
sed -i -e "/^url = \"http:..127/a tls = { listen = [\"127.0.0.1:443\"], ca = \"ca\" }\\ntrusted_proxies = [\"127.0.0.9\"]\\nforward_proxy = { listen = [\"$proxy\"] }" \
    -e '/^key_sha256/d' \
    -e 's|^accounts = .*|accounts = ["acct-10001"]\nnetworks = ["127.0.0.0/8"]\nurl = "https://api-proxy.aligntech.com"|' \
    "$work/try/config.toml"
export GENAPI_GATEWAY_CONFIG="$work/try/config.toml"
"$gateway" serve > "$work/gateway.log" 2>&1 &
started="$started $!"
wait_for gateway '"ready"'
"$gateway" accounts import "$work/try/accounts.json" > "$work/import.log" || give_up "no account"
token=$(sed -n 's/.*"refresh_token": "\(.*\)".*/\1/p' "$work/try/accounts.json")

# A CA as each program takes it. Nobody is shown a certificate of the second one: whoever trusts that alone has to refuse.
"$gateway" ca init ${rsa:+--rsa} --dir "$work/other-ca" > "$work/ca.log" || give_up "no CA"
for each in ca other; do
    folder=$work/try/ca
    [ $each = ca ] || folder=$work/other-ca
    mkdir -p "$work/$each/home"
    for format in pem jks p12; do
        "$gateway" ca export --dir "$folder" --format $format --out "$work/$each/ca.$format" > "$work/export.log" ||
            give_up "no export"
    done
    cat /etc/ssl/certs/ca-certificates.crt "$work/$each/ca.pem" > "$work/$each/all.pem"
    HOME="$work/$each/home" cert-sync --user "$work/$each/ca.pem" > "$work/mono.log" 2>&1
done
{
    javac -d "$work" "$programs/OldApplication.java"
    mcs -out:"$work/OldApplication.exe" "$programs/OldApplication.cs"
    fpc -o"$work/old_application" -FU"$work" "$programs/old_application.pas"
} > "$work/build.log" 2>&1

# Speaks nothing above TLS 1.0, wherever curl is called with it.
mkdir "$work/old"
printf 'tlsv1.0\ntls-max = 1.0\n' > "$work/old/.curlrc"
cat > "$work/old/openssl.cnf" <<END
openssl_conf = all
[all]
ssl_conf = ssl
[ssl]
system_default = weak
[weak]
MinProtocol = TLSv1
CipherString = DEFAULT@SECLEVEL=0
END

# Each takes the folder of what it trusts, and perhaps the proxy.
curl_program() { with_proxy "$2" env CURL_CA_BUNDLE="$1/ca.pem" sh "$programs/curl.sh" "$token"; }
curl_with_tls_1_0() { env CURL_HOME="$work/old" OPENSSL_CONF="$work/old/openssl.cnf" CURL_CA_BUNDLE="$1/ca.pem" sh "$programs/curl.sh" "$token"; }
java_program() {
    java ${2:+-Dhttps.proxyHost="${2%:*}" -Dhttps.proxyPort="${2#*:}"} -Djavax.net.ssl.trustStore="$1/ca.$3" \
        -cp "$work" OldApplication "$token"
}
java_jks() { java_program "$1" "$2" jks; }
java_p12() { java_program "$1" "$2" p12; }
php_curl() { with_proxy "$2" php -d curl.cainfo="$1/ca.pem" "$programs/curl.php" "$token"; }
php_streams() { php -d openssl.cafile="$1/ca.pem" "$programs/streams.php" "$token" ${2:+"tcp://$2"}; }
python_requests() {
    with_proxy "$2" env REQUESTS_CA_BUNDLE="$1/all.pem" /usr/bin/python3 "$programs/requests_client.py" "$token"
}
node_https() { with_proxy "$2" env NODE_EXTRA_CA_CERTS="$1/ca.pem" node "$programs/https_client.js" "$token"; }
mono_program() { env HOME="$1/home" mono "$work/OldApplication.exe" "$token" ${2:+"http://$2"}; }
free_pascal() { "$work/old_application" "$token" "$1/ca.pem"; }
with_proxy() {
    url=${1:+http://$1}
    shift
    if [ -n "$url" ]; then HTTPS_PROXY=$url "$@"; else "$@"; fi
}

# One line for a program and a way, and the program's words where it is not as it should be.
line() {
    if [ "$1" = 0 ]; then
        echo "ok      $2: $(tail -n 1 "$work/told" | cut -c 1-100)"
    else
        echo "FAILED  $2"
        sed 's/^/        /' "$work/told"
        failures=$((failures + 1))
    fi
}
works() {
    "$2" "$work/ca" "$3" > "$work/told" 2>&1 && grep -q '^downloaded [1-9]' "$work/told"
    line $? "$1"
}
# For no other reason than TLS.
refuses() {
    ! "$2" "$3" '' > "$work/told" 2>&1 && grep -Eqi 'certificate|trust|ssl|connect to .*:443 failed' "$work/told"
    line $? "$1"
}

all='curl_program java_jks java_p12 php_curl php_streams python_requests node_https mono_program free_pascal'
lead_hosts_to 127.0.0.1
for program in $all; do
    works "$program by a hosts entry" $program ''
    refuses "$program without the CA" $program "$work/other"
done
refuses 'curl_with_tls_1_0 by a hosts entry, without a front' curl_with_tls_1_0 "$work/ca"
lead_hosts_to 127.0.0.99
for program in $all; do
    # It has no tunnels.
    [ $program = free_pascal ] || works "$program by the proxy" $program "$proxy"
done

# The front for callers below TLS 1.2, once to the plain listener and once to that with TLS.
"$gateway" ca leaf --rsa --dir "$work/try/ca" --out "$work/old-hosts.pem" > "$work/leaf.log" || give_up "no leaf"
lead_hosts_to 127.0.0.2
for listener in plain tls; do
    sed -e "s|/etc/haproxy/old-hosts.pem|$work/old-hosts.pem|" -e "s|/etc/haproxy/ca.pem|$work/ca/ca.pem|" -e 's|bind :443|bind 127.0.0.2:443|' \
        -e 's|maxconn 4000|maxconn 100|' -e 's|127.0.0.1:8080|127.0.0.1:18480 source 127.0.0.9|' \
        -e 's|gateway-1:443|127.0.0.1:443 source 127.0.0.9|' "$front" > "$work/front.cfg"
    [ $listener = plain ] || sed -i -e '/server gateway-1 127.0.0.1:18480/d' -e 's|# server|server|' "$work/front.cfg"
    PATH=$PATH:/usr/sbin haproxy -db -f "$work/front.cfg" > "$work/haproxy.log" 2>&1 &
    haproxy=$!
    started="$started $haproxy"
    for _ in $(seq 50); do
        curl -sko /dev/null https://127.0.0.2/ && break
        sleep 0.1
    done
    works "curl_with_tls_1_0 by HAProxy, $listener to the gateway" curl_with_tls_1_0 ''
    refuses "curl_with_tls_1_0 by HAProxy without the CA" curl_with_tls_1_0 "$work/other"
    kill $haproxy
    wait $haproxy 2> /dev/null
done

[ "$failures" = 0 ] || { echo "$failures failed" >&2; exit 1; }
