// Dense convolution as an implicit matrix product, and depthwise convolution.
//
// Rows are output pixels, columns output channels; a step is four input channels of one tap, one 32-bit word of a
// pixel and of a weight. Weights lie as the model file has them: [c_out / 16][tap][depth / 4][16][4].
// A block of 128 threads computes PIXELS x CHANNELS sums in rounds of 8 steps. Shared memory holds two rounds: the
// next is fetched to registers while this one is multiplied, by dot products (sm_61). tensor.cu has tensor cores.

/// What a convolution reads and writes, and where; views' strides are in bytes.
struct Geometry {
    u32 input, output, residual;
    u32 in_height, in_width, in_stride;
    u32 out_width, pixels, out_stride, residual_stride;
    u32 kernel, stride, dilation, pad_top, pad_left;
    u32 channels;
};

/// A convolution; `depth` is in words.
struct ConvArgs : Geometry {
    u32 weights, pad_row, sums, constants;
    u32 depth;
    u32 act, shift, poly01, poly23, poly45;
    u32 flags;
};

enum { FLOAT_OUTPUT = 1, HAS_RESIDUAL = 2, INPUT_ALIGNED = 4, OUTPUT_ALIGNED = 8, RESIDUAL_ALIGNED = 16 };
enum { CONV_THREADS = 128, STEPS = 8 };

DEVICE Act act_of(const ConvArgs &a) {
    Act act = {a.act, a.shift, a.poly01, a.poly23, a.poly45};
    return act;
}

/// Where a thread is among the steps: tap and word of the tap.
struct Cursor {
    int ky, kx, word;

    DEVICE_METHOD void skip(int count, int kernel, int depth) {
        word += count;
        while (word >= depth) {
            word -= depth;
            if (++kx == kernel) {
                kx = 0;
                ky++;
            }
        }
    }
};

/// Four channels from `c` on.
DEVICE void load_channels(const Bases &bases, const ConvArgs &a, u32 c, Channel *channels) {
    const u32 *sums = at_as<const u32>(bases, a.sums), *constants = at_as<const u32>(bases, a.constants);
    u32 padded = div_up(a.channels, 16) * 16;
#pragma unroll
    for (int i = 0; i < 4; i++) channels[i] = channel_of(sums, constants, padded, c + i, a.flags & HAS_RESIDUAL);
}

/// Stores four channels of one pixel, if it is one; `sums` are without their start values.
DEVICE void emit(const Bases &bases, const ConvArgs &a, const Channel *channels, u32 pixel, u32 c, const int *sums) {
    if (pixel >= a.pixels) return;
    u32 count = a.channels - c < 4 ? a.channels - c : 4;
    if (a.flags & FLOAT_OUTPUT) {
        float *out = (float *)(at(bases, a.output) + pixel * a.out_stride) + c;
        for (u32 i = 0; i < 4; i++) {
            if (i < count) out[i] = (float)wrapping_add(sums[i], channels[i].bias) * channels[i].scale;
        }
        return;
    }
    bool residual = a.flags & HAS_RESIDUAL;
    u32 added = 0, word = 0;
    if (residual) {
        const u8 *from = at(bases, a.residual) + pixel * a.residual_stride + c;
        added = load_word(from, a.flags & RESIDUAL_ALIGNED);
    }
    Act act = act_of(a);
    for (int i = 0; i < 4; i++) {
        int sum = wrapping_add(sums[i], channels[i].bias);
        word |= (u32)requantise(act, channels[i], sum, residual, byte_of(added, i)) << (8 * i);
    }
    store_word(at(bases, a.output) + pixel * a.out_stride + c, word, count, a.flags & OUTPUT_ALIGNED);
}

