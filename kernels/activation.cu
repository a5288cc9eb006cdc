// Leaky and parametric ReLU, forward and backward.
//
//   y[row, c]  = x[row, c]  where x[row, c] > 0, else slope[c] x[row, c]
//   dx[row, c] = dy[row, c] where x[row, c] > 0, else slope[c] dy[row, c]
//   dslope[c]  = sum over row  of  dy[row, c] min(x[row, c], 0)
//
// x, y, dy, dx (rows, C): any shape (..., C) with all axes but the last taken as one; slope (slopes), where slopes is C,
// or 1: the same slope for all. Any sizes. -DREAL=double makes everything float64.
//
// What takes the time is memory: reading dy and x. So dx and dslope are made in one pass over both. As in sums.cu, a block
// takes some of the rows and writes one row of partial sums, threadIdx.x is the channel and threadIdx.y the row.
#ifndef REAL
#define REAL float
#endif

extern "C" __global__ void leaky(const REAL *__restrict__ x, const REAL *__restrict__ slope, REAL *__restrict__ y,
                                 long long rows, int C, int slopes) {
  Share my(rows, C);
  if (my.first >= my.end) return;
  REAL a = slope[slopes == 1 ? 0 : my.c];
#pragma unroll 8
  for (long long row = my.first; row < my.end; row += blockDim.y) {
    REAL number = x[row * C + my.c];
    y[row * C + my.c] = number > 0 ? number : a * number;
  }
}

// dx and, unless null, parts (gridDim.x, C): dslope over each block's rows. sums.cu adds them up.
extern "C" __global__ void leaky_grad(const REAL *__restrict__ dy, const REAL *__restrict__ x,
                                      const REAL *__restrict__ slope, REAL *__restrict__ dx, REAL *__restrict__ parts,
                                      long long rows, int C, int slopes) {
  Share my(rows, C);
  REAL sum = 0;
  if (my.first < my.end) {
    REAL a = slope[slopes == 1 ? 0 : my.c];
#pragma unroll 4  // and two loads each
    for (long long row = my.first; row < my.end; row += blockDim.y) {
      long long i = row * C + my.c;
      REAL number = x[i], gradient = dy[i];
      bool positive = number > 0;
      dx[i] = positive ? gradient : a * gradient;
      sum += positive ? 0 : gradient * number;
    }
  }
  if (!parts) return;  // all threads, or none
  sum = add_rows(sum);
  if (threadIdx.y == 0 && my.c < C) parts[(long long)blockIdx.x * C + my.c] = sum;
}
