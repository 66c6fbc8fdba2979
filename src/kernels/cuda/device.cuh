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

/// Four matrices of 8 rows x 16 bytes from shared memory, as fragments hold them: word `lane % 4` of row `lane / 4` of
/// each. Thread `lane` names row `lane % 8` of matrix `lane / 8`. For sm_80 and newer here.
DEVICE void load_matrices(u32 (&out)[4], const void *row) {
#if __CUDA_ARCH__ >= 800
    asm volatile("ldmatrix.sync.aligned.m8n8.x4.shared.b16 {%0, %1, %2, %3}, [%4];"
                 : "=r"(out[0]), "=r"(out[1]), "=r"(out[2]), "=r"(out[3])
                 : "r"((u32)__cvta_generic_to_shared(row))
                 : "memory");
#else
    out[0] = out[1] = out[2] = out[3] = *(const u32 *)row;
    __trap();
#endif
}

/// Begins to copy 16 bytes to shared memory, or 16 zeros where `real` is not so; the thread goes on. Both places are
/// multiples of 16. For sm_80 and newer.
DEVICE void copy_16(void *to, const void *from, bool real) {
#if __CUDA_ARCH__ >= 800
    asm volatile("cp.async.cg.shared.global [%0], [%1], 16, %2;" ::"r"((u32)__cvta_generic_to_shared(to)),
                 "l"(__cvta_generic_to_global(from)), "r"(real ? 16 : 0)
                 : "memory");
#else
    if (real) *(uint4 *)to = *(const uint4 *)from;
    __trap();
#endif
}

/// Ends a group of copies.
DEVICE void end_copies() {
#if __CUDA_ARCH__ >= 800
    asm volatile("cp.async.commit_group;" ::: "memory");
#endif
}

/// Waits until at most the last `LEFT` groups of this thread's copies are under way.
template <int LEFT> DEVICE void wait_for_copies() {
#if __CUDA_ARCH__ >= 800
    asm volatile("cp.async.wait_group %0;" ::"n"(LEFT) : "memory");
#endif
}

/// 16 rows of 16 bytes from shared memory: a warp's fragment of pixels, or of cells, where a row has one channel's weights.
/// For sm_72 and newer, as all of squares.
template <bool CELLS> DEVICE void load_square(u32 (&out)[2], const u32 *rows) {
#if __CUDA_ARCH__ >= 720
    if (CELLS) {
        asm volatile("wmma.load.b.sync.aligned.col.m16n16k16.s8 {%0, %1}, [%2], 16;"
                     : "=r"(out[0]), "=r"(out[1]) : "l"(rows) : "memory");
    } else {
        asm volatile("wmma.load.a.sync.aligned.row.m16n16k16.s8 {%0, %1}, [%2], 16;"
                     : "=r"(out[0]), "=r"(out[1]) : "l"(rows) : "memory");
    }
#else
    out[0] = out[1] = rows[0];
    __trap();
#endif
}

/// `sums[m][n] += from[m] x by[n]`, signed bytes; which of the 256 sums a thread has, the GPU alone knows.
template <int M, int N> DEVICE void multiply_squares(int (&sums)[M][N][8], const u32 (&from)[M][2], const u32 (&by)[N][2]) {
#pragma unroll
    for (int m = 0; m < M; m++) {
#pragma unroll
        for (int n = 0; n < N; n++) {
            int *s = sums[m][n];
#if __CUDA_ARCH__ >= 720
            asm("wmma.mma.sync.aligned.row.col.m16n16k16.s32.s8.s8.s32 {%0, %1, %2, %3, %4, %5, %6, %7}, {%8, %9}, "
                "{%10, %11}, {%0, %1, %2, %3, %4, %5, %6, %7};"
                : "+r"(s[0]), "+r"(s[1]), "+r"(s[2]), "+r"(s[3]), "+r"(s[4]), "+r"(s[5]), "+r"(s[6]), "+r"(s[7])
                : "r"(from[m][0]), "r"(from[m][1]), "r"(by[n][0]), "r"(by[n][1]));
#else
            s[0] = (int)(from[m][0] ^ by[n][0]);
            __trap();
#endif
        }
    }
}

/// 16 rows of 16 sums to shared memory, `STRIDE` words from one to the next; they begin at multiples of 32 bytes.
template <int STRIDE> DEVICE void store_square(int *rows, const int (&sums)[8]) {
#if __CUDA_ARCH__ >= 720
    asm volatile("wmma.store.d.sync.aligned.row.m16n16k16.s32 [%0], {%1, %2, %3, %4, %5, %6, %7, %8}, %9;" ::"l"(rows),
                 "r"(sums[0]), "r"(sums[1]), "r"(sums[2]), "r"(sums[3]), "r"(sums[4]), "r"(sums[5]), "r"(sums[6]),
                 "r"(sums[7]), "n"(STRIDE)
                 : "memory");
#else
    rows[0] = sums[0];
    __trap();
#endif
}

/// A barrier of the threads of a warp; all warps of a block come here equally often.
DEVICE void warp_barrier() { __syncwarp(); }

/// Greater of each of four unsigned bytes.
DEVICE u32 max4(u32 a, u32 b) { return __vmaxu4(a, b); }

/// Nearest integer, ties to even; saturates, 0 for what is no number.
DEVICE int round_to_int(float x) { return __float2int_rn(x); }

/// A number that no kernel of this launch writes.
template <class T> DEVICE T constant(const T *p) { return __ldg(p); }

DEVICE u32 as_bits(float x) { return __float_as_uint(x); }
DEVICE float as_float(u32 bits) { return __uint_as_float(bits); }
DEVICE double as_double(u64 bits) { return __longlong_as_double((long long)bits); }
