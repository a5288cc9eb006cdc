// The 3x3 convolution with stride 1 on the tensor cores, the fourth rung of the ladder: tiles of the image with a halo.
// conv_reference.cu has the formulas and shapes; conv_tf32.cu describes TF32, the asynchronous copies and the banks.
//
// There, each of the nine taps copies its own window of the image to shared memory. The windows overlap, so every pixel
// is copied nine times. Here, a thread block computes HEIGHT x WIDTH pixels of the result. For every DEPTH channels it
// copies once the pixels that these depend on: a tile with a halo of one pixel around it. The taps read the same tile
// at different offsets, tap (r, s) starting r lines and s pixels further. A pixel is thus copied 1.4 times instead of
// 9. What remains to stream are the weights, a tile of DEPTH x COLUMNS for every tap. Shared memory holds STAGES of
// these; one is multiplied while the others are in flight. The image tile of the next channels is copied during the
// first tap.
//
// -DGRAD_INPUT computes the gradient of the input: the same convolution of dy, with the filter flipped and its channels
// exchanged. The only difference is where a weight lies, and so which weights are contiguous. "C" then stands for the
// channels of dy and "K" for those of dx; the launcher exchanges them.
//
// C is a multiple of 32 and K of 4, and all arrays start at multiples of 16 bytes. From sm_80 on.
#include "convolution.cuh"
#include "tensor_cores.cuh"

constexpr int HEIGHT = 8, WIDTH = 16, COLUMNS = 64, DEPTH = 32, STAGES = 4;
constexpr int THREADS = 128;                      // four warps, two by two
constexpr int WARP_LINES = 4, WARP_COLUMNS = 32;  // a warp's part of the result: 4 lines of 16 pixels, 32 channels
constexpr int PITCH = DEPTH + 4;                  // elements from pixel to pixel: lane 4 i + j reads bank 4 i + j
#ifdef GRAD_INPUT
constexpr int WEIGHTS = COLUMNS * PITCH;  // contiguous elements belong to one column
#else
constexpr int ROW = COLUMNS + 8;  // contiguous elements belong to one depth; lane 4 i + j reads bank 8 j + i
constexpr int WEIGHTS = DEPTH * ROW;
#endif

// Start to copy the tile of the image, with its halo, for channels first .. first + DEPTH.
__device__ void copy_image(float *tile, const float *x, const Geometry &g, int n, int p, int q, int first) {
  const int across = WIDTH + g.S - 1, pixels = (HEIGHT + g.R - 1) * across;
  for (int i = threadIdx.x; i < pixels * (DEPTH / 4); i += THREADS) {
    int pixel = i / (DEPTH / 4), channel = i % (DEPTH / 4) * 4;
    int row = p - g.top + pixel / across, column = q - g.left + pixel % across;
    bool inside = row >= 0 && row < g.H && column >= 0 && column < g.W;
    const float *from = inside ? x + (((long long)n * g.H + row) * g.W + column) * g.C + first + channel : x;
    copy_16(tile + pixel * PITCH + channel, from, inside);
  }
}

// Start to copy the weights of one tap for channels first .. first + DEPTH and the block's columns.
__device__ void copy_weights(float *tile, const float *w, const Geometry &g, int tap, int first, int column) {
  for (int i = threadIdx.x; i < DEPTH * COLUMNS / 4; i += THREADS) {
#ifdef GRAD_INPUT
    int k = i / (DEPTH / 4), c = i % (DEPTH / 4) * 4, opposite = g.R * g.S - 1 - tap;
    bool inside = column + k < g.K;
    const float *from = w + ((long long)opposite * g.K + column + k) * g.C + first + c;
    copy_16(tile + k * PITCH + c, inside ? from : w, inside);
#else
    int c = i / (COLUMNS / 4), k = i % (COLUMNS / 4) * 4;
    bool inside = column + k < g.K;
    const float *from = w + ((long long)tap * g.C + first + c) * g.K + column + k;
    copy_16(tile + c * ROW + k, inside ? from : w, inside);
#endif
  }
}

