// Layers in f32, with the bits of kernels/ops/float.rs and float_conv.rs: nothing is fused, sums are in order.

/// `e^x`: kernels/f32.rs has the same steps.
DEVICE float exact_expf(float x) {
    x = x < -87.0f ? -87.0f : x > 88.0f ? 88.0f : x;
    float shifted = x * as_float(0x3fb8aa3bu) + 12582912.0f;
    float k = shifted - 12582912.0f;
    float r = (x - k * 0.6933594f) - k * -2.1219444e-4f;
    float series = 1.0f / 720.0f + r * (1.0f / 5040.0f);
    series = 1.0f / 24.0f + r * (1.0f / 120.0f + r * series);
    series = 1.0f + r * (1.0f + r * (0.5f + r * (1.0f / 6.0f + r * series)));
    return series * as_float((as_bits(shifted) << 23) + 0x3f800000u);
}

enum { F32_IDENTITY, F32_RELU, F32_RELU6, F32_SILU, F32_HARDSWISH, F32_LEAKY_RELU };

/// `FloatAct` of float_conv.rs.
DEVICE float activate_f32(u32 kind, float slope, float v) {
    if (kind == F32_SILU) return v / (1.0f + exact_expf(-v));
    if (kind == F32_LEAKY_RELU) return v < 0.0f ? v * slope : v;
    if (kind == F32_HARDSWISH) {
        float z = v + 3.0f;
        return v * ((z < 0.0f ? 0.0f : z > 6.0f ? 6.0f : z) / 6.0f);
    }
    if (kind == F32_IDENTITY) return v;
    float above = v > 0.0f ? v : 0.0f;
    return kind == F32_RELU || above < 6.0f ? above : 6.0f;
}

/// A convolution in f32; `depth` is in numbers.
struct FloatConvArgs : Geometry {
    u32 weights, bias;
    u32 depth;
    u32 act, slope, has_residual;
};

/// Pixel `index` of a picture whose pixels are `stride` bytes apart.
DEVICE float *numbers(const Bases &bases, u32 picture, u32 stride, u32 index) {
    return (float *)(at(bases, picture) + index * stride);
}

/// The input pixel under a tap of an output pixel; none outside.
DEVICE const float *source_of(const Bases &bases, const FloatConvArgs &a, u32 pixel, u32 ky, u32 kx) {
    // What is before the picture is huge.
    u32 y = pixel / a.out_width * a.stride + ky * a.dilation - a.pad_top;
    u32 x = pixel % a.out_width * a.stride + kx * a.dilation - a.pad_left;
    if (y >= a.in_height || x >= a.in_width) return nullptr;
    return numbers(bases, a.input, a.in_stride, y * a.in_width + x);
}

DEVICE void emit_f32(const Bases &bases, const FloatConvArgs &a, u32 pixel, u32 c, float sum) {
    float value = activate_f32(a.act, as_float(a.slope), sum);
    if (a.has_residual) value = value + numbers(bases, a.residual, a.residual_stride, pixel)[c];
    numbers(bases, a.output, a.out_stride, pixel)[c] = value;
}

/// 32 pixels x 32 channels a block: a warp has 8 pixels, a thread one channel of them. Weights are panels
/// `[c_out / 32][tap][c_in][32]`. Outside the picture are zeros, which are added too.
KERNEL(float_conv, 128, FloatConvArgs) {
    SHARED float inputs[32][32];
    u32 lane = threadIdx.x % 32, row = threadIdx.x / 32 * 8, first = blockIdx.x * 32, c = blockIdx.y * 32 + lane;
    u32 panel = a.kernel * a.kernel * a.depth * 32;
    const float *weights = at_as<const float>(bases, a.weights) + blockIdx.y * panel + lane;
    float start = c < a.channels ? at_as<const float>(bases, a.bias)[c] : 0.0f;
    float sums[8];
#pragma unroll
    for (int i = 0; i < 8; i++) sums[i] = start;
    for (u32 tap = 0; tap < a.kernel * a.kernel; tap++) {
        for (u32 from = 0; from < a.depth; from += 32) {
            __syncthreads();
            for (u32 i = row; i < row + 8; i++) {
                const float *pixel = nullptr;
                if (first + i < a.pixels) pixel = source_of(bases, a, first + i, tap / a.kernel, tap % a.kernel);
                inputs[i][lane] = pixel && from + lane < a.depth ? pixel[from + lane] : 0.0f;
            }
            __syncthreads();
            u32 count = a.depth - from < 32 ? a.depth - from : 32;
            for (u32 k = 0; k < count; k++, weights += 32) {
                float w = constant(weights);
#pragma unroll
                for (int i = 0; i < 8; i++) sums[i] = sums[i] + inputs[row + i][k] * w;
            }
        }
    }
    if (c >= a.channels) return;
    for (u32 i = 0; i < 8; i++) {
        if (first + row + i < a.pixels) emit_f32(bases, a, first + row + i, c, sums[i]);
    }
}

/// A thread for a number; weights `[tap][channels]`. What is outside the picture is left out.
KERNEL(float_depthwise, 128, FloatConvArgs) {
    u32 index = blockIdx.x * 128 + threadIdx.x;
    if (index >= a.pixels * a.channels) return;
    u32 pixel = index / a.channels, c = index % a.channels;
    const float *weights = at_as<const float>(bases, a.weights) + c;
    float sum = at_as<const float>(bases, a.bias)[c];
    for (u32 tap = 0; tap < a.kernel * a.kernel; tap++) {
        const float *from = source_of(bases, a, pixel, tap / a.kernel, tap % a.kernel);
        if (from) sum = sum + from[c] * weights[tap * a.channels];
    }
    emit_f32(bases, a, pixel, c, sum);
}

