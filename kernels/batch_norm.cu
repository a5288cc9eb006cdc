// Batch normalisation: the moments of each channel, the normalised numbers, and the gradients of both.
//
//   mean[c] = sum x[row, c] / rows        variance[c] = sum (x[row, c] - mean[c])^2 / rows
//   y[row, c]  = x[row, c] scale[c] + shift[c]
//   sums[0, c] = sum dy[row, c]           sums[1, c] = sum dy[row, c] (x[row, c] - mean[c]) inverse_std[c]
//   dx[row, c] = factor[c] (dy[row, c] - mean_dy[c] - (x[row, c] - mean[c]) slope[c])
//
// x, y, dy, dx (rows, C): any shape (..., C) with all axes but the last taken as one. Any sizes. -DREAL=double makes
// everything float64. What goes into scale, shift, factor, mean_dy and slope: tinysrgan/layers/norm.py.
//
// As in sums.cu, a block takes some of the rows, threadIdx.x is the channel and threadIdx.y the row, and what blocks have
// summed is added up by a second launch, always in the same order. A thread keeps its channel, so what there is one of
// for each channel is loaded once, into registers.
#ifndef REAL
#define REAL float
#endif
#define THREADS 1024  // at most, in a block

// --- The moments. mean(x^2) - mean(x)^2 would lose its digits where the mean is much larger than the spread. Instead all
// is measured from points among the numbers themselves, and parts are merged by how far their means are apart.

struct Moments {
  REAL count, mean, square;  // the mean less the channel's first number x[0, c]; the sum of (x - mean)^2
};

// Both together (Chan, Golub & LeVeque 1983).
__device__ Moments operator+(Moments a, Moments b) {
  REAL count = a.count + b.count;
  if (count == 0) return a;
  REAL apart = b.mean - a.mean, part = b.count / count;
  return {count, a.mean + apart * part, a.square + b.square + apart * apart * a.count * part};
}

// parts (gridDim.x, C): the moments of each block's rows.
extern "C" __global__ void moments_of_rows(const REAL *__restrict__ x, Moments *__restrict__ parts, long long rows, int C) {
  Share my(rows, C);
  Moments moments = {0, 0, 0};
  if (my.first < my.end) {
    // This thread measures from the first of its n numbers. The square of how far that is from their mean is at most n
    // times their variance, so that the difference below loses no more than a factor of n in precision.
    REAL origin = x[my.c], own = x[my.first * C + my.c] - origin, sum = 0, square = 0;
#pragma unroll 8
    for (long long row = my.first; row < my.end; row += blockDim.y) {
      REAL distance = x[row * C + my.c] - origin - own;
      sum += distance, square += distance * distance;
    }
    REAL count = (my.end - my.first + blockDim.y - 1) / blockDim.y, mean = sum / count;
    moments = {count, own + mean, square - sum * mean};
  }
  moments = add_rows(moments);
  if (threadIdx.y == 0 && my.c < C) parts[(long long)blockIdx.x * C + my.c] = moments;
}

// mean and variance (C) from `parts` (count, C); one block for each group of channels.
extern "C" __global__ void __launch_bounds__(THREADS)
    moments_of_parts(const Moments *__restrict__ parts, const REAL *__restrict__ x, REAL *__restrict__ mean,
                     REAL *__restrict__ variance, long long count, int C) {
  Share my(count, C);
  Moments moments = {0, 0, 0};
#pragma unroll 2
  for (long long part = my.first; part < my.end; part += blockDim.y) moments = moments + parts[part * C + my.c];
  moments = add_rows(moments);
  if (threadIdx.y || my.c >= C) return;
  mean[my.c] = x[my.c] + moments.mean;
  variance[my.c] = moments.square / moments.count;
}

// --- The rest.

extern "C" __global__ void normalise(const REAL *__restrict__ x, const REAL *__restrict__ scale,
                                     const REAL *__restrict__ shift, REAL *__restrict__ y, long long rows, int C) {
  Share my(rows, C);
  if (my.first >= my.end) return;
  REAL a = scale[my.c], b = shift[my.c];
#pragma unroll 8
  for (long long row = my.first; row < my.end; row += blockDim.y) y[row * C + my.c] = x[row * C + my.c] * a + b;
}

struct Sums {
  REAL dy, dy_normal;
};
__device__ Sums operator+(Sums a, Sums b) { return {a.dy + b.dy, a.dy_normal + b.dy_normal}; }

// parts (gridDim.x, 2, C): the two sums over each block's rows. sums.cu adds them up.
extern "C" __global__ void grad_sums(const REAL *__restrict__ dy, const REAL *__restrict__ x, const REAL *__restrict__ mean,
                                     const REAL *__restrict__ inverse_std, REAL *__restrict__ parts, long long rows, int C) {
  Share my(rows, C);
  Sums sums = {0, 0};
  if (my.first < my.end) {
    REAL origin = mean[my.c], scale = inverse_std[my.c];
#pragma unroll 4  // and two loads each
    for (long long row = my.first; row < my.end; row += blockDim.y) {
      REAL gradient = dy[row * C + my.c];
      sums = sums + Sums{gradient, gradient * ((x[row * C + my.c] - origin) * scale)};
    }
  }
  sums = add_rows(sums);
  if (threadIdx.y || my.c >= C) return;
  parts[2 * (long long)blockIdx.x * C + my.c] = sums.dy;
  parts[(2 * (long long)blockIdx.x + 1) * C + my.c] = sums.dy_normal;
}

extern "C" __global__ void grad_input(const REAL *__restrict__ dy, const REAL *__restrict__ x,
                                      const REAL *__restrict__ factor, const REAL *__restrict__ mean_dy,
                                      const REAL *__restrict__ mean, const REAL *__restrict__ slope, REAL *__restrict__ dx,
                                      long long rows, int C) {
  Share my(rows, C);
  if (my.first >= my.end) return;
  REAL by = factor[my.c], middle_dy = mean_dy[my.c], middle = mean[my.c], tilt = slope[my.c];
#pragma unroll 4
  for (long long row = my.first; row < my.end; row += blockDim.y) {
    long long i = row * C + my.c;
    dx[i] = by * (dy[i] - middle_dy - (x[i] - middle) * tilt);
  }
}
