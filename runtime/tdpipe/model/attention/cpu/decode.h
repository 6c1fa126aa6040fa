/* Decode: one query per row, few lanes per key, so memory is the bound. The cache is streamed in
   the order of addresses, all heads of a token together, four tokens at a time, each read once for
   all lanes. */
#pragma once

#include "lane.h"

/* Lanes that share one load of keys: with four keys each, what the registers hold. */
#if LANES == 16 || defined(__aarch64__)
enum { LANE_BLOCK = 4 };
#else
enum { LANE_BLOCK = 2 };
#endif

/* A register of float32, or of bfloat16 pairs split into even and odd elements: cheaper than
   widening in order, and a dot product does not care as long as queries and outputs are split
   alike. */
INLINE void load_unit(const char *from, vec out[2], const int bf16) {
    vec words = load(from);
    out[0] = bf16 ? (vec)((uvec)words << 16) : words;
    out[1] = bf16 ? (vec)((uvec)words & 0xffff0000u) : words;
}

INLINE void load_tail(const char *from, int bytes, vec out[2], const int bf16) {
    vec words = {0};
    memcpy(&words, from, (size_t)bytes);
    load_unit((const char *)&words, out, bf16);
}

/* Where element d of a vector lies once its units are split. */
INLINE int split_index(int d, const int bf16) {
    return bf16 ? d / (2 * LANES) * 2 * LANES + d % 2 * LANES + d % (2 * LANES) / 2 : d;
}

/* Scores of `lanes` queries against four keys. */
INLINE void dot_block(const char *const keys[4], const float *query, int padded, int head_dim,
                      float *scores, const int lanes, const int bf16) {
    const int halves = bf16 ? 2 : 1, unit = halves * LANES;
    vec sums[LANE_BLOCK][4] = {{{0}}};
    for (int d = 0; d < head_dim; d += unit) {
        const int size = bf16 ? 2 : 4;
        vec key[4][2];
        if (d + unit <= head_dim) {
            UNROLL
            for (int k = 0; k < 4; k++) load_unit(keys[k] + d * size, key[k], bf16);
        } else {
            UNROLL
            for (int k = 0; k < 4; k++)
                load_tail(keys[k] + d * size, (head_dim - d) * size, key[k], bf16);
        }
        UNROLL
        for (int lane = 0; lane < lanes; lane++) {
            UNROLL
            for (int half = 0; half < halves; half++) {
                vec q = load(query + lane * padded + d + half * LANES);
                UNROLL
                for (int k = 0; k < 4; k++) sums[lane][k] += q * key[k][half];
            }
        }
    }
    UNROLL
    for (int lane = 0; lane < lanes; lane++) {
        vec4 sum = sum_each(sums[lane][0], sums[lane][1], sums[lane][2], sums[lane][3]);
        memcpy(scores + lane * TDPIPE_KEY_TILE, &sum, sizeof sum);
    }
}

/* Adds four weighted values to the sums of `lanes` queries. */
INLINE void weigh_block(const char *const values[4], const float *weights, float *sums, int padded,
                        int head_dim, const int lanes, const int bf16) {
    const int halves = bf16 ? 2 : 1, unit = halves * LANES;
    for (int d = 0; d < head_dim; d += unit) {
        const int size = bf16 ? 2 : 4;
        vec value[4][2];
        if (d + unit <= head_dim) {
            UNROLL
            for (int k = 0; k < 4; k++) load_unit(values[k] + d * size, value[k], bf16);
        } else {
            UNROLL
            for (int k = 0; k < 4; k++)
                load_tail(values[k] + d * size, (head_dim - d) * size, value[k], bf16);
        }
        UNROLL
        for (int lane = 0; lane < lanes; lane++) {
            const float *weight = weights + lane * TDPIPE_KEY_TILE;
            UNROLL
            for (int half = 0; half < halves; half++) {
                float *at = sums + lane * padded + d + half * LANES;
                vec sum = load(at);
                UNROLL
                for (int k = 0; k < 4; k++) sum += weight[k] * value[k][half];
                store(at, sum);
            }
        }
    }
}

/* Calls block(first lane, constant number of lanes) until `group` lanes are done. */
#define FOR_LANE_BLOCKS(group, block)        \
    for (int lane_ = 0; lane_ < (group);) {  \
        int left_ = (group) - lane_;         \
        if (left_ >= 4 && LANE_BLOCK >= 4) { \
            block(lane_, 4);                 \
            lane_ += 4;                      \
        } else if (left_ >= 2) {             \
            block(lane_, 2);                 \
            lane_ += 2;                      \
        } else {                             \
            block(lane_, 1);                 \
            lane_ += 1;                      \
        }                                    \
    }

/* Turns a tile's scores of one lane into weights; returns the factor that corrects the lane's
   earlier sums. */
