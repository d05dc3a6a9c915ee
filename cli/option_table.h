// One table of options from which come the flags of the command line, their --help, environment
// variables, keys of a JSON configuration file, and the reference page. An option "max-queue" is
// the flag --max-queue, the variable FLEXLLM_MAX_QUEUE and the key "max_queue"; the command line
// wins over the environment, and that over the file. Used by one thread at start-up.
#pragma once

#include <chrono>
#include <concepts>
#include <cstdint>
#include <filesystem>
#include <functional>
#include <memory>
#include <nlohmann/json_fwd.hpp>
#include <optional>
#include <string>
#include <string_view>
#include <vector>

namespace CLI {
class App;
class Option;
}  // namespace CLI

namespace flexllm::cli {

class OptionTable {
 public:
  // `target` has its default; it must live as long as the table. Integers lie in [low, high].
  void add(const std::string& name, std::string& target, std::string help);
  void add(const std::string& name, std::filesystem::path& target, std::string help);
  void add(const std::string& name, bool& target, std::string help);  // false by default
  // Given several times, or separated by commas; a list in the file.
  void add(const std::string& name, std::vector<std::string>& target, std::string help);
  // A number in [low, high]; absent by default.
  void add(const std::string& name, std::optional<float>& target, float low, float high,
           std::string help);
  // In seconds, with a fraction; at least `low`.
  void add(const std::string& name, std::chrono::milliseconds& target,
           std::chrono::milliseconds low, std::string help);
  template <std::unsigned_integral T>
  void add(const std::string& name, T& target, uint64_t low, uint64_t high, std::string help) {
    add_integer(name, std::to_string(target), low, high, std::move(help),
                [&target](uint64_t value) { target = static_cast<T>(value); });
  }
  // The same, or "off": absent.
  template <std::unsigned_integral T>
  void add(const std::string& name, std::optional<T>& target, uint64_t low, uint64_t high,
           std::string help) {
    add_integer(
        name, target ? std::to_string(*target) : "off", low, high, std::move(help),
        [&target](uint64_t value) { target = static_cast<T>(value); },
        [&target] { target.reset(); });
  }
  // An octal file mode, "600".
  void add_mode(const std::string& name, uint32_t& target, std::string help);
  // Options added after this stand under this heading.
  void group(std::string heading) { group_ = std::move(heading); }

  // Declares all flags, and --config and --help-markdown. Call once, before parsing.
  void attach(CLI::App& app);
  // After parsing: fills the targets. Throws Failure (kUsage) that names the option and where its
  // value came from.
  void resolve();
  // True if --help-markdown was given: print markdown() and end.
  bool wants_markdown() const { return wants_markdown_; }
  std::string markdown() const;
  // Whether the option was given anywhere, be it as a variable that is empty (which sets nothing);
  // after resolve().
  bool given(std::string_view name) const;
  bool on_command_line(std::string_view name) const;
  // A sentence for each variable of the environment whose name is almost one of the table's.
  std::vector<std::string> doubtful_variables() const;

 private:
  struct Entry {
    std::string name;
    std::string group;
    std::string type;  // "INT", "SECONDS", ...; empty for a switch
    std::string initial;
    std::string help;
    bool list = false;
    // Throws std::invalid_argument with what the value must be.
    std::function<void(const std::vector<std::string>&)> set;
    std::vector<std::string> words;  // from the command line or the environment
    bool switched = false;
    CLI::Option* option = nullptr;
    bool given = false;
  };
  void add_integer(const std::string& name, std::string initial, uint64_t low, uint64_t high,
                   std::string help, std::function<void(uint64_t)> set,
                   std::function<void()> switch_off = nullptr);
  Entry& push(const std::string& name, std::string type, std::string initial, std::string help);
  const Entry& entry_of(std::string_view name) const;
  std::vector<std::string> names_by(std::string (*spell)(std::string_view)) const;
  void read_config();
  void set(Entry& entry, const std::vector<std::string>& words, const std::string& source);

  std::string group_ = "Options";
  std::vector<std::unique_ptr<Entry>> entries_;
  std::string config_;
  bool wants_markdown_ = false;
};

std::string variable_name(std::string_view option);  // FLEXLLM_MAX_QUEUE
std::string key_name(std::string_view option);       // max_queue

}  // namespace flexllm::cli
