// A step of Adam (Kingma & Ba 2014, arXiv 1412.6980, algorithm 1) for all tensors of a net, in one launch.
//
//   m += (1 - beta1) (g - m);  v += (1 - beta2) (g^2 - v)
//   value -= rate m / (sqrt(v) + epsilon);  g = 0
//
// settings: beta1, beta2, rate and epsilon. The last two include the bias corrections of m and v, as in
// tinysrgan/optimizers/adam.py. They lie in memory, where a CUDA graph reads those of the present step. -DREAL=double
// makes everything else float64, too.
//
// A net has about a hundred tensors, most of them of 64 elements, and a launch takes longer than such a tensor's
// update. So the tensors are cut into pieces, and a table on the GPU tells each block where its piece lies. Each
// element is read and written once. Setting the gradient to zero here saves a launch and another pass.
#ifndef REAL
#define REAL float
#endif

struct Piece {
  REAL *value, *gradient, *m, *v;
  long long count;
};

extern "C" __global__ void adam(const Piece *__restrict__ pieces, const double *__restrict__ settings) {
  Piece piece = pieces[blockIdx.x];
  REAL one_minus_beta1 = 1 - settings[0], one_minus_beta2 = 1 - settings[1], rate = settings[2], epsilon = settings[3];
  for (int i = threadIdx.x; i < piece.count; i += blockDim.x) {
    REAL g = piece.gradient[i], m = piece.m[i], v = piece.v[i];
    m += one_minus_beta1 * (g - m);
    v += one_minus_beta2 * (g * g - v);
    piece.m[i] = m;
    piece.v[i] = v;
    piece.value[i] -= rate * (m / (sqrt(v) + epsilon));
    piece.gradient[i] = 0;
  }
}
