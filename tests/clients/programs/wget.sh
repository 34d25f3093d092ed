#!/bin/sh
# GNU wget, once per call. Usage: wget.sh PLAN OUT
plan=$1 out=$2
tab=$(printf '\t')
while IFS="$tab" read -r number method url body headers; do
    set -- -q -S --content-on-error --tries=1 -O "$out/$number.body" --method="$method"
    if [ "$headers" != - ]; then
        rest=$headers
        while [ -n "$rest" ]; do
            set -- "$@" --header="${rest%%|*}"
            case $rest in *"|"*) rest=${rest#*|} ;; *) rest= ;; esac
        done
    fi
    [ "$body" = - ] || set -- "$@" --body-file="$body"
    wget "$@" "$url" 2>"$out/$number.said" </dev/null # its exit code only repeats the status
    sed 's/^  *//' "$out/$number.said" >"$out/$number.head"
done <"$plan"
