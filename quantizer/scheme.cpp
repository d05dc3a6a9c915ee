#include "quantizer/scheme.h"

#include <algorithm>
#include <array>
#include <cctype>
#include <charconv>
#include <optional>
#include <regex>
#include <stdexcept>

namespace flexllm::quantizer {
namespace {

constexpr std::array kKinds = {MatrixKind::qkv, MatrixKind::o, MatrixKind::gate_up,
                               MatrixKind::down};
constexpr uint32_t kMostLayers = 4096;
constexpr size_t kMostCharacters = 64u << 10;

using Matches = std::match_results<std::string_view::const_iterator>;

std::string base_name(const Scheme& s) {
  std::string text = s.linears.name();
  text += "kv8-lm";
  text += std::to_string(s.lm_head.weight_bits);
  if (s.lm_head.activation_bits == 4) text += "a4";
  if (s.probability_bits == 8) text += "-p8";
  if (s.rotate_residual || s.rotate_values || s.rotate_down) text += "-r";
  if (s.rotate_residual) text += "1";
  if (s.rotate_values) text += "2";
  if (s.rotate_down) text += "4";
  return text;
}

uint32_t bits_of(const Matches::value_type& group) { return group.str() == "4" ? 4 : 8; }

// "w4g64a8c95": five groups, which precision_of() reads from `first` on.
constexpr const char* kPrecision = "w([48])(g64)?a([48])(s)?(?:c([1-9][0-9]?))?";

MatrixPrecision precision_of(const Matches& match, size_t first) {
  MatrixPrecision precision;
  precision.weight_bits = bits_of(match[first]);
  precision.grouped = match[first + 1].matched;
  precision.activation_bits = bits_of(match[first + 2]);
  precision.symmetric = match[first + 3].matched;
  if (match[first + 4].matched) {
    precision.range_percent = static_cast<uint32_t>(std::stoul(match[first + 4].str()));
  }
  return precision;
}

Scheme parse_base(std::string_view name) {
  static const std::regex pattern(std::string(kPrecision) +
                                  "kv8-lm([48])(a4)?(-p8)?(?:-r(?=[124])(1?)(2?)(4?))?");
  Matches match;
  if (!std::regex_match(name.begin(), name.end(), match, pattern)) {
    throw std::invalid_argument(
        "\"" + std::string(name.substr(0, 80)) +
        "\" is not a scheme: w4 or w8, g64 if grouped, a4 or a8, s if their range is symmetric, c "
        "and "
        "the percentage of it that is kept, kv8, -lm4, -lm8 or -lm4a4, then -p8 for 8-bit "
        "probabilities and -r with the rotations 1, 2 and 4 that are used; for "
        "instance w4g64a8kv8-lm8-r124");
  }
  Scheme scheme;
  scheme.linears = precision_of(match, 1);
  scheme.lm_head = {bits_of(match[6]), match[7].matched ? 4u : 8u, scheme.linears.grouped};
  scheme.probability_bits = match[8].matched ? 8 : 16;
  scheme.rotate_residual = match[9].length() == 1;
  scheme.rotate_values = match[10].length() == 1;
  scheme.rotate_down = match[11].length() == 1;
  return scheme;
}

std::optional<uint32_t> layer_of(const Matches::value_type& group) {
  const std::string digits = group.str();
  uint32_t layer = 0;
  const auto [end, error] = std::from_chars(digits.data(), digits.data() + digits.size(), layer);
  if (error != std::errc() || layer >= kMostLayers) return std::nullopt;
  return layer;
}

// "0-2.down=w8g64a8".
void parse_exception(std::string_view text, Scheme& scheme) {
  static const std::regex pattern(
      std::string("([0-9]{1,4})(?:-([0-9]{1,4}))?\\.(qkv|o|gate_up|down)=") + kPrecision);
  const auto refuse = [text](const char* why) {
    throw std::invalid_argument("\"" + std::string(text.substr(0, 80)) + "\" " + why);
  };
  Matches match;
  if (!std::regex_match(text.begin(), text.end(), match, pattern)) {
    refuse(
        "is not an exception of a scheme: a layer or two with - between, a dot, qkv, o, gate_up or "
        "down, = and a precision; for instance 0-2.down=w8g64a8");
  }
  const auto first = layer_of(match[1]);
  const auto last = match[2].matched ? layer_of(match[2]) : first;
  if (!first || !last || *first > *last) refuse("has no range of layers");
  const auto kind = *std::find_if(kKinds.begin(), kKinds.end(),
                                  [&match](MatrixKind k) { return name_of(k) == match[3].str(); });
  const MatrixPrecision precision = precision_of(match, 4);
  for (uint32_t layer = *first; layer <= *last; ++layer) {
    if (!scheme.exceptions.emplace(MatrixId{layer, kind}, precision).second) {
      refuse("names a matrix for the second time");
    }
  }
}

}  // namespace

std::string_view name_of(MatrixKind kind) {
  switch (kind) {
    case MatrixKind::qkv:
      return "qkv";
    case MatrixKind::o:
      return "o";
    case MatrixKind::gate_up:
      return "gate_up";
    case MatrixKind::down:
      return "down";
    case MatrixKind::lm_head:
      break;
  }
  return "lm_head";
}

std::string MatrixPrecision::name() const {
  std::string text = "w";
  text += std::to_string(weight_bits);
  if (grouped) text += "g64";
  text += "a";
  text += std::to_string(activation_bits);
  if (symmetric) text += "s";
  if (range_percent != 100) {
    text += 'c';
    text += std::to_string(range_percent);
  }
  return text;
}

kernels::Precision MatrixPrecision::encoded(bool bias) const {
  const uint32_t clip = (256 * (100 - range_percent) + 50) / 100;  // to the nearest
  return {weight_bits / 4, activation_bits / 4, grouped, bias, symmetric, clip};
}

std::string Scheme::name() const {
  std::string text;
  for (const MatrixKind kind : kKinds) {
    for (auto first = exceptions.begin(); first != exceptions.end(); ++first) {
      if (first->first.kind != kind || first->second == linears) continue;
      const auto same = [&](uint32_t layer) {
        const auto found = exceptions.find({layer, kind});
        return found != exceptions.end() && found->second == first->second;
      };
      const uint32_t layer = first->first.layer;
      if (layer > 0 && same(layer - 1)) continue;  // in the range that began before
      uint32_t last = layer;
      while (same(last + 1)) ++last;
      text += text.empty() ? ':' : ',';
      text += std::to_string(layer);
      if (last != layer) {
        text += '-';
        text += std::to_string(last);
      }
      text += '.';
      text += name_of(kind);
      text += '=';
      text += first->second.name();
    }
  }
  return base_name(*this) + text;
}

std::string Scheme::label() const {
  const std::string base = base_name(*this);
  return name() == base ? base : base + "-mixed";
}

Scheme Scheme::parse(std::string_view name) {
  if (name.size() > kMostCharacters) {
    throw std::invalid_argument("a scheme of more than 65536 characters");
  }
  std::string text;
  for (const char c : name) {
    if (std::isspace(static_cast<unsigned char>(c)) == 0) text += c;
  }
  std::string_view rest = text;
  const size_t colon = rest.find(':');
  Scheme scheme = parse_base(rest.substr(0, colon));
  while (rest.find_first_of(":,") != std::string_view::npos) {
    rest.remove_prefix(rest.find_first_of(":,") + 1);
    parse_exception(rest.substr(0, rest.find(',')), scheme);
  }
  return scheme;
}

const MatrixPrecision& Scheme::of(const MatrixId& id) const {
  if (id.kind == MatrixKind::lm_head) return lm_head;
  const auto found = exceptions.find(id);
  return found == exceptions.end() ? linears : found->second;
}

void Scheme::check_layers(uint32_t layers) const {
  for (const auto& [id, precision] : exceptions) {
    if (id.layer >= layers) {
      throw std::invalid_argument("the scheme names layer " + std::to_string(id.layer) +
                                  " of a model with " + std::to_string(layers));
    }
  }
}

}  // namespace flexllm::quantizer
