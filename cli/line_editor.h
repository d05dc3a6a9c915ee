// Reads lines: with editing and a history on a terminal, plainly from anything else. Used by one
// thread.
#pragma once

#include <filesystem>
#include <memory>
#include <optional>
#include <string>

namespace flexllm::cli {

class LineEditor {
 public:
  // The history is kept in `history`, readable by its owner only; an empty path keeps none.
  LineEditor(std::string prompt, std::filesystem::path history);
  ~LineEditor();
  LineEditor(const LineEditor&) = delete;
  LineEditor& operator=(const LineEditor&) = delete;

  bool interactive() const;
  // The next line without its end; nothing at the end of the input. Ctrl-C on a terminal drops the
  // line and begins another.
  std::optional<std::string> read();

 private:
  struct State;
  std::unique_ptr<State> state_;
};

// Where programs keep what they remember: $XDG_STATE_HOME/flexllm or ~/.local/state/flexllm; empty
// if neither is known.
std::filesystem::path state_folder();

}  // namespace flexllm::cli
