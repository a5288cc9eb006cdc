// How the blocks of conv_tf32.cu that share a tile, and each sum a part of its depth, add their sums.
//
// Each block writes its sums to memory. The last one to arrive adds those of all parts, always in the same order, so
// that the same inputs always give the same result: only which block adds depends on timing. conv_add_parts.cu does the
// same with a launch of its own. That is better for the many parts of dw, which the whole GPU then adds.
#include "last_block.cuh"

// Replace this thread's sums by those over all parts of the depth and return true, or return false if a later block
// does so. blockIdx.z is part * phases + phase. parts (tiles, parts, sums of a thread / 4, THREADS), so that neighbouring
// threads write neighbouring elements; tickets (tiles). All threads of the block must call it.
__device__ __forceinline__ bool sum_parts(Sums sums, int phases, float4 *parts, unsigned *tickets) {
  constexpr int DOWN = WARP_ROWS / 16, ACROSS = WARP_COLUMNS / 8, SIZE = DOWN * ACROSS * THREADS;
  int count = gridDim.z / phases, part = blockIdx.z / phases;
  if (count == 1) return true;
  int tile = blockIdx.x + gridDim.x * (blockIdx.y + gridDim.y * (blockIdx.z % phases));
  float4 *mine = parts + (long long)tile * count * SIZE + threadIdx.x;
#pragma unroll
  for (int i = 0; i < DOWN; i++)
#pragma unroll
    for (int j = 0; j < ACROSS; j++) {
      float *four = sums[i][j];
      mine[part * SIZE + (i * ACROSS + j) * THREADS] = make_float4(four[0], four[1], four[2], four[3]);
      four[0] = four[1] = four[2] = four[3] = 0;
    }
  if (!last_block(tickets + tile, count)) return false;
  for (part = 0; part < count; part++)
#pragma unroll
    for (int i = 0; i < DOWN; i++)
#pragma unroll
      for (int j = 0; j < ACROSS; j++) {
        float4 four = mine[part * SIZE + (i * ACROSS + j) * THREADS];
        sums[i][j][0] += four.x, sums[i][j][1] += four.y, sums[i][j][2] += four.z, sums[i][j][3] += four.w;
      }
  return true;
}
