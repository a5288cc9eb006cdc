// CUDA on the CPU: a .cu file is compiled as ordinary C++17 and run with one fibre for each CUDA thread.
//
// The purpose is to find faults, not speed. Where a GPU's behaviour is unspecified, the least convenient one is chosen:
//
//   shared memory        is filled with NaN when a block begins
//   asynchronous copies  arrive only when the thread waits for them; until then the destination holds NaN
//   threads              run in a chosen order, from one synchronization to the next
//   tensor cores         read only the bits of a TF32 value, and only the matrix elements that each lane holds
//
// Undefined behaviour ends the launch with a message that names the thread and the line.
//
// CUDA in short: a grid consists of independent blocks. A block has up to 1024 threads, which share memory and
// synchronize at barriers. 32 consecutive threads are a warp; its lanes exchange values and multiply matrices together.
// (Here only one group of lanes in a warp can exchange values at a time, unlike on a GPU.)
//
// runner.py puts these files in front of a kernel's text, in this order: language.h (keywords and types), launch.h,
// threads.h, checks.h, builtins.h (what kernels call).

#include <csetjmp>
#include <csignal>
#include <cmath>
#include <cstdarg>
#include <cstdint>
#include <cstdio>
#include <cstring>
#include <pthread.h>
#include <type_traits>
#include <ucontext.h>
#include <utility>

// --- Keywords and vector types of CUDA.

#define CUDA_ON_CPU 1
#ifndef __CUDA_ARCH__
#define __CUDA_ARCH__ 900
#endif
#define __global__
#define __device__
#define __host__
#define __constant__ static
#define __forceinline__ inline
#define __noinline__ __attribute__((noinline))
#define __launch_bounds__(...)
#define __align__(bytes) __attribute__((aligned(bytes)))
// One linker section holds all shared arrays of a kernel, so that their size is known and they can be filled with NaN.
#define __shared__ static __attribute__((section("cuda_shared")))
#define DYNAMIC_SHARED(type, name) type *const name = (type *)cuda::now.dynamic_shared

struct uint3 { unsigned x, y, z; };
typedef uint3 dim3;
struct alignas(8) int2 { int x, y; };
struct alignas(16) int4 { int x, y, z, w; };
struct alignas(8) uint2 { unsigned x, y; };
struct alignas(16) uint4 { unsigned x, y, z, w; };
struct alignas(8) float2 { float x, y; };
struct alignas(16) float4 { float x, y, z, w; };
struct alignas(16) double2 { double x, y; };
inline int2 make_int2(int x, int y) { return {x, y}; }
inline int4 make_int4(int x, int y, int z, int w) { return {x, y, z, w}; }
inline uint2 make_uint2(unsigned x, unsigned y) { return {x, y}; }
inline uint4 make_uint4(unsigned x, unsigned y, unsigned z, unsigned w) { return {x, y, z, w}; }
inline float2 make_float2(float x, float y) { return {x, y}; }
inline float4 make_float4(float x, float y, float z, float w) { return {x, y, z, w}; }
inline double2 make_double2(double x, double y) { return {x, y}; }

// Functions that the runner calls, that the sanitizers call, and that the sanitizers skip.
#define EXPORT extern "C" __attribute__((used, visibility("default")))
#define CALLED_BACK extern "C" __attribute__((used, no_sanitize("thread"))) inline void
#define UNWATCHED __attribute__((no_sanitize("thread")))

extern "C" {  // linker symbols: the bounds of that section, and the start of the library
__attribute__((weak, visibility("hidden"))) extern char __start_cuda_shared[], __stop_cuda_shared[];
__attribute__((visibility("hidden"))) extern const char __ehdr_start[];
}
