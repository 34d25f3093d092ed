#!/bin/sh
# netcat with a request typed by hand: HTTP/1.0, no keep-alive, one connection per call. Usage: nc.sh PLAN OUT
plan=$1 out=$2
tab=$(printf '\t')
while IFS="$tab" read -r number method url body headers; do
    rest=${url#http://}
    authority=${rest%%/*}
    target=/${rest#*/}
    {
        printf '%s %s HTTP/1.0\r\nHost: %s\r\n' "$method" "$target" "$authority"
        [ "$headers" = - ] || printf '%s\r\n' "$headers" | sed 's/|/\r\n/g'
        [ "$body" = - ] || printf 'Content-Length: %s\r\n' "$(wc -c <"$body")"
        printf '\r\n'
        [ "$body" = - ] || cat "$body"
    } | nc "${authority%%:*}" "${authority##*:}" >"$out/$number.raw"
done <"$plan"
