# shellcheck shell=bash disable=SC2154,SC2034
# What no provider would send, made up by libFuzzer from the fixtures and given to what reads webhooks (tests/fuzz). It needs a C++
# compiler and installs none.

verb_fuzz() {
    local target=${1:-} seconds=${2:-300} seeds dictionary folder
    case $target in
        whatsapp | messenger | instagram) seeds=("$target") dictionary=meta ;;
        excerpt) seeds=(whatsapp messenger instagram) dictionary=meta ;;
        twilio) seeds=(twilio) dictionary=twilio ;;
        "") fail "fuzz what? whatsapp, messenger, instagram, twilio or excerpt" ;;
        *) fail "fuzz knows no $target; it knows whatsapp, messenger, instagram, twilio and excerpt" ;;
    esac
    [[ $seconds =~ ^[0-9]+$ ]] || fail "for how many seconds? $seconds is no number of them"
    mijra_expect_cargo
    type -P "${CXX:-c++}" >/dev/null || fail "a C++ compiler is missing: apt-get install g++"
    folder=$(mijra_folder dev)
    cd "$root/tests/fuzz" || fail "no $root/tests/fuzz"
    step "Building $target"
    RUSTC_WRAPPER=$PWD/instrument SQLX_OFFLINE=true CARGO_TARGET_DIR=${folder%/debug} cargo build --locked --bin "$target" >&2 ||
        fail "building failed"
    mkdir -p "corpus/$target" artifacts
    seeds=("${seeds[@]/#/$root/shared/src/providers/}")
    step "Fuzzing $target for $seconds s"
    "$folder/$target" "corpus/$target" "${seeds[@]/%//fixtures}" -artifact_prefix="artifacts/$target-" \
        -dict="$dictionary.dict" -max_total_time="$seconds" -max_len=65536 -timeout=10 -print_final_stats=1
}
