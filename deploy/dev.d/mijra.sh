# shellcheck shell=bash disable=SC2154,SC2034
# Building Mijra, and what its programs are told: one environment for each, with a database role of its own.

# The demo, the tests and the checks build alike, so that nothing is compiled twice. Crash points exist for fault tests;
# they do nothing unless MIJRA_CRASH_POINT names one.
mijra_features=mijra-api/crash-points,mijra-workers/crash-points

# Asked before anything is installed or started in vain.
mijra_expect_cargo() { command -v cargo >/dev/null || fail "cargo is missing; install Rust: https://rustup.rs"; }

# mijra_build dev|release
mijra_build() {
    local began options=(--workspace --bins)
    began=$(microseconds)
    if [[ $1 == release ]]; then options+=(--release); else options+=(--features "$mijra_features"); fi
    step "Building (profile $1)"
    # SQL is checked against the committed descriptions, never against whatever DATABASE_URL names.
    (cd "$root" && SQLX_OFFLINE=true unlocked cargo build --locked "${options[@]}" >&2) || exit 1
    detail "built after $(seconds_since "$began")"
}

# mijra_folder dev|release: where the programs are.
mijra_folder() {
    local target
    target=$(cd "$root" && cargo metadata --locked --offline --no-deps --format-version 1 |
        sed 's/.*"target_directory":"\([^"]*\)".*/\1/')
    if [[ $1 == release ]]; then echo "$target/release"; else echo "$target/debug"; fi
}

# mijra_environment PROGRAM: sets environment, NAME=value each; secrets travel there and never among arguments.
mijra_environment() {
    local api worker operator
    api=$(url_as "$database_url" mijra_api "$api_password")
    worker=$(url_as "$database_url" mijra_worker "$worker_password")
    operator=$(url_as "$database_url" mijra_operator "$operator_password")
    environment=(
        "AMQP_URL=$amqp_url" "REDIS_URL=$redis_url" "MIJRA_SECRET_KEYS=$secret_keys"
        "MIJRA_NAMESPACE=${MIJRA_NAMESPACE:-mijra}" "LOG_FORMAT=${LOG_FORMAT:-pretty}" "RUST_BACKTRACE=${RUST_BACKTRACE:-1}"
        "WHATSAPP_BASE_URL=${WHATSAPP_BASE_URL:-http://127.0.0.1:$(port_of sandbox)}"
        "STORAGE_URL=${STORAGE_URL:-file://$dev/files}"
        "WHATSAPP_APP_SECRET=$whatsapp_app_secret" "WHATSAPP_VERIFY_TOKEN=$whatsapp_verify_token"
        # The sandbox plays every provider, and signs for all of them with one secret.
        "MESSENGER_BASE_URL=${MESSENGER_BASE_URL:-http://127.0.0.1:$(port_of sandbox)}"
        "MESSENGER_APP_SECRET=${MESSENGER_APP_SECRET:-$whatsapp_app_secret}"
        "MESSENGER_VERIFY_TOKEN=${MESSENGER_VERIFY_TOKEN:-$whatsapp_verify_token}"
        "INSTAGRAM_BASE_URL=${INSTAGRAM_BASE_URL:-http://127.0.0.1:$(port_of sandbox)}"
        "INSTAGRAM_APP_SECRET=${INSTAGRAM_APP_SECRET:-$whatsapp_app_secret}"
        "INSTAGRAM_VERIFY_TOKEN=${INSTAGRAM_VERIFY_TOKEN:-$whatsapp_verify_token}"
        "TWILIO_BASE_URL=${TWILIO_BASE_URL:-http://127.0.0.1:$(port_of sandbox)}"
        "TWILIO_CONTENT_BASE_URL=${TWILIO_CONTENT_BASE_URL:-http://127.0.0.1:$(port_of sandbox)}"
        "TWILIO_MESSAGING_BASE_URL=${TWILIO_MESSAGING_BASE_URL:-http://127.0.0.1:$(port_of sandbox)}"
        "TWILIO_AUTH_TOKEN=${TWILIO_AUTH_TOKEN:-$whatsapp_app_secret}"
        "PUBLIC_URL=${PUBLIC_URL:-http://127.0.0.1:$(port_of api)}"
    )
    case $1 in
        api)
            environment+=(
                "DATABASE_URL=$api" "API_LISTEN=127.0.0.1:$(port_of api)" "HEALTH_LISTEN=127.0.0.1:$(port_of api-health)"
                "RUST_LOG=${RUST_LOG:-info}"
            )
            ;;
        inbound-* | outbound-* | campaign-* | media-* | scheduler-*)
            environment+=(
                "DATABASE_URL=$worker" "HEALTH_LISTEN=127.0.0.1:$(port_of "$1")" "RUST_LOG=${RUST_LOG:-info}"
                # The sandbox reports within seconds: nobody here wants to wait five minutes for a verdict.
                "UNKNOWN_SETTLE_SECONDS=${UNKNOWN_SETTLE_SECONDS:-20}"
            )
            ;;
        sandbox)
            environment=(
                "SANDBOX_LISTEN=127.0.0.1:$(port_of sandbox)" "SANDBOX_APP_SECRET=$whatsapp_app_secret"
                "SANDBOX_WEBHOOK_URL=http://127.0.0.1:$(port_of api)/webhooks/whatsapp"
                "SANDBOX_ACCOUNTS=$(tenant_sandbox_accounts)"
                "RUST_LOG=${RUST_LOG:-info}"
            )
            ;;
        mijra)
            environment+=(
                "DATABASE_URL=$operator" "MIGRATE_DATABASE_URL=$database_url"
                "MIJRA_API_PASSWORD=$api_password" "MIJRA_WORKER_PASSWORD=$worker_password"
                "MIJRA_OPERATOR_PASSWORD=$operator_password"
                ${amqp_management_url:+"AMQP_MANAGEMENT_URL=$amqp_management_url"}
            )
            ;;
    esac
}

# mijra_run ARGS…: the operator's command line.
mijra_run() {
    local environment
    mijra_environment mijra
    (
        export "${environment[@]}"
        unlocked "$(mijra_folder dev)/mijra" "$@"
    )
}

# Migrations run as the administrator. The programs' roles may log in afterwards; none of them may bypass row-level security.
mijra_migrate() {
    step "Migrating"
    mijra_run migrate --with-logins >&2 || fail "migrating failed"
}

verb_mijra() {
    local environment folder
    folder=$(mijra_folder dev)
    [[ -x $folder/mijra ]] || mijra_build dev
    mijra_environment mijra
    export "${environment[@]}"
    exec "$folder/mijra" "$@"
}
