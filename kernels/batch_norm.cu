// Batch normalization: the mean and variance of each channel, the normalized values, and the gradients.
//
//   mean[c] = sum x[row, c] / rows        variance[c] = sum (x[row, c] - mean[c])^2 / rows
//   y[row, c]  = (x[row, c] - mean[c]) gamma[c] / std[c] + beta[c]        std[c] = sqrt(variance[c] + epsilon)
//   sums[0, c] = sum dy[row, c]           sums[1, c] = sum dy[row, c] normal[row, c]    normal = (x - mean) / std
//   dx[row, c] = gamma[c] / std[c] (dy[row, c] - sums[0, c] / n - normal[row, c] sums[1, c] / n)
//
// The activation that often follows, a leaky or parametric ReLU, and a shortcut can be part of the same passes:
//
//   y[row, c] = leaky(...) + shortcut[row, c]
//   and in the backward pass, dy counts slope[c] times where what the activation got was not positive
//
// x, y, dy, dx (rows, C): any shape (..., C), with all axes but the last merged into one. Any sizes. -DREAL=double
// makes everything float64. Forward and backward are two launches each: sums over the batch, then what uses them. What
// has one value for each channel is computed where it is used, by each thread for its channel.
//
// As in sums.cu, a block takes some of the rows, threadIdx.x is the channel and threadIdx.y the row, and the last block
// adds the partial results of the others in a fixed order.
#include "rows.cuh"

#ifndef REAL
#define REAL float
#endif

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

extern "C" __global__ void moments(const REAL *__restrict__ x, Moments *parts, unsigned *tickets,
                                   REAL *__restrict__ mean, REAL *__restrict__ variance, long long rows, int C) {
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
  if (!add_blocks(moments, parts, tickets, range.c, C)) return;
  mean[range.c] = x[range.c] + moments.mean;
  variance[range.c] = moments.square / moments.count;
}

// --- The normalized values and the gradients.

// Leaky or parametric ReLU with C slopes, one, or none, in which case it changes nothing.
struct Activation {
  bool present;
  REAL slope;

  __device__ Activation(const REAL *slopes, int count, int c) : present(slopes), slope(1) {
    if (present) slope = slopes[count == 1 ? 0 : c];
  }
  __device__ bool positive(REAL value) const { return !present || value > 0; }
};

// scale and shift with (x - mean) gamma / std + beta = x scale + shift.
struct Affine {
  REAL scale, shift;

  __device__ Affine(REAL mean, REAL variance, REAL gamma, REAL beta, REAL epsilon)
      : scale(gamma / sqrt(variance + epsilon)), shift(beta - mean * scale) {}
  __device__ REAL operator()(REAL x) const { return x * scale + shift; }
};

// y; and unless they are null, the running moments move towards mean and variance by `rate` of the distance. slopes and
// shortcut (rows, C) may be null.
extern "C" __global__ void normalize(const REAL *__restrict__ x, const REAL *__restrict__ mean,
                                     const REAL *__restrict__ variance, const REAL *__restrict__ gamma,
                                     const REAL *__restrict__ beta, const REAL *__restrict__ slopes,
                                     const REAL *__restrict__ shortcut, REAL *__restrict__ y, REAL *running_mean,
                                     REAL *running_variance, REAL rate, REAL epsilon, long long rows, int C,
                                     int slope_count) {
  RowRange range(rows, C);
  if (range.first >= range.end) return;
  REAL mean_c = mean[range.c], variance_c = variance[range.c];
  if (running_mean && range.first == 0) {  // one thread of the grid for each channel
    running_mean[range.c] += rate * (mean_c - running_mean[range.c]);
    running_variance[range.c] += rate * (variance_c - running_variance[range.c]);
  }
  Affine affine(mean_c, variance_c, gamma[range.c], beta[range.c], epsilon);
  Activation activation(slopes, slope_count, range.c);
#pragma unroll 8
  for (long long row = range.first; row < range.end; row += blockDim.y) {
    long long i = row * C + range.c;
    REAL value = affine(x[i]);
    if (!activation.positive(value)) value *= activation.slope;
    y[i] = shortcut ? value + shortcut[i] : value;
  }
}

struct Sums {
  REAL dy, dy_normal, dslope;
};
__device__ Sums operator+(Sums a, Sums b) { return {a.dy + b.dy, a.dy_normal + b.dy_normal, a.dslope + b.dslope}; }

// sums (2, C); and unless they are null, beta_grad and gamma_grad += the two, slope_grad (C) += that of the slopes.
extern "C" __global__ void grad_sums(const REAL *__restrict__ dy, const REAL *__restrict__ x,
                                     const REAL *__restrict__ mean, const REAL *__restrict__ variance,
                                     const REAL *__restrict__ gamma, const REAL *__restrict__ beta,
                                     const REAL *__restrict__ slopes, Sums *parts, unsigned *tickets,
                                     REAL *__restrict__ sums, REAL *beta_grad, REAL *gamma_grad, REAL *slope_grad,
                                     REAL epsilon, long long rows, int C, int slope_count) {
  RowRange range(rows, C);
  Sums own = {0, 0, 0};
  if (range.first < range.end) {
    REAL origin = mean[range.c], inverse_std = 1 / sqrt(variance[range.c] + epsilon);
    Affine affine(origin, variance[range.c], gamma[range.c], beta[range.c], epsilon);
    Activation activation(slopes, slope_count, range.c);
#pragma unroll 4  // with two loads in each
    for (long long row = range.first; row < range.end; row += blockDim.y) {
      REAL value = x[row * C + range.c], gradient = dy[row * C + range.c], dslope = 0;
      if (!activation.positive(affine(value))) dslope = gradient * affine(value), gradient *= activation.slope;
      own = own + Sums{gradient, gradient * ((value - origin) * inverse_std), dslope};
    }
  }
  if (!add_blocks(own, parts, tickets, range.c, C)) return;
  sums[range.c] = own.dy, sums[C + range.c] = own.dy_normal;
  if (beta_grad) beta_grad[range.c] += own.dy, gamma_grad[range.c] += own.dy_normal;
  if (slope_grad) slope_grad[range.c] += own.dslope;
}

// n is the number of rows that `sums` are of.
extern "C" __global__ void grad_input(const REAL *__restrict__ dy, const REAL *__restrict__ x,
                                      const REAL *__restrict__ mean, const REAL *__restrict__ variance,
                                      const REAL *__restrict__ gamma, const REAL *__restrict__ beta,
                                      const REAL *__restrict__ slopes, const REAL *__restrict__ sums,
                                      REAL *__restrict__ dx, REAL n, REAL epsilon, long long rows, int C,
                                      int slope_count) {
  RowRange range(rows, C);
  if (range.first >= range.end) return;
  REAL inverse_std = 1 / sqrt(variance[range.c] + epsilon), factor = gamma[range.c] * inverse_std;
  REAL mean_dy = sums[range.c] / n, steepness = inverse_std * sums[C + range.c] / n, mean_c = mean[range.c];
  Affine affine(mean_c, variance[range.c], gamma[range.c], beta[range.c], epsilon);
  Activation activation(slopes, slope_count, range.c);
#pragma unroll 4
  for (long long row = range.first; row < range.end; row += blockDim.y) {
    long long i = row * C + range.c;
    REAL value = x[i], gradient = dy[i];
    if (!activation.positive(affine(value))) gradient *= activation.slope;
    dx[i] = factor * (gradient - mean_dy - (value - mean_c) * steepness);
  }
}
