# shellcheck shell=bash disable=SC2154,SC2034
# Where things are: the folder, the ports, the passwords, and the addresses that follow from them. Made once, then kept, so
# that a second start finds what the first one made.

dev=""            # the folder for everything
data=""           # where the servers keep their data; readable by the user they run as
lock_fd=""
run_as=()         # what makes a command run as the servers' user
own_postgres="" own_rabbitmq="" own_redis=""   # yes or no
database_url="" amqp_url="" amqp_management_url="" redis_url=""

settings_read() {
    [[ -r /proc/self/stat ]] || fail "needs Linux: processes are looked up in /proc"
    settings_read_env_file
    dev=${MIJRA_DEV_DIR:-$root/.dev}
    if [[ ! -e $dev/.mijra ]]; then
        if [[ -d $dev ]] && [[ -n $(ls -A "$dev") ]]; then
            fail "$dev is not empty and was not made by deploy/dev; choose another MIJRA_DEV_DIR"
        fi
        mkdir -p "$dev"
        echo "Made by deploy/dev; delete it with: deploy/dev reset" >"$dev/.mijra"
    fi
    dev=$(cd -P "$dev" && pwd)
    mkdir -p "$dev/run" "$dev/logs"
    if [[ ! -s $dev/ports || ! -s $dev/secrets ]]; then
        settings_lock
        settings_choose_ports
        settings_make_secrets
        settings_unlock
    fi
    # shellcheck source=/dev/null
    source "$dev/ports"
    settings_read_secrets
    settings_derive_addresses
}

# .env of the checkout gives what the environment does not.
settings_read_env_file() {
    local line name value
    [[ -r $root/.env ]] || return 0
    while IFS= read -r line || [[ -n $line ]]; do
        [[ $line =~ ^[[:space:]]*(export[[:space:]]+)?([A-Za-z_][A-Za-z0-9_]*)=(.*)$ ]] || continue
        name=${BASH_REMATCH[2]} value=${BASH_REMATCH[3]}
        [[ $value =~ ^\"(.*)\"$ || $value =~ ^\'(.*)\'$ ]] && value=${BASH_REMATCH[1]}
        [[ -v $name ]] || export "$name=$value"
    done <"$root/.env"
}

# Only one deploy/dev at a time changes what runs. Whatever is started must not inherit the lock: see unlocked.
settings_lock() {
    exec {lock_fd}>"$dev/lock"
    flock -n "$lock_fd" && return 0
    say "another deploy/dev is at work in $dev; waiting for it"
    flock -w 1800 "$lock_fd" || fail "gave up waiting for the other deploy/dev after 30 minutes"
}

settings_unlock() {
    exec {lock_fd}>&-
    lock_fd=""
}

# Runs a command that must not hold the lock any longer than we do.
unlocked() {
    if [[ -n $lock_fd ]]; then "$@" {lock_fd}>&-; else "$@"; fi
}

# Everything here uses one block of 100 ports below the range the kernel gives out by itself (32768 and up). Where it lies
# follows from the checkout's path, so that two checkouts rarely want the same one.
settings_choose_ports() {
    local blocks=120 first hash tries
    [[ ! -s $dev/ports ]] || return 0
    hash=$(printf '%s' "$dev" | cksum | cut -d ' ' -f 1)
    for ((tries = 0; tries < blocks; tries++)); do
        first=$((20000 + (hash + tries) % blocks * 100))
        settings_block_is_free "$first" && break
    done
    ((tries < blocks)) || fail "no free block of ports between 20000 and 32000"
    printf '# The first of the 100 ports of this folder; deploy/dev status lists them.\nport_base=%d\n' "$first" >"$dev/ports"
}

settings_block_is_free() {
    local port
    for ((port = $1; port < $1 + 100; port++)); do
        ! port_is_open "$port" || return 1
    done
}

# port_of NAME: a server's port, a program's or instance's.
port_of() {
    local name=$1 number=1
    if [[ $name =~ ^(.+)-([0-9]+)$ ]]; then
        name=${BASH_REMATCH[1]} number=${BASH_REMATCH[2]}
    fi
    case $name in
        postgres) echo $((port_base)) ;;
        redis) echo $((port_base + 1)) ;;
        rabbitmq) echo $((port_base + 2)) ;;
        management) echo $((port_base + 3)) ;;
        distribution) echo $((port_base + 4)) ;;
        epmd) echo $((port_base + 5)) ;;
        api) echo $((port_base + 10)) ;;
        api-health) echo $((port_base + 12)) ;;
        sandbox) echo $((port_base + 11)) ;;
        media) echo $((port_base + 12 + number)) ;;
        inbound) echo $((port_base + 19 + number)) ;;
        outbound) echo $((port_base + 39 + number)) ;;
        scheduler) echo $((port_base + 79 + number)) ;;
        campaign) echo $((port_base + 89 + number)) ;;
        *) fail "no such program or server: $1" ;;
    esac
}

