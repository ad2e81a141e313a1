# shellcheck shell=bash disable=SC2154,SC2034
# Installs what is missing from Debian's packages, as root; says what to install otherwise. The packages' own servers are
# neither started now nor at the next boot, nothing that is installed already is upgraded, and what had to be put in the way
# of the package scripts meanwhile is taken away again.

policy=/usr/sbin/policy-rc.d
policy_mark="made by mijra's deploy/dev"
createcluster=/etc/postgresql-common/createcluster.d/mijra-deploy-dev.conf

# packages_ensure SERVER…: those servers, and what building needs.
packages_ensure() {
    local name missing=()
    for name in "$@"; do
        "${name}_is_installed" && continue
        case $name in
            postgres) missing+=(postgresql-15) ;;
            rabbitmq) missing+=(rabbitmq-server) ;;
            redis) missing+=(redis-server) ;;
        esac
    done
    # Rust links with a C compiler, and the TLS library is partly C and assembler. (No cmake: it is not needed on Linux.)
    command -v cc >/dev/null || missing+=(gcc libc6-dev)
    ((${#missing[@]} > 0)) || return 0
    packages_install "${missing[@]}"
    for name in "$@"; do
        "${name}_is_installed" || fail "$name is still missing after installing ${missing[*]}"
    done
}

packages_install() {
    local why=""
    ((EUID == 0)) || why="not root"
    command -v apt-get >/dev/null || why="no apt-get here"
    if [[ -n $why ]]; then
        say "deploy/dev: missing, and cannot be installed from here ($why): $*"
        say "Install it by hand, then run this again:"
        say "    sudo apt-get update && sudo apt-get install --no-install-recommends $*"
        say "Or give running servers: DATABASE_URL, AMQP_URL (with AMQP_MANAGEMENT_URL), REDIS_URL."
        exit 1
    fi
    step "Installing $*"
    # In a shell of its own, so that its EXIT trap cleans up whatever happens.
    (packages_install_quietly "$@") || exit 1
}

packages_install_quietly() {
    local began packages units
    began=$(microseconds)
    packages=("$@")
    trap packages_restore EXIT
    trap 'exit 130' INT TERM HUP
    packages_forbid_starting
    [[ " ${packages[*]} " != *" postgresql-15 "* ]] || packages_forbid_clusters
    units=$(packages_enabled_units)
    if ! packages_are_known "${packages[@]}"; then
        packages_update_lists
    fi
    if ! packages_apt install -y --no-install-recommends --no-upgrade "${packages[@]}"; then
        detail "trying again with fresh package lists"
        packages_update_lists
        packages_apt install -y --no-install-recommends --no-upgrade "${packages[@]}" ||
            fail "apt-get failed; its output is in $dev/logs/apt.log: $(tail -n 3 "$dev/logs/apt.log")"
    fi
    packages_disable_new_units "$units"
    detail "installed after $(seconds_since "$began")"
}

packages_apt() {
    DEBIAN_FRONTEND=noninteractive UCF_FORCE_CONFFOLD=1 unlocked \
        apt-get -q -o DPkg::Lock::Timeout=300 -o Dpkg::Options::=--force-confold "$@" </dev/null >>"$dev/logs/apt.log" 2>&1
}

packages_update_lists() {
    detail "apt-get update"
    packages_apt update || fail "apt-get update failed; its output is in $dev/logs/apt.log"
}

packages_are_known() {
    local package
    for package in "$@"; do
        [[ $(LC_ALL=C apt-cache policy "$package" 2>/dev/null) =~ Candidate:\ [^\(] ]] || return 1
    done
}

# Package scripts ask this program before they start anything. One that is there already is left alone, unless it allows
# starting: then we had better not install.
packages_forbid_starting() {
    if [[ -e $policy ]] && ! grep -q "$policy_mark" "$policy"; then
        "$policy" mijra start >/dev/null 2>&1 && fail "$policy lets packages start their servers; install by hand: ${packages[*]}"
        return 0
    fi
    printf '#!/bin/sh\n# %s while it installs packages; may be deleted\nexit 101\n' "$policy_mark" >"$policy"
    chmod 0755 "$policy"
}

# Nor may postgresql-15 make a cluster of its own. A drop-in file leaves the administrator's settings as they are.
packages_forbid_clusters() {
    mkdir -p "${createcluster%/*}"
    echo "create_main_cluster = false" >"$createcluster"
    if [[ -e /etc/postgresql-common/createcluster.conf ]] && command -v pg_conftool >/dev/null &&
        [[ $(pg_conftool /etc/postgresql-common/createcluster.conf show -bs create_main_cluster 2>/dev/null) != off ]]; then
        fail "cannot keep postgresql-15 from making a cluster (createcluster.conf has no include_dir); install by hand: ${packages[*]}"
    fi
}

packages_restore() {
    if [[ -e $policy ]] && grep -q "$policy_mark" "$policy"; then
        rm -f "$policy"
    fi
    rm -f "$createcluster"
    rmdir --ignore-fail-on-non-empty "${createcluster%/*}" 2>/dev/null || true
}

# Units that boot starts, of the packages we may install.
packages_enabled_units() {
    local unit
    for unit in /etc/systemd/system/*.wants/{postgresql,rabbitmq-server,redis-server,epmd}.{service,socket}; do
        [[ -L $unit ]] && basename "$unit"
    done | sort -u
}

packages_disable_new_units() {
    local unit
    while read -r unit; do
        ! grep -qx "$unit" <<<"$1" || continue
        detail "$unit stays off at boot"
        if command -v systemctl >/dev/null; then
            systemctl disable "$unit" >>"$dev/logs/apt.log" 2>&1 || true
        else
            rm -f /etc/systemd/system/*.wants/"$unit"
        fi
    done < <(packages_enabled_units)
}
