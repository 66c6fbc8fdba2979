# The lines of the documentation that need a camera, a broker or the service, as their reader would type them.
install_service
play_picture
cd /root
printf '[source]\ndevice = "/dev/video0"\n' >ghostlight.toml
echo '127.0.0.1 broker broker.lan' >>/etc/hosts
# What a running device would have left at the broker.
mosquitto_pub -t ghostlight/yard/state -r -m '{}'
mosquitto_pub -t ghostlight/yard/event/person/snapshot -r -m jpeg
check "starts" systemctl start ghostlight
goes_on "writes lines" 1
check "stops" systemctl stop ghostlight
# From now on to standard output, where who types sees them.
sed -i '/^path = .*lines.jsonl/d' "$CONFIG"
follow docs
check "has the snapshot" grep -q jpeg person.jpg
