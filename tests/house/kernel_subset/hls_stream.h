// Stand-in for AMD's hls_stream.h: enough for the kernels to be parsed, never run.
#pragma once

namespace hls {

template <typename T, int Depth = 0>
struct stream {
  stream();
  explicit stream(const char* name);
  T read();
  void write(const T& value);
  bool empty() const;
};

template <typename T>
struct stream<T, 0> {
  stream();
  explicit stream(const char* name);
  T read();
  void write(const T& value);
  bool empty() const;
};

}  // namespace hls
