// Two losses, each with its gradient in the same pass, and the mean sigmoid; tinysrgan/losses.py has the formulas.
//
//   squared_error  loss = mean (y - target)^2                             gradient = 2 (y - target) / count
//   cross_entropy  loss = mean max(y, 0) - y label + log(1 + exp(-|y|))   gradient = (sigmoid(y) - label) / count
//   mean_sigmoid   mean = mean sigmoid(y)
//
// y, target, gradient (count): any shape. loss, mean: one element. -DREAL=double makes everything float64.
//
// The arrays are rows of one channel for rows.cuh: blocks take equal parts, and the last block to finish adds the sums
// of the others in a fixed order.
#include "rows.cuh"

#ifndef REAL
#define REAL float
#endif

// Never overflows.
__device__ __forceinline__ REAL sigmoid(REAL y) { return REAL(0.5) * tanh(REAL(0.5) * y) + REAL(0.5); }

extern "C" __global__ void squared_error(const REAL *__restrict__ y, const REAL *__restrict__ target,
                                         REAL *__restrict__ gradient, REAL *loss, REAL *parts, unsigned *tickets,
                                         long long count) {
  RowRange range(count, 1);
  REAL sum = 0;
#pragma unroll 4
  for (long long i = range.first; i < range.end; i += blockDim.y) {
    REAL difference = y[i] - target[i];
    sum += difference * difference;
    gradient[i] = difference * (REAL(2) / count);
  }
  if (add_blocks(sum, parts, tickets, 0, 1)) *loss = sum / count;
}

extern "C" __global__ void cross_entropy(const REAL *__restrict__ y, REAL *__restrict__ gradient, REAL *loss,
                                         REAL *parts, unsigned *tickets, REAL label, long long count) {
  RowRange range(count, 1);
  REAL sum = 0;
  for (long long i = range.first; i < range.end; i += blockDim.y) {
    REAL logit = y[i], size = logit < 0 ? -logit : logit;
    sum += (logit > 0 ? logit : 0) - logit * label + log1p(exp(-size));
    gradient[i] = (sigmoid(logit) - label) / count;
  }
  if (add_blocks(sum, parts, tickets, 0, 1)) *loss = sum / count;
}

extern "C" __global__ void mean_sigmoid(const REAL *__restrict__ y, REAL *mean, REAL *parts, unsigned *tickets,
                                        long long count) {
  RowRange range(count, 1);
  REAL sum = 0;
  for (long long i = range.first; i < range.end; i += blockDim.y) sum += sigmoid(y[i]);
  if (add_blocks(sum, parts, tickets, 0, 1)) *mean = sum / count;
}
