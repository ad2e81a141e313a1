# shellcheck shell=bash disable=SC2154,SC2034
# The tests, with all the set-up they need.

verb_test() {
    local runner
    mijra_expect_cargo
    settings_lock
    services_start
    mijra_build dev
    settings_unlock
    test_export_environment "$(mijra_folder dev)"
    cd "$root" || fail "no $root"
    if cargo nextest --version >/dev/null 2>&1; then
        runner=(cargo nextest run --no-fail-fast)
    else
        runner=(cargo test --no-fail-fast)
    fi
    # One failure is no reason not to know about the others.
    step "${runner[*]} --workspace${*:+ $*}"
    "${runner[@]}" --workspace --features "$mijra_features" "$@" || return
    # nextest leaves the examples in the documentation to cargo test.
    if [[ ${runner[1]} == nextest && $# -eq 0 ]]; then
        step "cargo test --doc"
        cargo test --workspace --features "$mijra_features" --doc --quiet
    fi
}

# test_export_environment FOLDER: where tests and measurements find the servers and the programs. They make databases and
# queues of their own, but roles belong to the whole server: they must use these passwords, or they lock out what runs.
test_export_environment() {
    export DATABASE_URL=$database_url AMQP_URL=$amqp_url REDIS_URL=$redis_url
    [[ -z $amqp_management_url ]] || export AMQP_MANAGEMENT_URL=$amqp_management_url
    export MIJRA_API_PASSWORD=$api_password MIJRA_WORKER_PASSWORD=$worker_password MIJRA_OPERATOR_PASSWORD=$operator_password
    export MIJRA_BIN_DIR=$1 MIJRA_DEV_DIR=$dev SQLX_OFFLINE=true
    PG_BIN_DIR=$(postgres_bin) && export PG_BIN_DIR
    RABBITMQ_BIN_DIR=$(rabbitmq_bin) && export RABBITMQ_BIN_DIR
    REDIS_BIN=$(redis_bin) && export REDIS_BIN
}
