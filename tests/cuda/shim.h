// The kernels' machine, on a CPU: replaces src/kernels/cuda/device.cuh.
//
// The threads of a block are fibers of one thread, blocks run one after another. A fiber runs until a barrier or its
// end; then the next one runs, in an order that changes from block to block and from barrier to barrier, so that a
// missing barrier shows as another result. A barrier that only some threads reach ends the process.

#pragma once
#include <setjmp.h>
#include <ucontext.h>

#include <algorithm>
#include <cmath>
#include <cstdint>
#include <cstdio>
#include <cstdlib>
#include <cstring>
#include <stdlib.h>
#include <map>
#include <string>
#include <vector>

typedef unsigned char u8;
typedef signed char s8;
typedef short s16;
typedef unsigned short u16;
typedef unsigned int u32;
typedef unsigned long long u64;

struct alignas(16) uint4 {
    u32 x, y, z, w;
};
struct Position {
    u32 x, y, z;
};
static Position threadIdx, blockIdx;

namespace shim {

enum { STACK = 64 << 10 };

/// It lives on from block to block. `swapcontext` asks the system at each switch; `_longjmp` does not.
struct Fiber {
    std::vector<char> stack;
    jmp_buf place;
    bool done;
    int line;
};

static std::vector<Fiber> fibers;
static jmp_buf scheduler;
static u32 running;
static void (*body)(const void *, const void *);
static const void *body_bases, *body_args;

/// Hands over to the scheduler, until it resumes this fiber.
__attribute__((noinline)) static void leave() {
    if (!_setjmp(fibers[running].place)) _longjmp(scheduler, 1);
    threadIdx = {running, 0, 0};
}

/// Forgets the copies that a thread began and did not wait for.
static void at_end();

static void start() {
    for (;;) {
        body(body_bases, body_args);
        at_end();
        fibers[running].done = true;
        leave();
    }
}

static void barrier(int line) {
    fibers[running].line = line;
    leave();
}

/// Runs a fiber up to its next barrier, or its end.
__attribute__((noinline)) static void resume(u32 t) {
    Fiber &fiber = fibers[t];
    running = t;
    threadIdx = {t, 0, 0};
    if (_setjmp(scheduler)) return;
    if (!fiber.stack.empty()) _longjmp(fiber.place, 1);
    fiber.stack.resize(STACK);
    static ucontext_t context;
    getcontext(&context);
    context.uc_stack.ss_sp = fiber.stack.data();
    context.uc_stack.ss_size = fiber.stack.size();
    context.uc_link = nullptr;
    makecontext(&context, start, 0);
    setcontext(&context);
}

/// Runs one block; `seed` chooses the order of its threads.
static void block(u32 threads, u32 seed) {
    if (fibers.size() < threads) fibers.resize(threads);
    std::vector<u32> order(threads);
    for (u32 t = 0; t < threads; t++) {
        order[t] = t;
        fibers[t].done = false;
    }
    for (u32 alive = threads; alive > 0; seed = seed * 1664525 + 1013904223) {
        // Forward, backward, or from somewhere in the middle.
        if (seed >> 31) std::reverse(order.begin(), order.end());
        std::rotate(order.begin(), order.begin() + (seed >> 16) % threads, order.end());
        int line = 0;
        alive = 0;
        for (u32 t : order) {
            if (fibers[t].done) continue;
            resume(t);
            if (fibers[t].done) continue;
            alive++;
            if (line != 0 && line != fibers[t].line) {
                std::fprintf(stderr, "threads of a block wait at lines %d and %d\n", line, fibers[t].line);
                std::abort();
            }
            line = fibers[t].line;
        }
    }
}

/// Ends the process where an address is none that the instruction takes.
static inline void demand_multiple(const void *address, size_t of) {
    if ((size_t)address % of == 0) return;
    std::fprintf(stderr, "%p is no multiple of %zu\n", address, of);
    std::abort();
}

struct Kernel {
    void (*body)(const void *, const void *);
    u32 threads;
    size_t args;
    const char *name;

