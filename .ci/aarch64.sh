#!/usr/bin/env bash
# Builds for aarch64 on Debian 12 (x86-64) and runs the tests on emulated CPUs, one for each kernel.
#
#   .ci/aarch64.sh [TEST…]     the library's tests, and integration tests TEST… (names of files in tests/)
#
# As root it installs the Debian packages that are missing. Environment:
#   CPUS         CPU:KERNEL pairs for the tests, default: see below; a run fails if KERNEL is not the one
#                chosen there. The program itself runs on a cortex-a53 too, which has the cortex-a72's kernel
#   TARGET_DIR   build folder, default target-aarch64 (apart, since the compiler differs)
#   SAMPLES      pictures for the smoke test, default models/samples
set -euo pipefail
cd "$(dirname "$0")/.."

CPUS=${CPUS:-cortex-a72:neon cortex-a76:neon-dotprod max:neon-i8mm}
TARGET_DIR=${TARGET_DIR:-target-aarch64}
SAMPLES=${SAMPLES:-models/samples}
MODEL=models/parking-yolov8n-dynamicconv.safetensors
TRIPLE=aarch64-unknown-linux-gnu
LOGS=$TARGET_DIR/logs
# Seconds; the tests of one CPU take about 150 on two cores.
TEST_LIMIT=1200

say() { printf '%s\n' "$*"; }

# --- tools -------------------------------------------------------------------------------------------
missing=()
command -v aarch64-linux-gnu-gcc >/dev/null || missing+=(gcc-aarch64-linux-gnu)
[ -d /usr/aarch64-linux-gnu/include ] || missing+=(libc6-dev-arm64-cross)
command -v qemu-aarch64-static >/dev/null || missing+=(qemu-user-static)
[ -d /usr/lib/rustlib/$TRIPLE ] || missing+=(rustc-web libstd-rust-web-dev:arm64)
command -v cargo >/dev/null || missing+=(cargo-web)
if [ ${#missing[@]} -gt 0 ]; then
    say "installing ${missing[*]}"
    dpkg --add-architecture arm64
    apt-get update -qq
    DEBIAN_FRONTEND=noninteractive apt-get install -y -qq --no-install-recommends "${missing[@]}" >/dev/null
fi

# Debian's compiler has the aarch64 standard library; static programs need no aarch64 libc to run.
export RUSTC=/usr/bin/rustc
export CARGO_TARGET_AARCH64_UNKNOWN_LINUX_GNU_LINKER=aarch64-linux-gnu-gcc
export CARGO_TARGET_AARCH64_UNKNOWN_LINUX_GNU_RUSTFLAGS='-C target-feature=+crt-static'
unset RUSTC_WRAPPER RUSTFLAGS
# The tests and the program share the dependencies, so these are built once: without LTO, and unwinding. The
# crate itself is built for the tests with every check on.
build=(--locked --target $TRIPLE --target-dir "$TARGET_DIR" --release
    --config 'profile.release.lto=false' --config 'profile.release.panic="unwind"')
tests=("${build[@]}" --config 'profile.release.package.ghostlight.debug-assertions=true'
    --config 'profile.release.package.ghostlight.overflow-checks=true'
    --config 'profile.release.package.ghostlight.opt-level=2')
mkdir -p "$LOGS"

# --- tests -------------------------------------------------------------------------------------------
which=(--lib)
for test in "$@"; do which+=(--test "$test"); done
say "building the tests with $("$RUSTC" --version)"
cargo test "${tests[@]}" "${which[@]}" --no-run

# Modules whose tests start programs. They run alone: a fork of the emulator may inherit a lock that another of
# its threads holds, and then the child hangs before it becomes the program.
mapfile -t forking < <(grep -rl 'Command::new' src | sed 's,^src/,,; s,\(_tests\)\?\.rs$,::,; s,/,::,g' | sort -u)

# limited ARGUMENT…: cargo test; the output names what has not ended within the limit.
limited() {
    timeout "$TEST_LIMIT" cargo test "${tests[@]}" "$@" && return
    [ $? -ne 124 ] || say "no end within $TEST_LIMIT s"
    return 1
}

# run_tests CPU KERNEL: the library's and the integration tests.
run_tests() {
    export CARGO_TARGET_AARCH64_UNKNOWN_LINUX_GNU_RUNNER="qemu-aarch64-static -cpu $1"
    export GHOSTLIGHT_EXPECT_KERNEL=$2
    local status=0
    limited "${which[@]}" --no-fail-fast -- --show-output "${forking[@]/#/--skip=}" || status=1
    limited --lib -- --test-threads 1 "${forking[@]}" || status=1
    return $status
}

failed=()
summary=()
for pair in $CPUS; do
    cpu=${pair%%:*} kernel=${pair#*:}
    log=$LOGS/test-$cpu.txt
    say "testing as $cpu, expecting $kernel"
    status=ok
    run_tests "$cpu" "$kernel" >"$log" 2>&1 || status=FAILED
    # The test that looks at GHOSTLIGHT_EXPECT_KERNEL must have run, and not been renamed away.
    grep -q '^test .*expected_kernel_ran \.\.\. ok' "$log" || status=FAILED
    ran=$(sed -n 's/^.*kernels tested: //p' "$log" | head -n 1)
    passed=$(awk '/^test result:/ { n += $4 } END { print n + 0 }' "$log")
    summary+=("$(printf '%-12s %-7s %4s tests, kernels: %s' "$cpu" "$status" "$passed" "${ran:-none}")")
    if [ $status != ok ]; then
        failed+=("tests as $cpu ($log)")
        tail -n 40 "$log"
    fi
done
unset CARGO_TARGET_AARCH64_UNKNOWN_LINUX_GNU_RUNNER GHOSTLIGHT_EXPECT_KERNEL

# --- the program -------------------------------------------------------------------------------------
if [ -f $MODEL ] && [ -e "$SAMPLES" ]; then
    say "building the program"
    # Beside a bench it has the dev-dependencies' features, and so the dependencies that the tests were built with.
    cargo build "${build[@]}" --bin ghostlight --bench kernels
    program=$TARGET_DIR/$TRIPLE/release/ghostlight
    first=
    for pair in cortex-a53:neon $CPUS; do
        cpu=${pair%%:*} kernel=${pair#*:}
        out=$LOGS/detect-$cpu.jsonl
        status=ok
        qemu-aarch64-static -cpu "$cpu" "$program" detect --model $MODEL --kernel "$kernel" --format jsonl \
            "$SAMPLES" >"$out" 2>"$LOGS/detect-$cpu.err" || status=FAILED
        grep -q '"detections":\[{' "$out" || status=FAILED
        # The same detections on every CPU, bit for bit; only times differ.
        sed -E 's/"(captured_at|published_at)":"[^"]*",?//g; s/"timing_ms":\{[^}]*\},?//g' "$out" >"$out.same"
        first=${first:-$out.same}
        cmp -s "$first" "$out.same" || status=FAILED
        lines=$(wc -l <"$out")
        summary+=("$(printf '%-12s %-7s %4s pictures detected with %s' "$cpu" "$status" "$lines" "$kernel")")
        if [ $status != ok ]; then
            failed+=("detect as $cpu ($out)")
            tail -n 20 "$LOGS/detect-$cpu.err"
        fi
    done
else
    summary+=("no $MODEL: the program was not tried")
fi

# --- summary -----------------------------------------------------------------------------------------
say
for line in "${summary[@]}"; do say "$line"; done
if [ ${#failed[@]} -gt 0 ]; then
    say "failed: ${failed[*]}"
    exit 1
fi
say "aarch64: all passed"
