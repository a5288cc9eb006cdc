// Batch normalization: the mean and variance of each channel, the normalized values, and the gradients.
//
//   mean[c] = sum x[row, c] / rows        variance[c] = sum (x[row, c] - mean[c])^2 / rows
//   y[row, c]  = x[row, c] scale[c] + shift[c]
//   sums[0, c] = sum dy[row, c]           sums[1, c] = sum dy[row, c] (x[row, c] - mean[c]) inverse_std[c]
//   dx[row, c] = factor[c] (dy[row, c] - mean_dy[c] - (x[row, c] - mean[c]) slope[c])
//
// x, y, dy, dx (rows, C): any shape (..., C), with all axes but the last merged into one. Any sizes. -DREAL=double
// makes everything float64. tinysrgan/layers/norm.py computes scale, shift, factor, mean_dy and slope.
//
// As in sums.cu, a block takes some of the rows, threadIdx.x is the channel and threadIdx.y the row, and a second
// launch adds the partial results of the blocks in a fixed order. A thread has one channel only, so it loads the values
// of its channel once, into registers.
#include "rows.cuh"

#ifndef REAL
#define REAL float
#endif
#define THREADS 1024  // the most in a block

// --- The moments. mean(x^2) - mean(x)^2 would cancel badly where the mean is much larger than the deviation. Instead,
// deviations are measured from values of x itself, and partial moments are merged using the difference of their means.

struct Moments {
  REAL count, mean, square;  // the mean minus the channel's first value x[0, c]; the sum of (x - mean)^2
};

// The moments of both sets of values together (Chan, Golub & LeVeque 1983).
__device__ Moments operator+(Moments a, Moments b) {
  REAL count = a.count + b.count;
  if (count == 0) return a;
  REAL difference = b.mean - a.mean, fraction = b.count / count;
  return {count, a.mean + difference * fraction,
          a.square + b.square + difference * difference * a.count * fraction};
}

// parts (gridDim.x, C): the moments of each block's rows.
extern "C" __global__ void moments_of_rows(const REAL *__restrict__ x, Moments *__restrict__ parts, long long rows,
                                           int C) {
  RowRange range(rows, C);
  Moments moments = {0, 0, 0};
  if (range.first < range.end) {
    // The thread measures deviations from the first of its n values. The squared distance of that value from their mean
    // is at most n times their variance, so the subtraction below loses no more than a factor of n in precision.
    REAL origin = x[range.c], start = x[range.first * C + range.c] - origin, sum = 0, square = 0;
#pragma unroll 8
    for (long long row = range.first; row < range.end; row += blockDim.y) {
      REAL deviation = x[row * C + range.c] - origin - start;
      sum += deviation, square += deviation * deviation;
    }
    REAL count = (range.end - range.first + blockDim.y - 1) / blockDim.y, mean = sum / count;
    moments = {count, start + mean, square - sum * mean};
  }
  moments = add_rows(moments);
  if (threadIdx.y == 0 && range.c < C) parts[(long long)blockIdx.x * C + range.c] = moments;
}

// mean and variance (C) from parts (count, C); one block for each group of channels.
extern "C" __global__ void __launch_bounds__(THREADS)
    moments_of_parts(const Moments *__restrict__ parts, const REAL *__restrict__ x, REAL *__restrict__ mean,
                     REAL *__restrict__ variance, long long count, int C) {
  RowRange range(count, C);
  Moments moments = {0, 0, 0};
#pragma unroll 2
  for (long long part = range.first; part < range.end; part += blockDim.y)
    moments = moments + parts[part * C + range.c];
  moments = add_rows(moments);
  if (threadIdx.y || range.c >= C) return;
  mean[range.c] = x[range.c] + moments.mean;
  variance[range.c] = moments.square / moments.count;
}

// --- The normalized values and the gradients.

extern "C" __global__ void normalise(const REAL *__restrict__ x, const REAL *__restrict__ scale,
                                     const REAL *__restrict__ shift, REAL *__restrict__ y, long long rows, int C) {
  RowRange range(rows, C);
  if (range.first >= range.end) return;
  REAL a = scale[range.c], b = shift[range.c];
#pragma unroll 8
  for (long long row = range.first; row < range.end; row += blockDim.y)
    y[row * C + range.c] = x[row * C + range.c] * a + b;
}

struct Sums {
  REAL dy, dy_normal;
};
__device__ Sums operator+(Sums a, Sums b) { return {a.dy + b.dy, a.dy_normal + b.dy_normal}; }

// parts (gridDim.x, 2, C): the two sums over each block's rows. sums.cu adds the parts.
extern "C" __global__ void grad_sums(const REAL *__restrict__ dy, const REAL *__restrict__ x,
                                     const REAL *__restrict__ mean, const REAL *__restrict__ inverse_std,
                                     REAL *__restrict__ parts, long long rows, int C) {
  RowRange range(rows, C);
  Sums sums = {0, 0};
  if (range.first < range.end) {
    REAL origin = mean[range.c], scale = inverse_std[range.c];
#pragma unroll 4  // with two loads in each
    for (long long row = range.first; row < range.end; row += blockDim.y) {
      REAL gradient = dy[row * C + range.c];
      sums = sums + Sums{gradient, gradient * ((x[row * C + range.c] - origin) * scale)};
    }
  }
  sums = add_rows(sums);
  if (threadIdx.y || range.c >= C) return;
  parts[2 * (long long)blockIdx.x * C + range.c] = sums.dy;
  parts[(2 * (long long)blockIdx.x + 1) * C + range.c] = sums.dy_normal;
}

extern "C" __global__ void grad_input(const REAL *__restrict__ dy, const REAL *__restrict__ x,
                                      const REAL *__restrict__ factor, const REAL *__restrict__ mean_dy,
                                      const REAL *__restrict__ mean, const REAL *__restrict__ slope,
                                      REAL *__restrict__ dx, long long rows, int C) {
  RowRange range(rows, C);
  if (range.first >= range.end) return;
  REAL factor_c = factor[range.c], mean_dy_c = mean_dy[range.c], mean_c = mean[range.c], slope_c = slope[range.c];
#pragma unroll 4
  for (long long row = range.first; row < range.end; row += blockDim.y) {
    long long i = row * C + range.c;
    dx[i] = factor_c * (dy[i] - mean_dy_c - (x[i] - mean_c) * slope_c);
  }
}
