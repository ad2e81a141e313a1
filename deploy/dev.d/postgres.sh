# shellcheck shell=bash disable=SC2154,SC2034
# The private PostgreSQL: a cluster in .dev/data/postgres, password logins only.

# Where its programs are: the newest version from 15 on, or, once there is a cluster, the version that made it.
postgres_bin() {
    local bin best="" version wanted=""
    [[ -r $data/postgres/cluster/PG_VERSION ]] && wanted=$(<"$data/postgres/cluster/PG_VERSION")
    for bin in /usr/lib/postgresql/*/bin; do
        version=${bin#/usr/lib/postgresql/} version=${version%/bin}
        [[ -x $bin/initdb && $version =~ ^[0-9]+$ && $version -ge 15 ]] || continue
        [[ -z $wanted || $version == "$wanted" ]] || continue
        [[ $version -lt ${best:-0} ]] || best=$version
    done
    if [[ -n $best ]]; then
        echo "/usr/lib/postgresql/$best/bin"
    elif bin=$(command -v initdb) && [[ $(initdb --version) =~ \ ([0-9]+) ]] && ((BASH_REMATCH[1] >= 15)); then
        dirname "$bin"
    else
        return 1
    fi
}

postgres_is_installed() { postgres_bin >/dev/null; }

postgres_start() {
    local folder bin port socket=""
    process_runs postgres && return 0
    bin=$(postgres_bin) || fail "the cluster in $data/postgres was made by another version of PostgreSQL: deploy/dev reset"
    folder=$(data_folder postgres)
    port=$(port_of postgres)
    services_expect_free_port postgres "$port"
    [[ -e $folder/cluster/PG_VERSION ]] || postgres_make_cluster "$bin" "$folder"
    # A socket's path has 107 bytes; a deep checkout does without.
    ((${#folder} > 88)) || socket=$folder
    # Settings are given here, not in the cluster's file, so that a change reaches clusters made before it.
    process_start postgres - "$folder" "${run_as[@]}" "$bin/postgres" -D "$folder/cluster" \
        -c listen_addresses=127.0.0.1 -c port="$port" -c unix_socket_directories="$socket" \
        -c shared_buffers=512MB -c max_wal_size=4GB -c max_connections=300
}

postgres_make_cluster() {
    local bin=$1 folder=$2
    detail "PostgreSQL: making a cluster in $folder"
    rm -rf "$folder/new"
    (umask 077 && printf '%s\n' "$postgres_password" >"$folder/password" && chown "$(service_user)" "$folder/password")
    # Bare systems have no locale but C.
    if ! (cd "$folder" && "${run_as[@]}" "$bin/initdb" -D "$folder/new" -U postgres -A scram-sha-256 \
        --pwfile="$folder/password" -E UTF8 --locale=C.UTF-8) >"$dev/logs/initdb.log" 2>&1; then
        rm -f "$folder/password"
        fail "initdb failed: $(tail -n 3 "$dev/logs/initdb.log")"
    fi
    rm -f "$folder/password"
    # Only a whole cluster gets the name that we look for.
    mv "$folder/new" "$folder/cluster"
}

# Ready: it answers queries (an open port may still be recovering), and our database exists.
postgres_await() {
    local tries
    # What a killed server left (its own zombie, or backends that have not noticed yet) keeps the next one from starting.
    for ((tries = 0; tries < 30; tries++)); do
        wait_until 120 process_ready_or_gone postgres postgres_answers || break
        if process_runs postgres || ! postgres_is_held_up; then break; fi
        sleep 1
        postgres_start
    done
    process_wait_ready postgres 5 postgres_answers
    if [[ $(psql_as_admin postgres -tAqc "SELECT 1 FROM pg_database WHERE datname = 'mijra'") != 1 ]]; then
        psql_as_admin postgres -qc 'CREATE DATABASE mijra'
    fi
}

postgres_is_held_up() {
    [[ $(tail -n 5 "$dev/logs/postgres.log") =~ (lock file \"postmaster.pid\" already exists|is still in use) ]]
}

postgres_answers() { "$(postgres_bin)/pg_isready" -q -h 127.0.0.1 -p "$(port_of postgres)"; }

# Fast shutdown: no waiting for clients.
postgres_stop() { process_signal postgres INT; }

# psql_as_admin DATABASE ARGS…: our own server only.
psql_as_admin() {
    local database=$1
    shift
    PGOPTIONS="-c client_min_messages=warning" PGPASSWORD=$postgres_password "$(postgres_bin)/psql" -X -v ON_ERROR_STOP=1 \
        -h 127.0.0.1 -p "$(port_of postgres)" -U postgres -d "$database" "$@"
}

verb_psql() {
    local psql
    if [[ $own_postgres == yes ]]; then
        settings_make_data_folder
        process_runs postgres || fail "PostgreSQL does not run; start it with: deploy/dev services"
        PGPASSWORD=$postgres_password exec "$(postgres_bin)/psql" \
            -h 127.0.0.1 -p "$(port_of postgres)" -U postgres -d mijra "$@"
    fi
    psql=$(command -v psql) || fail "psql is missing; install it with: apt-get install postgresql-client"
    exec "$psql" "$database_url" "$@"
}
