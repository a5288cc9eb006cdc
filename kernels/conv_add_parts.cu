// Adds the parts of a convolution whose depth was split among thread blocks (conv_tiled.cu, conv_tf32.cu).
//
//   result[i] = epilogue of  sum over part  of  parts[part, i]
//
// parts (count, size), result (size). `columns` is the length of the result's last axis. The parts are added in their
// order, so that the same inputs always give the same result. One thread for each element.
#include "convolution.cuh"

extern "C" __global__ void add_parts(const float *__restrict__ parts, const float *__restrict__ bias,
                                     const float *__restrict__ slope, const float *shortcut, float *result, int count,
                                     long long size, int columns) {
  long long i = (long long)blockIdx.x * blockDim.x + threadIdx.x;
  if (i >= size) return;
  float sum = 0;
  for (int part = 0; part < count; part++) sum += parts[part * size + i];
  result[i] = Epilogue<float>{bias, slope, shortcut}(sum, i, i % columns);
}

// w_grad (size) += sum over part  of  parts[part, i], and unless it is null, b_grad (columns) likewise. A part has the
// elements of w_grad, then those of b_grad, columns in any case.
extern "C" __global__ void add_gradients(const float *__restrict__ parts, float *w_grad, float *b_grad, int count,
                                         long long size, int columns) {
  long long i = (long long)blockIdx.x * blockDim.x + threadIdx.x;
  if (i >= size + (b_grad ? columns : 0)) return;
  float sum = 0;
  for (int part = 0; part < count; part++) sum += parts[part * (size + columns) + i];
  (i < size ? w_grad[i] : b_grad[i - size]) += sum;
}
