"""An RTSP server with a password that shows a picture ten times a second as H.264: a camera for tests/rtsp.sh.

    python3 tests/rtsp.py PORT PICTURE.jpg

Debian: python3-gi gir1.2-gst-rtsp-server-1.0 gstreamer1.0-plugins-{base,good,bad}
"""

import sys

import gi

gi.require_version("Gst", "1.0")
gi.require_version("GstRtspServer", "1.0")
from gi.repository import GLib, Gst, GstRtspServer  # noqa: E402

USER, PASSWORD = "cam", "s:e@cret"


def main():
    port, picture = sys.argv[1:]
    Gst.init(None)
    token = GstRtspServer.RTSPToken()
    token.set_string("media.factory.role", "viewer")
    auth = GstRtspServer.RTSPAuth()
    auth.add_basic(GstRtspServer.RTSPAuth.make_basic(USER, PASSWORD), token)
    permissions = GstRtspServer.RTSPPermissions()
    permissions.add_permission_for_role("viewer", "media.factory.access", True)
    permissions.add_permission_for_role("viewer", "media.factory.construct", True)

    factory = GstRtspServer.RTSPMediaFactory()
    factory.set_permissions(permissions)
    factory.set_shared(True)
    factory.set_launch(
        f"( multifilesrc location={picture} loop=true caps=image/jpeg,framerate=10/1 ! jpegdec ! videoconvert"
        " ! openh264enc ! h264parse ! rtph264pay name=pay0 pt=96 config-interval=1 )"
    )
    server = GstRtspServer.RTSPServer()
    server.set_address("127.0.0.1")
    server.set_service(port)
    server.set_auth(auth)
    server.get_mount_points().add_factory("/live", factory)
    if not server.attach(None):
        sys.exit(f"port {port} is taken")
    GLib.MainLoop().run()


main()
