#include "server/grammar/numbers.h"

#include <fmt/format.h>

#include <cstdlib>
#include <string>

#include "server/grammar/regex.h"

namespace flexllm::server::grammar {
namespace {

constexpr size_t kMaxDigits = 15;
constexpr size_t kMaxCharacters = 17;
constexpr const char* kAnyFraction = "(?:\\.[0-9]+)?";
constexpr const char* kNever = "[]";

// A bound in decimal: -12.5 is {negative, "12", "5"}. No leading or trailing zeros; zero is {"0"}.
struct Decimal {
  bool negative = false;
  std::string whole;
  std::string fraction;
  bool zero() const { return whole == "0" && fraction.empty(); }
};

Decimal decimal_of(const nlohmann::ordered_json& number) {
  std::string text = number.dump();
  Decimal out;
  if (text.starts_with('-')) {
    out.negative = true;
    text.erase(0, 1);
  }
  int64_t exponent = 0;
  if (const size_t e = text.find('e'); e != std::string::npos) {
    exponent = std::strtol(text.c_str() + e + 1, nullptr, 10);
    text.resize(e);
  }
  size_t point = text.find('.');
  if (point == std::string::npos) {
    point = text.size();
  } else {
    text.erase(point, 1);
  }
  int64_t place = static_cast<int64_t>(point) + exponent;
  if (std::abs(place) > 64) refuse("has a bound of more than 15 digits before or after the point.");
  if (place < 0) {
    text.insert(0, static_cast<size_t>(-place), '0');
    place = 0;
  }
  if (static_cast<size_t>(place) > text.size()) text.resize(static_cast<size_t>(place), '0');
  out.whole = text.substr(0, static_cast<size_t>(place));
  out.fraction = text.substr(static_cast<size_t>(place));
  out.whole.erase(0, out.whole.find_first_not_of('0'));
  if (out.whole.empty()) out.whole = "0";
  out.fraction.erase(out.fraction.find_last_not_of('0') + 1);
  if (out.whole.size() > kMaxDigits || out.fraction.size() > kMaxDigits) {
    refuse("has a bound of more than 15 digits before or after the point.");
  }
  if (out.zero()) out.negative = false;
  return out;
}

std::string digits(char low, char high) {
  return low > high ? std::string(kNever) : fmt::format("[{}-{}]", low, high);
}

// Whole numbers without leading zeros below (or above) `whole`, by the first digit that differs or
// by their length.
std::string whole_below(const std::string& whole) {
  std::string out = kNever;
  for (size_t i = 0; i < whole.size(); ++i) {
    const char least = i == 0 && whole.size() > 1 ? '1' : '0';
    out += fmt::format("|{}{}[0-9]{{{}}}", whole.substr(0, i),
                       digits(least, static_cast<char>(whole[i] - 1)), whole.size() - i - 1);
  }
  if (whole.size() > 1) out += fmt::format("|[0-9]|[1-9][0-9]{{0,{}}}", whole.size() - 2);
  return fmt::format("(?:{})", out);
}

std::string whole_above(const std::string& whole) {
  std::string out = fmt::format("[1-9][0-9]{{{},}}", whole.size());
  for (size_t i = 0; i < whole.size(); ++i) {
    out += fmt::format("|{}{}[0-9]{{{}}}", whole.substr(0, i),
                       digits(static_cast<char>(whole[i] + 1), '9'), whole.size() - i - 1);
  }
  return fmt::format("(?:{})", out);
}

// Digits after the point that make at least (or more than) 0.`fraction`.
std::string fraction_from(const std::string& fraction, bool strict, size_t i = 0) {
  if (i == fraction.size()) return strict ? "0*[1-9][0-9]*" : "[0-9]*";
  return fmt::format("(?:{}[0-9]*|{}{})", digits(static_cast<char>(fraction[i] + 1), '9'),
                     fraction[i], fraction_from(fraction, strict, i + 1));
}

std::string fraction_to(const std::string& fraction, bool strict, size_t i = 0) {
  if (i == fraction.size()) return strict ? kNever : "0*";
  return fmt::format("(?:|{}[0-9]*|{}{})", digits('0', static_cast<char>(fraction[i] - 1)),
                     fraction[i], fraction_to(fraction, strict, i + 1));
}

// Numbers without a sign that are at least (or at most) the absolute value of `bound`.
std::string size_from(const Decimal& bound, bool strict) {
  const bool whole_is_enough = bound.fraction.empty() && !strict;
  return fmt::format("(?:{}{}|{}(?:\\.{}{}))", whole_above(bound.whole), kAnyFraction, bound.whole,
                     fraction_from(bound.fraction, strict), whole_is_enough ? "|" : "");
}

std::string size_to(const Decimal& bound, bool strict) {
  const bool whole_is_enough = !bound.fraction.empty() || !strict;
  return fmt::format("(?:{}{}|{}(?:\\.{}{}))", whole_below(bound.whole), kAnyFraction, bound.whole,
                     fraction_to(bound.fraction, strict), whole_is_enough ? "|" : "");
}

// Zero has two signs: -0 is not below zero.
std::string from(const Decimal& bound, bool strict) {
  if (bound.negative) return fmt::format("-{}|[0-9.]+", size_to(bound, strict));
  if (bound.zero() && !strict) return "-0(?:\\.0+)?|[0-9.]+";
  return size_from(bound, strict);
}

std::string to(const Decimal& bound, bool strict) {
  if (bound.negative) return fmt::format("-{}", size_from(bound, strict));
  if (bound.zero() && strict) return fmt::format("-{}", size_from(bound, true));
  return fmt::format("-[0-9.]+|{}", size_to(bound, strict));
}

}  // namespace

CharDfa any_number(Effort& effort) {
  return compile_regex(
      "-?(?:0|[1-9][0-9]{0,17})(?:\\.[0-9]{1,17})?(?:[eE][+-]?(?:[0-9]{1,2}|1[0-9]{2}|2[0-8][0-9]))"
      "?",
      Match::whole, effort);
}

CharDfa number_within(const NumberBounds& bounds, Effort& effort) {
  const bool bounded =
      bounds.minimum || bounds.maximum || bounds.exclusive_minimum || bounds.exclusive_maximum;
  if (!bounded) {
    return bounds.integer ? compile_regex("-?(?:0|[1-9][0-9]{0,17})", Match::whole, effort)
                          : any_number(effort);
  }
  CharDfa dfa =
      compile_regex(std::string("-?(?:0|[1-9][0-9]*)") + (bounds.integer ? "" : kAnyFraction),
                    Match::whole, effort);
  dfa = intersection(dfa, of_length(1, kMaxCharacters), effort);
  auto apply = [&](const std::optional<nlohmann::ordered_json>& bound, bool lower, bool strict) {
    if (!bound) return;
    const Decimal decimal = decimal_of(*bound);
    const std::string pattern = lower ? from(decimal, strict) : to(decimal, strict);
    dfa = intersection(dfa, compile_regex(pattern, Match::whole, effort), effort);
  };
  apply(bounds.minimum, true, false);
  apply(bounds.exclusive_minimum, true, true);
  apply(bounds.maximum, false, false);
  apply(bounds.exclusive_maximum, false, true);
  return dfa;
}

}  // namespace flexllm::server::grammar
