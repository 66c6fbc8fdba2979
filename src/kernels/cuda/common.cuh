// Memory, requantisation and exp: the rules of kernels/requant.rs and math.rs, word for word.
//
// Activations are u8 here on every machine (zero points in 0..=255). Nothing may be fused: the compiler is
// called with --fmad=false, and rounds divisions and square roots correctly.

/// Four blocks of memory. A reference is a byte offset below 2^30 in one of them, which its upper bits name.
struct Bases {
    u8 *arena, *weights, *scratch, *host;
};

DEVICE u8 *at(const Bases &bases, u32 reference) {
    u32 region = reference >> 30;
    u8 *base = region == 0 ? bases.arena : region == 1 ? bases.weights : region == 2 ? bases.scratch : bases.host;
    return base + (reference & 0x3fffffffu);
}

template <class T> DEVICE T *at_as(const Bases &bases, u32 reference) { return (T *)at(bases, reference); }

/// Four bytes; `aligned` says that all such places of a launch are multiples of 4.
DEVICE u32 load_word(const u8 *p, bool aligned) {
    if (aligned) return *(const u32 *)p;
    return p[0] | (u32)p[1] << 8 | (u32)p[2] << 16 | (u32)p[3] << 24;
}

/// The first `count` of four bytes.
DEVICE void store_word(u8 *p, u32 word, u32 count, bool aligned) {
    if (aligned && count >= 4) {
        *(u32 *)p = word;
        return;
    }
    for (u32 i = 0; i < 4; i++) {
        if (i < count) p[i] = (u8)(word >> (8 * i));
    }
}

DEVICE u32 div_up(u32 a, u32 b) { return (a + b - 1) / b; }
DEVICE int clamped(int x, int low, int high) { return x < low ? low : x > high ? high : x; }
DEVICE int wrap16(int x) { return (s16)x; }
DEVICE int saturated16(int x) { return clamped(x, -32768, 32767); }
DEVICE int wrapping_add(int a, int b) { return (int)((u32)a + (u32)b); }
DEVICE int wrapping_sub(int a, int b) { return (int)((u32)a - (u32)b); }
DEVICE int wrapping_mul(int a, int b) { return (int)((u32)a * (u32)b); }
DEVICE int byte_of(u32 word, int i) { return (word >> (8 * i)) & 255; }
DEVICE int signed_byte_of(u32 word, int i) { return (s8)(word >> (8 * i)); }

/// `(a * b + 2^14) >> 15` as i16
DEVICE int mulhrs(int a, int b) { return wrap16((a * b + 0x4000) >> 15); }

/// An activation function in fixed point: `kind` 0 identity, 1 relu, 2 gated.
struct Act {
    u32 kind, shift, poly01, poly23, poly45;
};

DEVICE int gate(const Act &act, int p) {
    int t = p < 0 ? saturated16(-p) : p;
    int most = 32767 >> act.shift;
    t = (t < most ? t : most) << act.shift;
    int v = wrap16((t << 1) ^ 0x8000);
    int h = (s16)(act.poly45 >> 16);
    h = wrap16(mulhrs(h, v) + (s16)act.poly45);
    h = wrap16(mulhrs(h, v) + (s16)(act.poly23 >> 16));
    h = wrap16(mulhrs(h, v) + (s16)act.poly23);
    h = wrap16(mulhrs(h, v) + (s16)(act.poly01 >> 16));
    h = wrap16(mulhrs(h, v) + (s16)act.poly01);
    return saturated16((p > 0 ? p : 0) - h);
}

DEVICE int activate(const Act &act, int p) {
    if (act.kind == 2) return gate(act, p);
    return act.kind == 1 && p < 0 ? 0 : p;
}

/// One channel's epilogue.
struct Channel {
    int bias;
    float scale;
    int mult, zero, residual_mult, residual_zero;
};

/// `sums`: bias and scale, `padded` each; `constants`: mult, zero and the residual's, `padded` each.
DEVICE Channel channel_of(const u32 *sums, const u32 *constants, u32 padded, u32 c, bool residual) {
    Channel channel;
    channel.bias = (int)sums[c];
    channel.scale = as_float(sums[padded + c]);
    channel.mult = (int)constants[c];
    channel.zero = (int)constants[padded + c];
    channel.residual_mult = residual ? (int)constants[2 * padded + c] : 0;
    channel.residual_zero = residual ? (int)constants[3 * padded + c] : 0;
    return channel;
}

/// The byte of an accumulator that has its bias.
DEVICE int requantise(const Act &act, const Channel &channel, int sum, bool residual, int added) {
    int y = activate(act, saturated16(round_to_int((float)sum * channel.scale)));
    if (residual) {
        int centred = wrap16((added - channel.residual_zero) << 7);
        y = saturated16(y + mulhrs(centred, channel.residual_mult));
    }
    return clamped(saturated16(mulhrs(y, channel.mult) + channel.zero), 0, 255);
}

/// `e^x`: math.rs has the same steps.
DEVICE double exact_exp(double x) {
    if (x != x) return x;
    if (x < -700.0) return 0.0;
    if (x > 700.0) return as_double(0x7ff0000000000000ull);
    double k = rint(x * as_double(0x3ff71547652b82feull));
    double r = (x - k * as_double(0x3fe62e42fee00000ull)) - k * as_double(0x3dea39ef35793c76ull);
    double series = 1.0;
    for (int n = 13; n >= 1; n--) series = 1.0 + r / (double)n * series;
    return series * as_double((u64)((long long)k + 1023) << 52);
}

/// As Rust's `x.clamp(low, high) as i32` of an integral number.
DEVICE int clamped_to_int(double x, double low, double high) {
    if (x != x) return 0;
    return (int)(x < low ? low : x > high ? high : x);
}
