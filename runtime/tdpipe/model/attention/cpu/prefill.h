/* Prefill: a key has many lanes, so arithmetic is the limit. The vector registers hold lanes of one
   kv head, keys and values are broadcast, and the softmax needs no sum across a register. */
#pragma once

#include "lane.h"

/* Rows of a product that are computed together, with three registers of lanes each: as many as the
   registers hold. */
#if LANES == 16 || defined(__aarch64__)
enum { ROW_BLOCK = 8 };
#else
enum { ROW_BLOCK = 4 };
#endif

typedef float lane_row[TDPIPE_TILE_LANES];

typedef struct {
    ALIGNED lane_row query[TDPIPE_MAX_HEAD_DIM]; /* scaled, transposed */
    ALIGNED lane_row sums[TDPIPE_MAX_HEAD_DIM];  /* transposed */
    ALIGNED lane_row scores[TDPIPE_KEY_TILE];
    float packed[TDPIPE_KEY_TILE * TDPIPE_MAX_HEAD_DIM]; /* the tile's keys, and later its values */
    ALIGNED lane_row peak, total, correction;
    ALIGNED int32_t position[TDPIPE_TILE_LANES];
} lane_tile;

/* out[r][l] = (carry ? out[r][l] * carry[l] : 0)
             + sum over i of left[r * row_step + i * inner_step] * right[i][l],
   for ROW_BLOCK rows and `vectors` registers of lanes. */
INLINE void multiply_block(lane_row *out, const float *carry, const float *left, int row_step,
                           int inner_step, const lane_row *right, int inner, const int vectors) {
    vec sums[ROW_BLOCK][3];
    UNROLL
    for (int r = 0; r < ROW_BLOCK; r++) {
        UNROLL
        for (int v = 0; v < vectors; v++)
            sums[r][v] = carry ? load(out[r] + v * LANES) * load(carry + v * LANES) : splat(0);
    }
    for (int i = 0; i < inner; i++) {
        vec shared[3];
        UNROLL
        for (int v = 0; v < vectors; v++) shared[v] = load(right[i] + v * LANES);
        UNROLL
        for (int r = 0; r < ROW_BLOCK; r++) {
            vec factor = splat(left[r * row_step + i * inner_step]);
            UNROLL
            for (int v = 0; v < vectors; v++) sums[r][v] += factor * shared[v];
        }
    }
    UNROLL
    for (int r = 0; r < ROW_BLOCK; r++) {
        UNROLL
        for (int v = 0; v < vectors; v++) store(out[r] + v * LANES, sums[r][v]);
    }
}

INLINE void multiply(lane_row *out, const float *carry, const float *left, int row_step,
                     int inner_step, const lane_row *right, int rows, int inner, int lanes) {
    for (int r = 0; r < rows; r += ROW_BLOCK) {
        for (int lane = 0; lane < lanes; lane += 3 * LANES) {
            lane_row *to = (lane_row *)(out[r] + lane);
            const lane_row *by = (const lane_row *)(right[0] + lane);
            const float *old = carry ? carry + lane : 0, *rows_from = left + r * row_step;
            const int vectors = (lanes - lane + LANES - 1) / LANES;
            if (vectors >= 3)
                multiply_block(to, old, rows_from, row_step, inner_step, by, inner, 3);
            else if (vectors == 2)
                multiply_block(to, old, rows_from, row_step, inner_step, by, inner, 2);
            else multiply_block(to, old, rows_from, row_step, inner_step, by, inner, 1);
        }
    }
}

/* Copies one head of `count` tokens as float32, padded with zeros to whole row blocks in both
   dimensions. */
INLINE void pack(float *packed, const void *cache, const int64_t *tokens, int count, int head_dim,
                 int padded, const int bf16) {
    for (int k = 0; k < count; k++) {
        const char *from = (const char *)cache + tokens[k] * (bf16 ? 2 : 4);
        for (int d = 0; d < head_dim; d++) packed[k * padded + d] = load_element(from, d, bf16);
        for (int d = head_dim; d < padded; d++) packed[k * padded + d] = 0;
    }
    for (int d = count * padded; d < (count + ROW_BLOCK - 1) / ROW_BLOCK * ROW_BLOCK * padded; d++)
        packed[d] = 0;
}

