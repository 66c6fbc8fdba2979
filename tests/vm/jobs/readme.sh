# The README's way onto a board.
cp /host/*.deb /root/
cd /root
play_picture
mosquitto_sub -t '#' -v >/run/messages 2>&1 &
follow readme
check "is enabled" systemctl is-enabled ghostlight
check "publishes" wait_for 180 grep -q '^ghostlight/[^/]*/detections {"schema":"ghostlight.detections/1"' /run/messages
figure published "$(grep -a -m 1 /detections /run/messages | cut -c 1-300)"
figure status "$(systemctl show -p StatusText --value ghostlight)"
