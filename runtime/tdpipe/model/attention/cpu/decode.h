/* Decode: a row has one query and a key has few lanes, so memory bandwidth is the limit. The cache
   is streamed in the order of addresses, all heads of a token together and four tokens at a time.
   Each token is read once for all lanes and prefetched one tile ahead. */
#pragma once

#include "lane.h"

/* Lanes that share one load of four keys: as many as the registers hold. */
#if LANES == 16 || defined(__aarch64__)
enum { LANE_BLOCK = 4 };
#else
enum { LANE_BLOCK = 2 };
#endif

/* Loads a register of float32, or of bfloat16 pairs that are split into even and odd elements. The
   split is cheaper than widening in order, and it does not change a dot product as long as queries
   and outputs are split in the same way. */
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

/* Index of element d of a vector after its units are split. */
INLINE int split_index(int d, const int bf16) {
    return bf16 ? d / (2 * LANES) * 2 * LANES + d % 2 * LANES + d % (2 * LANES) / 2 : d;
}

/* Computes the scores of `lanes` queries for four keys. */
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

/* Calls block(first lane, constant number of lanes) until all `group` lanes are done. */
#define FOR_LANE_BLOCKS(group, block)        \
    for (int lane_ = 0; lane_ < (group);) {  \
        int left_ = (group) - lane_;         \
        if (left_ >= 4 && LANE_BLOCK >= 4) { \
            block(lane_, 4);                 \
            lane_ += 4;                      \
        } else if (left_ >= 3 && LANE_BLOCK >= 4) { \
            block(lane_, 3);                 \
            lane_ += 3;                      \
        } else if (left_ >= 2) {             \
            block(lane_, 2);                 \
            lane_ += 2;                      \
        } else {                             \
            block(lane_, 1);                 \
            lane_ += 1;                      \
        }                                    \
    }

/* Converts the scores of one lane in a tile to weights, and returns the factor that corrects the
   lane's earlier sums. */
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

/* The tokens of one tile of an item. */
typedef struct {
    int64_t offsets[TDPIPE_KEY_TILE]; /* offset of each token's first head, in elements */
    int count;
} token_tile;

INLINE void locate_tile(const tdpipe_call *call, const tdpipe_item *item, int64_t first,
                        token_tile *tile) {
    const int64_t left = call->context_len[item->row] - first;
    tile->count = left < TDPIPE_KEY_TILE ? (int)left : TDPIPE_KEY_TILE;
    locate_tokens(call, item->row, first, tile->count, tile->offsets);
    for (int k = 0; k < tile->count; k++)
        tile->offsets[k] += item->head_begin * call->cache_head_stride;
    /* The last group of four is filled with the last token. The scores of the copies are masked, so
       their weights are zero. */
    for (int k = tile->count; k % 4; k++) tile->offsets[k] = tile->offsets[k - 1];
}

/* Maximum number of bytes of a token that is prefetched. The hardware detects longer runs by
   itself, and a tile of them would evict the tile that is being computed. */
enum { MAX_PREFETCH_BYTES = 2048 };

/* Starts to load four tokens into the second-level cache, which has room for the next tile. The
   hardware does not prefetch short runs at scattered addresses well: without this, decode with 4 kv
   heads of 64 took 1.6 times as long in float32 and 1.5 times in bfloat16. */
INLINE void prefetch_tokens(const void *cache, const token_tile *tile, int k, int64_t bytes,
                         const int bf16) {
    if (bytes > MAX_PREFETCH_BYTES) return;
    for (int i = k; i < k + 4 && i < tile->count; i++) {
        const char *from = (const char *)cache + tile->offsets[i] * (bf16 ? 2 : 4);
        for (int64_t at = 0; at < bytes; at += 64) __builtin_prefetch(from + at, 0, 2);
    }
}

INLINE void stream(const tdpipe_call *call, const tdpipe_item *item, const tdpipe_item *next,
                   const int bf16) {
    const int group = (int)(call->query_heads / call->kv_heads), head_dim = (int)call->head_dim;
    const int heads = item->head_end - item->head_begin, lanes = heads * group, size = bf16 ? 2 : 4;
    const int unit = (bf16 ? 2 : 1) * LANES, padded = (head_dim + unit - 1) / unit * unit;
    const int64_t length = call->context_len[item->row], head_step = call->cache_head_stride * size;
    const int64_t begin = window_start(call, length - 1), bytes = heads * head_step;
    ALIGNED float query[TDPIPE_STREAM_LANES * TDPIPE_MAX_HEAD_DIM];
    ALIGNED float sums[TDPIPE_STREAM_LANES * TDPIPE_MAX_HEAD_DIM];
    ALIGNED float scores[TDPIPE_STREAM_LANES * TDPIPE_KEY_TILE];
    float peak[TDPIPE_STREAM_LANES], total[TDPIPE_STREAM_LANES];
    token_tile tile, ahead;

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
    locate_tile(call, item, begin, &tile);
    for (int64_t first = begin; first < length; first += TDPIPE_KEY_TILE, tile = ahead) {
        const int count = tile.count;
        if (length - first > TDPIPE_KEY_TILE)
            locate_tile(call, item, first + TDPIPE_KEY_TILE, &ahead);
        else if (next)
            locate_tile(call, next, window_start(call, call->context_len[next->row] - 1), &ahead);
        else ahead.count = 0;
        for (int k = 0; k < count; k += 4) {
            prefetch_tokens(call->values, &tile, k, bytes, bf16);
            for (int head = 0; head < heads; head++) {
                const char *keys[4];
                UNROLL
                for (int i = 0; i < 4; i++)
                    keys[i] =
                        (const char *)call->keys + tile.offsets[k + i] * size + head * head_step;
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
            prefetch_tokens(call->keys, &ahead, k, bytes, bf16);
            for (int head = 0; head < heads; head++) {
                const char *values[4];
                UNROLL
                for (int i = 0; i < 4; i++)
                    values[i] =
                        (const char *)call->values + tile.offsets[k + i] * size + head * head_step;
#define WEIGH(lane, n)                                                          \
    weigh_block(values, scores + (head * group + (lane)) * TDPIPE_KEY_TILE + k, \
                sums + (head * group + (lane)) * padded, padded, head_dim, n, bf16)
                FOR_LANE_BLOCKS(group, WEIGH)
            }
        }
        for (int k = (count + 3) / 4 * 4; k < ahead.count; k += 4)
            prefetch_tokens(call->keys, &ahead, k, bytes, bf16);
    }
    for (int lane = 0; lane < lanes; lane++) {
        void *to = output_at(call, item, item->head_begin + lane / group, lane % group, bf16);
        for (int d = 0; d < head_dim; d++)
            store_element(to, d, sums[lane * padded + split_index(d, bf16)] / total[lane], bf16);
    }
}
