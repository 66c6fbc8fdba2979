#!/usr/bin/env bash
# Tests the service in a whole machine: Debian with systemd, mosquitto and a virtual camera, emulated.
#
#   tests/vm/run.sh [amd64|arm64] [JOB…]    jobs are the files in tests/vm/jobs, default main
#
# Each job has a machine of its own, which takes half a minute to start. Environment:
#   PROGRAM      the binary to test, default target/release/ghostlight; for arm64 what .ci/aarch64.sh builds
#   PACKAGES     what cross/package.sh made, for the jobs package and tarball; default target/package
#   VM_DIR       where the machine's image is made and kept, default target/vm
#   VM_RECIPE    folder of mkvm.sh, run-vm.sh and install-qemu.sh, default ../shared/vm
#   CPU          what to emulate, default max; arm64: cortex-a76
#   LIMIT        seconds after which no further job begins; the first one always does
# Without the recipe or the tools it says so and ends well.
set -euo pipefail
cd "$(dirname "$0")/../.."

ARCH=amd64
case ${1:-} in amd64 | arm64) ARCH=$1; shift ;; esac
JOBS=("$@")
[ ${#JOBS[@]} -gt 0 ] || JOBS=(main)
VM_DIR=$(realpath -m "${VM_DIR:-target/vm}")
VM_RECIPE=${VM_RECIPE:-../shared/vm}
PACKAGES=${PACKAGES:-target/package}
NATIVE=${NATIVE:-target/release/ghostlight}
LIMIT=${LIMIT:-86400}
case $ARCH in
    amd64) PROGRAM=${PROGRAM:-$NATIVE} QEMU=qemu-system-x86_64 ;;
    arm64) PROGRAM=${PROGRAM:-target-aarch64/aarch64-unknown-linux-gnu/release/ghostlight} QEMU=qemu-system-aarch64 ;;
esac

skip() { echo "machine: not tested: $1"; exit 0; }

[ -d "$VM_RECIPE" ] || skip "no recipe for it ($VM_RECIPE)"
[ -x "$PROGRAM" ] || skip "$PROGRAM is not built"
[ -x "$NATIVE" ] || skip "$NATIVE is not built"
install_tools() {
    [ "$(id -u)" -eq 0 ] || return 0
    command -v $QEMU >/dev/null || "$VM_RECIPE/install-qemu.sh" || true
    missing=()
    command -v mmdebstrap >/dev/null || missing+=(mmdebstrap e2fsprogs)
    command -v djpeg >/dev/null || missing+=(libjpeg-turbo-progs)
    command -v qemu-aarch64-static >/dev/null || missing+=(qemu-user-static)
    # mmdebstrap asks it whether programs of the other kind run here.
    [ $ARCH = amd64 ] || command -v arch-test >/dev/null || missing+=(arch-test)
    [ ${#missing[@]} -eq 0 ] ||
        DEBIAN_FRONTEND=noninteractive apt-get install -y -qq --no-install-recommends "${missing[@]}" || true
}
install_tools >/dev/null 2>&1
for tool in $QEMU qemu-img djpeg python3; do command -v $tool >/dev/null || skip "no $tool"; done

# What the jobs use besides what the recipe puts in.
export EXTRA=openssl
image=$VM_DIR/$ARCH
if [ "$(cat "$image/extra" 2>/dev/null)" != "$EXTRA" ]; then
    command -v mmdebstrap >/dev/null || skip "no mmdebstrap"
    echo "making the machine's image ($ARCH)"
    mkdir -p "$image"
    # An emulated board is slow, and slower beside other work.
    JOB_LIMIT=${JOB_LIMIT:-1800} "$VM_RECIPE/mkvm.sh" "$ARCH" "$image" >"$VM_DIR/make-$ARCH.txt" 2>&1 ||
        { tail -n 20 "$VM_DIR/make-$ARCH.txt"; skip "its image cannot be made"; }
    echo "$EXTRA" >"$image/extra"
fi

share=$(mktemp -d "$VM_DIR/share.XXXXXX")
trap 'rm -rf "$share"' EXIT
# A unit with a user of its own reads it.
chmod 755 "$share"
mkdir "$share/out"
cp "$PROGRAM" "$share/ghostlight"
cp tests/vm/lib.sh tests/vm/near.sh systemd/*.service "$share/"
cp models/parking-yolov8n-dynamicconv.safetensors "$share/default.safetensors"
# What cross/package.sh made, and the lines of the documentation that a job follows.
cp "$PACKAGES"/ghostlight_*_"$ARCH".deb "$PACKAGES"/ghostlight-*-"$ARCH".tar.gz "$share/" 2>/dev/null || true
mkdir "$share/docs"
for job in tests/vm/jobs/*.sh; do
    awk -v mark="<!-- run in $job -->" '
        $0 == mark { marked = 1; next }
        /^```/ { inside = marked && !inside; if (!inside) marked = 0; next }
        inside' README.md docs/*.md | sed "s/arm64/$ARCH/g; s/  *#.*//" >"$share/docs/$(basename "$job" .sh)"
done
djpeg -pnm models/samples/parking-sunny.jpg >"$share/f.ppm"
python3 tests/vm/picture.py "$share/f.ppm" "$share/f.yuyv" "$share/f.bmp"
"$NATIVE" detect --imgsz 320 --model models/parking-yolov8n-dynamicconv.safetensors --format jsonl "$share/f.bmp" >"$share/wanted.jsonl"

# try JOB: in a machine of its own; whether it passes.
try() {
    printf '. /host/lib.sh\n. /host/job-itself.sh\njournalctl -u ghostlight -o short-monotonic --no-pager >/host/out/journal\n[ ! -e /run/failed ]\n' >"$share/job.sh"
    cp "tests/vm/jobs/$1.sh" "$share/job-itself.sh"
    rm -f "$share/out/journal"
    echo "== $1 ($ARCH as ${CPU:-the default})"
    "$VM_RECIPE/run-vm.sh" "$ARCH" "$image" "$share" >/dev/null 2>&1 || true
    mkdir -p "$VM_DIR/logs"
    cp "$share/out/log" "$VM_DIR/logs/$1-$ARCH.txt" 2>/dev/null || true
    cp "$share/out/journal" "$VM_DIR/logs/$1-$ARCH.journal.txt" 2>/dev/null || true
    grep -a '^\(ok\|FAILED\|figure\|#\) ' "$share/out/log" || true
    [ "$(cat "$share/out/rc" 2>/dev/null)" = 0 ]
}

failed=()
begun=
for job in "${JOBS[@]}"; do
    [ -f "tests/vm/jobs/$job.sh" ] || { echo "no job $job; there are: $(cd tests/vm/jobs && echo *.sh)"; exit 64; }
    case $job in
        package | readme) ls "$share"/*.deb >/dev/null 2>&1 || { echo "$job: not tested: no package for $ARCH in $PACKAGES"; continue; } ;;
        tarball) ls "$share"/*.tar.gz >/dev/null 2>&1 || { echo "$job: not tested: no tarball for $ARCH in $PACKAGES"; continue; } ;;
    esac
    [ -z "$begun" ] || [ "$SECONDS" -lt "$LIMIT" ] || { echo "$job: not tested: $LIMIT s are over"; continue; }
    begun=1
    # Jobs wait for things to happen, and a busy host may stall their machine: a fault shows twice.
    try "$job" || { echo "$job: failed, once more"; try "$job"; } || failed+=("$job")
done
if [ ${#failed[@]} -gt 0 ]; then
    echo "failed: ${failed[*]} (logs in $VM_DIR/logs)"
    exit 1
fi
echo "machine: all passed"
