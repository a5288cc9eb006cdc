// The 3x3 convolution with stride 1 on the tensor cores, the fourth rung of the ladder: tiles of the image with a halo.
// conv_reference.cu has the formulas and shapes; conv_tf32.cu describes TF32, the asynchronous copies and the banks.
//
// There, each of the nine taps copies its own window of the image to shared memory. The windows overlap, so every pixel
// is copied nine times. Here, a thread block computes HEIGHT x WIDTH pixels of the result. For every DEPTH channels it
// copies once the pixels that these depend on: a tile with a halo of one pixel around it. The taps read the same tile
// at different offsets, tap (r, s) starting r lines and s pixels further. A pixel is thus copied 1.4 times instead of
// 9. What remains to stream are the weights. Shared memory holds STAGES tiles of them, each for one column of taps,
// (0, s) to (2, s); one is multiplied while the others are in flight. The image tile of the next channels is copied
// during the first column.
//
// - The three taps of a column read almost the same lines of the image: a warp's 4 lines and the 2 below them. A warp
//   thus loads 6 lines into registers for a column, instead of 12. With 32 COLUMNS, for results of few channels, a warp
//   has 2 lines, and loads 4 instead of 6.
// - An element of the image serves nine taps of two warps, so it is rounded to TF32 once, when it arrives. A weight
//   serves two warps only. To round it there would save 0.4 instructions for each product of the tensor cores, but cost
//   as much time in shared memory as reading the weights does, and shared memory is as busy as the tensor cores are.
//
// -DGRAD_INPUT computes the gradient of the input: the same convolution of dy, with the filter flipped and its channels
// exchanged. The only difference is where a weight lies, and so which weights are contiguous. "C" then stands for the
// channels of dy and "K" for those of dx; the launcher exchanges them.
//
// C is a multiple of 32 and K of 4, and all arrays start at multiples of 16 bytes. From sm_80 on.
#ifndef COLUMNS
#define COLUMNS 64
#endif

#include "convolution.cuh"
#include "tensor_cores.cuh"

constexpr int HEIGHT = 8, WIDTH = 16, DEPTH = 16, STAGES = 3, TAPS = 3;  // TAPS: each way
constexpr int WARPS = 4, THREADS = WARPS * 32;
constexpr int WARP_COLUMNS = 32, WARPS_ACROSS = COLUMNS / WARP_COLUMNS;  // the warps are two by two, or four by one
constexpr int WARP_LINES = HEIGHT * WARPS_ACROSS / WARPS;  // a warp's part of the result: 4 or 2 lines, 32 channels
constexpr int ACROSS = WIDTH + TAPS - 1;                   // pixels of a line with its halo

// The tile of the image, with its halo. A thread copies four channels of every STEP-th pixel.
struct Image {
  static constexpr int PIXELS = (HEIGHT + TAPS - 1) * ACROSS;
  static constexpr int PITCH = DEPTH + 4;  // from pixel to pixel; lanes 4 i + j read banks 20 i + j, all different
  static constexpr int SIZE = PIXELS * PITCH, LANES = DEPTH / 4, STEP = THREADS / LANES;
  static constexpr int COUNT = (PIXELS + STEP - 1) / STEP;
  const float *image;
  int channels, from[COUNT];  // the pixels of the image that this thread copies, or negative numbers outside of it

  __device__ Image(const float *x, const Geometry &g, int n, int p, int q)
      : image(x + (long long)n * g.H * g.W * g.C + channel()), channels(g.C) {
#pragma unroll
    for (int k = 0; k < COUNT; k++) {
      int row = p - g.top + pixel(k) / ACROSS, column = q - g.left + pixel(k) % ACROSS;
      bool inside = row >= 0 && row < g.H && column >= 0 && column < g.W;
      from[k] = inside ? row * g.W + column : -1;
    }
  }
  static __device__ int channel() { return threadIdx.x % LANES * 4; }
  static __device__ int pixel(int k) { return threadIdx.x / LANES + k * STEP; }
  static __device__ bool exists(int k) { return (k + 1) * STEP <= PIXELS || pixel(k) < PIXELS; }

