# The tarball, as docs/install.md says, then its installer again, removal and purge.
cp /host/*.tar.gz /root/
cd /root
inventory >/run/before
follow tarball
check "is removed" sh -c '! command -v ghostlight'
check "keeps its configuration" test -s "$CONFIG"

folder=$(echo /root/ghostlight-*/)
echo '# mine' >>"$CONFIG"
check "installs again" "$folder/install.sh"
check "keeps what was edited" grep -q '^# mine' "$CONFIG"
check "finds its own model" sh -c 'cd / && ghostlight detect --format jsonl /usr/local/share/ghostlight/samples | grep -q "\"class\":\"person\""'
play_picture
listen
check "starts" systemctl enable --now ghostlight
check "publishes" wait_for 120 heard
check "upgrades while it runs" "$folder/install.sh"
check "runs again" wait_for 60 is_active
check "refuses a wrong flag" sh -c "$folder/install.sh --remove; [ \$? = 64 ]"
check "is purged" "$folder/install.sh" --purge
check "is stopped" test "$(systemctl is-active ghostlight)" != active
rm -rf "$folder"
inventory >/run/after
check "leaves nothing" diff /run/before /run/after
figure left "$(diff /run/before /run/after | tr '\n' ' ')"
