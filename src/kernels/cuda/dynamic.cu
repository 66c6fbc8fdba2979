// What depends on the picture: means, routing, mixing, gates. engine/dynamic.rs and kernels/ops/mix.rs have the
// same steps; sums in f64 are in order, by one thread each.

/// Sums of a picture's channels over runs of `run` pixels, `[run][channels]`.
struct SumArgs {
    u32 input, partial;
    u32 pixels, stride, channels, run, aligned;
};

/// A block sums 64 channels of one run: 16 words of 4 channels x 16 pixels at a time.
KERNEL(channel_sums, 256, SumArgs) {
    SHARED u32 totals[16][64 + 4];
    u32 lane = threadIdx.x / 16, c = blockIdx.y * 64 + threadIdx.x % 16 * 4;
    u32 first = blockIdx.x * a.run, end = first + a.run < a.pixels ? first + a.run : a.pixels;
    u32 own[4] = {0, 0, 0, 0};
    if (c < a.channels) {
        const u8 *input = at(bases, a.input) + c;
        for (u32 pixel = first + lane; pixel < end; pixel += 16) {
            u32 word = load_word(input + pixel * a.stride, a.aligned);
            for (int i = 0; i < 4; i++) own[i] += (u32)byte_of(word, i);
        }
    }
    for (int i = 0; i < 4; i++) totals[lane][threadIdx.x % 16 * 4 + i] = own[i];
    __syncthreads();
    c = blockIdx.y * 64 + threadIdx.x;
    if (threadIdx.x < 64 && c < a.channels) {
        u32 total = 0;
        for (int i = 0; i < 16; i++) total += totals[i][threadIdx.x];
        at_as<u32>(bases, a.partial)[blockIdx.x * a.channels + c] = total;
    }
}

/// Real means of channels: `quant` has their steps, then their zero points.
struct MeanArgs {
    u32 partial, runs, pixels, quant;
};

DEVICE void means_of(const Bases &bases, const MeanArgs &m, u32 to, u32 channels) {
    const u32 *partial = at_as<const u32>(bases, m.partial);
    const float *steps = at_as<const float>(bases, m.quant);
    const int *zeros = at_as<const int>(bases, m.quant) + channels;
    double *means = at_as<double>(bases, to);
    for (u32 c = threadIdx.x; c < channels; c += 256) {
        u32 sum = 0;
        for (u32 run = 0; run < m.runs; run++) sum += partial[run * channels + c];
        means[c] = ((double)sum / (double)m.pixels - (double)zeros[c]) * (double)steps[c];
    }
}

/// `bias + Σ_j row[j] * x[j]`, in order.
DEVICE double in_order(const float *row, float bias, const double *x, u32 count) {
    double sum = (double)bias;
#pragma unroll 4
    for (u32 j = 0; j < count; j++) sum = sum + (double)row[j] * x[j];
    return sum;
}

enum { MOST_EXPERTS = 32 };

/// Shares of experts from means, `[channels]` f64; `kind` 0 sigmoid, 1 softmax.
struct RoutingArgs {
    u32 means, channels, weight, bias, experts, kind, shares;
};

/// The shares, for all threads of the one block; `means` are written by then.
DEVICE void shares_of(const Bases &bases, const RoutingArgs &r, double *logits, float *shares) {
    u32 thread = threadIdx.x;
    __syncthreads();
    if (thread < r.experts) {
        const float *row = at_as<const float>(bases, r.weight) + thread * r.channels;
        float bias = at_as<const float>(bases, r.bias)[thread];
        logits[thread] = in_order(row, bias, at_as<const double>(bases, r.means), r.channels);
        if (r.kind == 0) logits[thread] = 1.0 / (1.0 + exact_exp(-logits[thread]));
    }
    __syncthreads();
    if (thread == 0 && r.kind == 1) {
        double most = logits[0], sum = 0.0;
        for (u32 e = 1; e < r.experts; e++) most = fmax(most, logits[e]);
        for (u32 e = 0; e < r.experts; e++) {
            logits[e] = exact_exp(logits[e] - most);
            sum = sum + logits[e];
        }
        for (u32 e = 0; e < r.experts; e++) logits[e] = logits[e] / sum;
    }
    __syncthreads();
    if (thread < r.experts) {
        shares[thread] = (float)logits[thread];
        at_as<float>(bases, r.shares)[thread] = shares[thread];
    }
    __syncthreads();
}

/// Bias of one channel: the static one, and those of the experts, `padded` apart, in their shares.
DEVICE float mixed_bias(float bias, const float *shares, const float *expert_bias, u32 experts, u32 padded) {
    for (u32 e = 0; e < experts; e++) bias = bias + shares[e] * expert_bias[e * padded];
    return bias;
}

/// From means to coefficients of mixing.
struct RouteArgs {
    MeanArgs means;
    RoutingArgs routing;
    u32 scales, padded;
    u32 alpha, alpha_step;
};

