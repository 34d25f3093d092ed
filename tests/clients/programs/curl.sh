#!/bin/sh
# curl, once per call. Usage: curl.sh PLAN OUT MODE; the modes are curl's own switches.
plan=$1 out=$2 mode=$3
tab=$(printf '\t')
while IFS="$tab" read -r number method url body headers; do
    set -- -s -D "$out/$number.head"
    case $mode in
        http1.0) set -- "$@" --http1.0 ;;
        h2c) set -- "$@" --http2 ;;
        expect) set -- "$@" -H 'Expect: 100-continue' ;;
        compressed) set -- "$@" --compressed ;;
    esac
    if [ "$headers" != - ]; then
        rest=$headers
        while [ -n "$rest" ]; do
            set -- "$@" -H "${rest%%|*}"
            case $rest in *"|"*) rest=${rest#*|} ;; *) rest= ;; esac
        done
    fi
    case $method in
        HEAD) set -- "$@" -I -o /dev/null ;;
        *) set -- "$@" -X "$method" -o "$out/$number.body" ;;
    esac
    if [ "$body" = - ]; then
        curl "$@" "$url" </dev/null
    elif [ "$mode" = chunked ]; then
        curl "$@" -T - "$url" <"$body"
    else
        curl "$@" --data-binary "@$body" "$url" </dev/null
    fi || echo "curl ended with $?" >>"$out/$number.head"
done <"$plan"
