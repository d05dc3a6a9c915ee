// What a kernel library exports to the emulated card, and how an ordinary function becomes such an
// export. The library travels in the BITSTREAM section of an emulated bitstream; the card opens it
// at load time and calls each kernel from the thread of its compute unit, one call at a time per
// compute unit, several compute units at once.
//
//   int vadd(Buffer<const int> a, Buffer<const int> b, Buffer<int> out, unsigned n) { ... }
//   FLEXLLM_CARD_KERNEL(vadd, vadd)
//
// The argument list is deduced: a Buffer<T> is an address, anything else a scalar copied bit by bit
// from the register file. A function may take a `const Call&` first (to poll `cancelled()`), or
// only that. It returns 0, or a number that ends the launch in ERT_CMD_STATE_ERROR; `void` counts
// as 0, an exception as -EIO. This header is all that a kernel library needs.
#pragma once

#include <cerrno>
#include <cstddef>
#include <cstdint>
#include <cstring>
#include <exception>
#include <tuple>
#include <type_traits>
#include <utility>

extern "C" {

// Where an argument stands in the register file of the compute unit.
struct flexllm_card_argument {
  std::uint32_t offset;
  std::uint32_t bytes;
};

// Device memory seen from the host. `bytes` reaches from `data` to the end of its bank.
struct flexllm_card_region {
  void* data;  // null: no bank at this address
  std::uint64_t bytes;
};

// One launch. Valid until the kernel returns.
struct flexllm_card_call {
  std::uint32_t abi_version;
  std::uint32_t argument_count;
  const flexllm_card_argument* arguments;
  const unsigned char* registers;
  std::uint64_t register_bytes;
  const char* compute_unit;  // "kernel:compute_unit"
  void* context;             // for the functions below
  flexllm_card_region (*translate)(void* context, std::uint64_t address);
  int (*cancelled)(void* context);                      // non-zero: the host aborted this launch
  void (*report)(void* context, const char* sentence);  // why it fails, for the card's log
};

typedef int (*flexllm_card_kernel)(const flexllm_card_call* call);

}  // extern "C"

namespace flexllm::card {

inline constexpr std::uint32_t kAbiVersion = 1;
inline constexpr char kKernelSymbolPrefix[] = "flexllm_card_kernel_";

// A pointer argument and the room behind it, up to the end of its bank.
template <typename T>
struct Buffer {
  T* data = nullptr;
  std::size_t bytes = 0;

  std::size_t count() const { return bytes / sizeof(T); }
  T& operator[](std::size_t i) const { return data[i]; }
};

class Call {
 public:
  explicit Call(const flexllm_card_call& raw) : raw_(raw) {}

  const char* compute_unit() const { return raw_.compute_unit; }
  std::size_t arguments() const { return raw_.argument_count; }

  // A kernel that runs for long polls this and returns early: nobody waits for its result.
  bool cancelled() const { return raw_.cancelled(raw_.context) != 0; }

  void report(const char* sentence) const { raw_.report(raw_.context, sentence); }

  // Argument i. A buffer whose address lies in no bank has `data == nullptr`.
  template <typename T>
  Buffer<T> buffer(std::size_t i) const {
    const flexllm_card_region region = raw_.translate(raw_.context, scalar<std::uint64_t>(i));
    return {static_cast<T*>(region.data), static_cast<std::size_t>(region.bytes)};
  }
  template <typename T>
  T scalar(std::size_t i) const {
    static_assert(std::is_trivially_copyable_v<T>);
    T value{};
    const flexllm_card_argument& at = raw_.arguments[i];
    const std::size_t bytes = sizeof(T) < at.bytes ? sizeof(T) : at.bytes;
    if (at.offset <= raw_.register_bytes && bytes <= raw_.register_bytes - at.offset) {
      std::memcpy(&value, raw_.registers + at.offset, bytes);
    }
    return value;
  }

 private:
  const flexllm_card_call& raw_;
};

namespace detail {

template <typename T>
struct Reader {
  static T read(const Call& call, std::size_t i, bool&) { return call.scalar<T>(i); }
};

template <typename T>
struct Reader<Buffer<T>> {
  static Buffer<T> read(const Call& call, std::size_t i, bool& decoded) {
    Buffer<T> buffer = call.buffer<T>(i);
    decoded = decoded && buffer.data != nullptr;
    return buffer;
  }
};

template <typename Function, typename... Arguments>
int result_of(Function function, Arguments&&... arguments) {
  if constexpr (std::is_void_v<decltype(function(std::forward<Arguments>(arguments)...))>) {
    function(std::forward<Arguments>(arguments)...);
    return 0;
  } else {
    return function(std::forward<Arguments>(arguments)...);
  }
}

template <typename Function, typename... Arguments, std::size_t... I>
int read_and_run(const Call& call, Function function, std::tuple<Arguments...>*,
                 std::index_sequence<I...>) {
  if (call.arguments() != sizeof...(Arguments)) {
    call.report("the kernel has another number of arguments than the bitstream says");
    return -EINVAL;
  }
  bool decoded = true;
  // Braces read the arguments in order.
  std::tuple<Arguments...> values{Reader<Arguments>::read(call, I, decoded)...};
  if (!decoded) {
    call.report("an address argument lies in no bank");
    return -EFAULT;
  }
  return std::apply([&](auto&... value) { return result_of(function, value...); }, values);
}

template <typename Result, typename... Arguments>
int run(const Call& call, Result (*function)(Arguments...)) {
  using Values = std::tuple<std::decay_t<Arguments>...>;
  return read_and_run(call, function, static_cast<Values*>(nullptr),
                      std::index_sequence_for<Arguments...>{});
}

template <typename Result>
int run(const Call& call, Result (*function)(const Call&)) {
  return result_of(function, call);
}

template <typename Result, typename First, typename... Arguments>
int run(const Call& call, Result (*function)(const Call&, First, Arguments...)) {
  using Values = std::tuple<std::decay_t<First>, std::decay_t<Arguments>...>;
  const auto bound = [&](auto&... values) { return function(call, values...); };
  return read_and_run(call, bound, static_cast<Values*>(nullptr),
                      std::index_sequence_for<First, Arguments...>{});
}

template <typename Function>
int guarded(const flexllm_card_call* raw, Function function) noexcept {
  if (raw == nullptr || raw->abi_version != kAbiVersion) return -ENOEXEC;
  const Call call(*raw);
  try {
    return run(call, function);
  } catch (const std::exception& error) {
    call.report(error.what());
  } catch (...) {
    call.report("the kernel threw something");
  }
  return -EIO;
}

}  // namespace detail
}  // namespace flexllm::card

// Exports `function` as the kernel `name` of a bitstream. For use at namespace scope.
#define FLEXLLM_CARD_KERNEL(name, function)                                         \
  extern "C" __attribute__((visibility("default"))) int flexllm_card_kernel_##name( \
      const flexllm_card_call* call) {                                              \
    return ::flexllm::card::detail::guarded(call, &function);                       \
  }
