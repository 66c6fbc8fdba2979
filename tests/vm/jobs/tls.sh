# TLS as docs/mqtt.md makes it: a certificate that is not trusted, then one that is, then a client's own.
install_service
play_picture
mkdir -p /etc/mosquitto/certs
cd /etc/mosquitto/certs
curve="-newkey ec -pkeyopt ec_paramgen_curve:prime256v1 -nodes"
for name in ca other; do
    openssl req -x509 $curve -days 3650 -subj /CN=home -keyout $name.key -out $name.pem 2>/dev/null
done
sign() { # NAME EXTENSION
    openssl req -x509 $curve -days 825 -CA ca.pem -CAkey ca.key -subj "/CN=$1" -addext "$2" \
        -addext "basicConstraints=critical,CA:FALSE" -keyout "$1.key" -out "$1.pem" 2>/dev/null
}
sign broker subjectAltName=IP:127.0.0.1
sign yard extendedKeyUsage=clientAuth
chmod 644 ./*.key
tls() { # LINE...: the broker's listener
    printf '%s\n' 'listener 8883 127.0.0.1' 'certfile /etc/mosquitto/certs/broker.pem' \
        'keyfile /etc/mosquitto/certs/broker.key' "$@" >/etc/mosquitto/conf.d/tls.conf
    systemctl restart mosquitto
}
subscribe() { mosquitto_sub -h 127.0.0.1 -p 8883 --cafile ca.pem --cert yard.pem --key yard.key "$@"; }
online() { [ "$(subscribe -t ghostlight/yard/availability -C 1 -W 5)" = online ]; }
tls 'allow_anonymous true'

moment "a certificate that is not trusted"
sed -i '/^\[mqtt\]/a port = 8883\ntls = true\nca = "/etc/mosquitto/certs/other.pem"' "$CONFIG"
check "starts" systemctl start ghostlight
first=$(pid)
check "tells that it does not trust it" wait_for 60 tells 'TLS: .*certificate'
check "writes lines" wait_for 60 test -s "$LINES"
goes_on "pictures go on" 2

moment "trusted"
sed -i 's|certs/other.pem|certs/ca.pem|' "$CONFIG"
systemctl reload ghostlight
check "is online" wait_for 90 online
check "same process" is_process "$first"

moment "the broker wants a client's certificate"
tls 'cafile /etc/mosquitto/certs/ca.pem' 'require_certificate true' 'allow_anonymous true'
check "tells that it is refused" wait_for 90 tells 'mqtts://127.0.0.1:8883: '
sed -i '/^\[mqtt\]/a client_cert = "/etc/mosquitto/certs/yard.pem"\nclient_key = "/etc/mosquitto/certs/yard.key"' "$CONFIG"
systemctl reload ghostlight
check "is online again" wait_for 90 online
check "same process" is_process "$first"
goes_on "pictures go on" 2
