#include "cli/option_table.h"

#include <fmt/format.h>
#include <unistd.h>

#include <CLI/CLI.hpp>
#include <algorithm>
#include <charconv>
#include <cmath>
#include <cstdlib>
#include <fstream>
#include <nlohmann/json.hpp>
#include <stdexcept>

#include "cli/exit_code.h"
#include "cli/nearest.h"

namespace flexllm::cli {
namespace {

std::string seconds_text(std::chrono::milliseconds time) {
  return fmt::format("{:g}", static_cast<double>(time.count()) / 1000);
}

std::vector<std::string> words_of(const nlohmann::json& value) {
  std::vector<std::string> words;
  if (value.is_array()) {
    for (const auto& item : value) {
      for (auto& word : words_of(item)) words.push_back(std::move(word));
    }
  } else if (value.is_string()) {
    words.push_back(value.get<std::string>());
  } else if (!value.is_null()) {
    words.push_back(value.dump());
  }
  return words;
}

// The whole word as a number in [low, high], or nothing.
std::optional<double> number_of(const std::string& word, double low, double high) {
  char* end = nullptr;
  const double value = std::strtod(word.c_str(), &end);
  if (word.empty() || *end != '\0' || !(value >= low && value <= high)) return std::nullopt;
  return value;
}

}  // namespace

std::string key_name(std::string_view option) {
  std::string name(option);
  std::replace(name.begin(), name.end(), '-', '_');
  return name;
}

std::string variable_name(std::string_view option) {
  std::string name = "FLEXLLM_" + key_name(option);
  for (char& c : name) c = static_cast<char>(std::toupper(static_cast<unsigned char>(c)));
  return name;
}

OptionTable::Entry& OptionTable::push(const std::string& name, std::string type,
                                      std::string initial, std::string help) {
  entries_.push_back(std::make_unique<Entry>());
  Entry& entry = *entries_.back();
  entry.name = name;
  entry.group = group_;
  entry.type = std::move(type);
  entry.initial = std::move(initial);
  entry.help = std::move(help);
  return entry;
}

void OptionTable::add(const std::string& name, std::string& target, std::string help) {
  push(name, "TEXT", target, std::move(help)).set = [&target](const auto& words) {
    target = words.back();
  };
}

void OptionTable::add(const std::string& name, std::filesystem::path& target, std::string help) {
  push(name, "PATH", target.string(), std::move(help)).set = [&target](const auto& words) {
    target = words.back();
  };
}

void OptionTable::add(const std::string& name, bool& target, std::string help) {
  push(name, "", "", std::move(help)).set = [&target](const auto& words) {
    const std::string& word = words.back();
    if (word != "true" && word != "false" && word != "1" && word != "0") {
      throw std::invalid_argument("true or false");
    }
    target = word == "true" || word == "1";
  };
}

void OptionTable::add(const std::string& name, std::vector<std::string>& target, std::string help) {
  Entry& entry = push(name, "TEXT,...", fmt::format("{}", fmt::join(target, ",")), std::move(help));
  entry.list = true;
  entry.set = [&target](const auto& words) {
    target.clear();
    for (const auto& word : words) {
      for (const auto& part : CLI::detail::split(word, ',')) {
        if (!part.empty()) target.push_back(part);
      }
    }
  };
}

void OptionTable::add(const std::string& name, std::optional<float>& target, float low, float high,
                      std::string help) {
  push(name, "NUMBER", "", std::move(help)).set = [&target, low, high](const auto& words) {
    const auto number = number_of(words.back(), double{low}, double{high});
    if (!number) throw std::invalid_argument(fmt::format("a number between {} and {}", low, high));
    target = static_cast<float>(*number);
  };
}

void OptionTable::add(const std::string& name, std::chrono::milliseconds& target,
                      std::chrono::milliseconds low, std::string help) {
  Entry& entry = push(name, "SECONDS", seconds_text(target), std::move(help));
  entry.set = [&target, low](const auto& words) {
    const double lowest = static_cast<double>(low.count()) / 1000;
    const auto seconds = number_of(words.back(), lowest, 1e9);
    if (!seconds) {
      throw std::invalid_argument(low.count() == 0
                                      ? "a number of seconds"
                                      : fmt::format("a number of seconds, at least {:g}", lowest));
    }
    // What is not 0 must not become 0, which may mean something else.
    const auto rounded = std::llround(*seconds * 1000);
    target = std::chrono::milliseconds(*seconds > 0 ? std::max(rounded, 1LL) : 0);
  };
}

void OptionTable::add_integer(const std::string& name, std::string initial, uint64_t low,
                              uint64_t high, std::string help, std::function<void(uint64_t)> set,
                              std::function<void()> switch_off) {
  push(name, "INT", std::move(initial), std::move(help)).set = [=](const auto& words) {
    const std::string& word = words.back();
    if (switch_off && word == "off") return switch_off();
    uint64_t value = 0;
    const auto [end, error] = std::from_chars(word.data(), word.data() + word.size(), value);
    if (error != std::errc() || end != word.data() + word.size() || value < low || value > high) {
      throw std::invalid_argument(
          fmt::format("an integer between {} and {}{}", low, high, switch_off ? ", or off" : ""));
    }
    set(value);
  };
}

void OptionTable::add_mode(const std::string& name, uint32_t& target, std::string help) {
  push(name, "MODE", fmt::format("{:o}", target), std::move(help)).set =
      [&target](const auto& words) {
        const std::string& word = words.back();
        uint32_t mode = 0;
        const auto [end, error] = std::from_chars(word.data(), word.data() + word.size(), mode, 8);
        if (error != std::errc() || end != word.data() + word.size() || mode > 0777) {
          throw std::invalid_argument("an octal mode between 0 and 777");
        }
        target = mode;
      };
}

void OptionTable::attach(CLI::App& app) {
  app.add_option("--config", config_, "JSON file with these options, '_' for '-' in their names")
      ->type_name("PATH")
      ->envname("FLEXLLM_CONFIG");
  app.add_flag("--help-markdown", wants_markdown_, "Print this reference as Markdown");
  for (auto& entry : entries_) {
    const std::string flag = "--" + entry->name;
    if (entry->type.empty()) {
      entry->option = app.add_flag(flag, entry->switched, entry->help);
    } else {
      entry->option = app.add_option(flag, entry->words, entry->help);
      entry->option->type_name(entry->type)->default_str(entry->initial);
      entry->option->expected(1)->allow_extra_args(false);
      entry->option->multi_option_policy(entry->list ? CLI::MultiOptionPolicy::TakeAll
                                                     : CLI::MultiOptionPolicy::TakeLast);
    }
    entry->option->group(entry->group);
  }
}

void OptionTable::set(Entry& entry, const std::vector<std::string>& words,
                      const std::string& source) {
  try {
    if (words.empty()) throw std::invalid_argument("a value");
    entry.set(words);
    entry.given = true;
  } catch (const std::invalid_argument& wanted) {
    throw Failure(kUsage, fmt::format("{} must be {}", source, wanted.what()));
  }
}

std::vector<std::string> OptionTable::names_by(std::string (*spell)(std::string_view)) const {
  std::vector<std::string> names;
  for (const auto& entry : entries_) names.push_back(spell(entry->name));
  return names;
}

std::vector<std::string> OptionTable::doubtful_variables() const {
  constexpr std::string_view kPrefix = "FLEXLLM_";
  std::vector<std::string> known = names_by(variable_name);
  known.emplace_back("FLEXLLM_CONFIG");
  for (auto& name : known) name.erase(0, kPrefix.size());
  std::vector<std::string> out;
  for (char** variable = environ; *variable != nullptr; ++variable) {
    const std::string_view both = *variable;
    if (!both.starts_with(kPrefix)) continue;
    const std::string name(both.substr(0, both.find('=')).substr(kPrefix.size()));
    if (std::find(known.begin(), known.end(), name) != known.end()) continue;
    // Others have variables of that kind too: what is like none of ours is theirs.
    if (const std::string meant = nearest(name, known); !meant.empty()) {
      out.push_back(
          fmt::format("{0}{1} is not a variable of this program; {0}{2} is", kPrefix, name, meant));
    }
  }
  return out;
}

void OptionTable::read_config() {
  std::ifstream in(config_);
  if (!in) throw Failure(kUsage, config_ + ": cannot be read");
  const auto config = nlohmann::json::parse(in, nullptr, false);
  if (!config.is_object()) throw Failure(kUsage, config_ + ": is not a JSON object");
  for (const auto& [key, value] : config.items()) {
    const auto entry = std::find_if(entries_.begin(), entries_.end(),
                                    [&](const auto& e) { return key_name(e->name) == key; });
    if (entry == entries_.end()) {
      throw Failure(kUsage, fmt::format("{}: there is no option \"{}\"{}", config_, key,
                                        suggestion(key, names_by(key_name))));
    }
    set(**entry, words_of(value), fmt::format("{}: \"{}\"", config_, key));
  }
}

void OptionTable::resolve() {
  if (!config_.empty()) read_config();
  for (auto& entry : entries_) {
    const std::string variable = variable_name(entry->name);
    if (const char* value = std::getenv(variable.c_str()); value != nullptr) {
      entry->given = true;
      if (*value != '\0') set(*entry, {value}, variable);
    }
    if (entry->option->count() > 0) {
      set(*entry, entry->type.empty() ? std::vector<std::string>{"true"} : entry->words,
          "--" + entry->name);
    }
  }
}

const OptionTable::Entry& OptionTable::entry_of(std::string_view name) const {
  const auto entry = std::find_if(entries_.begin(), entries_.end(),
                                  [&](const auto& e) { return e->name == name; });
  if (entry == entries_.end()) throw std::logic_error("no option " + std::string(name));
  return **entry;
}

bool OptionTable::given(std::string_view name) const { return entry_of(name).given; }

bool OptionTable::on_command_line(std::string_view name) const {
  return entry_of(name).option->count() > 0;
}

std::string OptionTable::markdown() const {
  std::string out;
  std::string heading;
  for (const auto& entry : entries_) {
    if (entry->group != heading) {
      heading = entry->group;
      out +=
          fmt::format("{}**{}**\n\n| flag | variable | key | default | |\n|---|---|---|---|---|\n",
                      out.empty() ? "" : "\n", heading);
    }
    const std::string initial =
        entry->type.empty() ? "off" : (entry->initial.empty() ? "" : "`" + entry->initial + "`");
    out += fmt::format("| `--{}{}` | `{}` | `{}` | {} | {} |\n", entry->name,
                       entry->type.empty() ? "" : " " + entry->type, variable_name(entry->name),
                       key_name(entry->name), initial, entry->help);
  }
  return out;
}

}  // namespace flexllm::cli
