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
