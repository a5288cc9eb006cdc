// A moving average of all tensors of a net, in one launch (tinysrgan/training/average.py).
//
//   average += rate (value - average)
//
// As in adam.cu, the tensors are cut into pieces, a table tells each block which is its own, and the settings, here the
// rate, lie in memory. -DREAL=double makes everything else float64, too.
#ifndef REAL
#define REAL float
#endif

struct Piece {
  REAL *average, *value;
  long long count;
};

extern "C" __global__ void follow(const Piece *__restrict__ pieces, const double *__restrict__ settings) {
  Piece piece = pieces[blockIdx.x];
  REAL rate = settings[0];
  for (int i = threadIdx.x; i < piece.count; i += blockDim.x)
    piece.average[i] += rate * (piece.value[i] - piece.average[i]);
}
