// Tensor cores and asynchronous copies, which CUDA C++ offers only as instructions, as functions. From sm_80 on.
//
// The tests run the kernels without a GPU and define functions of the same names (CUDA_ON_CPU).
#ifndef CUDA_ON_CPU

#define DYNAMIC_SHARED(type, name) extern __shared__ __align__(128) type name[]

#if !defined(__CUDA_ARCH__) || __CUDA_ARCH__ >= 800  // nvcc also compiles for the host, without __CUDA_ARCH__

// x rounded to the nearest float with 10 bits of mantissa. The tensor cores ignore the other bits.
__device__ __forceinline__ unsigned to_tf32(float x) {
  unsigned bits;
  asm("cvt.rna.tf32.f32 %0, %1;" : "=r"(bits) : "f"(x));
  return bits;
}

// sum (16 x 8) += a (16 x 8) times b (8 x 8), computed by one warp. Lane 4 i + j holds these elements (PTX ISA,
// mma.m16n8k8):
//   of a, rows i and i + 8 of column j, then of column j + 4;
//   of b, rows j and j + 4 of column i;
//   of sum, columns 2 j and 2 j + 1 of row i, then of row i + 8.
__device__ __forceinline__ void multiply_add(float sum[4], const unsigned a[4], const unsigned b[2]) {
  asm volatile(
      "mma.sync.aligned.m16n8k8.row.col.f32.tf32.tf32.f32 "
      "{%0, %1, %2, %3}, {%4, %5, %6, %7}, {%8, %9}, {%0, %1, %2, %3};"
      : "+f"(sum[0]), "+f"(sum[1]), "+f"(sum[2]), "+f"(sum[3])
      : "r"(a[0]), "r"(a[1]), "r"(a[2]), "r"(a[3]), "r"(b[0]), "r"(b[1]));
}

// Start to copy 16 bytes from global to shared memory, or 16 zero bytes where `inside` is false. Both addresses are
// multiples of 16. The bytes have arrived after commit and wait, and for other threads after a barrier as well.
__device__ __forceinline__ void copy_16(void *shared, const void *global, bool inside) {
  unsigned address = (unsigned)__cvta_generic_to_shared(shared);
  asm volatile("cp.async.cg.shared.global [%0], [%1], 16, %2;" ::"r"(address), "l"(global), "r"(inside ? 16 : 0)
               : "memory");
}
__device__ __forceinline__ void copy_commit() { asm volatile("cp.async.commit_group;" ::: "memory"); }

// Wait until at most `pending` of the groups that this thread committed are still in flight.
template <int pending> __device__ __forceinline__ void copy_wait() {
  asm volatile("cp.async.wait_group %0;" ::"n"(pending) : "memory");
}

#endif
#endif

__device__ __forceinline__ float round_tf32(float x) { return __uint_as_float(to_tf32(x)); }
