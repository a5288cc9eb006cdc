// Leaky and parametric ReLU, forward and backward.
//
//   y[row, c]  = x[row, c]  where x[row, c] > 0, else slope[c] x[row, c]
//   dx[row, c] = dy[row, c] where x[row, c] > 0, else slope[c] dy[row, c]
//   dslope[c]  = sum over row  of  dy[row, c] min(x[row, c], 0)
//
// x, y, dy, dx (rows, C): any shape (..., C), with all axes but the last merged into one. slope (slopes), where slopes
// is C, or 1 for one slope for all channels. Any sizes. -DREAL=double makes everything float64.
//
// The kernels are memory-bound: reading dy and x takes most of the time. So dx and dslope are computed in one pass over
// both. As in sums.cu, a block takes some of the rows and writes one row of partial sums.
#include "rows.cuh"

#ifndef REAL
#define REAL float
#endif

extern "C" __global__ void leaky(const REAL *__restrict__ x, const REAL *__restrict__ slope, REAL *__restrict__ y,
                                 long long rows, int C, int slopes) {
  RowRange range(rows, C);
  if (range.first >= range.end) return;
  REAL a = slope[slopes == 1 ? 0 : range.c];
#pragma unroll 8
  for (long long row = range.first; row < range.end; row += blockDim.y) {
    REAL value = x[row * C + range.c];
    y[row * C + range.c] = value > 0 ? value : a * value;
  }
}

// dx and, unless it is null, parts (gridDim.x, C): dslope over each block's rows. sums.cu adds the parts.
extern "C" __global__ void leaky_grad(const REAL *__restrict__ dy, const REAL *__restrict__ x,
                                      const REAL *__restrict__ slope, REAL *__restrict__ dx, REAL *__restrict__ parts,
                                      long long rows, int C, int slopes) {
  RowRange range(rows, C);
  REAL sum = 0;
  if (range.first < range.end) {
    REAL a = slope[slopes == 1 ? 0 : range.c];
#pragma unroll 4  // with two loads in each
    for (long long row = range.first; row < range.end; row += blockDim.y) {
      long long i = row * C + range.c;
      REAL value = x[i], gradient = dy[i];
      bool positive = value > 0;
      dx[i] = positive ? gradient : a * gradient;
      sum += positive ? 0 : gradient * value;
    }
  }
  if (!parts) return;  // the same for all threads, as the barriers of add_rows need
  sum = add_rows(sum);
  if (threadIdx.y == 0 && range.c < C) parts[(long long)blockIdx.x * C + range.c] = sum;
}
