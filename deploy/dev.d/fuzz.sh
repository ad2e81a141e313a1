# shellcheck shell=bash disable=SC2154,SC2034
# What no provider would send, made up by libFuzzer from the fixtures and given to what reads webhooks (tests/fuzz). It installs
# nothing: whoever fuzzes needs a C++ compiler and cargo-fuzz.

verb_fuzz() {
    local target=${1:-} seconds=${2:-300} seeds dictionary
    case $target in
        whatsapp | messenger | instagram) seeds=("$target") dictionary=meta ;;
        excerpt) seeds=(whatsapp messenger instagram) dictionary=meta ;;
        twilio) seeds=(twilio) dictionary=twilio ;;
        "") fail "fuzz what? whatsapp, messenger, instagram, twilio or excerpt" ;;
        *) fail "fuzz knows no $target; it knows whatsapp, messenger, instagram, twilio and excerpt" ;;
    esac
    [[ $seconds =~ ^[0-9]+$ ]] || fail "for how many seconds? $seconds is no number of them"
    mijra_expect_cargo
    cargo fuzz --version >/dev/null 2>&1 || fail "cargo-fuzz is missing: cargo install cargo-fuzz"
    type -P "${CXX:-c++}" >/dev/null || fail "a C++ compiler is missing: apt-get install g++"
    cd "$root/tests/fuzz" || fail "no $root/tests/fuzz"
    mkdir -p "corpus/$target"
    seeds=("${seeds[@]/#/$root/shared/src/providers/}")
    seeds=("${seeds[@]/%//fixtures}")
    step "Fuzzing $target for $seconds s"
    # The instrumentation is no stable feature, the toolchain is. No sanitizer: what is read is read by safe code.
    RUSTC_BOOTSTRAP=1 SQLX_OFFLINE=true cargo fuzz run --fuzz-dir . --sanitizer none --target-dir "$root/target/fuzz" \
        "$target" "corpus/$target" "${seeds[@]}" -- \
        -dict="$dictionary.dict" -max_total_time="$seconds" -max_len=65536 -timeout=10 -print_final_stats=1
}
