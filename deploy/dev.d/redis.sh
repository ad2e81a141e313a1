# shellcheck shell=bash disable=SC2154,SC2034
# The private Redis: nothing kept on disk, a password.

redis_bin() { command -v redis-server; }

redis_is_installed() { redis_bin >/dev/null; }

redis_start() {
    local folder
    process_runs redis && return 0
    services_expect_free_port redis "$(port_of redis)"
    folder=$(data_folder redis)
    # In a file, not among the arguments, which everybody on the machine can read.
    (
        umask 077
        printf '%s\n' "bind 127.0.0.1" "port $(port_of redis)" "dir \"$folder\"" 'save ""' "appendonly no" \
            "requirepass $redis_password" >"$folder/redis.conf"
    )
    ((EUID != 0)) || chown "$(service_user)" "$folder/redis.conf"
    process_start redis - "$folder" "${run_as[@]}" "$(redis_bin)" "$folder/redis.conf"
}

redis_await() { process_wait_ready redis 30 redis_answers; }

redis_answers() { port_is_open "$(port_of redis)"; }

redis_stop() { process_signal redis TERM; }
