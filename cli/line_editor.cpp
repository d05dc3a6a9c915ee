#include "cli/line_editor.h"

#include <histedit.h>
#include <sys/stat.h>
#include <unistd.h>

#include <cerrno>
#include <cstdio>
#include <cstdlib>
#include <iostream>

namespace flexllm::cli {
namespace {

namespace fs = std::filesystem;
constexpr int kHistoryLines = 1000;

}  // namespace

struct LineEditor::State {
  std::string prompt;
  fs::path history_path;
  EditLine* editor = nullptr;  // nullptr: not a terminal
  History* history = nullptr;

  static State& of(EditLine* editor) {
    void* state = nullptr;
    el_get(editor, EL_CLIENTDATA, &state);
    return *static_cast<State*>(state);
  }
  static char* prompt_of(EditLine* editor) { return of(editor).prompt.data(); }
  // Ctrl-C: an empty line below. The terminal stays as it is, so that no key is lost meanwhile.
  static unsigned char drop_line(EditLine* editor, int /*character*/) {
    std::fputs("^C\r\n", stdout);
    std::fflush(stdout);
    const LineInfo* line = el_line(editor);
    const auto length = static_cast<int>(line->lastchar - line->buffer);
    el_cursor(editor, static_cast<int>(line->lastchar - line->cursor));
    el_deletestr(editor, length);
    el_set(editor, EL_REFRESH);
    return CC_NORM;
  }
};

fs::path state_folder() {
  if (const char* state = std::getenv("XDG_STATE_HOME"); state != nullptr && *state != '\0') {
    return fs::path(state) / "flexllm";
  }
  const char* home = std::getenv("HOME");
  return home == nullptr || *home == '\0' ? fs::path() : fs::path(home) / ".local/state/flexllm";
}

LineEditor::LineEditor(std::string prompt, fs::path history) : state_(std::make_unique<State>()) {
  state_->prompt = std::move(prompt);
  state_->history_path = std::move(history);
  if (!isatty(STDIN_FILENO) || !isatty(STDOUT_FILENO)) return;
  state_->editor = el_init("flexllm", stdin, stdout, stderr);
  if (state_->editor == nullptr) return;
  state_->history = history_init();
  HistEvent event;
  ::history(state_->history, &event, H_SETSIZE, kHistoryLines);
  ::history(state_->history, &event, H_SETUNIQUE, 1);
  if (!state_->history_path.empty()) {
    ::history(state_->history, &event, H_LOAD, state_->history_path.c_str());
  }
  el_set(state_->editor, EL_CLIENTDATA, state_.get());
  el_set(state_->editor, EL_PROMPT, &State::prompt_of);
  el_set(state_->editor, EL_EDITOR, "emacs");
  el_set(state_->editor, EL_SIGNAL, 1);
  el_set(state_->editor, EL_HIST, ::history, state_->history);
  el_source(state_->editor, nullptr);  // ~/.editrc
  // While a line is edited Ctrl-C is a key, not a signal: libedit retries reads that a signal ends.
  el_set(state_->editor, EL_ADDFN, "drop-line", "Drop the line", &State::drop_line);
  el_set(state_->editor, EL_BIND, "^C", "drop-line", nullptr);
  el_set(state_->editor, EL_SETTY, "-d", "-isig", nullptr);
}

LineEditor::~LineEditor() {
  if (state_->editor == nullptr) return;
  if (!state_->history_path.empty()) {
    std::error_code ignored;
    fs::create_directories(state_->history_path.parent_path(), ignored);
    const mode_t before = ::umask(0077);
    HistEvent event;
    ::history(state_->history, &event, H_SAVE, state_->history_path.c_str());
    ::umask(before);
  }
  history_end(state_->history);
  el_end(state_->editor);
}

bool LineEditor::interactive() const { return state_->editor != nullptr; }

std::optional<std::string> LineEditor::read() {
  std::string line;
  if (state_->editor == nullptr) {
    if (!std::getline(std::cin, line)) return std::nullopt;
    return line;
  }
  for (;;) {
    int length = 0;
    errno = 0;
    const char* text = el_gets(state_->editor, &length);
    if (text != nullptr && length > 0) {
      line = text;
      break;
    }
    if (errno != EINTR) return std::nullopt;
  }
  while (!line.empty() && (line.back() == '\n' || line.back() == '\r')) line.pop_back();
  if (line.find_first_not_of(" \t") != std::string::npos) {
    HistEvent event;
    ::history(state_->history, &event, H_ENTER, line.c_str());
  }
  return line;
}

}  // namespace flexllm::cli
