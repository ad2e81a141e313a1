# shellcheck shell=bash disable=SC2154,SC2034
# The descriptions of SQL statements in .sqlx, with which Mijra builds where there is no database. They are made from a
# scratch database on which the migrations have just run, by compiling the one package that holds SQL.

verb_prepare() {
    local check="" fresh began
    began=$(microseconds)
    case ${1:-} in
        "") ;;
        --check) check=yes ;;
        *) fail "prepare knows no $1" ;;
    esac
    [[ $own_postgres == yes ]] || fail "prepare makes a scratch database on the private server; unset DATABASE_URL"
    mijra_expect_cargo
    settings_lock
    services_start
    fresh=$dev/sqlx
    rm -rf "$fresh" && mkdir "$fresh"
    prepare_database
    step "Describing the statements of mijra-shared"
    # The compiler must look again, though no line has changed.
    touch "$root/shared/src/lib.rs"
    (
        cd "$root"
        DATABASE_URL="postgres://postgres:$postgres_password@127.0.0.1:$(port_of postgres)/$prepare_database_name" \
            SQLX_OFFLINE=false SQLX_OFFLINE_DIR=$fresh unlocked cargo check --locked -p mijra-shared >&2
    ) || fail "compiling against the scratch database failed; .sqlx is as it was"
    psql_as_admin postgres -qc "DROP DATABASE $prepare_database_name"
    [[ -n $(find "$fresh" -name '*.json' -print -quit) ]] || fail "the compiler did not look again; .sqlx is as it was"
    if [[ -n $check ]]; then
        mkdir -p "$root/.sqlx"
        diff -rq "$fresh" "$root/.sqlx" >&2 || fail ".sqlx does not fit the code and the migrations: deploy/dev prepare"
        detail ".sqlx is up to date ($(seconds_since "$began"))"
        return 0
    fi
    mkdir -p "$root/.sqlx"
    rm -f "$root"/.sqlx/*.json
    find "$fresh" -name '*.json' -exec mv -t "$root/.sqlx" {} +
    detail "$(find "$root/.sqlx" -name '*.json' | wc -l) statements described after $(seconds_since "$began")"
}

prepare_database_name=mijra_prepare

# The migrations as they lie in the folder, without the program that embeds them: it may not compile yet.
prepare_database() {
    local migration
    psql_as_admin postgres -qc "DROP DATABASE IF EXISTS $prepare_database_name WITH (FORCE)" \
        -c "CREATE DATABASE $prepare_database_name"
    for migration in "$root"/migrations/control/*.sql "$root"/migrations/tenant/*.sql; do
        psql_as_admin "$prepare_database_name" -q --single-transaction -f "$migration" >/dev/null ||
            fail "migration ${migration#"$root"/} failed"
    done
}
