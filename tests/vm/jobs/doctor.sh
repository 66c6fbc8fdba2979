# The first run: doctor names each step, and each step is what it says.
install -m 755 /host/ghostlight /usr/bin/
install -D -m 644 /host/default.safetensors /usr/share/ghostlight/models/default.safetensors
play_picture
sleep 2

doctor() { ghostlight doctor "$@" >/run/doctor; }
# says LINE: whether one of doctor's begins so.
says() { grep -q "^$1" /run/doctor; }
# next_is COMMAND
next_is() { [ "$(sed -n '$s/^next     \(.*\)  # .*/\1/p' /run/doctor)" = "$1" ]; }
report() { sed 's/^/#       /' /run/doctor | cut -c 1-200; }

moment "nothing is set up"
doctor
report
check "sees the camera" says 'ok       camera: /dev/video0 '
check "takes a picture" says 'ok       source: /dev/video0 .*; a picture of '
check "misses a configuration" says 'warning  configuration: none'
check "misses a unit" says 'warning  service: no unit'
check "init is next" next_is 'ghostlight init'

moment "a configuration"
ghostlight init >/run/init
sed 's/^/#       /' /run/init
check "init names the camera" grep -q '^camera   /dev/video0$' /run/init
check "init finds the broker" grep -q '^broker   localhost:1883$' /run/init
check "run takes it" ghostlight run --check
check "init keeps it" sh -c 'ghostlight init; [ $? = 74 ]'
# Emulated machines are slow.
sed -i 's/^#imgsz = .*/imgsz = 320/' "$CONFIG"
doctor
check "the configuration is sound" says "ok       configuration: $CONFIG is sound"
check "the broker lets us in" says 'ok       broker: mqtt://localhost:1883 lets us in'
check "run is next" next_is 'ghostlight run'

moment "a service"
install -m 644 /host/ghostlight.service /etc/systemd/system/
systemctl daemon-reload
doctor
check "the unit does not run" says 'warning  service: /etc/systemd/system/ghostlight.service is installed, not enabled and inactive'
check "to start it is next" next_is 'systemctl enable --now ghostlight'
systemctl enable --now ghostlight
check "it starts" is_active
DEVICE=$(sed -n 's/^device = "\(.*\)"/\1/p' "$CONFIG" | head -n 1)
available() { [ "$(retained "ghostlight/$DEVICE/availability")" = online ]; }
check "it is online" wait_for 60 available
first=$(pid)
mosquitto_sub -t "ghostlight/$DEVICE/availability" -R >/run/availability &
doctor
report
check "its camera is not taken from it" says 'ok       source: /dev/video0: ghostlight (process [0-9]*) gets its pictures now'
check "it is well" says 'ok       service: .* is enabled and active'
check "its journal is next" next_is 'journalctl -fu ghostlight'
check "it goes on" is_process "$first"
check "its broker heard nothing of it" test ! -s /run/availability

moment "faults"
doctor --config /host/absent.toml
check "a configuration that is not there" says 'warning  configuration: /host/absent.toml.* no such file'
setpriv --reuid nobody --clear-groups ghostlight doctor >/run/doctor
check "the camera is not for everybody" says 'warning  source: /dev/video0: permission denied; add this user to the group'
check "the group is next" next_is 'sudo usermod -aG video "$USER"'
systemctl stop ghostlight mosquitto
doctor
check "the broker is away" says 'warning  broker: mqtt://localhost:1883: nobody listens there'
check "then doctor is next" next_is 'ghostlight doctor'
v4l2-ctl -d /dev/video0 --stream-mmap >/dev/null 2>&1 &
taken=$!
sleep 2
doctor
check "the camera is taken" says "warning  source: /dev/video0: v4l2-ctl (process $taken) uses it; end that one"
kill $taken
sleep 1
v4l2-ctl -d /dev/video0 --set-ctrl percentage_of_dropped_buffers=100
doctor
report
check "the camera is silent" says 'warning  source: /dev/video0: no picture for [0-9]* s; check '