    bool begins(const char *with) const { return std::strncmp(name, with, std::strlen(with)) == 0; }
};

static std::map<std::string, Kernel> &kernels() {
    static std::map<std::string, Kernel> all;
    return all;
}

struct Register {
    Register(const char *name, Kernel kernel) { kernels()[name] = kernel; }
};

static void launch(const Kernel &kernel, u32 width, u32 height, const void *bases, const void *args) {
    body = kernel.body;
    body_bases = bases;
    body_args = args;
    for (u32 y = 0; y < height; y++) {
        for (u32 x = 0; x < width; x++) {
            // Blocks come in any order on a GPU: every second row of them backward.
            blockIdx = {y % 2 ? width - 1 - x : x, y, 0};
            block(kernel.threads, x * 2654435761u + y);
        }
    }
}

}  // namespace shim

#define KERNEL(name, threads, Args)                                                                \
    static void name(const Bases &bases, const Args &a);                                           \
    static shim::Register name##_registered(                                                       \
        #name, {[](const void *b, const void *a) { name(*(const Bases *)b, *(const Args *)a); },    \
                threads, sizeof(Args), #name});                                                    \
    static void name(const Bases &bases, const Args &a)
#define DEVICE static inline
#define DEVICE_METHOD
#define SHARED static
#define ALIGNED(bytes) __attribute__((aligned(bytes)))
#define __syncthreads() shim::barrier(__LINE__)

DEVICE int dot4(u32 a, u32 w, int sum) {
    for (int i = 0; i < 4; i++) {
        int product = (int)(a >> (8 * i) & 255) * (s8)(w >> (8 * i));
        sum = (int)((u32)sum + (u32)product);
    }
    return sum;
}

/// Fragments as PTX ISA 9.7.14.5.10 (mma.m16n8k32, 8 bits) lays them over a warp. All threads of the block come here.
template <int M, int N> DEVICE void multiply_fragments(int (&sums)[M][N][4], const u32 (&from)[M][4], const u32 (&by)[N][2]) {
    static u32 all_from[256][M][4], all_by[256][N][2];
    std::memcpy(all_from[threadIdx.x], from, sizeof(from));
    std::memcpy(all_by[threadIdx.x], by, sizeof(by));
    __syncthreads();
    u32 warp = threadIdx.x / 32 * 32, lane = threadIdx.x % 32;
    for (int m = 0; m < M; m++) {
        for (int n = 0; n < N; n++) {
            for (u32 i = 0; i < 4; i++) {
                u32 row = lane / 4 + i / 2 * 8, column = lane % 4 * 2 + i % 2;
                for (u32 word = 0; word < 8; word++) {
                    u32 a = all_from[warp + row % 8 * 4 + word % 4][m][row / 8 + word / 4 * 2];
                    u32 b = all_by[warp + column * 4 + word % 4][n][word / 4];
                    sums[m][n][i] = dot4(a, b, sums[m][n][i]);
                }
            }
        }
    }
    __syncthreads();
}

/// What `ldmatrix.x4` gives: word `lane % 4` of the row that thread `8 * matrix + lane / 4` of the warp names.
DEVICE void load_matrices(u32 (&out)[4], const void *row) {
    static u32 all[256][4];
    shim::demand_multiple(row, 16);
    // Read before the barrier, which a GPU has not here: what another warp has not yet copied is missing.
    std::memcpy(all[threadIdx.x], row, 16);
    __syncthreads();
    u32 warp = threadIdx.x / 32 * 32, lane = threadIdx.x % 32;
    for (u32 matrix = 0; matrix < 4; matrix++) out[matrix] = all[warp + matrix * 8 + lane / 4][lane % 4];
    __syncthreads();
}

namespace shim {

struct Copy {
    void *to;
    const void *from;
    bool real, ends_group;
};

/// Copies of each thread that nobody has waited for: their places have what was there before.
static std::vector<Copy> copies[256];

static void at_end() { copies[running].clear(); }

}  // namespace shim