/// A thread's pixel and channel of `PictureArgs`, whose `channels` are numbers here.
#define EACH_NUMBER(pixel, c)                                  \
    u32 index = blockIdx.x * 128 + threadIdx.x;                \
    if (index >= a.height * a.width * a.channels) return;      \
    u32 pixel = index / a.channels, c = index % a.channels

/// Bytes to numbers; `table` has steps, then zero points.
KERNEL(dequantise, 128, PictureArgs) {
    EACH_NUMBER(pixel, c);
    float step = at_as<const float>(bases, a.table)[c];
    float zero = (float)at_as<const int>(bases, a.table)[a.channels + c];
    float q = (float)at(bases, a.a)[pixel * a.a_stride + c];
    numbers(bases, a.output, a.out_stride, pixel)[c] = (q - zero) * step;
}

/// Numbers to bytes; `table` as of `dequantise`. What is no number becomes 0.
KERNEL(quantise, 128, PictureArgs) {
    EACH_NUMBER(pixel, c);
    float step = at_as<const float>(bases, a.table)[c];
    float zero = (float)at_as<const int>(bases, a.table)[a.channels + c];
    float q = numbers(bases, a.a, a.a_stride, pixel)[c] / step + zero;
    q = q > 0.0f ? q : 0.0f;
    at(bases, a.output)[pixel * a.out_stride + c] = (u8)((q > 255.0f ? 255.0f : q) + 0.5f);
}

KERNEL(float_add, 128, PictureArgs) {
    EACH_NUMBER(pixel, c);
    float one = numbers(bases, a.a, a.a_stride, pixel)[c], other = numbers(bases, a.b, a.b_stride, pixel)[c];
    numbers(bases, a.output, a.out_stride, pixel)[c] = one + other;
}

/// Channels times what `table` has for each.
KERNEL(float_scale, 128, PictureArgs) {
    EACH_NUMBER(pixel, c);
    float factor = at_as<const float>(bases, a.table)[c];
    numbers(bases, a.output, a.out_stride, pixel)[c] = numbers(bases, a.a, a.a_stride, pixel)[c] * factor;
}

/// As `max_pool`, of numbers.
KERNEL(float_max_pool, 128, PictureArgs) {
    EACH_NUMBER(pixel, c);
    int y = (int)(pixel / a.width), x = (int)(pixel % a.width), reach = (int)a.size / 2;
    float most = as_float(0xff800000u);
    for (int sy = y < reach ? 0 : y - reach; sy <= y + reach && sy < (int)a.height; sy++) {
        for (int sx = x < reach ? 0 : x - reach; sx <= x + reach && sx < (int)a.width; sx++) {
            float v = numbers(bases, a.a, a.a_stride, (u32)sy * a.width + (u32)sx)[c];
            most = v > most ? v : most;
        }
    }
    numbers(bases, a.output, a.out_stride, pixel)[c] = most;
}

/// Means of channels, f64; sums are in the pixels' order, by one thread each.
struct FloatMeanArgs {
    u32 input, means, pixels, stride, channels;
};

KERNEL(float_means, 32, FloatMeanArgs) {
    u32 c = blockIdx.x * 32 + threadIdx.x;
    if (c >= a.channels) return;
    const u8 *input = at(bases, a.input) + 4 * c;
    double sum = 0.0;
#pragma unroll 8
    for (u32 pixel = 0; pixel < a.pixels; pixel++) sum = sum + (double)*(const float *)(input + pixel * a.stride);
    at_as<double>(bases, a.means)[c] = sum / (double)a.pixels;
}

/// From means to shares, and the bias of the mixed kernel; `static_bias` and `expert_bias` are the convolution's.
struct FloatRouteArgs {
    RoutingArgs routing;
    u32 static_bias, expert_bias, padded, outputs, mixed_bias;
};

/// One block.
KERNEL(float_route, 256, FloatRouteArgs) {
    SHARED double logits[MOST_EXPERTS];
    SHARED float shares[MOST_EXPERTS];
    shares_of(bases, a.routing, logits, shares);
    const float *bias = at_as<const float>(bases, a.static_bias), *more = at_as<const float>(bases, a.expert_bias);
    for (u32 c = threadIdx.x; c < a.outputs; c += 256) {
        at_as<float>(bases, a.mixed_bias)[c] = mixed_bias(bias[c], shares, more + c, a.routing.experts, a.padded);
    }
}

/// From `count` experts of `len` numbers to one kernel.
struct FloatMixArgs {
    u32 experts, mixed, shares, count, len;
};

KERNEL(float_mix, 128, FloatMixArgs) {
    u32 index = blockIdx.x * 128 + threadIdx.x;
    if (index >= a.len) return;
    const float *experts = at_as<const float>(bases, a.experts) + index, *shares = at_as<const float>(bases, a.shares);
    float sum = 0.0f;
    for (u32 e = 0; e < a.count; e++) sum = sum + shares[e] * constant(experts + e * a.len);
    at_as<float>(bases, a.mixed)[index] = sum;
}

/// Gates of squeeze-and-excite, as a table for `float_scale`.
struct FloatGateArgs {
    ExciteArgs excite;
    u32 table;
};

/// One block.
KERNEL(float_gates, 256, FloatGateArgs) {
    squeeze(bases, a.excite);
    for (u32 c = threadIdx.x; c < a.excite.channels; c += 256) {
        at_as<float>(bases, a.table)[c] = (float)gate_of(bases, a.excite, c);
    }
}
