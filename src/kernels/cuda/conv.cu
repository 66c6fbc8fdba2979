// Dense convolution as an implicit matrix product, and depthwise convolution.
//
// Rows are output pixels, columns output channels; a step is four input channels of one tap, one 32-bit word of a
// pixel and of a weight. Weights lie as the model file has them: [c_out / 16][tap][depth / 4][16][4].
// A block of 128 threads computes PIXELS x CHANNELS sums in rounds of 8 steps. Shared memory holds two rounds: the
// next is fetched to registers while this one is multiplied, by dot products (sm_61) or on tensor cores (sm_80).

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
    int sums[ROWS][COLUMNS];
    int row, column;

    DEVICE_METHOD Dots(int thread) : sums() {
        column = thread % (CHANNELS / COLUMNS) * COLUMNS;
        row = thread / (CHANNELS / COLUMNS) * ROWS;
    }

    DEVICE_METHOD void add(const u32 (&pixels)[STEPS][PIXELS + 8], const u32 (&cells)[STEPS][CHANNELS + 8]) {
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

/// The same on tensor cores: a round is one step of 32 input channels. A warp has `16 * M` pixels x `8 * N` channels.
template <int PIXELS, int CHANNELS> struct Tensors {
    enum { ACROSS = CHANNELS == 64 ? 2 : 1, M = PIXELS * ACROSS / 64, N = CHANNELS / ACROSS / 8 };
    int sums[M][N][4];
    int lane, row, column;

    DEVICE_METHOD Tensors(int thread) : sums() {
        int warp = thread / 32;
        lane = thread % 32;
        row = warp / ACROSS * 16 * M;
        column = warp % ACROSS * 8 * N;
    }

    DEVICE_METHOD void add(const u32 (&pixels)[STEPS][PIXELS + 8], const u32 (&cells)[STEPS][CHANNELS + 8]) {
        u32 from[M][4], by[N][2];
        int group = lane / 4, step = lane % 4;
#pragma unroll
        for (int m = 0; m < M; m++) {
#pragma unroll
            for (int i = 0; i < 4; i++) from[m][i] = pixels[step + i / 2 * 4][row + m * 16 + i % 2 * 8 + group];
        }
#pragma unroll
        for (int n = 0; n < N; n++) {
            by[n][0] = cells[step][column + n * 8 + group];
            by[n][1] = cells[step + 4][column + n * 8 + group];
        }
        multiply_fragments<M, N>(sums, from, by);
    }

    /// A thread has two channels of two pixels; with its neighbour's it has four channels of one.
    DEVICE_METHOD void store(const Bases &bases, const ConvArgs &a, u32 first_pixel, u32 first_channel) {
        bool odd = lane % 2;
#pragma unroll
        for (int n = 0; n < N; n++) {
            u32 c = first_channel + column + n * 8 + lane % 4 / 2 * 4;
            Channel channels[4];
            if (c < a.channels) load_channels(bases, a, c, channels);
#pragma unroll
            for (int m = 0; m < M; m++) {
                const int *own = sums[m][n];
                int first = (int)from_neighbour((u32)(odd ? own[0] : own[2]));
                int second = (int)from_neighbour((u32)(odd ? own[1] : own[3]));
                int four[4] = {odd ? first : own[0], odd ? second : own[1], odd ? own[2] : first, odd ? own[3] : second};
                u32 pixel = first_pixel + row + m * 16 + lane / 4 + (odd ? 8 : 0);
                if (c < a.channels) emit(bases, a, channels, pixel, c, four);
            }
        }
    }
};

template <int PIXELS, int CHANNELS, class Sums> DEVICE void conv_tile(const Bases &bases, const ConvArgs &a) {
    // Eight words more than a row has, so that what a warp stores or loads falls into 32 banks.
    SHARED ALIGNED(16) u32 pixels[2][STEPS][PIXELS + 8];
    SHARED ALIGNED(16) u32 cells[2][STEPS][CHANNELS + 8];
    SHARED int corner_y[PIXELS], corner_x[PIXELS];
    const int FETCHED = PIXELS * STEPS / CONV_THREADS;

    int thread = threadIdx.x;
    u32 first_pixel = blockIdx.x * PIXELS, first_channel = blockIdx.y * CHANNELS;
    for (int m = thread; m < PIXELS; m += CONV_THREADS) {
        u32 pixel = first_pixel + m;
        // A pixel that is none lies outside the picture with all its taps.
        bool real = pixel < a.pixels;
        corner_y[m] = real ? (int)(pixel / a.out_width * a.stride) - (int)a.pad_top : -(1 << 28);
        corner_x[m] = real ? (int)(pixel % a.out_width * a.stride) - (int)a.pad_left : 0;
    }
    __syncthreads();

    const u8 *input = at(bases, a.input), *pad_row = at(bases, a.pad_row);
    const uint4 *weights = at_as<const uint4>(bases, a.weights);
    bool aligned = a.flags & INPUT_ALIGNED;
    int depth = (int)a.depth, kernel = (int)a.kernel;
    int steps = kernel * kernel * depth, blocks = (int)div_up(a.channels, 16);

    // This thread fetches step `own` of each round, for every 16th pixel, and one quarter of a cell.
    int own = thread % STEPS, own_pixel = thread / STEPS;
    int cell_step = thread / 4 % STEPS, cell_block = (int)first_channel / 16 + thread / 32;
    bool fetches_cell = thread < CHANNELS / 4 * STEPS && cell_block < blocks;
    Cursor cursor = {0, 0, 0};
    cursor.skip(own, kernel, depth);

    u32 fetched[FETCHED];
    uint4 fetched_cell = {0, 0, 0, 0};
    Sums sums(thread);
    int rounds = (int)div_up(steps, STEPS);
    for (int round = 0; round <= rounds; round++) {
        if (round < rounds) {
            bool real = round * STEPS + own < steps;
            int dy = cursor.ky * (int)a.dilation, dx = cursor.kx * (int)a.dilation;
#pragma unroll
            for (int i = 0; i < FETCHED; i++) {
                int m = own_pixel + i * (CONV_THREADS / STEPS);
                int y = corner_y[m] + dy, x = corner_x[m] + dx;
                bool inside = (u32)y < a.in_height && (u32)x < a.in_width;
                const u8 *from = inside ? input + ((u32)y * a.in_width + (u32)x) * a.in_stride : pad_row;
                fetched[i] = real ? load_word(from + cursor.word * 4, aligned) : 0;
            }
            cursor.skip(STEPS, kernel, depth);
            int step = round * STEPS + cell_step;
            if (fetches_cell && step < steps) {
                fetched_cell = constant(weights + (cell_block * steps + step) * 4 + thread % 4);
            } else {
                fetched_cell.x = fetched_cell.y = fetched_cell.z = fetched_cell.w = 0;
            }
        }
        if (round > 0) sums.add(pixels[(round - 1) % 2], cells[(round - 1) % 2]);
        if (round < rounds) {
            int half = round % 2;
#pragma unroll
            for (int i = 0; i < FETCHED; i++) {
                pixels[half][own][own_pixel + i * (CONV_THREADS / STEPS)] = fetched[i];
            }
            if (thread < CHANNELS / 4 * STEPS) {
                *(uint4 *)&cells[half][cell_step][thread / 32 * 16 + thread % 4 * 4] = fetched_cell;
            }
        }
        __syncthreads();
    }
    sums.store(bases, a, first_pixel, first_channel);
}

KERNEL(conv_64x64, CONV_THREADS, ConvArgs) { conv_tile<64, 64, Dots<64, 64>>(bases, a); }
KERNEL(conv_128x32, CONV_THREADS, ConvArgs) { conv_tile<128, 32, Dots<128, 32>>(bases, a); }
KERNEL(conv_256x16, CONV_THREADS, ConvArgs) { conv_tile<256, 16, Dots<256, 16>>(bases, a); }
KERNEL(tensor_64x64, CONV_THREADS, ConvArgs) { conv_tile<64, 64, Tensors<64, 64>>(bases, a); }
KERNEL(tensor_128x32, CONV_THREADS, ConvArgs) { conv_tile<128, 32, Tensors<128, 32>>(bases, a); }
KERNEL(tensor_256x16, CONV_THREADS, ConvArgs) { conv_tile<256, 16, Tensors<256, 16>>(bases, a); }

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
