# shellcheck shell=bash disable=SC2154,SC2034
# The load harness, on the private servers. Faults are no measurement: they need crash points, which releases do not have. What an
# account may send at its limit, and in which order, does not depend on the profile either.

verb_load() {
    local running profile=release
    case " $* " in
        *" --help "* | *" -h "*)
            load_help "$@"
            return
            ;;
    esac
    case ${1:-} in faults | outage | limit | order) profile=dev ;; esac
    mijra_expect_cargo
    settings_lock
    services_start
    mijra_build "$profile"
    settings_unlock
    mapfile -t running < <(programs_running)
    ((${#running[@]} == 0)) ||
        detail "note: ${#running[@]} programs of deploy/dev up run beside the measurement; deploy/dev down, then load, is quieter"
    test_export_environment "$(mijra_folder "$profile")"
    cd "$root" || fail "no $root"
    exec "$MIJRA_BIN_DIR/load" "$@"
}

# Help needs no servers, and no more of a build than there is: any profile's says the same.
load_help() {
    local profile binary
    for profile in release dev; do
        binary=$(mijra_folder "$profile" 2>/dev/null)/load || continue
        [[ -x $binary ]] || continue
        # shellcheck disable=SC2093 # What follows is for when there is none.
        exec "$binary" "$@"
    done
    usage_of load
    say "More with: deploy/dev load WHAT --help, once it is built (deploy/dev up builds it)."
}
