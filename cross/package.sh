#!/usr/bin/env bash
# Packs the program for a board or a desktop: a Debian package and a tarball with an installer.
#
#   cross/package.sh [arm64|amd64]…     default arm64; writes target/package/
#
# Needs `cargo install cargo-deb`, python3, dpkg, and one of
#   cargo-zigbuild   with zig: for any glibc, here 2.31 (Raspberry Pi OS 11, JetPack 5); chosen if it is there
#   cross            with its stock image and docker or podman
# Environment:
#   BUILD    zigbuild, cross, or cargo (for this machine's own glibc, or with a cross compiler of your own)
#   STATIC   1: a program without any shared library, for systems with an older or no glibc (not with zigbuild); only
#            the tarball
# The same commit, compiler and tools give the same bytes, wherever the folder lies.
set -euo pipefail
cd "$(dirname "$0")/.."

GLIBC=2.31
OUT=target/package
STATIC=${STATIC:-}
BUILD=${BUILD:-$(command -v cargo-zigbuild >/dev/null && echo zigbuild || echo cross)}
ARCHES=("${@:-arm64}")

SOURCE_DATE_EPOCH=${SOURCE_DATE_EPOCH:-$(git log -1 --format=%ct)}
export SOURCE_DATE_EPOCH TZ=UTC LC_ALL=C.UTF-8
version=$(sed -n 's/^version = "\(.*\)"/\1/p' Cargo.toml | head -n 1)

fail() { echo "package: $1" >&2; exit 1; }

# Paths of this machine stay out of the program. Encoded, since they may have spaces.
flags=("--remap-path-prefix=$PWD=/ghostlight" "--remap-path-prefix=${CARGO_HOME:-$HOME/.cargo}=/cargo")
[ -z "$STATIC" ] || flags+=(-C target-feature=+crt-static)
unset RUSTFLAGS

build() ( # TRIPLE
    IFS=$'\x1f'
    export CARGO_ENCODED_RUSTFLAGS="${flags[*]}"
    case $BUILD in
        zigbuild)
            # It takes the flags apart at spaces.
            [[ $PWD != *[[:space:]]* ]] || fail "a space in this folder's path: move it, or BUILD=cross"
            cargo zigbuild --locked --release --target "$1.$GLIBC"
            ;;
        cross | cargo) $BUILD build --locked --release --target "$1" ;;
        *) fail "BUILD=$BUILD: give zigbuild, cross or cargo" ;;
    esac
)

# The newest version of glibc that PROGRAM asks for.
glibc_of() { readelf -V --wide "$1" | grep -o 'GLIBC_[0-9.]*' | sort -Vu | tail -n 1 | cut -d_ -f2; }

# Man pages, completions, licences: the same for every machine.
manual() { # TRIPLE
    # RUSTC may be a compiler for the board alone.
    env -u RUSTC cargo run --quiet --locked --example manual -- target/manual
    python3 cross/licences.py "$1" >target/manual/third-party.txt
    date=$(date -R -d "@$SOURCE_DATE_EPOCH")
    printf 'ghostlight (%s-1) unstable; urgency=medium\n\n  * What changed: /usr/share/doc/ghostlight/changelog.gz\n\n -- Ghostlight developers <ghostlight@example.org>  %s\n' \
        "$version" "$date" >target/manual/changelog
}

tarball() { # TRIPLE ARCH PROGRAM
    name=ghostlight-$version-$2${STATIC:+-static}
    stage=$OUT/$name
    rm -rf "$stage"
    install -D -m 755 "$3" "$stage/bin/ghostlight"
    mkdir -p "$stage/share/ghostlight/models"
    cp -P models/{coco-*,default,parking-*}.safetensors "$stage/share/ghostlight/models/"
    install -D -m 644 -t "$stage/share/ghostlight/samples" models/samples/*
    install -D -m 644 -t "$stage/share/man/man1" target/manual/man/*
    install -D -m 644 target/manual/ghostlight.bash "$stage/share/bash-completion/completions/ghostlight"
    install -D -m 644 -t "$stage/share/zsh/site-functions" target/manual/_ghostlight
    install -D -m 644 -t "$stage/share/fish/vendor_completions.d" target/manual/ghostlight.fish
    install -D -m 644 -t "$stage/share/doc/ghostlight" README.md CHANGELOG.md LICENSE-* docs/*.md target/manual/third-party.txt
    install -D -m 644 models/README.md "$stage/share/doc/ghostlight/models.md"
    install -D -m 644 -t "$stage/systemd" systemd/ghostlight.toml systemd/*.service
    install -m 755 cross/install.sh "$stage/install.sh"
    tar --sort=name --mtime="@$SOURCE_DATE_EPOCH" --owner=0 --group=0 --numeric-owner --format=gnu \
        -C "$OUT" -c "$name" | gzip -9n >"$OUT/$name.tar.gz"
    rm -rf "$stage"
    echo "$OUT/$name.tar.gz"
}

mkdir -p "$OUT"
for arch in "${ARCHES[@]}"; do
    case $arch in
        arm64) triple=aarch64-unknown-linux-gnu ;;
        amd64) triple=x86_64-unknown-linux-gnu ;;
        *) fail "$arch: give arm64 or amd64" ;;
    esac
    build $triple
    program=target/$triple/release/ghostlight
    manual $triple
    tarball $triple "$arch" "$program"
    [ -z "$STATIC" ] || continue
    needs=$(glibc_of "$program")
    echo "$program asks for glibc $needs"
    [ "$(printf '%s\n' "$needs" $GLIBC | sort -V | tail -n 1)" = $GLIBC ] || [ "$BUILD" = cargo ] ||
        fail "glibc $needs: newer than the $GLIBC that the package promises"
    cargo deb --quiet --no-build --no-strip --locked --target $triple --output "$OUT/"
done
