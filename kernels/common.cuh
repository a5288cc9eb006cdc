// What all kernels share; tinysrgan/ops/cuda/compile.py puts this text in front of every .cu file.
//
// One alphabet, as in Python: x (N, H, W, C) is the input, w (R, S, C, K) the filter, y (N, P, Q, K) the output. All arrays
// are contiguous, the last axis moving fastest.

// The sizes of a convolution. Output (p, q) covers the input rows p * stride - top + r and columns q * stride - left + s,
// which are zero outside the image.
struct Geometry {
  int N, H, W, C, P, Q, K, R, S, stride, top, left;
};

// Tensor cores and asynchronous copies exist as instructions only; here they are functions. On a machine without a GPU the
// tests bring functions of the same names (CUDA_ON_CPU).
#ifndef CUDA_ON_CPU

#define DYNAMIC_SHARED(type, name) extern __shared__ __align__(128) type name[]

#if !defined(__CUDA_ARCH__) || __CUDA_ARCH__ >= 800  // nvcc also reads the text for the host

// The float nearest to x among those with 10 bits of mantissa, which is all that the tensor cores look at.
__device__ __forceinline__ unsigned to_tf32(float x) {
  unsigned bits;
  asm("cvt.rna.tf32.f32 %0, %1;" : "=r"(bits) : "f"(x));
  return bits;
}

// sum (16 x 8) += a (16 x 8) times b (8 x 8) by one warp. Lane 4 i + j holds, of a, rows i and i + 8 of columns j, then of
// columns j + 4; of b, rows j and j + 4 of column i; of sum, columns 2 j and 2 j + 1 of row i, then of row i + 8
// (PTX ISA, mma.m16n8k8).
__device__ __forceinline__ void multiply_add(float sum[4], const unsigned a[4], const unsigned b[2]) {
  asm volatile(
      "mma.sync.aligned.m16n8k8.row.col.f32.tf32.tf32.f32 {%0, %1, %2, %3}, {%4, %5, %6, %7}, {%8, %9}, {%0, %1, %2, %3};"
      : "+f"(sum[0]), "+f"(sum[1]), "+f"(sum[2]), "+f"(sum[3])
      : "r"(a[0]), "r"(a[1]), "r"(a[2]), "r"(a[3]), "r"(b[0]), "r"(b[1]));
}

// Begin to copy 16 bytes to shared memory, or 16 zero bytes where there is nothing to copy. Both addresses are multiples
// of 16. The bytes are there only after commit, wait, and a barrier for the other threads' copies.
__device__ __forceinline__ void copy_16(void *shared, const void *global, bool inside) {
  unsigned address = (unsigned)__cvta_generic_to_shared(shared);
  asm volatile("cp.async.cg.shared.global [%0], [%1], 16, %2;" ::"r"(address), "l"(global), "r"(inside ? 16 : 0) : "memory");
}
__device__ __forceinline__ void copy_commit() { asm volatile("cp.async.commit_group;" ::: "memory"); }

// Wait until at most `pending` of the groups that this thread committed are still under way.
template <int pending> __device__ __forceinline__ void copy_wait() {
  asm volatile("cp.async.wait_group %0;" ::"n"(pending) : "memory");
}

#endif
#endif

// ---------------------------------------------------------------- numbers as rows of C channels, (rows, C)
//
// Threads lie as the numbers do: threadIdx.x is the channel, threadIdx.y the row; the blocks of a grid's x share the rows.

// The rows of this block that are this thread's: from first on, every blockDim.y-th.
struct Share {
  int c;
  long long first, end;

  __device__ Share(long long rows, int C) : c(blockIdx.y * blockDim.x + threadIdx.x) {
    long long each = (rows + gridDim.x - 1) / gridDim.x, begin = blockIdx.x * each;
    first = begin + threadIdx.y, end = c < C ? min(begin + each, rows) : 0;
  }
};

// `mine` of all threads with this threadIdx.x added up, in pairs; the thread with threadIdx.y = 0 gets it.
template <class Value> __device__ Value add_rows(Value mine) {
  __shared__ Value shared[1024];  // a block has no more threads
  Value *place = shared + threadIdx.y * blockDim.x + threadIdx.x;
  *place = mine;
  for (int count = blockDim.y, half; count > 1; count = half) {
    half = (count + 1) / 2;
    __syncthreads();  // the row that is added must be there, from the loop before
    if (threadIdx.y + half < count) *place = *place + place[half * blockDim.x];
  }
  return *place;
}
