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
// both, and dslope is added to the gradient that is there. As in sums.cu, the last block adds the others' sums.
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

// dx and, unless it is null, slope_grad (C) += dslope. parts (gridDim.x, C) and tickets are those of rows.cuh.
extern "C" __global__ void leaky_grad(const REAL *__restrict__ dy, const REAL *__restrict__ x,
                                      const REAL *__restrict__ slope, REAL *__restrict__ dx, REAL *slope_grad,
                                      REAL *parts, unsigned *tickets, long long rows, int C, int slopes) {
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
  if (!slope_grad) return;  // the same for all threads, as the barriers of add_blocks need
  if (add_blocks(sum, parts, tickets, range.c, C)) slope_grad[range.c] += sum;
}
