// out = W x + scale * B low, for one x: W in 4 bits as bitsandbytes packs it, B and low LoRA's.
//
// Defined from outside: HALF (1: float16, 0: bfloat16), NESTED (1: the scales of W's blocks are in 8 bits themselves).
// A block of WARPS warps makes 16 results at a time. Each lane reads 16 bytes, 32 weights of one row, looks both weights
// of a byte up at once, and tensor cores multiply them: 16 rows by 8 columns, of which two are used, one for each of the
// two blocks of 64 weights that four lanes read together, since every block has a scale of its own.
// The table lies in shared memory 32 times, once for each lane: no two lanes of a warp then ask the same bank.

typedef unsigned char byte;
typedef unsigned short sixteen;  // the bits of a number of 16

#if HALF
#define KIND "f16"
#else
#define KIND "bf16"
#endif

__device__ __forceinline__ sixteen rounded(float value) {
    sixteen bits;
    asm("cvt.rn." KIND ".f32 %0, %1;" : "=h"(bits) : "f"(value));
    return bits;
}

__device__ __forceinline__ float widened(sixteen bits) {
#if HALF
    float value;
    asm("cvt.f32.f16 %0, %1;" : "=f"(value) : "h"(bits));
    return value;
#else
    return __uint_as_float((unsigned)bits << 16);
#endif
}

// sums (16, 8) += a (16, 16) b (16, 8), spread over a warp as the instruction wants it
__device__ __forceinline__ void multiply(float* sums, unsigned a0, unsigned a1, unsigned a2, unsigned a3, unsigned b0,
                                         unsigned b1) {
    asm("mma.sync.aligned.m16n8k16.row.col.f32." KIND "." KIND
        ".f32 {%0, %1, %2, %3}, {%4, %5, %6, %7}, {%8, %9}, {%0, %1, %2, %3};"
        : "+f"(sums[0]), "+f"(sums[1]), "+f"(sums[2]), "+f"(sums[3])
        : "r"(a0), "r"(a1), "r"(a2), "r"(a3), "r"(b0), "r"(b1));
}

extern "C" __global__ void __launch_bounds__(WARPS * 32)
product(sixteen* out, const uint4* x, const uint4* weight, const byte* absmax, const float* absmax_code,
        const float* absmax_scale, const float* offset, const float* code, const sixteen* low, const sixteen* b,
        double scale, int height, int width, int rank) {
    extern __shared__ unsigned table[];
    __shared__ float scales[256], partial[WARPS][16];
    const int lane = threadIdx.x % 32, warp = threadIdx.x / 32;
    const unsigned level = rounded(code[lane % 16]);
    for (int value = warp; value < 256; value += WARPS)  // the first weight of a byte is its upper half
        table[value * 32 + lane] = __shfl_sync(~0u, level, value / 16) | __shfl_sync(~0u, level, value % 16) << 16;
#if NESTED
    for (int i = threadIdx.x; i < 256; i += WARPS * 32) scales[i] = absmax_code[i];
    const float shift = *offset;
#define SCALE(i) (scales[absmax[i]] * __ldg(absmax_scale + (i) / 256) + shift)
#else
#define SCALE(i) __ldg(absmax_scale + (i))
#endif
    __syncthreads();
#define PAIR(word, n) table[(((word) >> (8 * (n))) & 255) * 32 + lane]

    const int blocks = width / 64, group = lane / 4, part = lane % 4;
    const bool my_column = part / 2 == group % 2;
    const uint4 zeros = {0, 0, 0, 0};
    for (int tile = blockIdx.x; tile * 16 < height; tile += gridDim.x) {
        const int upper_row = min(tile * 16 + group, height - 1) * blocks;
        const int lower_row = min(tile * 16 + group + 8, height - 1) * blocks;
        const int row = tile * 16 + threadIdx.x / 16, column = threadIdx.x % 16;  // 16 threads a result: WARPS is 8
        float sum = 0;
        for (int c = column; row < height && c < rank; c += 16)
            sum += (float)scale * widened(low[c]) * widened(b[row * rank + c]);
        float upper = 0, lower = 0;
#pragma unroll 2
        for (int block = warp * 4; block < blocks; block += WARPS * 4) {  // four blocks of 64 weights a round
            uint4 above[2], below[2];
#pragma unroll
            for (int half = 0; half < 2; half++) {
                const int at = min(block + 2 * half + part / 2, blocks - 1) * 2 + part % 2;
                above[half] = __ldcs(weight + upper_row * 2 + at);
                below[half] = __ldcs(weight + lower_row * 2 + at);
            }
            const int mine = min(block + part, blocks - 1);  // the block whose sum this lane scales
            const float scale_above = SCALE(upper_row + mine), scale_below = SCALE(lower_row + mine);
            float sums[2][4] = {};
#pragma unroll
            for (int half = 0; half < 2; half++) {
                const int read = block + 2 * half + part / 2;
                const uint4* from = x + read * 8 + part % 2 * 4;
                const bool some = my_column && read < blocks;
#pragma unroll
                for (int quarter = 0; quarter < 4; quarter++) {
                    const uint4 v = some ? __ldg(from + quarter) : zeros;
                    const unsigned a = (&above[half].x)[quarter], c = (&below[half].x)[quarter];
                    multiply(sums[half], PAIR(a, 0), PAIR(c, 0), PAIR(a, 1), PAIR(c, 1), v.x, v.y);
                    multiply(sums[half], PAIR(a, 2), PAIR(c, 2), PAIR(a, 3), PAIR(c, 3), v.z, v.w);
                }
            }
            if (block + part < blocks) {
                upper += scale_above * (part == 0 ? sums[0][0] : part == 1 ? sums[0][1] : part == 2 ? sums[1][0] : sums[1][1]);
                lower += scale_below * (part == 0 ? sums[0][2] : part == 1 ? sums[0][3] : part == 2 ? sums[1][2] : sums[1][3]);
            }
        }
        for (int step = 1; step < 4; step *= 2) {
            upper += __shfl_xor_sync(~0u, upper, step);
            lower += __shfl_xor_sync(~0u, lower, step);
        }
        if (part == 0) partial[warp][group] = upper, partial[warp][group + 8] = lower;
        __syncthreads();
        if (column < WARPS) sum += partial[column][threadIdx.x / 16];
        for (int step = 8; step; step /= 2) sum += __shfl_xor_sync(~0u, sum, step);
        if (column == 0 && row < height) out[row] = rounded(sum);
        __syncthreads();
    }
}
