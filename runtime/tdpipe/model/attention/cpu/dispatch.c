/* The library's entry point: checks a call, stores its keys and values, divides it into items and
   gives these to threads. The division depends on the rows and threads of the call, but what an
   item computes for a lane depends only on the lane's own row, so a row's result is the same to the
   bit in any batch. */

#include <stdlib.h>
#include <string.h>

#include "kernel.h"

enum { OK, NO_MEMORY, BAD_SLOT, BAD_BLOCK, BAD_ROW };
enum { PORTABLE, AVX2, AVX512 };

tdpipe_attend_item tdpipe_attend_portable;
#if defined(__x86_64__)
tdpipe_attend_item tdpipe_attend_avx2, tdpipe_attend_avx512;
#endif

static tdpipe_attend_item *variant(int isa) {
#if defined(__x86_64__)
    __builtin_cpu_init();
    if (isa == AVX512 && __builtin_cpu_supports("avx512f") && __builtin_cpu_supports("avx512bw") &&
        __builtin_cpu_supports("avx512vl") && __builtin_cpu_supports("avx512dq"))
        return tdpipe_attend_avx512;
    if (isa == AVX2 && __builtin_cpu_supports("avx2") && __builtin_cpu_supports("fma"))
        return tdpipe_attend_avx2;
#endif
    return isa == PORTABLE ? tdpipe_attend_portable : 0;
}

int tdpipe_supports(int isa) { return variant(isa) != 0; }

/* An invalid table would make the kernel access other memory; the check takes microseconds. */
static int check(const tdpipe_call *call) {
    const int64_t slots = call->num_blocks * call->block_size;
    for (int64_t token = 0; token < call->tokens; token++)
        if (call->slot_mapping[token] < 0 || call->slot_mapping[token] >= slots) return BAD_SLOT;
    if (call->rows && (call->query_start[0] < 0 || call->query_start[call->rows] > call->tokens))
        return BAD_ROW;
    for (int64_t row = 0; row < call->rows; row++) {
        const int64_t queries = call->query_start[row + 1] - call->query_start[row];
        if (queries == 0) continue;
        const int64_t length = call->context_len[row], last = (length - 1) / call->block_size;
        if (queries < 0 || length < queries || last >= call->table_columns) return BAD_ROW;
        const int64_t oldest = length - queries - call->window + 1;
        const int32_t *table = call->block_tables + row * call->table_stride;
        for (int64_t b = call->window && oldest > 0 ? oldest / call->block_size : 0; b <= last; b++)
            if (table[b] < 0 || table[b] >= call->num_blocks) return BAD_BLOCK;
    }
    return OK;
}

static void store_token(const tdpipe_call *call, int64_t token) {
    const int64_t size = call->bfloat16 ? 2 : 4, slot = call->slot_mapping[token];
    const int64_t to = slot / call->block_size * call->cache_block_stride +
                       slot % call->block_size * call->cache_token_stride;
    for (int64_t head = 0; head < call->kv_heads; head++) {
        const int64_t key = token * call->key_token_stride + head * call->key_head_stride;
        const int64_t value = token * call->value_token_stride + head * call->value_head_stride;
        const int64_t at = (to + head * call->cache_head_stride) * size;
        memcpy((char *)call->keys + at, (const char *)call->key + key * size,
               (size_t)(call->head_dim * size));
        memcpy((char *)call->values + at, (const char *)call->value + value * size,
               (size_t)(call->head_dim * size));
    }
}

/* Writes the items of all rows unless `items` is null, and returns their number. */
static int64_t plan(const tdpipe_call *call, tdpipe_item *items) {
    const int64_t group = call->query_heads / call->kv_heads;
    const int64_t max_heads = group > TDPIPE_STREAM_LANES ? 1 : TDPIPE_STREAM_LANES / group;
    /* All heads of a token are next to each other in memory and are best read together, but a batch
       of few rows must be divided by heads to occupy every thread. */
    int64_t heads =
        call->threads > 1 ? (call->kv_heads * call->rows) / (4 * call->threads) : call->kv_heads;
    heads = heads < 1 ? 1 : heads > max_heads ? max_heads : heads;
    int64_t count = 0;
    for (int64_t row = 0; row < call->rows; row++) {
        const int64_t queries = call->query_start[row + 1] - call->query_start[row];
        const int64_t lanes = queries * group;
        const int streaming = queries == 1 && group <= TDPIPE_MAX_STREAM_GROUP;
        const int64_t head_step = streaming ? heads : 1;
        const int64_t lane_step = streaming ? lanes : TDPIPE_TILE_LANES;
        for (int64_t lane = 0; lane < lanes; lane += lane_step) {
            for (int64_t head = 0; head < call->kv_heads; head += head_step, count++) {
                if (!items) continue;
                const int64_t head_end = head + head_step, lane_end = lane + lane_step;
                items[count] = (tdpipe_item){
                    .row = (int32_t)row,
                    .head_begin = (int32_t)head,
                    .head_end = (int32_t)(head_end < call->kv_heads ? head_end : call->kv_heads),
                    .lane_begin = (int32_t)lane,
                    .lane_end = (int32_t)(lane_end < lanes ? lane_end : lanes),
                    .streaming = streaming,
                };
            }
        }
    }
    return count;
}

/* Threads take items in turn, so the next item of a thread comes as many items later as there are
   threads. */
static const tdpipe_item *after(const tdpipe_item *items, int64_t count, int64_t i,
                                int64_t threads) {
    return i + threads < count && items[i + threads].streaming ? items + i + threads : 0;
}

int tdpipe_attend(const tdpipe_call *call, int isa) {
    tdpipe_attend_item *attend = variant(isa);
    const int problem = check(call);
    if (problem) return problem;
    const int64_t count = plan(call, 0);
    tdpipe_item *items = malloc(sizeof(tdpipe_item) * (size_t)(count ? count : 1));
    if (!items) return NO_MEMORY;
    plan(call, items);
    if (call->threads == 1) { /* entering a parallel region takes longer than a small decode */
        for (int64_t token = 0; token < call->tokens; token++) store_token(call, token);
        for (int64_t i = 0; i < count; i++) attend(call, items + i, after(items, count, i, 1));
    } else {
#pragma omp parallel num_threads((int)call->threads)
        {
#pragma omp for
            for (int64_t token = 0; token < call->tokens; token++) store_token(call, token);
#pragma omp for schedule(dynamic)
            for (int64_t i = 0; i < count; i++)
                attend(call, items + i, after(items, count, i, call->threads));
        }
    }
    free(items);
    return OK;
}
