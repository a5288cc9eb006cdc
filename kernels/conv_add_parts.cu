// Adds the parts of a convolution's gradients of weights and biases whose depth was split among thread blocks
// (conv_tiled.cu, conv_tf32.cu).
//
//   w_grad[i] += sum over part  of  parts[part, i]
//   b_grad[k] += sum over part  of  parts[part, size + k]
//
// w_grad (size), b_grad (columns) unless it is null, parts (count, size + columns). The parts are added in their order,
// so that the same inputs always give the same result. One thread for each element.
extern "C" __global__ void add_gradients(const float *__restrict__ parts, float *w_grad, float *b_grad, int count,
                                         long long size, int columns) {
  long long i = (long long)blockIdx.x * blockDim.x + threadIdx.x;
  if (i >= size + (b_grad ? columns : 0)) return;
  float sum = 0;
  for (int part = 0; part < count; part++) sum += parts[part * (size + columns) + i];
  (i < size ? w_grad[i] : b_grad[i - size]) += sum;
}
