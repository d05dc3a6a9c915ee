// What a compiler of this folder throws at itself; compile() turns it into a typed result.
#pragma once

#include <cstddef>
#include <string>
#include <utility>

namespace flexllm::server::grammar {

// Why a schema is not taken.
struct SchemaError {
  std::string path;     // within the schema: "properties.age.multipleOf"; empty: the schema itself
  std::string message;  // a sentence's end: "'multipleOf' is not supported."
};

struct Refused {
  SchemaError error;
};

[[noreturn]] inline void refuse(std::string message, std::string path = {}) {
  throw Refused{{std::move(path), std::move(message)}};
}

// Work that one compilation may still do, in steps of some 100 ns: what keeps a hostile schema from
// holding a thread.
class Effort {
 public:
  void spend(size_t steps) {
    if (steps > left_) refuse("is too large a pattern.");
    left_ -= steps;
  }

 private:
  size_t left_ = 1'500'000;
};

}  // namespace flexllm::server::grammar