// sum += the product of the warp's pixels, shifted by one tap, and that tap's weights. `image` and `weights` point to
// the elements that this lane reads first.
__device__ __forceinline__ void multiply(float sum[WARP_LINES][WARP_COLUMNS / 8][4], const float *image, int across,
                                         const float *weights) {
#pragma unroll
  for (int depth = 0; depth < DEPTH; depth += 8) {
    unsigned a[WARP_LINES][4], b[WARP_COLUMNS / 8][2];
#pragma unroll
    for (int line = 0; line < WARP_LINES; line++)
#pragma unroll
      for (int n = 0; n < 4; n++)  // pixels i and i + 8, at depths j and j + 4
        a[line][n] = to_tf32(image[(line * across + n % 2 * 8) * PITCH + depth + n / 2 * 4]);
#pragma unroll
    for (int k = 0; k < WARP_COLUMNS / 8; k++)
#pragma unroll
      for (int n = 0; n < 2; n++)
#ifdef GRAD_INPUT
        b[k][n] = to_tf32(weights[k * 8 * PITCH + depth + n * 4]);
#else
        b[k][n] = to_tf32(weights[(depth + n * 4) * ROW + k * 8]);
#endif
#pragma unroll
    for (int line = 0; line < WARP_LINES; line++)
#pragma unroll
      for (int k = 0; k < WARP_COLUMNS / 8; k++) multiply_add(sum[line][k], a[line], b[k]);
  }
}

// y = prelu(convolution + bias) + shortcut. bias (K), slope (K) and shortcut (the shape of y) may each be null.
extern "C" __global__ void __launch_bounds__(THREADS)
    conv_halo(const float *__restrict__ x, const float *__restrict__ w, const float *__restrict__ bias,
              const float *__restrict__ slope, const float *shortcut, float *y, Geometry g) {
  DYNAMIC_SHARED(float, shared);  // two tiles of the image, then STAGES tiles of weights
  const int across = WIDTH + g.S - 1, image_size = (HEIGHT + g.R - 1) * across * PITCH;
  float *const ring = shared + 2 * image_size;
  const int tiles_across = (g.Q + WIDTH - 1) / WIDTH, tiles_down = (g.P + HEIGHT - 1) / HEIGHT;
  const int q = blockIdx.x % tiles_across * WIDTH, p = blockIdx.x / tiles_across % tiles_down * HEIGHT;
  const int n = blockIdx.x / tiles_across / tiles_down, column = blockIdx.y * COLUMNS;
  const int warp = threadIdx.x / 32, i = threadIdx.x % 32 / 4, j = threadIdx.x % 4;
  const int line = warp / 2 * WARP_LINES, warp_column = warp % 2 * WARP_COLUMNS;
  const int taps = g.R * g.S, steps = g.C / DEPTH * taps;  // a step is one tap of DEPTH channels

  float sum[WARP_LINES][WARP_COLUMNS / 8][4] = {};
  copy_image(shared, x, g, n, p, q, 0);
  for (int step = 0; step < STAGES - 1; step++) {  // all of the first channels: there are more taps than stages
    copy_weights(ring + step * WEIGHTS, w, g, step, 0, column);
    copy_commit();
  }
  for (int step = 0; step < steps; step++) {
    const int slice = step / taps, tap = step % taps, ahead = step + STAGES - 1;
    copy_wait<STAGES - 2>();  // this step's weights have arrived, and at the first tap its image
    __syncthreads();          // those of all threads, too; and no thread still reads what the copies below overwrite
    if (ahead < steps)
      copy_weights(ring + ahead % STAGES * WEIGHTS, w, g, ahead % taps, ahead / taps * DEPTH, column);
    if (tap == 0 && (slice + 1) * DEPTH < g.C)
      copy_image(shared + (slice + 1) % 2 * image_size, x, g, n, p, q, (slice + 1) * DEPTH);
    copy_commit();  // also where nothing was copied, because copy_wait counts groups
    const float *image = shared + slice % 2 * image_size + ((line + tap / g.S) * across + tap % g.S + i) * PITCH + j;
#ifdef GRAD_INPUT
    const float *weights = ring + step % STAGES * WEIGHTS + (warp_column + i) * PITCH + j;
#else
    const float *weights = ring + step % STAGES * WEIGHTS + j * ROW + warp_column + i;
#endif
    multiply(sum, image, across, weights);
  }
  copy_wait<0>();

  const Epilogue<float> epilogue{bias, slope, shortcut};
#pragma unroll
  for (int l = 0; l < WARP_LINES; l++)
#pragma unroll
    for (int k = 0; k < WARP_COLUMNS / 8; k++)
#pragma unroll
      for (int half = 0; half < 2; half++) {  // pixels i and i + 8, channels 2 j and 2 j + 1 of each
        const int row = p + line + l, pixel = q + i + half * 8, channel = column + warp_column + k * 8 + 2 * j;
        if (row >= g.P || pixel >= g.Q || channel >= g.K) continue;
        const long long at = (((long long)n * g.P + row) * g.Q + pixel) * g.K + channel;
        const float *two = sum[l][k] + half * 2;
        *(float2 *)(y + at) = make_float2(epilogue(two[0], at, channel), epilogue(two[1], at + 1, channel + 1));
      }
}
