/* Vectors as wide as the registers that this compilation may use. They are written with the
   compilers' vector extensions instead of intrinsics, so that one source is for AVX-512, AVX2, SSE2
   and NEON. */
#pragma once

#include <stdint.h>
#include <string.h>

#if defined(__AVX512F__)
#define LANES 16
#elif defined(__AVX2__)
#define LANES 8
#else
#define LANES 4
#endif

#define INLINE static inline __attribute__((always_inline))
#define ALIGNED __attribute__((aligned(64))) /* no load spans two cache lines */
#define UNROLL _Pragma("GCC unroll 16")

typedef float vec __attribute__((vector_size(4 * LANES)));
typedef int32_t ivec __attribute__((vector_size(4 * LANES)));
typedef uint32_t uvec __attribute__((vector_size(4 * LANES)));
typedef float vec4 __attribute__((vector_size(16)));

/* Indices that select, within every 128 bits, elements i and j of a, then k and l of b. */
#if LANES == 16
#define QUADS(i, j, k, l)                                                                     \
    i, j, 16 + k, 16 + l, 4 + i, 4 + j, 20 + k, 20 + l, 8 + i, 8 + j, 24 + k, 24 + l, 12 + i, \
        12 + j, 28 + k, 28 + l
#elif LANES == 8
#define QUADS(i, j, k, l) i, j, 8 + k, 8 + l, 4 + i, 4 + j, 12 + k, 12 + l
#else
#define QUADS(i, j, k, l) i, j, 4 + k, 4 + l
#endif
#if defined(__clang__)
#define SHUFFLE(a, b, ...) __builtin_shufflevector(a, b, __VA_ARGS__)
#else
#define SHUFFLE(a, b, ...) __builtin_shuffle(a, b, (ivec){__VA_ARGS__})
#endif

INLINE vec load(const void *from) {
    vec value;
    memcpy(&value, from, sizeof value);
    return value;
}

INLINE void store(void *to, vec value) { memcpy(to, &value, sizeof value); }

INLINE vec splat(float value) { return value - (vec){0}; }

INLINE vec select(ivec mask, vec yes, vec no) {
    return (vec)((mask & (ivec)yes) | (~mask & (ivec)no));
}

INLINE vec maximum(vec a, vec b) { return select(a > b, a, b); }

/* Adds the parts of 128 bits that a register has. */
INLINE vec4 fold(vec a) {
    vec4 quarter[LANES / 4];
    memcpy(quarter, &a, sizeof quarter);
#if LANES == 16
    return (quarter[0] + quarter[1]) + (quarter[2] + quarter[3]);
#elif LANES == 8
    return quarter[0] + quarter[1];
#else
    return quarter[0];
#endif
}

/* Returns [sum of a, sum of b, sum of c, sum of d]. */
INLINE vec4 sum_each(vec a, vec b, vec c, vec d) {
    vec ab = SHUFFLE(a, b, QUADS(0, 1, 0, 1)) + SHUFFLE(a, b, QUADS(2, 3, 2, 3));
    vec cd = SHUFFLE(c, d, QUADS(0, 1, 0, 1)) + SHUFFLE(c, d, QUADS(2, 3, 2, 3));
    return fold(SHUFFLE(ab, cd, QUADS(0, 2, 0, 2)) + SHUFFLE(ab, cd, QUADS(1, 3, 1, 3)));
}

INLINE float sum_of(vec a) {
    vec4 sum = fold(a);
    return (sum[0] + sum[1]) + (sum[2] + sum[3]);
}

INLINE float peak_of(vec a) {
    a = maximum(a, SHUFFLE(a, a, QUADS(1, 0, 3, 2)));
    a = maximum(a, SHUFFLE(a, a, QUADS(2, 3, 0, 1)));
    float peak = a[0];
    for (int i = 4; i < LANES; i += 4) peak = a[i] > peak ? a[i] : peak;
    return peak;
}

/* e^x for x <= 0 with an error of up to two units in the last place (Cephes' expf). It is exactly 0
   below the smallest normal float, so that masked scores have no weight. NaN stays NaN. */
INLINE vec exp_nonpositive(vec x) {
    /* Adding 1.5 * 2^23 leaves the rounded integer in the low bits. */
    const vec shifter = splat(12582912.0f);
    vec shifted = x * 1.44269504088896341f + shifter;
    vec n = shifted - shifter;
    vec r = x - n * 0.693359375f;
    r = r + n * 2.12194440e-4f;
    vec p = r * 1.9875691500e-4f + 1.3981999507e-3f;
    p = p * r + 8.3334519073e-3f;
    p = p * r + 4.1665795894e-2f;
    p = p * r + 1.6666665459e-1f;
    p = p * r + 5.0000001201e-1f;
    p = p * (r * r) + r + 1.0f;
    /* Unsigned, because values that are discarded below may wrap around. */
    vec power = (vec)((uvec)p + ((uvec)shifted << 23));
    return (vec)(~(x < -87.0f) & (ivec)power);
}

INLINE vec tanh_(vec x) {
    const ivec sign = (ivec)x & INT32_MIN;
    vec size = (vec)((ivec)x ^ sign);
    vec e = exp_nonpositive(size * -2.0f);
    vec large = (1.0f - e) / (1.0f + e);
    /* Near 0, where most scores are, the quotient loses digits, so the Taylor series is used. */
    vec s = size * size;
    vec series = -0.333333333f + s * (0.133333333f + s * (-0.0539682540f + s * 0.0218694885f));
    vec small = size + size * s * series;
    return (vec)((ivec)select(size < 0.3f, small, large) | sign);
}
