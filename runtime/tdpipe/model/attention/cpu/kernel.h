/* Types and limits that the dispatcher and the kernel's variants share. Strides count elements. */
#pragma once

#include <stdint.h>

/* One attention call. `_Call` in backend.py has the same fields in the same order. */
typedef struct {
    const void *query, *key, *value;
    void *keys, *values, *output;
    const int32_t *query_start, *context_len, *block_tables;
    const int64_t *slot_mapping;
    int64_t query_token_stride, query_head_stride;
    int64_t key_token_stride, key_head_stride;
    int64_t value_token_stride, value_head_stride;
    int64_t cache_block_stride, cache_token_stride, cache_head_stride;
    int64_t table_stride, table_columns;
    int64_t rows, tokens, query_heads, kv_heads, head_dim, block_size, num_blocks;
    int64_t bfloat16; /* 0: every tensor is float32; 1: every tensor is bfloat16 */
    int64_t window;   /* 0: none */
    int64_t threads;
    float scale;
    float softcap; /* 0: none */
} tdpipe_call;

/* A unit of work for one thread: lanes of one row and some of its kv heads. A lane is one query
   vector: lane l of kv head h is query l / group, query head h * group + l % group. */
typedef struct {
    int32_t row;
    int32_t head_begin, head_end; /* range of kv heads */
    int32_t lane_begin, lane_end; /* range of lanes of every kv head */
    int32_t streaming;            /* decode: reads the cache once, from front to back */
} tdpipe_item;

/* `next` is the item that the thread will probably get next, if that is streaming, else null. */
typedef void tdpipe_attend_item(const tdpipe_call *call, const tdpipe_item *item,
                                const tdpipe_item *next);

enum {
    TDPIPE_MAX_HEAD_DIM = 256,
    TDPIPE_KEY_TILE = 64,     /* keys between two corrections of the running softmax */
    TDPIPE_TILE_LANES = 48,   /* lanes that share one read of a prefill row's keys */
    TDPIPE_STREAM_LANES = 64, /* lanes that share one pass over a decode row's keys */
    /* Query heads per kv head; larger groups were faster as a tile of lanes. */
    TDPIPE_MAX_STREAM_GROUP = 12,
};
