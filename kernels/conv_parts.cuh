// How the blocks that share a tile of y or dx, and each sum a part of its depth, add their sums (conv_tiled.cu,
// conv_tf32.cu).
//
// Each block writes its sums to memory. The last one to arrive adds those of all parts, always in the same order, so
// that the same inputs always give the same result: only which block adds depends on timing. conv_add_parts.cu does the
// same with a launch of its own. That is better for the many parts of dw, which the whole GPU then adds.
#include "last_block.cuh"

// Replace the SIZE sums of this thread by those over all parts of the depth and return true, or return false if a later
// block does so. blockIdx.z is part * phases + phase. parts (tiles, parts, SIZE / 4, THREADS), so that neighbouring
// threads write neighbouring elements; tickets (tiles). All threads of the block must call it.
template <int SIZE>
__device__ __forceinline__ bool sum_parts(float *sums, int phases, float4 *parts, unsigned *tickets) {
  int count = gridDim.z / phases, part = blockIdx.z / phases;
  if (count == 1) return true;
  int tile = blockIdx.x + gridDim.x * (blockIdx.y + gridDim.y * (blockIdx.z % phases));
  float4 *mine = parts + (long long)tile * count * (SIZE / 4 * THREADS) + threadIdx.x;
#pragma unroll
  for (int i = 0; i < SIZE; i += 4) {
    mine[(part * (SIZE / 4) + i / 4) * THREADS] = make_float4(sums[i], sums[i + 1], sums[i + 2], sums[i + 3]);
    sums[i] = sums[i + 1] = sums[i + 2] = sums[i + 3] = 0;
  }
  if (!last_block(tickets + tile, count)) return false;
  for (part = 0; part < count; part++)
#pragma unroll
    for (int i = 0; i < SIZE; i += 4) {
      float4 four = mine[(part * (SIZE / 4) + i / 4) * THREADS];
      sums[i] += four.x, sums[i + 1] += four.y, sums[i + 2] += four.z, sums[i + 3] += four.w;
    }
  return true;
}
