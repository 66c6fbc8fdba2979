// Dense convolution on tensor cores: the tiles and rounds of conv.cu, where a round is 32 input channels of one tap.
//
// `Squares` for sm_72 (wmma) are fed by conv_tile, from any input. `Fragments` for sm_80 (mma) are fed by tensor_tile,
// which copies 16 bytes at a time straight to shared memory, three rounds ahead of what is multiplied.

/// A warp's share of a tile on tensor cores: products of 16 pixels x `COLUMNS` channels, `M` of them down, `N` across.
template <int PIXELS, int CHANNELS, int COLUMNS> struct Share {
    enum { ACROSS = CHANNELS == 64 ? 2 : 1, M = PIXELS * ACROSS / 64, N = CHANNELS / ACROSS / COLUMNS };
    int lane, row, column;

    DEVICE_METHOD Share(int thread) {
        int warp = thread / 32;
        lane = thread % 32;
        row = warp / ACROSS * 16 * M;
        column = warp % ACROSS * COLUMNS * N;
    }
};

/// Words from one row of 16 sums to the next in shared memory; rows begin at multiples of 32 bytes.
enum { SQUARE_STRIDE = 24 };

/// 128 in each byte.
enum : u32 { LEFT_OUT = 0x80808080u };

/// Products of 16 pixels x 16 channels in x 16 out.
///
/// wmma multiplies numbers of one kind only: activations are taken less 128, and 128 times the weights' sum, which each
/// thread adds up over the cells that it stores, is given back at the end.
template <int PIXELS, int CHANNELS> struct Squares : Share<PIXELS, CHANNELS, 16> {
    typedef Share<PIXELS, CHANNELS, 16> Own;
    using Own::lane;
    using Own::row;
    using Own::column;
    enum { M = Own::M, N = Own::N };
    // Halves of a round, each in rows of 16 bytes. Four rows more, so that what a warp stores falls into 32 banks.
    typedef u32 Pixels[2][PIXELS + 4][4];
    typedef u32 Cells[2][CHANNELS + 4][4];
    int sums[M][N][8];
    int left_out[4];
    int thread;

    DEVICE_METHOD Squares(int thread) : Own(thread), sums(), left_out(), thread(thread) {}

    DEVICE_METHOD void put_pixel(Pixels &pixels, int step, int pixel, u32 word) {
        pixels[step / 4][pixel][step % 4] = word ^ LEFT_OUT;
    }

    DEVICE_METHOD void put_cell(Cells &cells, int step, int channel, const uint4 &cell) {
        u32 words[4] = {cell.x, cell.y, cell.z, cell.w};
#pragma unroll
        for (int i = 0; i < 4; i++) {
            cells[step / 4][channel + i][step % 4] = words[i];
            left_out[i] = dot4(LEFT_OUT, words[i], left_out[i]);
        }
    }

    DEVICE_METHOD void add(const Pixels &pixels, const Cells &cells) {
#pragma unroll
        for (int half = 0; half < 2; half++) {
            u32 from[M][2], by[N][2];
#pragma unroll
            for (int m = 0; m < M; m++) load_square<false>(from[m], pixels[half][row + m * 16]);
#pragma unroll
            for (int n = 0; n < N; n++) load_square<true>(by[n], cells[half][column + n * 16]);
            multiply_squares<M, N>(sums, from, by);
        }
    }

    DEVICE_METHOD void store(const Bases &bases, const ConvArgs &a, u32 first_pixel, u32 first_channel) {
        SHARED int left_out_by[STEPS][CHANNELS];
        SHARED ALIGNED(32) int squares[CONV_THREADS / 32][16][SQUARE_STRIDE];
        Quarter quarter(thread);
        if (quarter.within(CHANNELS)) {
            for (int i = 0; i < 4; i++) left_out_by[quarter.step][quarter.channel + i] = left_out[i];
        }
        __syncthreads();
        int(&own)[16][SQUARE_STRIDE] = squares[thread / 32];
#pragma unroll
        for (int n = 0; n < N; n++) {
            int within = column + n * 16 + lane % 4 * 4;
            u32 c = first_channel + within;
            Channel channels[4];
            if (c < a.channels) load_channels(bases, a, c, channels);
            int back[4] = {0, 0, 0, 0};
            for (int step = 0; step < STEPS; step++) {
                for (int i = 0; i < 4; i++) back[i] = wrapping_add(back[i], left_out_by[step][within + i]);
            }
#pragma unroll
            for (int m = 0; m < M; m++) {
                store_square<SQUARE_STRIDE>(own[0], sums[m][n]);
                warp_barrier();
                for (int i = lane / 4; i < 16; i += 8) {
                    const int *from = &own[i][lane % 4 * 4];
                    int four[4];
                    for (int j = 0; j < 4; j++) four[j] = wrapping_add(from[j], back[j]);
                    if (c < a.channels) emit(bases, a, channels, first_pixel + row + m * 16 + i, c, four);
                }
                warp_barrier();
            }
        }
    }
};

KERNEL(square_64x64, CONV_THREADS, ConvArgs) { conv_tile<64, 64, Squares<64, 64>>(bases, a); }
KERNEL(square_128x32, CONV_THREADS, ConvArgs) { conv_tile<128, 32, Squares<128, 32>>(bases, a); }
KERNEL(square_256x16, CONV_THREADS, ConvArgs) { conv_tile<256, 16, Squares<256, 16>>(bases, a); }