# Made once. Passwords are hexadecimal, so they need no escaping in addresses. What the environment gives wins: roles, for
# instance, belong to a whole PostgreSQL server, and two checkouts that share one must agree on their passwords.
settings_make_secrets() {
    [[ ! -s $dev/secrets ]] || return 0
    (
        umask 077
        cat >"$dev/secrets.new" <<SECRETS
# Of this folder's own servers and programs. Nothing outside it knows them.
postgres_password=$(random_hex 16)
rabbitmq_password=$(random_hex 16)
redis_password=$(random_hex 16)
api_password=$(random_hex 16)
worker_password=$(random_hex 16)
operator_password=$(random_hex 16)
secret_keys=dev1:$(head -c 32 /dev/urandom | base64 -w 0)
whatsapp_app_secret=$(random_hex 16)
whatsapp_verify_token=$(random_hex 16)
SECRETS
        mv "$dev/secrets.new" "$dev/secrets"
    )
}

settings_read_secrets() {
    # shellcheck source=/dev/null
    source "$dev/secrets"
    api_password=${MIJRA_API_PASSWORD:-$api_password}
    worker_password=${MIJRA_WORKER_PASSWORD:-$worker_password}
    operator_password=${MIJRA_OPERATOR_PASSWORD:-$operator_password}
    secret_keys=${MIJRA_SECRET_KEYS:-$secret_keys}
    whatsapp_app_secret=${WHATSAPP_APP_SECRET:-$whatsapp_app_secret}
    whatsapp_verify_token=${WHATSAPP_VERIFY_TOKEN:-$whatsapp_verify_token}
}

random_hex() { head -c "$1" /dev/urandom | od -An -v -tx1 | tr -d ' \n'; }

# Given addresses win. Ours, handed back to us by a program that we started, are still ours.
settings_derive_addresses() {
    local postgres rabbitmq redis
    own_postgres=yes own_rabbitmq=yes own_redis=yes
    postgres="postgres://postgres:$postgres_password@127.0.0.1:$(port_of postgres)/mijra"
    rabbitmq="amqp://mijra:$rabbitmq_password@127.0.0.1:$(port_of rabbitmq)/%2f"
    redis="redis://:$redis_password@127.0.0.1:$(port_of redis)"
    database_url=${DATABASE_URL:-$postgres}
    amqp_url=${AMQP_URL:-$rabbitmq}
    redis_url=${REDIS_URL:-$redis}
    [[ $database_url == "$postgres" ]] || own_postgres=no
    [[ $redis_url == "$redis" ]] || own_redis=no
    if [[ $amqp_url == "$rabbitmq" ]]; then
        amqp_management_url="http://mijra:$rabbitmq_password@127.0.0.1:$(port_of management)"
    else
        own_rabbitmq=no
        amqp_management_url=${AMQP_MANAGEMENT_URL:-}
    fi
}

# url_as URL USER PASSWORD: the same database, another role.
url_as() {
    local scheme=${1%%://*} rest=${1#*://}
    local authority=${rest%%[/?]*}
    [[ $authority != *@* ]] || rest=${rest#"${authority%@*}@"}
    printf '%s://%s:%s@%s' "$scheme" "$2" "$3" "$rest"
}

# url_without_password URL: what may be shown.
url_without_password() {
    if [[ $1 =~ ^([a-z]+://[^:/@]*):[^/]*@(.*)$ ]]; then
        printf '%s@%s' "${BASH_REMATCH[1]}" "${BASH_REMATCH[2]}"
    else
        printf '%s' "$1"
    fi
}

# Root's servers run as an unprivileged user (PostgreSQL refuses root); anybody else's as themselves.
service_user() {
    local user
    if ((EUID != 0)); then
        id -un
        return
    fi
    for user in postgres rabbitmq redis nobody; do
        if id -u "$user" >/dev/null 2>&1; then
            echo "$user"
            return
        fi
    done
    fail "no unprivileged user to run the servers as"
}

# Sets run_as, to be put before a command.
settings_choose_user() {
    local user
    run_as=()
    ((EUID == 0)) || return 0
    user=$(service_user)
    run_as=(setpriv "--reuid=$(id -u "$user")" "--regid=$(id -g "$user")" --clear-groups --)
}

# The servers' data lies in .dev/data. A checkout that their user cannot reach (below /root, say) gets a link there to a
# folder that it can.
settings_make_data_folder() {
    local elsewhere
    settings_choose_user
    if [[ ! -e $dev/data && ! -L $dev/data ]]; then
        if "${run_as[@]}" test -x "$dev"; then
            mkdir "$dev/data"
        else
            elsewhere=/var/lib/mijra-dev/$(printf '%s' "$dev" | cksum | cut -d ' ' -f 1)
            detail "$(service_user) cannot enter $dev: the servers' data lies in $elsewhere"
            mkdir -p "$elsewhere"
            ln -s "$elsewhere" "$dev/data"
        fi
    fi
    data=$(readlink -f "$dev/data")
    mkdir -p "$data"
}

# data_folder NAME: a server's own folder, owned by the user it runs as.
data_folder() {
    local folder=$data/$1
    mkdir -p "$folder"
    if ((EUID == 0)) && [[ $(stat -c %U "$folder") != "$(service_user)" ]]; then
        chown -R "$(service_user)" "$folder"
    fi
    chmod 0700 "$folder"
    printf '%s' "$folder"
}