  // Start to copy channels first .. first + DEPTH.
  __device__ void copy(float *tile, int first) const {
#pragma unroll
    for (int k = 0; k < COUNT; k++)
      if (exists(k)) {
        const float *four = image + (long long)max(from[k], 0) * channels + first;
        copy_16(tile + pixel(k) * PITCH + channel(), four, from[k] >= 0);
      }
  }
  // Round what this thread copied.
  __device__ void round(float *tile) const {
#pragma unroll
    for (int k = 0; k < COUNT; k++) {
      float4 *four = (float4 *)(tile + pixel(k) * PITCH + channel());
      if (exists(k))
        *four = make_float4(round_tf32(four->x), round_tf32(four->y), round_tf32(four->z), round_tf32(four->w));
    }
  }
};

// The weights of a column of taps, (0, s) to (2, s). Those of one tap lie in LINES lines of RUN contiguous elements:
// for y a line is a channel of the image, for dx one of the result. A thread copies four elements of every
// STEP-th line.
struct Weights {
#ifdef GRAD_INPUT
  static constexpr int LINES = COLUMNS, RUN = DEPTH, PITCH = RUN + 4;  // lane 4 i + j reads bank 20 i + j
#else
  static constexpr int LINES = DEPTH, RUN = COLUMNS, PITCH = RUN + 8;  // lane 4 i + j reads bank 8 j + i
#endif
  static constexpr int TAP = LINES * PITCH, SIZE = TAPS * TAP, LANES = RUN / 4, STEP = THREADS / LANES;
  const float *w;            // this thread's first weight
  int line, element, lines;  // its line and place there, and how many lines exist
  int apart, tap, depth;     // elements from line to line, tap to tap, and channel to channel of the image

  __device__ Weights(const float *w, const Geometry &g, int column)
      : line(threadIdx.x / LANES), element(threadIdx.x % LANES * 4) {
    int size = g.C * g.K;
#ifdef GRAD_INPUT
    apart = g.C, tap = -size, depth = 1, lines = g.K - column;
    this->w = w + (TAPS * TAPS - 1) * size + (column + line) * apart + element;
#else
    apart = g.K, tap = size, depth = g.K, lines = column + element < g.K ? LINES : 0;
    this->w = w + line * apart + column + element;
#endif
  }
  // Start to copy the weights of channels first .. first + DEPTH.
  __device__ void copy(float *tile, int s, int first) const {
#pragma unroll
    for (int r = 0; r < TAPS; r++)
#pragma unroll
      for (int k = 0; k < LINES; k += STEP) {
        bool inside = line + k < lines;
        int from = (r * TAPS + s) * tap + first * depth + k * apart;
        copy_16(tile + r * TAP + (line + k) * PITCH + element, w + (inside ? from : 0), inside);
      }
  }
  // Where weight (depth, column) of tap (r, s) is in a tile.
  static __device__ int at(int r, int depth, int column) {
#ifdef GRAD_INPUT
    return r * TAP + column * PITCH + depth;
#else
    return r * TAP + depth * PITCH + column;
#endif
  }
};

// sum += the products of the warp's pixels, shifted by each of a column of taps, and these taps' weights. `image` and
// `weights` point to the elements that this lane reads first.
__device__ __forceinline__ void multiply(float sum[WARP_LINES][WARP_COLUMNS / 8][4], const float *image,
                                         const float *weights) {
#pragma unroll
  for (int depth = 0; depth < DEPTH; depth += 8) {
    unsigned a[WARP_LINES + TAPS - 1][4], b[WARP_COLUMNS / 8][2];
#pragma unroll
    for (int line = 0; line < WARP_LINES + TAPS - 1; line++)
#pragma unroll
      for (int n = 0; n < 4; n++)  // pixels i and i + 8, at depths j and j + 4
        a[line][n] = __float_as_uint(image[(line * ACROSS + n % 2 * 8) * Image::PITCH + depth + n / 2 * 4]);
#pragma unroll
    for (int r = 0; r < TAPS; r++) {
#pragma unroll
      for (int k = 0; k < WARP_COLUMNS / 8; k++)
#pragma unroll
        for (int n = 0; n < 2; n++) b[k][n] = to_tf32(weights[Weights::at(r, depth + n * 4, k * 8)]);
#pragma unroll
      for (int line = 0; line < WARP_LINES; line++)
#pragma unroll
        for (int k = 0; k < WARP_COLUMNS / 8; k++) multiply_add(sum[line][k], a[line + r], b[k]);
    }
  }
}