/// One block.
KERNEL(route, 256, RouteArgs) {
    SHARED double logits[MOST_EXPERTS];
    SHARED float shares[MOST_EXPERTS];
    u32 experts = a.routing.experts;
    means_of(bases, a.means, a.routing.means, a.routing.channels);
    shares_of(bases, a.routing, logits, shares);
    const float *scales = at_as<const float>(bases, a.scales);
    for (u32 c = threadIdx.x; c < a.padded; c += 256) {
        // The least normal number times a million, as f32 rounds it.
        float largest = as_float(0x00800000u) * 1e6f;
        for (u32 e = 0; e < experts; e++) largest = fmaxf(largest, shares[e] * scales[e * a.padded + c]);
        for (u32 e = 0; e < experts; e++) {
            float share = shares[e] * scales[e * a.padded + c];
            at_as<int>(bases, a.alpha)[e * a.padded + c] = round_to_int(share / largest * 4096.0f);
        }
        at_as<float>(bases, a.alpha_step)[c] = largest / 4096.0f;
    }
}

/// From experts to one kernel and its epilogue. Dense: `cells` words of a channel, `depth` a tap; depthwise: `cells`
/// taps, `depth` 0. `products` is what one accumulator adds, `offset` the CPU's STORED_OFFSET.
struct MixArgs {
    u32 experts, mixed, alpha, alpha_step, routing;
    u32 bias, expert_bias, zeros, sums;
    u32 cells, depth, count, padded, channels, products, unit, offset;
};

/// Sum of 16 threads' numbers for each of 16 channels; thread `c` has that of channel `c`.
DEVICE int total_of(int *board, int own) {
    __syncthreads();
    board[threadIdx.x] = own;
    __syncthreads();
    int total = 0;
    if (threadIdx.x < 16) {
        for (int i = 0; i < 16; i++) total = wrapping_add(total, board[i * 16 + threadIdx.x]);
    }
    return total;
}

/// `constants::set_channel` of the engine, for a kernel just mixed.
DEVICE void set_channel(const Bases &bases, const MixArgs &a, u32 c, int most, int zero_sum, int weight_sum) {
    const float *shares = at_as<const float>(bases, a.routing), *expert_bias = at_as<const float>(bases, a.expert_bias);
    float bias = mixed_bias(at_as<const float>(bases, a.bias)[c], shares, expert_bias + c, a.count, a.padded);
    float unit = as_float(a.unit);
    float step = fmaxf((float)most / 127.0f * at_as<const float>(bases, a.alpha_step)[c], unit * 1e-6f);
    double steps = rint((double)bias / (double)step);
    long long start = (long long)clamped_to_int(steps, -1e9, 1e9) - (long long)zero_sum;
    start = start < -2147483648ll ? -2147483648ll : start > 2147483647ll ? 2147483647ll : start;
    double size = start < 0 ? -(double)start : (double)start;
    double largest = (double)a.products * 255.0 * 127.0 + size;
    u32 *sums = at_as<u32>(bases, a.sums);
    // The CPU's operands are less by `offset`: its accumulator is this one less `offset` times the weights' sum.
    sums[c] = (u32)wrapping_sub((int)start, wrapping_mul((int)a.offset, weight_sum));
    at_as<float>(bases, a.sums)[a.padded + c] = fminf(step / unit, (float)(2130000000.0 / largest));
}

/// Four lanes of `Σ_e alpha[e] * w_e`; one lane where the kernel is depthwise.
template <bool DENSE> DEVICE void mixed_lanes(const u8 *experts, const int *alpha, u32 count, u32 cell, u32 channel, int *out) {
    out[0] = out[1] = out[2] = out[3] = 0;
    for (u32 e = 0; e < count; e++) {
        u32 index = (cell * count + e) * 16 + channel;
        int share = alpha[e * 16 + channel];
        if (DENSE) {
            u32 word = constant((const u32 *)experts + index);
            for (int i = 0; i < 4; i++) out[i] += share * signed_byte_of(word, i);
        } else {
            out[0] += share * (int)(s8)constant(experts + index);
        }
    }
}

