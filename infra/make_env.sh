#!/usr/bin/env bash
# Make .env out of .env.template, or complete the one that is there.
#
#   infra/make_env.sh [NAME=VALUE]...
#
# What .env says stays. A variable that it lacks is added, and a password or an API key that is empty is made up.
# NAME=VALUE sets a variable, whatever it was. A new API key is printed this once: .env holds only its hash.
# Needs openssl, or python3.
set -euo pipefail

readonly template=.env.template
words=("$@")

main() {
    cd "$(dirname "${BASH_SOURCE[0]}")/.."
    check
    umask 077
    local key hash made
    key=$(random) || fail "no password can be made: openssl, or python3 without it, does not work"
    hash=$(hash_of "$key")
    made=$(mktemp .env.XXXXXX)
    # shellcheck disable=SC2064 # it is this file, whatever the name stands for later
    trap "rm -f '$made'" EXIT
    lines | filled "$hash" >"$made"
    if [[ -f .env ]] && cmp -s "$made" .env; then
        chmod 600 .env
        return
    fi
    # Whoever reads .env meanwhile sees the old one or the new one, never a part.
    mv "$made" .env
    echo "wrote .env"
    if grep -qx "API_KEY_HASH=$hash" .env; then
        echo "API key, shown this once: $key"
    fi
}

check() {
    local word
    for word in ${words[@]+"${words[@]}"}; do
        case $word in
            -h | --help)
                sed -n '2,/^set/{/^set/d;s/^# \{0,1\}//p;}' "infra/$(basename "${BASH_SOURCE[0]}")"
                exit 0
                ;;
        esac
        [[ $word =~ ^[A-Z][A-Z0-9_]*= ]] || fail "'$word' sets nothing; write NAME=VALUE"
        # make, Compose and the shell read .env each in its own way, and agree only on values of plain characters.
        [[ ${word#*=} =~ ^[A-Za-z0-9_./:@,+*-]*$ ]] ||
            fail "'${word%%=*}' can hold letters, digits and _./:@,+*- only, and not '${word#*=}'"
        [[ $word == MLOPS_* ]] || names "$template" "${word%%=*}" || commented "${word%%=*}" ||
            fail "$template knows no '${word%%=*}'; correct its spelling"
    done
    [[ -f $template ]] || fail "there is no $template to make .env from"
    command -v openssl >/dev/null || command -v python3 >/dev/null ||
        fail "there is neither openssl nor python3 to make passwords with; install one of them"
}

names() {
    grep -q "^$2=" "$1"
}

commented() {
    grep -q "^# $1=" "$template"
}

# What there is, and behind it what it lacks.
lines() {
    local base=$template line
    [[ -f .env ]] && base=.env
    while IFS= read -r line || [[ -n $line ]]; do
        printf '%s\n' "$line"
    done <"$base"
    for line in $(grep -o '^[A-Z][A-Z0-9_]*=[^ ]*' "$template") ${words[@]+"${words[@]}"}; do
        names "$base" "${line%%=*}" || printf '%s\n' "$line"
    done
}

# The same lines with the values that are given, and made up where they are secret and empty.
filled() {
    local line name value
    while IFS= read -r line; do
        if [[ $line =~ ^[A-Z][A-Z0-9_]*= ]]; then
            name=${line%%=*} value=$(given "${line%%=*}" "${line#*=}")
            case $name=$value in
                API_KEY_HASH=) value=$1 ;;
                *_PASSWORD=) value=$(random) ;;
            esac
            line=$name=$value
        fi
        printf '%s\n' "$line"
    done
}

# The last value that the words give a name, or else the one it has.
given() {
    local word value=$2
    for word in ${words[@]+"${words[@]}"}; do
        [[ $word == "$1="* ]] && value=${word#*=}
    done
    printf '%s\n' "$value"
}

# 32 random bytes in hexadecimal, which no URL and no shell takes for anything else.
random() {
    if command -v openssl >/dev/null; then
        openssl rand -hex 32
    else
        python3 -c 'import secrets; print(secrets.token_hex(32))'
    fi
}

hash_of() {
    if command -v openssl >/dev/null; then
        printf %s "$1" | openssl dgst -sha256 -r | cut -d ' ' -f 1
    else
        printf %s "$1" | python3 -c 'import hashlib, sys; print(hashlib.sha256(sys.stdin.buffer.read()).hexdigest())'
    fi
}

fail() {
    echo "error: $*" >&2
    exit 1
}

main
