# shellcheck shell=bash disable=SC2154,SC2034
# Mijra's programs as processes: which run, how many of each, starting, stopping, replacing what is out of date.

# Scaled kinds and how many of each have ports.
declare -A programs_most=([inbound]=20 [outbound]=40 [campaign]=10 [media]=7 [scheduler]=10)
# program_grace NAME: longer than the program's own grace period, in which it finishes what it holds: of outbound its longest call.
program_grace() {
    local usual=25
    [[ $1 != outbound-* ]] || usual=$((${PROVIDER_CALL_TIMEOUT_SECONDS:-10} + 85))
    echo $((${GRACE_PERIOD_SECONDS:-$usual} + 15))
}

# programs_count KIND: how many instances are wanted.
programs_count() {
    local count=""
    [[ -r $dev/scale ]] && count=$(sed -n "s/^$1=//p" "$dev/scale")
    case $1 in
        outbound) echo "${count:-2}" ;;
        *) echo "${count:-1}" ;;
    esac
}

# The programs that should run, in the order in which they start.
programs_wanted() {
    local kind number
    printf '%s\n' sandbox api
    for kind in inbound outbound campaign media scheduler; do
        for ((number = 1; number <= $(programs_count "$kind"); number++)); do echo "$kind-$number"; done
    done
}

# The programs that do run, wanted or not.
programs_running() {
    local file name
    for file in "$dev"/run/*; do
        name=${file##*/}
        case $name in
            api | sandbox | inbound-* | outbound-* | campaign-* | media-* | scheduler-*) ! process_runs "$name" || echo "$name" ;;
        esac
    done
}

# program_is_current NAME BINARY FINGERPRINT: runs, as it would be started now.
program_is_current() {
    process_runs "$1" && [[ $(process_fingerprint "$1") == "$3" && ! $2 -nt $dev/run/$1 ]]
}

program_binary() { printf '%s/mijra-%s' "$programs_folder" "${1%-[0-9]*}"; }

# Which binary, and every setting as the program would see it, also those given by hand (UNKNOWN_SETTLE_SECONDS=5 deploy/dev
# up). The sandbox has settings of its own.
program_fingerprint() (
    settings=()
    [[ $1 == sandbox ]] || mapfile -t settings < <(sed -n '/^# --- The operator/q; s/^#\([A-Z_]*\)=.*/\1/p' "$root/.env.example")
    mijra_environment "$1"
    export "${environment[@]}"
    {
        printf '%s\n' "$(program_binary "$1")" "${environment[@]}"
        for name in "${settings[@]}" MIJRA_CRASH_POINT; do
            [[ ! -v $name ]] || printf '%s=%s\n' "$name" "${!name}"
        done
    } | cksum | cut -d ' ' -f 1
)

program_start() (
    mijra_environment "$1"
    fingerprint=$(program_fingerprint "$1")
    export "${environment[@]}"
    services_expect_free_port "$1" "$(port_of "$1")"
    process_start "$1" "$fingerprint" "$root" "$(program_binary "$1")"
)

program_is_ready() {
    case $1 in
        sandbox) port_is_open "$(port_of sandbox)" ;;
        api) http_is_ok "$(port_of api-health)" /readyz ;;
        *) http_is_ok "$(port_of "$1")" /readyz ;;
    esac
}

