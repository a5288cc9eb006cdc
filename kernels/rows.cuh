// What the kernels share that treat an array as rows of C channels, (rows, C), and sum over the rows.
//
// The threads of a block are arranged as the elements are: threadIdx.x is the channel, threadIdx.y the row. The blocks
// along a grid's x divide the rows.

#include "last_block.cuh"

constexpr int THREADS = 256;  // the most in a block

// The rows that this thread processes: every blockDim.y-th from `first` to `end`. There are none where c >= C.
struct RowRange {
  int c;
  long long first, end;

  __device__ RowRange(long long rows, int C) : c(blockIdx.y * blockDim.x + threadIdx.x) {
    long long each = (rows + gridDim.x - 1) / gridDim.x, begin = blockIdx.x * each;
    first = begin + threadIdx.y, end = c < C ? min(begin + each, rows) : 0;
  }
};

// The sum of `value` over the threads with the same threadIdx.x, in pairs; only threadIdx.y == 0 gets it. All threads
// of the block must call it.
template <class Value> __device__ Value add_rows(Value value) {
  __shared__ Value shared[THREADS];
  Value *place = shared + threadIdx.y * blockDim.x + threadIdx.x;
  *place = value;
  for (int count = blockDim.y, half; count > 1; count = half) {
    half = (count + 1) / 2;
    __syncthreads();  // the second half was written by other threads
    if (threadIdx.y + half < count) *place = *place + place[half * blockDim.x];
  }
  return *place;
}

// The sum of `value` over all rows. Each block writes its own sum to parts (gridDim.x, C); the last block to arrive
// adds these, always in the same order. True where `value` is then the total of channel c: in one thread for each
// channel. All threads of the block must call it.
template <class Value>
__device__ bool add_blocks(Value &value, Value *parts, unsigned *tickets, int c, int C) {
  value = add_rows(value);
  if (threadIdx.y == 0 && c < C) parts[(long long)blockIdx.x * C + c] = value;
  if (!last_block(tickets + blockIdx.y, gridDim.x)) return false;
  value = Value{};
#pragma unroll 4
  for (int part = threadIdx.y; part < (c < C ? (int)gridDim.x : 0); part += blockDim.y)
    value = value + parts[(long long)part * C + c];
  value = add_rows(value);
  return threadIdx.y == 0 && c < C;
}