/// Sums of one thread, and one round's products: with dot products of four bytes. A thread has 8 pixels x 4 channels.
template <int PIXELS, int CHANNELS> struct Dots {
    enum { ROWS = 8, COLUMNS = 4 };
    // Eight words more than a row has, so that what a warp stores or loads falls into 32 banks.
    typedef u32 Pixels[STEPS][PIXELS + 8];
    typedef u32 Cells[STEPS][CHANNELS + 8];
    int sums[ROWS][COLUMNS];
    int row, column;

    DEVICE_METHOD Dots(int thread) : sums() {
        column = thread % (CHANNELS / COLUMNS) * COLUMNS;
        row = thread / (CHANNELS / COLUMNS) * ROWS;
    }

    DEVICE_METHOD void put_pixel(Pixels &pixels, int step, int pixel, u32 word) { pixels[step][pixel] = word; }

    DEVICE_METHOD void put_cell(Cells &cells, int step, int channel, const uint4 &cell) {
        *(uint4 *)&cells[step][channel] = cell;
    }

    DEVICE_METHOD void add(const Pixels &pixels, const Cells &cells) {
#pragma unroll
        for (int step = 0; step < STEPS; step++) {
            uint4 low = *(const uint4 *)&pixels[step][row], high = *(const uint4 *)&pixels[step][row + 4];
            uint4 cell = *(const uint4 *)&cells[step][column];
            u32 from[ROWS] = {low.x, low.y, low.z, low.w, high.x, high.y, high.z, high.w};
            u32 by[COLUMNS] = {cell.x, cell.y, cell.z, cell.w};
#pragma unroll
            for (int i = 0; i < ROWS; i++) {
#pragma unroll
                for (int j = 0; j < COLUMNS; j++) sums[i][j] = dot4(from[i], by[j], sums[i][j]);
            }
        }
    }

    DEVICE_METHOD void store(const Bases &bases, const ConvArgs &a, u32 first_pixel, u32 first_channel) {
        u32 c = first_channel + column;
        if (c >= a.channels) return;
        Channel channels[4];
        load_channels(bases, a, c, channels);
#pragma unroll
        for (int i = 0; i < ROWS; i++) emit(bases, a, channels, first_pixel + row + i, c, sums[i]);
    }
};

/// The quarter of a cell that a thread fetches in each round: four channels at one step.
struct Quarter {
    int step, channel, thread;

    DEVICE_METHOD Quarter(int thread)
        : step(thread / 4 % STEPS), channel(thread / 32 * 16 + thread % 4 * 4), thread(thread) {}

    /// Whether a tile so wide has one for this thread.
    DEVICE_METHOD bool within(int channels) const { return thread < channels / 4 * STEPS; }

    /// Where it lies for a round of a tile; null past the last step or channel.
    DEVICE_METHOD const uint4 *of(const ConvArgs &a, const uint4 *weights, u32 first_channel, int round, int steps) const {
        int block = (int)first_channel / 16 + thread / 32, at = round * STEPS + step;
        bool real = block < (int)div_up(a.channels, 16) && at < steps;
        return real ? weights + (block * steps + at) * 4 + thread % 4 : nullptr;
    }
};

/// Where the taps of a tile's pixels begin in the input.
template <int PIXELS> struct Corners {
    int y[PIXELS], x[PIXELS];

    DEVICE_METHOD void set(const ConvArgs &a, u32 first_pixel, int thread) {
        for (int m = thread; m < PIXELS; m += CONV_THREADS) {
            u32 pixel = first_pixel + m;
            // A pixel that is none lies outside the picture with all its taps.
            bool real = pixel < a.pixels;
            y[m] = real ? (int)(pixel / a.out_width * a.stride) - (int)a.pad_top : -(1 << 28);
            x[m] = real ? (int)(pixel % a.out_width * a.stride) - (int)a.pad_left : 0;
        }
    }

    /// What the cursor's tap reads of a pixel: of the input, or of what pads it.
    DEVICE_METHOD const u8 *tap(const ConvArgs &a, int m, const Cursor &cursor, const u8 *input, const u8 *pad_row) const {
        u32 row = (u32)(y[m] + cursor.ky * (int)a.dilation), column = (u32)(x[m] + cursor.kx * (int)a.dilation);
        bool inside = row < a.in_height && column < a.in_width;
        return (inside ? input + (row * a.in_width + column) * a.in_stride : pad_row) + cursor.word * 4;
    }
};

