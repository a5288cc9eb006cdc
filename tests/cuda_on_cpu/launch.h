// A launch: the runner's request, the threads and warps of the running block, and how a kernel is called.

namespace cuda {

constexpr int WARP = 32, MAX_THREADS = 1024, MAX_COPIES = 256;
constexpr size_t STACK = 64 * 1024, SHARED_LIMIT = 227 * 1024;
constexpr uint32_t POISON = 0x7fffdead;  // NaN in float32, twice NaN in float64, and far out of range as an index

UNWATCHED inline void poison(void *memory, size_t bytes) {
  for (size_t i = 0; i + 4 <= bytes; i += 4) memcpy((char *)memory + i, &POISON, 4);
}

// --- The runner's request and its result; runner.py declares the same structure.

enum Order { ASCENDING, DESCENDING, RANDOM };

struct Array {
  const char *fence, *begin, *end, *other_fence;  // a kernel may not access the memory between a fence and the array
};

struct Request {
  dim3 grid, block;
  char *dynamic_shared;
  size_t dynamic_bytes;
  void **arguments;
  int order;
  uint32_t seed;
  char *stacks;  // STACK bytes for every thread of a block
  const Array *arrays;
  int array_count;
  // Set by fail():
  char message[512];
  int line;             // of the kernel's text, or 0 and then
  size_t place;         // the instruction's offset in the library,
  const void *address;  // the address that it accessed
};

// --- The state of a launch.

enum State { READY, AT_BARRIER, IN_WARP, DONE };

struct Copy {
  void *shared;
  const void *global;
  bool inside;
  int group;
};

struct Thread {
  uint3 index;
  int number, fibre, line;  // line: of its last synchronization
  State state;
  int group, copy_count;
  Copy copies[MAX_COPIES];  // pending asynchronous copies, oldest first
};

struct Warp {
  unsigned lanes;  // bit mask of those that still run
  // An exchange of values. Two sets of deposits alternate: a fast lane may write the next set while slower lanes still
  // read the last one.
  const char *operation;
  unsigned mask, generation, arrived[2];
  volatile unsigned synchronizations;  // by __syncwarp; volatile, because race() reads it unknown to the compiler
  bool orders_memory;
  alignas(16) char deposit[2][WARP][32];
};

struct Fibre {
  jmp_buf context;
  bool begun;
};

struct Launch : Request {
  uint3 block_index;
  void (*kernel)(void **);
  Thread threads[MAX_THREADS], *thread;
  Warp warps[MAX_THREADS / WARP];
  Fibre fibres[MAX_THREADS];
  int idle[MAX_THREADS], idle_count;
  int count, done, at_barrier;
  jmp_buf scheduler, failed;
  uint32_t random;
  volatile unsigned barriers;
  volatile bool running;
  pthread_t worker;
};
inline Launch now;  // a library runs one launch at a time

inline int lane() { return now.thread->number % WARP; }
inline Warp &warp() { return now.warps[now.thread->number / WARP]; }

// End the launch with a message. The fibres' stacks are abandoned.
[[noreturn]] UNWATCHED inline void fail(int line, const char *format, ...) {
  const uint3 b = now.block_index, t = now.thread->index;
  const char *const who = "block (%u, %u, %u), thread (%u, %u, %u) ";
  const int n = snprintf(now.message, sizeof now.message, who, b.x, b.y, b.z, t.x, t.y, t.z);
  va_list values;
  va_start(values, format);
  vsnprintf(now.message + n, sizeof now.message - n, format, values);
  va_end(values);
  now.line = line;
  now.running = false;
  _longjmp(now.failed, 1);
}

// --- A kernel's parameter types, and a call with pointers to the arguments.

struct Parameter {
  int pointer, kind, bytes;  // kind: f, i or V, as in NumPy; for a pointer, that of its target
};
template <class T> constexpr Parameter parameter() {
  using Value = std::remove_cv_t<std::remove_pointer_t<T>>;
  constexpr int kind = std::is_floating_point_v<Value> ? 'f' : std::is_integral_v<Value> ? 'i' : 'V';
  if constexpr (std::is_void_v<Value>)
    return {1, 'V', 0};
  else
    return {std::is_pointer_v<T>, kind, sizeof(Value)};
}
template <class... T> int parameters(void (*)(T...), Parameter *list) {
  const Parameter all[] = {parameter<T>()..., {}};
  memcpy(list, all, sizeof all - sizeof *all);
  return sizeof...(T);
}
EXPORT inline int static_shared() { return __stop_cuda_shared - __start_cuda_shared; }
template <class... T, size_t... i> void call(void (*kernel)(T...), void **values, std::index_sequence<i...>) {
  kernel(*(T *)values[i]...);
}
template <class... T> void call(void (*kernel)(T...), void **values) {
  call(kernel, values, std::index_sequence_for<T...>{});
}

}  // namespace cuda