// y = prelu(convolution + bias) + shortcut. bias (K), slope (K) and shortcut (the shape of y) may each be null.
extern "C" __global__ void __launch_bounds__(THREADS)
    conv_halo(const float *__restrict__ x, const float *__restrict__ w, const float *__restrict__ bias,
              const float *__restrict__ slope, const float *shortcut, float *y, Geometry g) {
  DYNAMIC_SHARED(float, shared);  // two tiles of the image, then STAGES tiles of weights
  float *const ring = shared + 2 * Image::SIZE;
  const int tiles_across = (g.Q + WIDTH - 1) / WIDTH, tiles_down = (g.P + HEIGHT - 1) / HEIGHT;
  const int q = blockIdx.x % tiles_across * WIDTH, p = blockIdx.x / tiles_across % tiles_down * HEIGHT;
  const int n = blockIdx.x / tiles_across / tiles_down, column = blockIdx.y * COLUMNS;
  const int warp = threadIdx.x / 32, i = threadIdx.x % 32 / 4, j = threadIdx.x % 4;
  const int line = warp / WARPS_ACROSS * WARP_LINES, warp_column = warp % WARPS_ACROSS * WARP_COLUMNS;
  const int steps = g.C / DEPTH * TAPS;  // a step is one column of taps, of DEPTH channels
  const Image image(x, g, n, p, q);
  const Weights weights(w, g, column);

  float sum[WARP_LINES][WARP_COLUMNS / 8][4] = {};
  image.copy(shared, 0);
  for (int step = 0; step < STAGES - 1; step++) {  // all of the first channels: there are more columns than stages
    weights.copy(ring + step * Weights::SIZE, step, 0);
    copy_commit();
  }
  for (int step = 0; step < steps; step++) {
    const int slice = step / TAPS, s = step % TAPS, ahead = step + STAGES - 1;
    float *const tile = shared + slice % 2 * Image::SIZE;
    copy_wait<STAGES - 2>();  // this step's weights have arrived, and at the first column its image
    if (s == 0) image.round(tile);
    __syncthreads();  // so have those of all threads; and no thread still reads what the copies below overwrite
    if (ahead < steps) weights.copy(ring + ahead % STAGES * Weights::SIZE, ahead % TAPS, ahead / TAPS * DEPTH);
    if (s == 0 && (slice + 1) * DEPTH < g.C) image.copy(shared + (slice + 1) % 2 * Image::SIZE, (slice + 1) * DEPTH);
    copy_commit();  // also where nothing was copied, because copy_wait counts groups
    multiply(sum, tile + (line * ACROSS + s + i) * Image::PITCH + j,
             ring + step % STAGES * Weights::SIZE + Weights::at(0, j, warp_column + i));
  }
  copy_wait<0>();

  const Epilogue<float> epilogue{bias, slope, nullptr};
#pragma unroll
  for (int l = 0; l < WARP_LINES; l++) {
    const int row = p + line + l, pixel = q + i, channel = column + warp_column + 2 * j;
    const long long first = (((long long)n * g.P + row) * g.Q + pixel) * g.K + channel;
    // Pixels i and i + 8, channels 2 j and 2 j + 1 of each group of eight.
    auto exists = [&](int k, int half) { return row < g.P && pixel + half * 8 < g.Q && channel + k * 8 < g.K; };
    float2 added[WARP_COLUMNS / 8][2] = {};  // all are loaded before the first store: no load waits for a store
#pragma unroll
    for (int k = 0; k < WARP_COLUMNS / 8; k++)
#pragma unroll
      for (int half = 0; half < 2; half++)
        if (shortcut && exists(k, half)) added[k][half] = *(const float2 *)(shortcut + first + half * 8 * g.K + k * 8);
#pragma unroll
    for (int k = 0; k < WARP_COLUMNS / 8; k++)
#pragma unroll
      for (int half = 0; half < 2; half++) {
        if (!exists(k, half)) continue;
        const float *two = sum[l][k] + half * 2;
        const float one = epilogue(two[0], 0, channel + k * 8), other = epilogue(two[1], 0, channel + k * 8 + 1);
        *(float2 *)(y + first + half * 8 * g.K + k * 8) = make_float2(one + added[k][half].x, other + added[k][half].y);
      }
  }
}