/* Masks the scores of a tile, converts them to weights, and sets the factor that corrects each
   lane's earlier sums. */
INLINE void weigh_tile(const tdpipe_call *call, lane_tile *tile, int64_t first, int count,
                       int lanes, int masked) {
    const int32_t window = call->window ? (int32_t)call->window : INT32_MAX;
    for (int lane = 0; lane < lanes; lane += LANES) {
        ivec position;
        memcpy(&position, tile->position + lane, sizeof position);
        const vec old = load(tile->peak + lane);
        vec peak = old, sum = {0};
        for (int k = 0; k < count; k++) {
            vec score = load(tile->scores[k] + lane);
            if (call->softcap > 0) score = call->softcap * tanh_(score / call->softcap);
            if (masked) {
                ivec distance = position - (int32_t)(first + k);
                score = select((distance >= 0) & (distance < window), score, splat(MASKED));
            }
            if (masked || call->softcap > 0) store(tile->scores[k] + lane, score);
            peak = maximum(score, peak);
        }
        for (int k = 0; k < count; k++) {
            vec weight = exp_nonpositive(load(tile->scores[k] + lane) - peak);
            store(tile->scores[k] + lane, weight);
            sum += weight;
        }
        vec correction = exp_nonpositive(old - peak);
        store(tile->correction + lane, correction);
        store(tile->total + lane, load(tile->total + lane) * correction + sum);
        store(tile->peak + lane, peak);
    }
}

INLINE void attend_tile(const tdpipe_call *call, const tdpipe_item *item, const int bf16) {
    const int group = (int)(call->query_heads / call->kv_heads), head_dim = (int)call->head_dim;
    const int head = item->head_begin, used = item->lane_end - item->lane_begin;
    const int lanes = (used + LANES - 1) / LANES * LANES;
    const int padded = (head_dim + ROW_BLOCK - 1) / ROW_BLOCK * ROW_BLOCK;
    const int queries = call->query_start[item->row + 1] - call->query_start[item->row];
    const int64_t before = call->context_len[item->row] - queries;
    const int64_t lowest = before + item->lane_begin / group;
    const int64_t highest = before + (item->lane_end - 1) / group;
    int64_t tokens[TDPIPE_KEY_TILE];
    lane_tile tile;

    for (int lane = 0; lane < lanes; lane++) {
        /* Lanes after the end are copies of the last one, and their results are not stored. */
        const int source = item->lane_begin + (lane < used ? lane : used - 1);
        const char *from = query_at(call, item, head, source, bf16);
        for (int d = 0; d < head_dim; d++)
            tile.query[d][lane] = load_element(from, d, bf16) * call->scale;
        tile.position[lane] = (int32_t)(before + source / group);
        tile.peak[lane] = MASKED;
        tile.total[lane] = 0;
    }
    memset(tile.sums, 0, sizeof(tile.sums[0]) * (size_t)padded);
    for (int64_t first = window_start(call, lowest); first <= highest; first += TDPIPE_KEY_TILE) {
        const int count =
            highest + 1 - first < TDPIPE_KEY_TILE ? (int)(highest + 1 - first) : TDPIPE_KEY_TILE;
        const int masked =
            first + count - 1 > lowest || (call->window && highest - first >= call->window);
        locate_tokens(call, item->row, first, count, tokens);
        for (int k = 0; k < count; k++) tokens[k] += head * call->cache_head_stride;

        pack(tile.packed, call->keys, tokens, count, head_dim, padded, bf16);
        multiply(tile.scores, 0, tile.packed, padded, 1,
                 (const lane_row *)tile.query, count, head_dim, lanes);
        weigh_tile(call, &tile, first, count, lanes, masked);
        pack(tile.packed, call->values, tokens, count, head_dim, padded, bf16);
        multiply(tile.sums, tile.correction, tile.packed, 1, padded,
                 (const lane_row *)tile.scores, padded, count, lanes);
    }
    for (int lane = 0; lane < used; lane++) {
        void *to = output_at(call, item, head, item->lane_begin + lane, bf16);
        for (int d = 0; d < head_dim; d++)
            store_element(to, d, tile.sums[d][lane] / tile.total[lane], bf16);
    }
}
