# shellcheck shell=bash disable=SC2154,SC2034
# Looking: what runs, what it writes, and deleting it all.

# With --quiet only the exit status: 0 if anything runs.
verb_status() {
    local name own
    mapfile -t own < <(own_services)
    if [[ ${1:-} == --quiet ]]; then
        for name in postgres rabbitmq redis $(programs_running); do
            ! process_runs "$name" || return 0
        done
        return 1
    fi
    [[ -e $dev/data ]] && data=$(readlink -f "$dev/data")
    printf '%-14s %-9s %7s %6s %10s %9s  %s\n' NAME STATE PID PORT UP MEMORY HEALTH
    for name in "${own[@]}"; do status_line "$name" status_of_server "$name"; done
    [[ $own_postgres == yes ]] || status_given PostgreSQL "$database_url"
    [[ $own_rabbitmq == yes ]] || status_given RabbitMQ "$amqp_url"
    [[ $own_redis == yes ]] || status_given Redis "$redis_url"
    # Wanted ones in their order, then those that run though they are not.
    for name in $( (programs_wanted && programs_running) | awk '!seen[$0]++'); do
        status_line "$name" status_of_program "$name"
    done
    [[ $own_rabbitmq == no ]] || printf 'RabbitMQ management: %s (password in %s)\n' "$(url_without_password "$amqp_management_url")" "$dev/secrets"
}

# status_line NAME CHECK ARGS…
status_line() {
    local name=$1 pid
    shift
    if pid=$(process_pid "$name"); then
        printf '%-14s %-9s %7s %6s %10s %9s  %s\n' "$name" running "$pid" "$(port_of "$name")" \
            "$(status_age "$pid")" "$(status_memory "$name" "$pid")" "$("$@")"
    else
        printf '%-14s %-9s %7s %6s %10s %9s  %s\n' "$name" stopped - "$(port_of "$name")" - - -
    fi
}

status_given() { printf '%-14s %-9s %s\n' "$1" given "$(url_without_password "$2")"; }

status_of_server() { if "$1_answers"; then echo answers; else echo "does not answer"; fi; }

# What a program misses is named, also where it is ready without it.
status_of_program() {
    local missing=""
    [[ $1 == sandbox ]] || missing=$(status_missing "$(port_of "${1/#api/api-health}")") || true
    if program_is_ready "$1"; then
        echo "ready${missing:+ without $missing}"
    elif [[ -n $missing ]]; then
        echo "not ready: $missing"
    else
        echo "does not answer"
    fi
}

# status_missing PORT: the names of the conditions that are not met.
status_missing() (
    { exec 3<>"/dev/tcp/127.0.0.1/$1"; } 2>/dev/null || exit 1
    trap '' PIPE
    printf 'GET /readyz HTTP/1.1\r\nHost: 127.0.0.1\r\nConnection: close\r\n\r\n' >&3 2>/dev/null || exit 1
    timeout 2 cat <&3 | grep -oE '"[a-z]+":"([^"\\]|\\.)*"' | grep -v ':"ready"$' | cut -d '"' -f 2 | paste -sd ' ' || true
)

status_age() {
    local ticks up seconds
    ticks=$(process_start_time "$1") || return 0
    read -r up _ </proc/uptime
    seconds=$((${up%.*} - ticks / $(getconf CLK_TCK)))
    if ((seconds < 60)); then
        echo "${seconds}s"
    elif ((seconds < 3600)); then
        echo "$((seconds / 60))m$((seconds % 60))s"
    else
        echo "$((seconds / 3600))h$((seconds / 60 % 60))m"
    fi
}

# PostgreSQL is many processes that share memory; one number for it would say nothing.
status_memory() {
    if [[ $1 == postgres ]]; then
        echo -
    else
        awk '/^VmRSS:/ { printf "%d MiB", $2 / 1024 }' "/proc/$2/status" 2>/dev/null || true
    fi
}

# logs [NAME]: a kind (outbound) means all its instances.
verb_logs() {
    local files
    files=("$dev"/logs/${1:+"$1"}*.log)
    ((${#files[@]} > 0)) || fail "no logs of ${1:-anything} in $dev/logs"
    exec tail -n 100 -F "${files[@]}"
}

verb_reset() {
    local answer=""
    if [[ ${1:-} != --yes ]]; then
        [[ -t 0 ]] || fail "reset deletes all data in $dev; say --yes"
        read -r -p "Stop everything and delete all data in $dev? [y/N] " answer
        [[ $answer == [yY]* ]] || fail "nothing deleted"
    fi
    verb_down || true
    step "Deleting the data"
    [[ $own_postgres == yes ]] || detail "the given database stays as it is: $(url_without_password "$database_url")"
    # Only what deploy/dev made, by name. The choice of ports stays, and so do the build's results.
    if [[ -e $dev/data ]]; then
        rm -rf "$(readlink -f "$dev/data")"
    fi
    rm -rf "$dev/data" "$dev/run" "$dev/logs" "$dev/sqlx" "$dev/secrets" "$dev/demo-token" "$dev/scale"
}
