# shellcheck shell=bash disable=SC2154,SC2034
# Starting and stopping processes. Each has a file in .dev/run with its pid, the kernel's start time of that pid and a
# fingerprint of how it was started; a pid whose start time differs belongs to somebody else by now and is never signalled.

# process_start_time PID: prints the kernel's start time; fails if there is no such process, or only its zombie.
process_start_time() {
    local stat fields
    { stat=$(<"/proc/$1/stat"); } 2>/dev/null || return 1
    read -r -a fields <<<"${stat##*) }"
    [[ ${fields[0]} != [ZX] ]] || return 1
    printf '%s' "${fields[19]}"
}

# process_pid NAME: prints the pid; fails if it does not run.
process_pid() {
    local pid start now rest
    [[ -r $dev/run/$1 ]] || return 1
    # shellcheck disable=SC2034 # rest: the fingerprint
    read -r pid start rest <"$dev/run/$1" || return 1
    now=$(process_start_time "$pid") || return 1
    [[ $now == "$start" ]] || return 1
    printf '%s' "$pid"
}

process_runs() { process_pid "$1" >/dev/null; }

# process_fingerprint NAME: how the running one was started.
process_fingerprint() { cut -d ' ' -f 3 "$dev/run/$1" 2>/dev/null; }

# process_start NAME FINGERPRINT FOLDER COMMAND…: starts it in FOLDER, detached, its output in .dev/logs/NAME.log.
process_start() {
    local name=$1 fingerprint=$2 folder=$3 pid start
    local log=$dev/logs/$name.log
    shift 3
    if [[ -f $log && $(stat -c %s "$log") -gt 50000000 ]]; then
        mv "$log" "$log.1"
    fi
    printf -- '---- %s starts %s\n' "$name" "$(date -u +%FT%TZ)" >>"$log"
    (
        [[ -z $lock_fd ]] || exec {lock_fd}>&-
        # Erlang makes tables as large as the limit, and closes every descriptor up to it: neither tiny nor unlimited.
        ulimit -n 65536 2>/dev/null || ulimit -S -n "$(ulimit -H -n)"
        cd "$folder" || exit
        exec setsid "$@"
    ) </dev/null >>"$log" 2>&1 &
    pid=$!
    disown "$pid"
    start=$(process_start_time "$pid") || start=gone
    printf '%s %s %s\n' "$pid" "$start" "$fingerprint" >"$dev/run/$name"
}

# process_signal NAME SIGNAL
process_signal() {
    local pid
    pid=$(process_pid "$1") || return 0
    kill -s "$2" "$pid" 2>/dev/null || true
}

# process_wait_gone NAME SECONDS: kills it for good when the time is over, and fails then.
process_wait_gone() {
    if wait_until "$2" process_is_gone "$1"; then
        rm -f "$dev/run/$1"
        return 0
    fi
    detail "$1 did not stop within $2 s: killed"
    process_signal "$1" KILL
    wait_until 5 process_is_gone "$1" && rm -f "$dev/run/$1"
    return 1
}

process_is_gone() { ! process_runs "$1"; }

# process_wait_ready NAME SECONDS CHECK ARGS…: waits for CHECK as long as the process lives; shows its last words otherwise.
process_wait_ready() {
    local name=$1 seconds=$2
    shift 2
    if wait_until "$seconds" process_ready_or_gone "$name" "$@" && process_runs "$name"; then
        return 0
    fi
    if process_runs "$name"; then
        say "$name is not ready after $seconds s. The end of $dev/logs/$name.log:"
    else
        say "$name stopped by itself. The end of $dev/logs/$name.log:"
    fi
    tail -n 25 "$dev/logs/$name.log" | sed 's/^/    | /' >&2
    return 1
}

process_ready_or_gone() {
    local name=$1
    shift
    "$@" || ! process_runs "$name"
}

port_is_open() { (exec 3<>"/dev/tcp/127.0.0.1/$1") 2>/dev/null; }

# http_status PORT PATH [HEADER]: prints the status code; fails if there is no answer within two seconds.
http_status() (
    { exec 3<>"/dev/tcp/127.0.0.1/$1"; } 2>/dev/null || exit 1
    trap '' PIPE
    printf 'GET %s HTTP/1.1\r\nHost: 127.0.0.1\r\nConnection: close\r\n%s\r\n' "$2" "${3:+$3$'\r\n'}" >&3 2>/dev/null || exit 1
    IFS=' ' read -r -t 2 _ status _ <&3 || exit 1
    printf '%s' "$status"
)

http_is_ok() { [[ $(http_status "$@") == 200 ]]; }