# programs_start NAME…: starts or replaces those that need it, and waits until all are ready.
programs_start() {
    local name fresh=() stale=()
    programs_folder=$(mijra_folder dev)
    for name in "$@"; do
        [[ -x $(program_binary "$name") ]] || fail "$(program_binary "$name") is not built: deploy/dev up"
        program_is_current "$name" "$(program_binary "$name")" "$(program_fingerprint "$name")" && continue
        fresh+=("$name")
        ! process_runs "$name" || stale+=("$name")
    done
    ((${#stale[@]} == 0)) || detail "out of date, starting anew: ${stale[*]}"
    programs_stop "${stale[@]}" || true
    for name in "${fresh[@]}"; do program_start "$name"; done
    for name in "$@"; do
        process_wait_ready "$name" 60 program_is_ready "$name" || exit 1
    done
    detail "ready: $# ($((${#fresh[@]} - ${#stale[@]})) started, ${#stale[@]} replaced)"
}

# programs_stop NAME…: all at once, each with the grace period; fails if one had to be killed.
programs_stop() {
    local name failed=0
    for name in "$@"; do process_signal "$name" TERM; done
    for name in "$@"; do process_wait_gone "$name" "$(program_grace "$name")" || failed=1; done
    return "$failed"
}

programs_stop_surplus() {
    local surplus
    mapfile -t surplus < <(comm -13 <(programs_wanted | sort) <(programs_running | sort))
    ((${#surplus[@]} > 0)) || return 0
    detail "no longer wanted: ${surplus[*]}"
    programs_stop "${surplus[@]}" || true
}

verb_up() {
    local began services built migrated wanted
    began=$(microseconds)
    mijra_expect_cargo
    settings_lock
    services_start
    services=$(seconds_since "$began")
    mijra_build dev
    built=$(seconds_since "$began")
    mijra_migrate
    tenant_ensure
    migrated=$(seconds_since "$began")
    mapfile -t wanted < <(programs_wanted)
    step "Programs: ${wanted[*]}"
    programs_stop_surplus
    programs_start "${wanted[@]}"
    settings_unlock
    say "Servers after $services, built after $built, migrated after $migrated, ready after $(seconds_since "$began")."
    say "API: http://127.0.0.1:$(port_of api)   sandbox: http://127.0.0.1:$(port_of sandbox)   more: deploy/dev status"
}

verb_down() {
    local running failed=0
    settings_lock
    mapfile -t running < <(programs_running)
    # The sandbox last: what is in flight still gets its answer.
    mapfile -t running < <(printf '%s\n' "${running[@]}" | grep -vx -e sandbox -e '')
    if ((${#running[@]} > 0)); then
        step "Stopping ${running[*]}"
        programs_stop "${running[@]}" || failed=1
    fi
    ! process_runs sandbox || programs_stop sandbox || failed=1
    step "Stopping the servers"
    services_stop || failed=1
    return "$failed"
}

verb_scale() {
    local argument kind count wanted
    (($# > 0)) || fail "what to how many? For example: deploy/dev scale outbound=3 inbound=2"
    for argument in "$@"; do
        [[ $argument =~ ^([a-z]+)=([0-9]{1,3})$ ]] || fail "not KIND=NUMBER: $argument"
        kind=${BASH_REMATCH[1]} count=$((10#${BASH_REMATCH[2]}))
        [[ -n ${programs_most[$kind]:-} ]] || fail "$kind cannot be scaled; these can: ${!programs_most[*]}"
        ((count <= programs_most[$kind])) || fail "at most ${programs_most[$kind]} of $kind have ports here"
    done
    settings_lock
    touch "$dev/scale"
    for argument in "$@"; do
        sed -i "/^${argument%%=*}=/d" "$dev/scale"
        printf '%s=%d\n' "${argument%%=*}" "$((10#${argument#*=}))" >>"$dev/scale"
    done
    if [[ -z $(programs_running) ]]; then
        detail "noted; nothing runs yet (deploy/dev up)"
        return 0
    fi
    mapfile -t wanted < <(programs_wanted)
    programs_stop_surplus
    programs_start "${wanted[@]}"
}

verb_start() {
    (($# == 1)) || fail "start what? (deploy/dev status lists the names)"
    settings_lock
    case $1 in
        postgres | rabbitmq | redis)
            services_own_one "$1"
            settings_make_data_folder
            "$1_start"
            "$1_await"
            ;;
        *)
            [[ " $(programs_wanted | tr '\n' ' ') " == *" $1 "* ]] || fail "no such program: $1 (more instances: deploy/dev scale)"
            programs_start "$1"
            ;;
    esac
}

verb_stop() {
    (($# == 1)) || fail "stop what? (deploy/dev status lists the names)"
    settings_lock
    case $1 in
        postgres | rabbitmq | redis)
            services_own_one "$1"
            "$1_stop"
            process_wait_gone "$1" 60
            [[ $1 != rabbitmq ]] || rabbitmq_stop_epmd
            ;;
        *)
            process_runs "$1" || fail "$1 does not run"
            programs_stop "$1"
            ;;
    esac
}
