// Undefined behaviour ends the launch: accesses outside of arrays, misalignment, bad indices, races.

namespace cuda {

// Inaccessible pages surround the arrays, so an access beyond them raises a signal. A signal that no kernel caused goes
// to the previous handler.
inline struct sigaction others[NSIG];
inline void caught(int signal, siginfo_t *info, void *context) {
  if (now.running && pthread_equal(now.worker, pthread_self())) {
#if defined(__x86_64__)
    now.place = ((ucontext_t *)context)->uc_mcontext.gregs[REG_RIP] - (size_t)__ehdr_start;
#elif defined(__aarch64__)
    now.place = ((ucontext_t *)context)->uc_mcontext.pc - (size_t)__ehdr_start;
#endif
    now.address = info->si_addr;
    fail(0, "reads or writes what is none of its memory");
  }
  struct sigaction &other = others[signal];
  if (other.sa_flags & SA_SIGINFO)
    other.sa_sigaction(signal, info, context);
  else if (other.sa_handler == SIG_DFL || other.sa_handler == SIG_IGN)
    sigaction(signal, &other, nullptr);  // the instruction runs again and now ends the process
  else
    other.sa_handler(signal);
}
__attribute__((constructor)) inline void catch_signals() {
  struct sigaction action = {};
  action.sa_sigaction = caught;
  action.sa_flags = SA_SIGINFO | SA_NODEFER;
  for (int signal : {SIGSEGV, SIGBUS}) sigaction(signal, &action, &others[signal]);
}

// The compiler's checks (-fsanitize=alignment,bounds,...) call these functions with the location as first argument.
struct Where {
  const char *file;
  unsigned line, column;
};
CALLED_BACK __ubsan_handle_type_mismatch_v1_abort(Where *at, void *) {
  fail(at->line, "uses an address that is not aligned to its type");
}
CALLED_BACK __ubsan_handle_out_of_bounds_abort(Where *at, void *index) {
  fail(at->line, "has an index outside of the array: %ld", (long)index);
}
CALLED_BACK __ubsan_handle_divrem_overflow_abort(Where *at, void *, void *) { fail(at->line, "divides by zero"); }
CALLED_BACK __ubsan_handle_shift_out_of_bounds_abort(Where *at, void *, void *bits) {
  fail(at->line, "shifts by %ld bits", (long)bits);
}

// --- Races. With -fsanitize=thread every memory access first calls one of the functions below.
//
// If two threads access the same word of shared memory and at least one of them writes, there must be a barrier in
// between, or __syncwarp within a warp. (Shuffles order no memory accesses.) Accesses before the last barrier need not
// be remembered. Between two barriers the actual order is irrelevant.

#ifdef __SANITIZE_THREAD__

struct Word {
  unsigned barriers;                      // the number of barriers so far; after another one the rest is stale
  int writer, reading_warp;               // the last one of each
  unsigned written, read;                 // their warp's synchronizations at the time
  unsigned reading_lanes, reading_warps;  // since that synchronization; since the barrier
};
inline Word words[2][SHARED_LIMIT / 4];  // static and dynamic shared memory

// Record this thread's access to a word. Returns what is wrong with it, or null.
UNWATCHED inline const char *race(Word &word, bool write) {
  const int me = now.thread->number, my_warp = me / WARP;
  const unsigned synchronizations = now.warps[my_warp].synchronizations;
  if (word.barriers != now.barriers) word = {now.barriers, -1, -1, 0, 0, 0, 0};
  if (word.writer >= 0 && word.writer != me && (word.writer / WARP != my_warp || word.written == synchronizations))
    return write ? "race: writes to shared memory what another thread writes"
                 : "race: reads from shared memory what another thread writes";
  if (!write) {
    if (word.reading_warp != my_warp || word.read != synchronizations) word.reading_lanes = 0;
    word.reading_warp = my_warp, word.read = synchronizations;
    word.reading_lanes |= 1u << me % WARP, word.reading_warps |= 1u << my_warp;
    return nullptr;
  }
  word.writer = me, word.written = synchronizations;
  const bool in_warp = word.reading_warp == my_warp && word.read == synchronizations;
  if (word.reading_warps & ~(1u << my_warp) || (in_warp && word.reading_lanes & ~(1u << me % WARP)))
    return "race: writes to shared memory what another thread reads";
  return nullptr;
}

UNWATCHED inline void touch(const void *memory, size_t bytes, bool write, int line, const void *caller = nullptr) {
  if (!now.running) return;
  const char *first = (const char *)memory, *trouble = nullptr;
  for (int i = 0; i < now.array_count; i++) {
    const Array &a = now.arrays[i];
    if (first >= a.fence && first < a.other_fence && (first < a.begin || first + bytes > a.end))
      trouble = write ? "writes what is none of its memory" : "reads what is none of its memory";
  }
  const bool fixed = first >= __start_cuda_shared && first < __stop_cuda_shared;
  if (fixed || (first >= now.dynamic_shared && first < now.dynamic_shared + now.dynamic_bytes)) {
    const size_t offset = first - (fixed ? __start_cuda_shared : now.dynamic_shared);
    for (size_t i = offset / 4; i * 4 < offset + bytes && !trouble; i++) trouble = race(words[fixed ? 0 : 1][i], write);
  }
  if (!trouble) return;
  now.place = caller ? (const char *)caller - 1 - __ehdr_start : 0;  // the call, not its return address
  now.address = memory;
  fail(line, "%s", trouble);
}

#define WATCH(name, bytes, write) \
  CALLED_BACK __tsan_##name(void *at) { touch(at, bytes, write, 0, __builtin_return_address(0)); }
#define WATCH_BOTH(prefix, bytes) WATCH(prefix##read##bytes, bytes, false) WATCH(prefix##write##bytes, bytes, true)
WATCH_BOTH(, 1) WATCH_BOTH(, 2) WATCH_BOTH(, 4) WATCH_BOTH(, 8) WATCH_BOTH(, 16)
WATCH_BOTH(unaligned_, 2) WATCH_BOTH(unaligned_, 4) WATCH_BOTH(unaligned_, 8) WATCH_BOTH(unaligned_, 16)
CALLED_BACK __tsan_read_range(void *at, size_t n) { touch(at, n, false, 0, __builtin_return_address(0)); }
CALLED_BACK __tsan_write_range(void *at, size_t n) { touch(at, n, true, 0, __builtin_return_address(0)); }
CALLED_BACK __tsan_init() {}
CALLED_BACK __tsan_func_entry(void *) {}
CALLED_BACK __tsan_func_exit(void *) {}
#else
inline void touch(const void *, size_t, bool, int) {}
#endif

}  // namespace cuda
