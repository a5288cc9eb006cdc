// What the convolution kernels share: the sizes, the phases of a stride, the parts of a depth, and the epilogue.
//
// The letters are those of the Python code: x (N, H, W, C) is the input, w (R, S, C, K) the filter, y (N, P, Q, K) the
// output. All arrays are contiguous, with the last axis fastest.

// The sizes of a convolution. Output (p, q) covers the input rows p * stride - top + r and columns q * stride - left +
// s. Outside the image the input is zero.
struct Geometry {
  int N, H, W, C, P, Q, K, R, S, stride, top, left;
};

// The pixels along one axis with the same phase, (pixel + before) % stride == phase. Only every stride-th tap of the
// filter connects them to outputs, starting with tap number `phase`. Pixel i and tap j, counted within the phase,
// belong to output first + i - j.
struct Phase {
  int stride, first_pixel, pixels, taps, first;

  __device__ Phase(int length, int size, int before, int stride, int phase) : stride(stride) {
    first_pixel = (phase + stride - before % stride) % stride;
    pixels = (length - first_pixel + stride - 1) / stride;
    taps = (size - phase + stride - 1) / stride;
    first = (first_pixel + before) / stride;
  }
  __device__ int pixel(int i) const { return first_pixel + i * stride; }
};

// The slices of the depth that one of `parts` thread blocks sums: `count` of `slices`, starting at `first`.
struct Part {
  int first, count;

  __device__ Part(int slices, int part, int parts) {
    int each = (slices + parts - 1) / parts;
    first = part * each, count = max(min(each, slices - first), 0);
  }
};

// prelu(sum + bias) + shortcut, for element i of the result. bias (channels), slope (channels) and shortcut (the shape
// of the result) may each be null.
template <class Real> struct Epilogue {
  const Real *bias, *slope, *shortcut;  // not __restrict__, because shortcut may be the result itself

  __device__ Real operator()(Real sum, long long i, int channel) const {
    if (bias) sum += bias[channel];
    if (slope && sum < 0) sum *= slope[channel];
    return shortcut ? sum + shortcut[i] : sum;
  }
};
