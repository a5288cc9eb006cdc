// A moving average of all tensors of a net, in one launch (tinysrgan/training/average.py).
//
//   average += rate (value - average)
//
// As in adam.cu, the tensors are cut into pieces, and a table tells each block which is its own. -DREAL=double makes
// everything float64.
#ifndef REAL
#define REAL float
#endif

struct Piece {
  REAL *average, *value;
  long long count;
};

extern "C" __global__ void follow(const Piece *__restrict__ pieces, REAL rate) {
  Piece piece = pieces[blockIdx.x];
  for (int i = threadIdx.x; i < piece.count; i += blockDim.x)
    piece.average[i] += rate * (piece.value[i] - piece.average[i]);
}
