#include "tokenizer/jinja/filters.h"

#include <algorithm>

namespace flexllm::tokenizer::jinja {
namespace {

std::vector<std::string_view> words_of(std::string_view text) {
  std::vector<std::string_view> words;
  while (!text.empty()) {
    const size_t end = std::min(text.find(' '), text.size());
    words.push_back(text.substr(0, end));
    text.remove_prefix(std::min(end + 1, text.size()));
  }
  return words;
}

// Whether the names in `parameters` allow the arguments.
bool takes(std::string_view parameters, const Arguments& arguments) {
  if (parameters == "*") return true;
  const auto names = words_of(parameters);
  return arguments.positional.size() <= names.size() &&
         std::all_of(arguments.named.begin(), arguments.named.end(), [&](const auto& argument) {
           return std::find(names.begin(), names.end(), argument.first) != names.end();
         });
}

}  // namespace

const Filter* find_filter(std::string_view name) {
  for (const auto& filters : {text_filters(), sequence_filters()}) {
    const auto found = std::find_if(filters.begin(), filters.end(),
                                    [&](const Filter& filter) { return filter.name == name; });
    if (found != filters.end()) return &*found;
  }
  return nullptr;
}

Value apply_filter(Run& run, const Filter& filter, const Value& input, const Arguments& arguments) {
  if (!takes(filter.parameters, arguments)) {
    run.fail("the filter '" + std::string(filter.name) + "' does not take these arguments");
  }
  return filter.apply(run, input, arguments);
}

}  // namespace flexllm::tokenizer::jinja
