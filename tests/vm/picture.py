"""picture.py PPM YUYV BMP: a picture in the middle of 640x480 grey, as a camera's raw frame and as a BMP.

The frame is BT.601 with limited range, as cameras have it.
"""
import struct
import sys

WIDTH, HEIGHT = 640, 480


def read_ppm(path):
    data = open(path, "rb").read()
    fields, at = [], 0
    while len(fields) < 4:
        end = at
        while not data[end : end + 1].isspace():
            end += 1
        fields.append(data[at:end])
        at = end + 1
    return int(fields[1]), int(fields[2]), data[at:]


width, height, pixels = read_ppm(sys.argv[1])
rows = [[(114, 114, 114)] * WIDTH for _ in range(HEIGHT)]
left, top = (WIDTH - width) // 2, (HEIGHT - height) // 2
for y in range(height):
    row = pixels[3 * width * y : 3 * width * (y + 1)]
    rows[top + y][left : left + width] = zip(row[0::3], row[1::3], row[2::3])

frame = bytearray()
for row in rows:
    for (r, g, b), (r2, g2, b2) in zip(row[0::2], row[1::2]):
        luma = lambda r, g, b: round(16 + 0.25679 * r + 0.50413 * g + 0.09791 * b)
        r1, g1, b1 = (r + r2) / 2, (g + g2) / 2, (b + b2) / 2
        u = round(128 - 0.14822 * r1 - 0.29099 * g1 + 0.43922 * b1)
        v = round(128 + 0.43922 * r1 - 0.36779 * g1 - 0.07143 * b1)
        frame += bytes((luma(r, g, b), u, luma(r2, g2, b2), v))
open(sys.argv[2], "wb").write(frame)

body = b"".join(bytes(c for r, g, b in row for c in (b, g, r)) for row in reversed(rows))
header = b"BM" + struct.pack("<IHHI", 54 + len(body), 0, 0, 54)
header += struct.pack("<IiiHHIIiiII", 40, WIDTH, HEIGHT, 1, 24, 0, len(body), 2835, 2835, 0, 0)
open(sys.argv[3], "wb").write(header + body)