/// Products of 16 pixels x 32 channels in x 8 out.
///
/// Which channel is which column of a product is free: chosen so that a thread's sums of one pixel are those of four
/// neighbouring channels, four threads' those of 16, and that its weights lie side by side.
template <int PIXELS, int CHANNELS> struct Fragments : Share<PIXELS, CHANNELS, 8> {
    typedef Share<PIXELS, CHANNELS, 8> Own;
    using Own::lane;
    using Own::row;
    using Own::column;
    enum { M = Own::M, N = Own::N };
    // Two halves of 16 bytes; those of pixel p in the second one lie at p ^ 4, for banks' sake.
    typedef uint4 Pixels[2][PIXELS];
    // So many words more that eight (N = 4) or 16 (N = 2) threads' weights fall into 32 banks.
    typedef u32 Cells[STEPS][CHANNELS + (N == 4 ? 4 : 8)];
    int sums[M][N][4];

    DEVICE_METHOD Fragments(int thread) : Own(thread), sums() {}

    /// Where a pixel's half lies.
    DEVICE_METHOD static int place(int half, int pixel) { return pixel ^ half * 4; }

    DEVICE_METHOD void add(const Pixels &pixels, const Cells &cells) {
        u32 from[M][4], by[N][2];
#pragma unroll
        for (int m = 0; m < M; m++) {
            int half = lane / 16, pixel = row + m * 16 + lane % 16;
            load_matrices(from[m], &pixels[half][place(half, pixel)]);
        }
        int group = lane / 4, step = lane % 4;
#pragma unroll
        for (int half = 0; half < 2; half++) {
            const u32 *words = cells[step + half * 4] + column;
            if (N == 4) {
                uint4 four = *(const uint4 *)(words + (group / 2 + group % 2 * 4) * 4);
                by[0][half] = four.x;
                by[1][half] = four.y;
                by[N - 2][half] = four.z;
                by[N - 1][half] = four.w;
            } else {
                by[0][half] = words[group * 2];
                by[1][half] = words[group * 2 + 1];
            }
        }
        multiply_fragments<M, N>(sums, from, by);
    }

    DEVICE_METHOD void store(const Bases &bases, const ConvArgs &a, u32 first_pixel, u32 first_channel) {
#pragma unroll
        for (int part = 0; part < N / 2; part++) {
            u32 c = first_channel + column + lane % 4 * 4 + part * 16;
            if (c >= a.channels) continue;
            Channel channels[4];
            load_channels(bases, a, c, channels);
#pragma unroll
            for (int m = 0; m < M; m++) {
#pragma unroll
                for (int i = 0; i < 4; i += 2) {
                    int four[4];
                    for (int j = 0; j < 4; j++) four[j] = N == 4 ? sums[m][j % N][i + part] : sums[m][j % 2][i + j / 2];
                    emit(bases, a, channels, first_pixel + row + m * 16 + lane / 4 + i * 4, c, four);
                }
            }
        }
    }
};

enum { ROUNDS_HELD = 4 };

/// A tile whose input is copied 16 bytes at a time: pixels begin at multiples of 16, and so do their taps' channels.
template <int PIXELS, int CHANNELS, class Sums> DEVICE void tensor_tile(const Bases &bases, const ConvArgs &a) {
    SHARED ALIGNED(128) typename Sums::Pixels pixels[ROUNDS_HELD];
    SHARED ALIGNED(128) typename Sums::Cells cells[ROUNDS_HELD];
    SHARED Corners<PIXELS> corners;

    int thread = threadIdx.x;
    u32 first_pixel = blockIdx.x * PIXELS, first_channel = blockIdx.y * CHANNELS;
    corners.set(a, first_pixel, thread);
    __syncthreads();

    const u8 *input = at(bases, a.input), *pad_row = at(bases, a.pad_row);
    const uint4 *weights = at_as<const uint4>(bases, a.weights);
    int depth = (int)a.depth, kernel = (int)a.kernel;
    int steps = kernel * kernel * depth;

    // This thread copies one half of each round for every 64th pixel, and one quarter of a cell.
    int half = thread % 2;
    Quarter quarter(thread);
    Cursor cursor = {0, 0, 0};
    cursor.skip(half * 4, kernel, depth);

    Sums sums(thread);
    int rounds = (int)div_up(steps, STEPS);
    for (int round = 1 - ROUNDS_HELD; round < rounds; round++) {
        if (round >= 0) {
            wait_for_copies<ROUNDS_HELD - 2>();
            // What others copied is here too, and nobody reads the round that the next copies replace.
            __syncthreads();
        }
        int next = round + ROUNDS_HELD - 1;
        if (next < rounds) {
            bool real = next * STEPS + half * 4 < steps;
#pragma unroll
            for (int i = 0; i < PIXELS * 2 / CONV_THREADS; i++) {
                int m = thread / 2 + i * (CONV_THREADS / 2);
                const u8 *from = real ? corners.tap(a, m, cursor, input, pad_row) : pad_row;
                copy_16(&pixels[next % ROUNDS_HELD][half][Sums::place(half, m)], from, real);
            }
            cursor.skip(STEPS, kernel, depth);
            if (quarter.within(CHANNELS)) {
                const uint4 *from = quarter.of(a, weights, first_channel, next, steps);
                copy_16(&cells[next % ROUNDS_HELD][quarter.step][quarter.channel], from ? from : weights, from);
            }
        }
        end_copies();
        if (round >= 0) sums.add(pixels[round % ROUNDS_HELD], cells[round % ROUNDS_HELD]);
    }
    sums.store(bases, a, first_pixel, first_channel);
}

KERNEL(tensor_64x64, CONV_THREADS, ConvArgs) { tensor_tile<64, 64, Fragments<64, 64>>(bases, a); }
KERNEL(tensor_128x32, CONV_THREADS, ConvArgs) { tensor_tile<128, 32, Fragments<128, 32>>(bases, a); }
KERNEL(tensor_256x16, CONV_THREADS, ConvArgs) { tensor_tile<256, 16, Fragments<256, 16>>(bases, a); }
