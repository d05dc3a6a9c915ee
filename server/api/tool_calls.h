// Finds the calls of tools in what a model writes. One parser per choice, used by one thread; what
// comes out does not depend on where the text is cut.
#pragma once

#include <string>
#include <string_view>
#include <vector>

#include "server/text/text_model.h"

namespace flexllm::server {

struct ToolUse {
  ToolFormat format = ToolFormat::none;
  std::vector<std::string> names;  // of the tools that there are
  bool parallel = true;            // otherwise only the first call counts
};

class ToolCallParser {
 public:
  struct Piece {
    std::string content;          // text that belongs to no call
    std::vector<ToolCall> calls;  // whole ones, without ids
  };

  explicit ToolCallParser(const ToolUse& use) : use_(use) {}

  // Text that cannot be part of a call is given at once. What looks like a call and is none, by its
  // JSON or by its name, is text.
  // With `last` all that is left.
  Piece push(std::string_view text, bool last);

 private:
  void scan_marked(Piece& out, bool last);
  void scan_bare(Piece& out, bool last);
  void show(std::string_view text, Piece& out);
  bool take_calls(std::string_view text, Piece& out);

  const ToolUse use_;
  std::string held_;
  std::string space_;   // white space that is only shown if text follows
  bool plain_ = false;  // llama: the answer has begun as text
  bool called_ = false;
};

}  // namespace flexllm::server
