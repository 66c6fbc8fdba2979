# The Debian package, as docs/install.md says, with nothing edited; then upgrade, removal and purge.
cp /host/*.deb /root/
cd /root
inventory >/run/before
play_picture
listen
follow package
figure "installed kB" "$(dpkg-query -W -f '${Installed-Size}' ghostlight)"
check "publishes" wait_for 120 heard
figure published "$(grep -m 1 /detections /run/messages | cut -c 1-300)"
figure status "$(systemctl show -p StatusText --value ghostlight)"
check "completions load" bash -c '. /usr/share/bash-completion/completions/ghostlight; complete -p ghostlight'

before=$(pid)
echo '# mine' >>"$CONFIG"
check "upgrades" env DEBIAN_FRONTEND=noninteractive dpkg -i ghostlight_*.deb
check "keeps the configuration" grep -q '^# mine' "$CONFIG"
check "runs again" wait_for 60 is_active
check "is another process" test "$(pid)" != "$before"

check "is removed" apt-get remove -y ghostlight
check "is stopped" test "$(systemctl is-active ghostlight)" != active
check "still has its configuration" grep -q '^# mine' "$CONFIG"
check "is purged" apt-get purge -y ghostlight
inventory >/run/after
check "leaves nothing" diff /run/before /run/after
figure left "$(diff /run/before /run/after | tr '\n' ' ')"
