# shellcheck shell=bash disable=SC2154,SC2034
# What deploy/dev says while it works. All of it goes to stderr; stdout belongs to answers.

say() { printf '%s\n' "$*" >&2; }

# A step that may take a while.
step() { printf '==> %s\n' "$*" >&2; }

# Something about the step.
detail() { printf '    %s\n' "$*" >&2; }

fail() {
    printf 'deploy/dev: %s\n' "$*" >&2
    exit 1
}

# Microseconds since 1970. (EPOCHREALTIME's decimal point follows the locale.)
microseconds() { printf '%s' "${EPOCHREALTIME/[.,]/}"; }

# seconds_since MICROSECONDS: like "12.3 s"
seconds_since() {
    local tenths=$((($(microseconds) - $1) / 100000))
    printf '%d.%d s' $((tenths / 10)) $((tenths % 10))
}

# wait_until SECONDS CHECK ARGS…: waits until CHECK succeeds; fails when the time is over.
wait_until() {
    local deadline=$(($(microseconds) + $1 * 1000000))
    shift
    until "$@"; do
        (($(microseconds) < deadline)) || return 1
        sleep 0.1
    done
}
