// What the kernels ask of the machine. tests/cuda/shim.h has the same names for a host compiler.

#define KERNEL(name, threads, Args) \
    extern "C" __global__ void __launch_bounds__(threads) name(const Bases bases, const Args a)
#define DEVICE static __device__ __forceinline__
#define ALIGNED(bytes) __align__(bytes)
#define DEVICE_METHOD __device__ __forceinline__
#define SHARED __shared__

typedef unsigned char u8;
typedef signed char s8;
typedef short s16;
typedef unsigned short u16;
typedef unsigned int u32;
typedef unsigned long long u64;

/// `sum + Σ a_i * w_i` over four bytes, `a` unsigned, `w` signed, wrapping.
DEVICE int dot4(u32 a, u32 w, int sum) {
    int out;
    asm("dp4a.u32.s32 %0, %1, %2, %3;" : "=r"(out) : "r"(a), "r"(w), "r"(sum));
    return out;
}

/// Products of fragments, `sums[m][n] += from[m] x by[n]`, of 16 pixels x 32 channels in and 32 x 8 out each, as
/// `mma.m16n8k32` lays them over a warp. For sm_80 and newer.
template <int M, int N> DEVICE void multiply_fragments(int (&sums)[M][N][4], const u32 (&from)[M][4], const u32 (&by)[N][2]) {
#pragma unroll
    for (int m = 0; m < M; m++) {
#pragma unroll
        for (int n = 0; n < N; n++) {
            int *s = sums[m][n];
#if __CUDA_ARCH__ >= 800
            asm("mma.sync.aligned.m16n8k32.row.col.s32.u8.s8.s32 {%0, %1, %2, %3}, {%4, %5, %6, %7}, {%8, %9}, "
                "{%0, %1, %2, %3};"
                : "+r"(s[0]), "+r"(s[1]), "+r"(s[2]), "+r"(s[3])
                : "r"(from[m][0]), "r"(from[m][1]), "r"(from[m][2]), "r"(from[m][3]), "r"(by[n][0]), "r"(by[n][1]));
#else
            s[0] = (int)(from[m][0] ^ by[n][0]);
            __trap();
#endif
        }
    }
}

/// The number of the thread whose number differs in the last bit.
DEVICE u32 from_neighbour(u32 own) { return __shfl_xor_sync(0xffffffffu, own, 1); }

/// Greater of each of four unsigned bytes.
DEVICE u32 max4(u32 a, u32 b) { return __vmaxu4(a, b); }

/// Nearest integer, ties to even; saturates, 0 for what is no number.
DEVICE int round_to_int(float x) { return __float2int_rn(x); }

/// A number that no kernel of this launch writes.
template <class T> DEVICE T constant(const T *p) { return __ldg(p); }

DEVICE u32 as_bits(float x) { return __float_as_uint(x); }
DEVICE float as_float(u32 bits) { return __uint_as_float(bits); }
DEVICE double as_double(u64 bits) { return __longlong_as_double((long long)bits); }