INLINE float weigh_scores(const tdpipe_call *call, float *scores, int count, float *peak,
                          float *total) {
    if (call->softcap > 0)
        for (int k = 0; k < count; k += LANES)
            store(scores + k, call->softcap * tanh_(load(scores + k) / call->softcap));
    for (int k = count; k < TDPIPE_KEY_TILE; k++) scores[k] = MASKED;
    vec highest = splat(*peak);
    for (int k = 0; k < count; k += LANES) highest = maximum(load(scores + k), highest);
    const float top = peak_of(highest);
    vec sum = {0};
    for (int k = 0; k < TDPIPE_KEY_TILE; k += LANES) {
        vec weight = exp_nonpositive(load(scores + k) - top);
        store(scores + k, weight);
        sum += weight;
    }
    float correction = exp_nonpositive(splat(*peak - top))[0];
    *total = *total * correction + sum_of(sum);
    *peak = top;
    return correction;
}

/* Address of one head of *token. Fetches the same head of the token four further on: the hardware
   sees too short runs of bfloat16 to do so in time (1.0 to 1.4 times as fast; in float32 it was up
   to 1.2 times slower). */
INLINE const char *token_at(const void *cache, const int64_t *token, int64_t head, int head_dim,
                            const int bf16) {
    const int size = bf16 ? 2 : 4;
    const char *ahead = (const char *)cache + token[4] * size + head;
    for (int at = 0; bf16 && at < head_dim * size; at += 64) __builtin_prefetch(ahead + at);
    return (const char *)cache + token[0] * size + head;
}

INLINE void stream(const tdpipe_call *call, const tdpipe_item *item, const int bf16) {
    const int group = (int)(call->query_heads / call->kv_heads), head_dim = (int)call->head_dim;
    const int heads = item->head_end - item->head_begin, lanes = heads * group, size = bf16 ? 2 : 4;
    const int unit = (bf16 ? 2 : 1) * LANES, padded = (head_dim + unit - 1) / unit * unit;
    const int64_t length = call->context_len[item->row], head_step = call->cache_head_stride * size;
    const int64_t first_head = item->head_begin * head_step;
    ALIGNED float query[TDPIPE_STREAM_LANES * TDPIPE_MAX_HEAD_DIM];
    ALIGNED float sums[TDPIPE_STREAM_LANES * TDPIPE_MAX_HEAD_DIM];
    ALIGNED float scores[TDPIPE_STREAM_LANES * TDPIPE_KEY_TILE];
    float peak[TDPIPE_STREAM_LANES], total[TDPIPE_STREAM_LANES];
    int64_t tokens[TDPIPE_KEY_TILE + 4]; /* and the block after the tile, to fetch it ahead */

    memset(query, 0, sizeof(float) * (size_t)(lanes * padded));
    memset(sums, 0, sizeof(float) * (size_t)(lanes * padded));
    for (int lane = 0; lane < lanes; lane++) {
        const char *from =
            query_at(call, item, item->head_begin + lane / group, lane % group, bf16);
        for (int d = 0; d < head_dim; d++)
            query[lane * padded + split_index(d, bf16)] = load_element(from, d, bf16) * call->scale;
        peak[lane] = MASKED;
        total[lane] = 0;
    }
    for (int64_t first = window_start(call, length - 1); first < length; first += TDPIPE_KEY_TILE) {
        const int count =
            length - first < TDPIPE_KEY_TILE ? (int)(length - first) : TDPIPE_KEY_TILE;
        const int located =
            length - first < TDPIPE_KEY_TILE + 4 ? (int)(length - first) : TDPIPE_KEY_TILE + 4;
        locate_tokens(call, item->row, first, located, tokens);
        /* The last block repeats the last token: its scores are masked, so its weights are zero. */
        for (int k = located; k < TDPIPE_KEY_TILE + 4; k++) tokens[k] = tokens[located - 1];
        for (int k = 0; k < count; k += 4) {
            for (int head = 0; head < heads; head++) {
                const char *keys[4];
                UNROLL
                for (int i = 0; i < 4; i++)
                    keys[i] = token_at(call->keys, tokens + k + i, first_head + head * head_step,
                                       head_dim, bf16);
#define DOT(lane, n)                                                            \
    dot_block(keys, query + (head * group + (lane)) * padded, padded, head_dim, \
              scores + (head * group + (lane)) * TDPIPE_KEY_TILE + k, n, bf16)
                FOR_LANE_BLOCKS(group, DOT)
            }
        }
        for (int lane = 0; lane < lanes; lane++) {
            float correction = weigh_scores(call, scores + lane * TDPIPE_KEY_TILE, count,
                                            peak + lane, total + lane);
            if (correction != 1.0f)
                for (int d = 0; d < padded; d++) sums[lane * padded + d] *= correction;
        }
        for (int k = 0; k < count; k += 4) {
            for (int head = 0; head < heads; head++) {
                const char *values[4];
                UNROLL
                for (int i = 0; i < 4; i++)
                    values[i] = token_at(call->values, tokens + k + i,
                                         first_head + head * head_step, head_dim, bf16);
#define WEIGH(lane, n)                                                          \
    weigh_block(values, scores + (head * group + (lane)) * TDPIPE_KEY_TILE + k, \
                sums + (head * group + (lane)) * padded, padded, head_dim, n, bf16)
                FOR_LANE_BLOCKS(group, WEIGH)
            }
        }
    }
    for (int lane = 0; lane < lanes; lane++) {
        void *to = output_at(call, item, item->head_begin + lane / group, lane % group, bf16);
        for (int d = 0; d < head_dim; d++)
            store_element(to, d, sums[lane * padded + split_index(d, bf16)] / total[lane], bf16);
    }
}
