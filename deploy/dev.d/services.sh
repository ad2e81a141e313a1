# shellcheck shell=bash disable=SC2154,SC2034
# PostgreSQL, RabbitMQ and Redis together: those that are ours.

own_services() {
    [[ $own_postgres == no ]] || echo postgres
    [[ $own_rabbitmq == no ]] || echo rabbitmq
    [[ $own_redis == no ]] || echo redis
}

# Installs what is missing, starts what does not run, waits until all answer. RabbitMQ, the slowest, goes first.
services_start() {
    local began name own
    mapfile -t own < <(own_services)
    packages_ensure "${own[@]}"
    began=$(microseconds)
    step "Servers: ${own[*]:-all of them given}"
    services_avoid_taken_ports
    settings_make_data_folder
    services_warn_of_full_disk
    for name in rabbitmq redis postgres; do
        [[ " ${own[*]} " != *" $name "* ]] || "${name}_start"
    done
    for name in "${own[@]}"; do
        "${name}_await" || exit 1
    done
    services_say_addresses
    detail "servers ready after $(seconds_since "$began")"
}

services_say_addresses() {
    detail "PostgreSQL  $(url_without_password "$database_url")"
    detail "RabbitMQ    $(url_without_password "$amqp_url")${amqp_management_url:+, management $(url_without_password "$amqp_management_url")}"
    detail "Redis       $(url_without_password "$redis_url")"
}

# RabbitMQ takes no messages below 500 MB, and then everything merely seems to hang.
services_warn_of_full_disk() {
    local free
    free=$(df --output=avail -k "$data" | tail -n 1)
    ((free > 2000000)) || detail "WARNING: only $((free / 1000)) MB free under $data; RabbitMQ stops taking messages at 500 MB"
}

# The ports may have gone to somebody else while everything was down: then others are chosen. Nothing stored depends on them.
services_avoid_taken_ports() {
    local name
    ! verb_status --quiet || return 0
    rabbitmq_stop_epmd
    for name in postgres redis rabbitmq management distribution epmd api sandbox; do
        port_is_open "$(port_of "$name")" || continue
        detail "port $(port_of "$name") is taken by somebody else: choosing others"
        rm -f "$dev/ports"
        settings_choose_ports
        # shellcheck source=/dev/null
        source "$dev/ports"
        settings_derive_addresses
        return 0
    done
}

services_expect_free_port() {
    ! port_is_open "$2" || fail "port $2, meant for $1, is taken by somebody else"
}

services_stop() {
    local name stopped=0 failed=0
    for name in postgres rabbitmq redis; do
        process_runs "$name" || continue
        stopped=$((stopped + 1))
        "${name}_stop"
    done
    for name in postgres rabbitmq redis; do
        process_wait_gone "$name" 60 || failed=1
    done
    rabbitmq_stop_epmd
    ((stopped == 0)) || detail "servers stopped: $stopped"
    return "$failed"
}

services_own_one() {
    [[ " $(own_services | tr '\n' ' ') " == *" $1 "* ]] || fail "$1 was given from outside; it is not ours to start or stop"
}

verb_services() {
    settings_lock
    services_start
}
