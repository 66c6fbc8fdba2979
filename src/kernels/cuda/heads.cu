// Only positions with a class above the threshold leave the device.

/// One level: f32 rows of `box_stride` and `class_stride` bytes. A survivor is a row of host memory: its position,
/// 64 box logits, `classes` class logits.
struct SurvivorArgs {
    u32 boxes, class_logits, rows, counter, floor;
    u32 pixels, box_stride, class_stride, classes;
};

enum { BOX_LOGITS = 64, POSITIONS = 16 };

/// A block of 128 threads looks at 16 positions; rows are taken in whatever order blocks come.
KERNEL(survivors, 128, SurvivorArgs) {
    SHARED u32 found[POSITIONS], slots[POSITIONS];
    u32 first = blockIdx.x * POSITIONS, own = threadIdx.x / 8, words = 1 + BOX_LOGITS + a.classes;
    const u8 *boxes = at(bases, a.boxes), *classes = at(bases, a.class_logits);
    float floor = *at_as<const float>(bases, a.floor);
    if (threadIdx.x < POSITIONS) found[threadIdx.x] = 0;
    __syncthreads();
    if (first + own < a.pixels) {
        const float *row = (const float *)(classes + (first + own) * a.class_stride);
        for (u32 c = threadIdx.x % 8; c < a.classes; c += 8) {
            // All who write write the same.
            if (row[c] > floor) found[own] = 1;
        }
    }
    __syncthreads();
    if (threadIdx.x < POSITIONS && found[threadIdx.x]) {
        slots[threadIdx.x] = atomicAdd(at_as<u32>(bases, a.counter), 1u);
    }
    __syncthreads();
    for (u32 p = 0; p < POSITIONS; p++) {
        if (!found[p]) continue;
        u32 *out = at_as<u32>(bases, a.rows) + slots[p] * words;
        const u32 *box = (const u32 *)(boxes + (first + p) * a.box_stride);
        const u32 *row = (const u32 *)(classes + (first + p) * a.class_stride);
        for (u32 i = threadIdx.x; i < words; i += 128) {
            out[i] = i == 0 ? first + p : i <= BOX_LOGITS ? box[i - 1] : row[i - 1 - BOX_LOGITS];
        }
    }
}

/// Counters of all levels: told to the host, and zero again.
struct CountArgs {
    u32 counters, counts, levels;
};

KERNEL(tell_counts, 32, CountArgs) {
    if (threadIdx.x < a.levels) {
        at_as<u32>(bases, a.counts)[threadIdx.x] = at_as<u32>(bases, a.counters)[threadIdx.x];
        at_as<u32>(bases, a.counters)[threadIdx.x] = 0;
    }
}