DEVICE void copy_16(void *to, const void *from, bool real) {
    shim::demand_multiple(to, 16);
    shim::demand_multiple(from, 16);
    shim::copies[threadIdx.x].push_back({to, from, real, false});
}

DEVICE void end_copies() { shim::copies[threadIdx.x].push_back({nullptr, nullptr, false, true}); }

template <int LEFT> DEVICE void wait_for_copies() {
    std::vector<shim::Copy> &own = shim::copies[threadIdx.x];
    long groups = std::count_if(own.begin(), own.end(), [](const shim::Copy &copy) { return copy.ends_group; });
    auto copy = own.begin();
    for (; groups > LEFT; copy++) {
        if (copy->ends_group) {
            groups--;
        } else {
            static const u32 zeros[4] = {0, 0, 0, 0};
            std::memcpy(copy->to, copy->real ? copy->from : zeros, 16);
        }
    }
    own.erase(own.begin(), copy);
}

/// Here a thread has half a row of a square; on a GPU it is not told what it has.
template <bool CELLS> DEVICE void load_square(u32 (&out)[2], const u32 *rows) {
    shim::demand_multiple(rows, 8);
    u32 lane = threadIdx.x % 32;
    std::memcpy(out, rows + lane / 2 * 4 + lane % 2 * 2, 8);
}

template <int M, int N> DEVICE void multiply_squares(int (&sums)[M][N][8], const u32 (&from)[M][2], const u32 (&by)[N][2]) {
    static u32 all_from[256][M][2], all_by[256][N][2];
    std::memcpy(all_from[threadIdx.x], from, sizeof(from));
    std::memcpy(all_by[threadIdx.x], by, sizeof(by));
    __syncthreads();
    u32 warp = threadIdx.x / 32 * 32, lane = threadIdx.x % 32;
    for (int m = 0; m < M; m++) {
        for (int n = 0; n < N; n++) {
            for (u32 i = 0; i < 8; i++) {
                for (u32 k = 0; k < 16; k++) {
                    u32 a = all_from[warp + lane / 2 * 2 + k / 8][m][k / 4 % 2];
                    u32 b = all_by[warp + (lane % 2 * 8 + i) * 2 + k / 8][n][k / 4 % 2];
                    sums[m][n][i] += (s8)(a >> k % 4 * 8) * (s8)(b >> k % 4 * 8);
                }
            }
        }
    }
    __syncthreads();
}

template <int STRIDE> DEVICE void store_square(int *rows, const int (&sums)[8]) {
    shim::demand_multiple(rows, 32);
    u32 lane = threadIdx.x % 32;
    std::memcpy(rows + lane / 2 * STRIDE + lane % 2 * 8, sums, sizeof(sums));
}

DEVICE void warp_barrier() { __syncthreads(); }

DEVICE u32 max4(u32 a, u32 b) {
    u32 out = 0;
    for (int i = 0; i < 32; i += 8) out |= std::max(a >> i & 255, b >> i & 255) << i;
    return out;
}

DEVICE int round_to_int(float x) {
    if (x != x) return 0;
    float whole = std::nearbyint(x);
    if (whole >= 2147483648.0f) return INT32_MAX;
    return whole < -2147483648.0f ? INT32_MIN : (int)whole;
}

template <class T> DEVICE T constant(const T *p) { return *p; }

template <class To, class From> DEVICE To same_bits(From from) {
    To to;
    static_assert(sizeof(to) == sizeof(from), "");
    std::memcpy(&to, &from, sizeof(to));
    return to;
}

DEVICE u32 as_bits(float x) { return same_bits<u32>(x); }
DEVICE float as_float(u32 bits) { return same_bits<float>(bits); }
DEVICE double as_double(u64 bits) { return same_bits<double>(bits); }

DEVICE u32 atomicAdd(u32 *p, u32 by) {
    u32 before = *p;
    *p += by;
    return before;
}

using std::fmax;
