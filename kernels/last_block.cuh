// How the blocks of a sum find out which of them is the last, and adds what the others wrote. This saves a launch.

// Whether this block is the last of `count` that count themselves at `ticket`. What the others wrote before is then
// visible to it. The ticket starts as 0 and is 0 again after the last. All threads of the block must call it.
__device__ inline bool last_block(unsigned *ticket, unsigned count) {
  __threadfence();  // what this thread wrote is visible to other blocks before the block is counted
  __syncthreads();
  bool mine = threadIdx.x == 0 && threadIdx.y == 0;
  bool last = __syncthreads_or(mine && atomicInc(ticket, count - 1) == count - 1);
  __threadfence();
  return last;
}
