/* Access to a lane's query and output, and the places of a row's tokens in the cache. */
#pragma once

#include <stdint.h>
#include <string.h>

#include "kernel.h"
#include "vector.h"

#define MASKED (-1e30f) /* finite, so that a tile in which a lane sees no key gives no NaN */

INLINE float load_element(const void *from, int64_t index, const int bf16) {
    if (!bf16) return ((const float *)from)[index];
    uint32_t bits = (uint32_t)((const uint16_t *)from)[index] << 16;
    float value;
    memcpy(&value, &bits, sizeof value);
    return value;
}

/* Rounds to the nearest bfloat16, and ties to even, as torch does. */
INLINE void store_element(void *to, int64_t index, float value, const int bf16) {
    if (!bf16) {
        ((float *)to)[index] = value;
        return;
    }
    uint32_t bits;
    memcpy(&bits, &value, sizeof bits);
    uint32_t rounded = (bits + 0x7fff + ((bits >> 16) & 1)) >> 16;
    ((uint16_t *)to)[index] = (uint16_t)(value != value ? 0x7fc0 : rounded);
}

INLINE const char *query_at(const tdpipe_call *call, const tdpipe_item *item, int head, int lane,
                            const int bf16) {
    const int group = (int)(call->query_heads / call->kv_heads);
    int64_t token = call->query_start[item->row] + lane / group;
    int64_t offset =
        token * call->query_token_stride + (head * group + lane % group) * call->query_head_stride;
    return (const char *)call->query + offset * (bf16 ? 2 : 4);
}

INLINE void *output_at(const tdpipe_call *call, const tdpipe_item *item, int head, int lane,
                       const int bf16) {
    const int group = (int)(call->query_heads / call->kv_heads);
    int64_t token = call->query_start[item->row] + lane / group;
    int64_t offset = (token * call->query_heads + head * group + lane % group) * call->head_dim;
    return (char *)call->output + offset * (bf16 ? 2 : 4);
}

/* Computes the offsets in the cache, in elements, of the row's tokens first..first+count. */
static void locate_tokens(const tdpipe_call *call, int row, int64_t first, int count,
                          int64_t *offsets) {
    const int32_t *table = call->block_tables + row * call->table_stride;
    int64_t column = first / call->block_size, within = first % call->block_size;
    for (int i = 0; i < count; i++) {
        offsets[i] = table[column] * call->cache_block_stride + within * call->cache_token_stride;
        if (++within == call->block_size) within = 0, column++;
    }
}

INLINE int64_t window_start(const tdpipe_call *call, int64_t position) {
    return call->window && position >= call->window ? position - call->window + 1 : 0;
}
