#!/bin/sh
# Installs Ghostlight from this folder, or removes it. Run it again to upgrade: your configuration stays.
#
#   sudo ./install.sh              to /usr/local; enables and starts nothing
#   sudo ./install.sh --uninstall  removes all but the configuration and what the service kept
#   sudo ./install.sh --purge      removes those too
#
# PREFIX (default /usr/local) is where to, DESTDIR a folder in place of the root.
set -eu
cd "$(dirname "$0")"

PREFIX=${PREFIX:-/usr/local}
DESTDIR=${DESTDIR:-}
UNITS=/etc/systemd/system
CONFIG=/etc/ghostlight

fail() { echo "install: $1" >&2; exit "${2:-1}"; }

manage() { # tells systemd, where it runs and this is its own root
    if [ -z "$DESTDIR" ] && [ -d /run/systemd/system ]; then systemctl "$@"; fi
}

# Each file that is installed, by its path under the prefix.
files() { find bin share ! -type d | sort; }

install_all() {
    # A program that does not start here is for another machine: better to say so before anything is changed.
    [ -n "$DESTDIR" ] || bin/ghostlight --version >/dev/null || fail "this is for another machine: $(uname -m) was not expected"
    files | while read -r file; do
        # Beside it, then renamed: a running program is not written over.
        mkdir -p "$(dirname "$DESTDIR$PREFIX/$file")"
        cp -P "$file" "$DESTDIR$PREFIX/$file.new"
        mv -f "$DESTDIR$PREFIX/$file.new" "$DESTDIR$PREFIX/$file"
    done
    mkdir -p "$DESTDIR$UNITS" "$DESTDIR$CONFIG"
    for unit in systemd/*.service; do
        sed "s|/usr/bin/ghostlight|$PREFIX/bin/ghostlight|" "$unit" >"$DESTDIR$UNITS/${unit#systemd/}"
        chmod 644 "$DESTDIR$UNITS/${unit#systemd/}"
    done
    [ -e "$DESTDIR$CONFIG/ghostlight.toml" ] ||
        install -m 644 systemd/ghostlight.toml "$DESTDIR$CONFIG/ghostlight.toml"
    manage daemon-reload
    manage try-restart ghostlight.service
    cat <<END
Ghostlight is installed.
  Try it:        ghostlight detect $PREFIX/share/ghostlight/samples
  Look around:   ghostlight doctor
  Set it up:     $CONFIG/ghostlight.toml
  Start it:      sudo systemctl enable --now ghostlight
END
}

uninstall() {
    manage disable --now ghostlight.service 2>/dev/null || true
    files | while read -r file; do rm -f "$DESTDIR$PREFIX/$file"; done
    for unit in systemd/*.service; do rm -f "$DESTDIR$UNITS/${unit#systemd/}"; done
    for folder in ghostlight/models ghostlight/samples ghostlight doc/ghostlight; do
        rmdir "$DESTDIR$PREFIX/share/$folder" 2>/dev/null || true
    done
    manage daemon-reload
    echo "Ghostlight is removed; $CONFIG and /var/lib/ghostlight stay (--purge removes them)"
}

purge() {
    uninstall >/dev/null
    rm -f "$DESTDIR$CONFIG/ghostlight.toml"
    rmdir "$DESTDIR$CONFIG" 2>/dev/null || true
    rm -rf "$DESTDIR/var/lib/ghostlight" "$DESTDIR/var/lib/private/ghostlight"
    echo "Ghostlight is removed, with its configuration and state"
}

[ $# -le 1 ] || fail "one flag at most: --uninstall or --purge" 64
[ -n "$DESTDIR" ] || [ "$(id -u)" -eq 0 ] || [ "${1:-}" = --help ] || fail "needs root: sudo $0 $*" 77
case ${1:-} in
    '') install_all ;;
    --uninstall) uninstall ;;
    --purge) purge ;;
    --help) sed -n '2,/^set/s/^# \{0,1\}//p' "$0" ;;
    *) fail "$1: give --uninstall, --purge or nothing" 64 ;;
esac
