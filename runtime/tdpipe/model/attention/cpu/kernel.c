/* Attention of one item over the paged KV cache, compiled once for every instruction set. Decode
   and prefill both keep a running softmax over tiles of keys, and sum in float32. */

#include "decode.h"
#include "prefill.h"

/* Separate functions, so that a decode does not reserve the stack of a prefill. */
static __attribute__((noinline)) void stream_f32(const tdpipe_call *c, const tdpipe_item *i,
                                                 const tdpipe_item *next) {
    stream(c, i, next, 0);
}
static __attribute__((noinline)) void stream_bf16(const tdpipe_call *c, const tdpipe_item *i,
                                                 const tdpipe_item *next) {
    stream(c, i, next, 1);
}
static __attribute__((noinline)) void tile_f32(const tdpipe_call *c, const tdpipe_item *i) {
    attend_tile(c, i, 0);
}
static __attribute__((noinline)) void tile_bf16(const tdpipe_call *c, const tdpipe_item *i) {
    attend_tile(c, i, 1);
}

void TDPIPE_VARIANT(const tdpipe_call *call, const tdpipe_item *item, const tdpipe_item *next) {
    if (item->streaming) (call->bfloat16 ? stream_bf16 : stream_f32)(call, item, next);
    else (call->bfloat16 ? tile_bf16 : tile_f32)(call, item);
}
