// Byte by byte: maximum over a window, enlargement and copy, sums and products by channel.

/// Pictures of `height x width x channels`, the output's; strides in bytes; `size` is a window or a factor.
struct PictureArgs {
    u32 a, b, output, table;
    u32 height, width, channels;
    u32 a_stride, b_stride, out_stride;
    u32 size, aligned;
};

/// Maximum over a `size x size` window; what lies outside the picture does not count.
KERNEL(max_pool, 128, PictureArgs) {
    u32 words = div_up(a.channels, 4), index = blockIdx.x * 128 + threadIdx.x;
    if (index >= a.height * a.width * words) return;
    u32 pixel = index / words, c = index % words * 4;
    int y = (int)(pixel / a.width), x = (int)(pixel % a.width), reach = (int)a.size / 2;
    int top = y < reach ? 0 : y - reach, left = x < reach ? 0 : x - reach;
    int bottom = y + reach < (int)a.height ? y + reach : (int)a.height - 1;
    int right = x + reach < (int)a.width ? x + reach : (int)a.width - 1;
    const u8 *input = at(bases, a.a) + c;
    u32 most = 0;
    for (int sy = top; sy <= bottom; sy++) {
        for (int sx = left; sx <= right; sx++) {
            most = max4(most, load_word(input + ((u32)sy * a.width + (u32)sx) * a.a_stride, a.aligned));
        }
    }
    store_word(at(bases, a.output) + pixel * a.out_stride + c, most, a.channels - c, a.aligned);
}

/// Each pixel becomes a square of `size`; a copy where it is 1. `channels` are bytes.
KERNEL(enlarge, 128, PictureArgs) {
    u32 words = div_up(a.channels, 4), index = blockIdx.x * 128 + threadIdx.x;
    if (index >= a.height * a.width * words) return;
    u32 pixel = index / words, c = index % words * 4;
    u32 from = pixel / a.width / a.size * (a.width / a.size) + pixel % a.width / a.size;
    u32 word = load_word(at(bases, a.a) + from * a.a_stride + c, a.aligned);
    store_word(at(bases, a.output) + pixel * a.out_stride + c, word, a.channels - c, a.aligned);
}

/// `Affine` of elementwise.rs.
DEVICE int affine(int sum) { return clamped(sum >> 14, 0, 255); }

/// Sum of two pictures; `table` has two multipliers, an offset and a gap for each channel.
KERNEL(add, 128, PictureArgs) {
    u32 index = blockIdx.x * 128 + threadIdx.x;
    if (index >= a.height * a.width * a.channels) return;
    u32 pixel = index / a.channels, c = index % a.channels;
    const int *map = at_as<const int>(bases, a.table) + 4 * c;
    int one = at(bases, a.a)[pixel * a.a_stride + c], other = at(bases, a.b)[pixel * a.b_stride + c];
    int sum = wrapping_add(wrapping_add(map[2], wrapping_mul(one, map[0])), wrapping_mul(other, map[1]));
    at(bases, a.output)[pixel * a.out_stride + c] = (u8)affine(sum);
}

/// Channels times their gates; `table` has a multiplier and an offset for each channel.
KERNEL(scale, 128, PictureArgs) {
    u32 index = blockIdx.x * 128 + threadIdx.x;
    if (index >= a.height * a.width * a.channels) return;
    u32 pixel = index / a.channels, c = index % a.channels;
    const int *map = at_as<const int>(bases, a.table) + 2 * c;
    int sum = wrapping_add(map[1], wrapping_mul(at(bases, a.a)[pixel * a.a_stride + c], map[0]));
    at(bases, a.output)[pixel * a.out_stride + c] = (u8)affine(sum);
}
