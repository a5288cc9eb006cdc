// Two losses, each with its gradient in the same pass; tinysrgan/losses.py has the formulas.
//
//   squared_error  loss = mean (y - target)^2                             gradient = 2 (y - target) / count
//   cross_entropy  loss = mean max(y, 0) - y label + log(1 + exp(-|y|))   gradient = (sigmoid(y) - label) / count
//
// y, target, gradient (count): any shape. loss: one element. -DREAL=double makes everything float64.
//
// The arrays are rows of one channel for rows.cuh: blocks take equal parts, and the last block to finish adds the sums
// of the others in a fixed order.
#include "rows.cuh"

#ifndef REAL
#define REAL float
#endif

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
    gradient[i] = (REAL(0.5) * tanh(REAL(0.5) * logit) + REAL(0.5) - label) / count;
  }
  if (add_blocks(sum, parts, tickets, 0, 1)) *loss = sum / count;
}
