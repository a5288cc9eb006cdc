// Sums over all axes but the last: the gradient of a bias, and the last step of every other sum over rows.
//
//   sum[c] = sum over row  of  x[row, c]
//
// x (rows, C): any shape (..., C) with all axes but the last taken as one. Any sizes. -DREAL=double makes it float64.
//
// A block takes some of the rows and writes one row of partial sums; launched once more, on those, as a single block for
// each group of channels, the same kernel adds them up. Blocks could add to sum[c] directly, with atomicAdd. But whoever
// comes first is then added first, rounding differs from run to run, and a seed no longer repeats. Many short sums are
// also more precise than one long one, in which small numbers are added to a large total.
//
// The threads of a block lie as x does: threadIdx.x is the channel, threadIdx.y the row. Neighbouring threads read
// neighbouring numbers (a warp's 32 loads are one run of 128 bytes), and no thread has to divide to learn its channel.
#ifndef REAL
#define REAL float
#endif
#define THREADS 1024  // at most, in a block

// parts (gridDim.x, C): in row i the sums over the rows that block i takes.
extern "C" __global__ void __launch_bounds__(THREADS)
    sum_rows(const REAL *__restrict__ x, REAL *__restrict__ parts, long long rows, int C) {
  Share my(rows, C);  // beyond C no rows, but no return either: barriers are for all
  REAL sum = 0;
#pragma unroll 8  // eight loads under way at a time, instead of one and a long wait
  for (long long row = my.first; row < my.end; row += blockDim.y) sum += x[row * C + my.c];
  sum = add_rows(sum);
  if (threadIdx.y == 0 && my.c < C) parts[(long long)blockIdx.x * C + my.c] = sum;
}