/// A tile, its input fetched word by word through registers: for any input.
template <int PIXELS, int CHANNELS, class Sums> DEVICE void conv_tile(const Bases &bases, const ConvArgs &a) {
    SHARED ALIGNED(32) typename Sums::Pixels pixels[2];
    SHARED ALIGNED(32) typename Sums::Cells cells[2];
    SHARED Corners<PIXELS> corners;
    const int FETCHED = PIXELS * STEPS / CONV_THREADS;

    int thread = threadIdx.x;
    u32 first_pixel = blockIdx.x * PIXELS, first_channel = blockIdx.y * CHANNELS;
    corners.set(a, first_pixel, thread);
    __syncthreads();

    const u8 *input = at(bases, a.input), *pad_row = at(bases, a.pad_row);
    const uint4 *weights = at_as<const uint4>(bases, a.weights);
    bool aligned = a.flags & INPUT_ALIGNED;
    int depth = (int)a.depth, kernel = (int)a.kernel;
    int steps = kernel * kernel * depth;

    // This thread fetches step `own` of each round, for every 16th pixel, and one quarter of a cell.
    int own = thread % STEPS, own_pixel = thread / STEPS;
    Quarter quarter(thread);
    Cursor cursor = {0, 0, 0};
    cursor.skip(own, kernel, depth);

    u32 fetched[FETCHED];
    uint4 fetched_cell = {0, 0, 0, 0};
    Sums sums(thread);
    int rounds = (int)div_up(steps, STEPS);
    for (int round = 0; round <= rounds; round++) {
        if (round < rounds) {
            bool real = round * STEPS + own < steps;
#pragma unroll
            for (int i = 0; i < FETCHED; i++) {
                const u8 *from = corners.tap(a, own_pixel + i * (CONV_THREADS / STEPS), cursor, input, pad_row);
                fetched[i] = real ? load_word(from, aligned) : 0;
            }
            cursor.skip(STEPS, kernel, depth);
            if (quarter.within(CHANNELS)) {
                const uint4 *from = quarter.of(a, weights, first_channel, round, steps);
                fetched_cell = from ? constant(from) : uint4{0, 0, 0, 0};
            }
        }
        if (round > 0) sums.add(pixels[(round - 1) % 2], cells[(round - 1) % 2]);
        if (round < rounds) {
            int half = round % 2;
#pragma unroll
            for (int i = 0; i < FETCHED; i++) {
                sums.put_pixel(pixels[half], own, own_pixel + i * (CONV_THREADS / STEPS), fetched[i]);
            }
            if (quarter.within(CHANNELS)) sums.put_cell(cells[half], quarter.step, quarter.channel, fetched_cell);
        }
        __syncthreads();
    }
    sums.store(bases, a, first_pixel, first_channel);
}

KERNEL(conv_64x64, CONV_THREADS, ConvArgs) { conv_tile<64, 64, Dots<64, 64>>(bases, a); }
KERNEL(conv_128x32, CONV_THREADS, ConvArgs) { conv_tile<128, 32, Dots<128, 32>>(bases, a); }
KERNEL(conv_256x16, CONV_THREADS, ConvArgs) { conv_tile<256, 16, Dots<256, 16>>(bases, a); }

/// One thread for four channels of one output pixel; weights [tap][channels rounded up to 16].
KERNEL(depthwise, 128, ConvArgs) {
    u32 words = div_up(a.channels, 4), index = blockIdx.x * 128 + threadIdx.x;
    if (index >= a.pixels * words) return;
    u32 pixel = index / words, c = index % words * 4, padded = div_up(a.channels, 16) * 16;
    const u8 *input = at(bases, a.input), *pad_row = at(bases, a.pad_row), *weights = at(bases, a.weights);
    int top = (int)(pixel / a.out_width * a.stride) - (int)a.pad_top;
    int left = (int)(pixel % a.out_width * a.stride) - (int)a.pad_left;
    Channel channels[4];
    load_channels(bases, a, c, channels);
    int sums[4] = {0, 0, 0, 0};
    for (u32 tap = 0; tap < a.kernel * a.kernel; tap++) {
        int y = top + (int)(tap / a.kernel * a.dilation), x = left + (int)(tap % a.kernel * a.dilation);
        bool inside = (u32)y < a.in_height && (u32)x < a.in_width;
        const u8 *from = inside ? input + ((u32)y * a.in_width + (u32)x) * a.in_stride : pad_row;
        u32 word = load_word(from + c, a.flags & INPUT_ALIGNED);
        u32 weight = *(const u32 *)(weights + tap * padded + c);
        for (int i = 0; i < 4; i++) {
            sums[i] = wrapping_add(sums[i], byte_of(word, i) * signed_byte_of(weight, i));
        }
    }
    emit(bases, a, channels, pixel, c, sums);
}
