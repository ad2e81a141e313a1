# shellcheck shell=bash disable=SC2154,SC2034
# The private RabbitMQ: a node of its own in .dev/data/rabbitmq, with the management plugin and an epmd of its own.

# Not the program in /usr/sbin: that is a wrapper which changes to the packaged node's folder and user.
rabbitmq_bin() {
    local program
    if [[ -x /usr/lib/rabbitmq/bin/rabbitmq-server ]]; then
        echo /usr/lib/rabbitmq/bin
    elif program=$(command -v rabbitmq-server); then
        dirname "$(readlink -f "$program")"
    else
        return 1
    fi
}

rabbitmq_is_installed() { rabbitmq_bin >/dev/null; }

rabbitmq_start() {
    local folder name environment
    process_runs rabbitmq && return 0
    folder=$(data_folder rabbitmq)
    rabbitmq_stop_epmd
    for name in rabbitmq management distribution epmd; do
        services_expect_free_port "RabbitMQ ($name)" "$(port_of "$name")"
    done
    rabbitmq_configure "$folder"
    mapfile -t environment < <(rabbitmq_environment "$folder")
    # Input allowed, then taken away again: this way the start script becomes the node instead of watching over it, and the
    # pid we know is the node's. Its exit status says nothing; the ports do.
    process_start rabbitmq - "$folder" "${run_as[@]}" env -i "${environment[@]}" RABBITMQ_ALLOW_INPUT=1 \
        "RABBITMQ_SERVER_ADDITIONAL_ERL_ARGS=-noinput +B i -kernel inet_dist_use_interface {127,0,0,1}" \
        "$(rabbitmq_bin)/rabbitmq-server"
}

rabbitmq_configure() {
    local folder=$1 memory_mib
    mkdir -p "$folder/home"
    if [[ ! -s $folder/home/.erlang.cookie ]]; then
        rm -f "$folder/home/.erlang.cookie"
        random_hex 16 >"$folder/home/.erlang.cookie"
    fi
    # Erlang refuses a cookie that others could read.
    chmod 0400 "$folder/home/.erlang.cookie"
    memory_mib=$(awk '/^MemTotal:/ { mib = int($2 / 1024 * 0.4); print mib < 4096 ? mib : 4096 }' /proc/meminfo)
    (
        umask 077
        cat >"$folder/rabbitmq.conf" <<CONF
listeners.tcp.1 = 127.0.0.1:$(port_of rabbitmq)
management.tcp.ip = 127.0.0.1
management.tcp.port = $(port_of management)
default_user = mijra
default_pass = $rabbitmq_password
vm_memory_high_watermark.absolute = ${memory_mib}MB
disk_free_limit.absolute = 500MB
CONF
    )
    echo '[rabbitmq_management].' >"$folder/enabled_plugins"
    echo '[].' >"$folder/advanced.config"
    : >"$folder/env.conf"
    ((EUID != 0)) || chown -R "$(service_user)" "$folder"
}

# The node's name need not differ between checkouts: each has an epmd of its own, the registry of names.
# The environment of the node and of its tools, which find each other by HOME (the cookie), name and epmd's port.
rabbitmq_environment() {
    local folder=$1
    printf '%s\n' "PATH=/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin" "HOME=$folder/home" \
        LANG=C.UTF-8 LC_ALL=C.UTF-8 \
        "RABBITMQ_CONF_ENV_FILE=$folder/env.conf" "RABBITMQ_NODENAME=mijra@localhost" \
        RABBITMQ_NODE_IP_ADDRESS=127.0.0.1 "RABBITMQ_NODE_PORT=$(port_of rabbitmq)" \
        "RABBITMQ_DIST_PORT=$(port_of distribution)" \
        "ERL_EPMD_PORT=$(port_of epmd)" ERL_EPMD_ADDRESS=127.0.0.1 "ERL_CRASH_DUMP=$folder/erl_crash.dump" \
        "RABBITMQ_MNESIA_BASE=$folder/mnesia" "RABBITMQ_LOG_BASE=$folder/log" RABBITMQ_LOGS=- \
        "RABBITMQ_CONFIG_FILE=$folder/rabbitmq.conf" "RABBITMQ_ADVANCED_CONFIG_FILE=$folder/advanced.config" \
        "RABBITMQ_ENABLED_PLUGINS_FILE=$folder/enabled_plugins" \
        "RABBITMQ_FEATURE_FLAGS_FILE=$folder/feature_flags" "RABBITMQ_PID_FILE=$folder/pid" \
        "RABBITMQ_CTL_ERL_ARGS=-kernel inet_dist_use_interface {127,0,0,1}"
}

# Ready: it takes connections, and the management API answers for it.
rabbitmq_await() { process_wait_ready rabbitmq 120 rabbitmq_answers; }

rabbitmq_answers() {
    local login
    login=$(printf 'mijra:%s' "$rabbitmq_password" | base64 -w 0)
    port_is_open "$(port_of rabbitmq)" && http_is_ok "$(port_of management)" /api/overview "Authorization: Basic $login"
}

rabbitmq_stop() { process_signal rabbitmq TERM; }

# epmd outlives its node. It is asked to go on our own port, so another node's is never meant.
rabbitmq_stop_epmd() {
    local epmd
    port_is_open "$(port_of epmd)" || return 0
    epmd=$(command -v epmd) || return 0
    ERL_EPMD_PORT=$(port_of epmd) ERL_EPMD_ADDRESS=127.0.0.1 "$epmd" -kill >/dev/null 2>&1 || true
}
