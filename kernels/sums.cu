// Sums over all axes but the last: the gradient of a bias, and the last step of every other sum over rows.
//
//   sum[c] = sum over row  of  x[row, c]
//
// x (rows, C): any shape (..., C), with all axes but the last merged into one. Any sizes. -DREAL=double makes it
// float64.
//
// A block takes some of the rows and writes one row of partial sums. A second launch of the same kernel, with one block
// for each group of channels, adds these. Blocks could add to sum[c] directly, with atomicAdd. The order of additions
// and thus their rounding would then differ from run to run, and a seed would not repeat. Many short sums are also more
// precise than a long one, which adds small values to a large total.
//
// The threads of a block are arranged as x is: threadIdx.x is the channel, threadIdx.y the row. Neighbouring threads
// read contiguous elements (a warp's 32 loads are one run of 128 bytes), and no division is needed to find a thread's
// channel.
#include "rows.cuh"

#ifndef REAL
#define REAL float
#endif
#define THREADS 1024  // the most in a block

// parts (gridDim.x, C): row i has the sums over the rows of block i.
extern "C" __global__ void __launch_bounds__(THREADS)
    sum_rows(const REAL *__restrict__ x, REAL *__restrict__ parts, long long rows, int C) {
  RowRange range(rows, C);  // empty beyond C; no early return, because all threads must reach the barriers
  REAL sum = 0;
#pragma unroll 8  // so that eight loads are in flight at a time
  for (long long row = range.first; row < range.end; row += blockDim.y) sum += x[row * C + range.c];
  sum = add_rows(sum);
  if (threadIdx.y == 0 && range.c < C) parts[(long long)blockIdx.x * C + range.c] = sum;
}