template <bool DENSE> DEVICE void mix_block(const Bases &bases, const MixArgs &a) {
    SHARED int alpha[MOST_EXPERTS * 16];
    SHARED int board[256];
    SHARED int maxima[16];
    const int LANES = DENSE ? 4 : 1;
    u32 thread = threadIdx.x, channel = thread % 16, blocks = a.padded / 16, block = blockIdx.x;
    for (u32 i = thread; i < a.count * 16; i += 256) {
        alpha[i] = at_as<const int>(bases, a.alpha)[i / 16 * a.padded + block * 16 + i % 16];
    }
    __syncthreads();
    const u8 *experts = at(bases, a.experts);
    int lanes[4], most = 0;
    for (u32 cell = thread / 16; cell < a.cells; cell += 16) {
        u32 index = DENSE ? block * a.cells + cell : cell * blocks + block;
        mixed_lanes<DENSE>(experts, alpha, a.count, index, channel, lanes);
        for (int i = 0; i < LANES; i++) {
            int size = lanes[i] < 0 ? -lanes[i] : lanes[i];
            most = size > most ? size : most;
        }
    }
    board[thread] = most;
    __syncthreads();
    if (thread < 16) {
        for (int i = 1; i < 16; i++) most = board[i * 16 + thread] > most ? board[i * 16 + thread] : most;
        maxima[thread] = most;
    }
    __syncthreads();
    most = maxima[channel];
    float ratio = most == 0 ? 0.0f : 127.0f / (float)most;

    const u8 *zeros = at(bases, a.zeros);
    int zero_sum = 0, weight_sum = 0;
    for (u32 cell = thread / 16; cell < a.cells; cell += 16) {
        u32 index = DENSE ? block * a.cells + cell : cell * blocks + block;
        mixed_lanes<DENSE>(experts, alpha, a.count, index, channel, lanes);
        u32 word = 0;
        for (int i = 0; i < LANES; i++) {
            int w = round_to_int((float)lanes[i] * ratio);
            int zero = DENSE ? zeros[cell % a.depth * 4 + i] : zeros[block * 16 + channel];
            word |= ((u32)w & 255u) << (8 * i);
            weight_sum = wrapping_add(weight_sum, w);
            zero_sum = wrapping_add(zero_sum, wrapping_mul(w, zero - (int)a.offset));
        }
        if (DENSE) {
            at_as<u32>(bases, a.mixed)[index * 16 + channel] = word;
        } else {
            at(bases, a.mixed)[index * 16 + channel] = (u8)word;
        }
    }
    zero_sum = total_of(board, zero_sum);
    weight_sum = total_of(board, weight_sum);
    u32 c = block * 16 + thread;
    if (thread < 16 && c < a.channels) set_channel(bases, a, c, most, zero_sum, weight_sum);
}

/// A block for 16 output channels.
KERNEL(mix_dense, 256, MixArgs) { mix_block<true>(bases, a); }
KERNEL(mix_depthwise, 256, MixArgs) { mix_block<false>(bases, a); }

/// Gates from means, `[channels]` f64.
struct ExciteArgs {
    u32 means, channels, reduce_weight, reduce_bias, expand_weight, expand_bias, reduced, squeezed;
};

/// `squeezed = relu(W1 means + b1)`, by all threads of the one block; `means` are written by then.
DEVICE void squeeze(const Bases &bases, const ExciteArgs &x) {
    __syncthreads();
    const double *means = at_as<const double>(bases, x.means);
    double *squeezed = at_as<double>(bases, x.squeezed);
    for (u32 i = threadIdx.x; i < x.reduced; i += 256) {
        const float *row = at_as<const float>(bases, x.reduce_weight) + i * x.channels;
        double sum = in_order(row, at_as<const float>(bases, x.reduce_bias)[i], means, x.channels);
        squeezed[i] = sum > 0.0 ? sum : 0.0;
    }
    __syncthreads();
}

/// `hard_sigmoid(W2 squeezed + b2)` of one channel.
DEVICE double gate_of(const Bases &bases, const ExciteArgs &x, u32 c) {
    const float *row = at_as<const float>(bases, x.expand_weight) + c * x.reduced;
    const double *squeezed = at_as<const double>(bases, x.squeezed);
    double z = in_order(row, at_as<const float>(bases, x.expand_bias)[c], squeezed, x.reduced) + 3.0;
    return (z < 0.0 ? 0.0 : z > 6.0 ? 6.0 : z) / 6.0;
}

/// Gates of squeeze-and-excite, as a table for `scale`; `own` is the output's quantisation.
struct GateArgs {
    MeanArgs means;
    ExciteArgs excite;
    u32 own, table;
};

/// One block.
KERNEL(gates, 256, GateArgs) {
    u32 channels = a.excite.channels;
    means_of(bases, a.means, a.excite.means, channels);
    squeeze(bases, a.excite);
    const float *steps = at_as<const float>(bases, a.means.quant), *own = at_as<const float>(bases, a.own);
    const int *zeros = at_as<const int>(bases, a.means.quant) + channels, *own_zeros = at_as<const int>(bases, a.own) + channels;
    int *table = at_as<int>(bases, a.table);
    for (u32 c = threadIdx.x; c < channels; c += 256) {
        float factor = (float)gate_of(bases, a.excite, c) * steps[c] / own[c];
        float scaled = factor * 16384.0f, limit = 6553600.0f;
        int mult = round_to_int(scaled < -limit ? -limit : scaled > limit ? limit : scaled);
        table[2 * c] = mult;
        table[2 * c + 1] = (own_zeros[c] << 14) + 8192 - mult * zeros[c];
    }
}
