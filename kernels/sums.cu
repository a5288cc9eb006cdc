// Sums over all axes but the last, such as the gradient of a bias.
//
//   total[c] = sum over row  of  x[row, c]     (or += with ADD)
//
// x (rows, C): any shape (..., C), with all axes but the last merged into one. Any sizes. -DREAL=double makes it
// float64.
//
// A block takes some of the rows and writes one row of partial sums; the last block to finish adds these (rows.cuh).
// Blocks could add to total[c] directly, with atomicAdd. The order of additions and thus their rounding would then
// differ from run to run, and a seed would not repeat. Many short sums are also more precise than a long one, which adds
// small values to a large total.
//
// The threads of a block are arranged as x is: threadIdx.x is the channel, threadIdx.y the row. Neighbouring threads
// read contiguous elements (a warp's 32 loads are one run of 128 bytes), and no division is needed to find a thread's
// channel.
#include "rows.cuh"

#ifndef REAL
#define REAL float
#endif
#ifndef ADD
#define ADD 0
#endif

extern "C" __global__ void sum_rows(const REAL *__restrict__ x, REAL *parts, unsigned *tickets, REAL *total,
                                    long long rows, int C) {
  RowRange range(rows, C);  // empty beyond C; no early return, because all threads must reach the barriers
  REAL sum = 0;
#pragma unroll 8  // so that eight loads are in flight at a time
  for (long long row = range.first; row < range.end; row += blockDim.y) sum += x[row * C + range.c];
  if (add_blocks(sum, parts, tickets, range.c, C)) total[range.c] = ADD ? total[range.c] + sum : sum;
}
