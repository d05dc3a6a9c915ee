// The half of the parser that reads expressions, and the stream of lexemes that both halves share.
// Used by one parse on one thread.
#pragma once

#include <algorithm>
#include <string>
#include <string_view>
#include <vector>

#include "tokenizer/chat_template.h"
#include "tokenizer/jinja/ast.h"
#include "tokenizer/jinja/lexer.h"

namespace flexllm::tokenizer::jinja {

class Stream {
 public:
  // `lexemes` outlives the stream and ends with `end`.
  Stream(const std::vector<Lexeme>& lexemes, const TemplateLimits& limits)
      : lexemes_(lexemes), depth_limit_(limits.depth) {}

  const Lexeme& current() const { return lexemes_[position_]; }
  const Lexeme& next() const { return lexemes_[std::min(position_ + 1, lexemes_.size() - 1)]; }
  const Lexeme& take() {
    return lexemes_[position_ + 1 < lexemes_.size() ? position_++ : position_];
  }

  bool at_symbol(std::string_view symbol) const { return at(Lexeme::Kind::symbol, symbol); }
  bool at_name(std::string_view name) const { return at(Lexeme::Kind::name, name); }
  bool take_symbol(std::string_view symbol) { return at_symbol(symbol) && (take(), true); }
  bool take_name(std::string_view name) { return at_name(name) && (take(), true); }

  const Lexeme& expect(Lexeme::Kind kind, const std::string& what);
  void expect_symbol(std::string_view symbol);
  void expect_name(std::string_view name);

  [[noreturn]] void fail(const std::string& what) const;
  [[noreturn]] void fail_at_depth() const;

  size_t depth_limit() const { return depth_limit_; }

  // Counts one level of nesting while it lives.
  class Nest {
   public:
    explicit Nest(Stream& stream) : stream_(stream) {
      if (++stream_.depth_ > stream_.depth_limit_) stream_.fail_at_depth();
    }
    ~Nest() { --stream_.depth_; }
    Nest(const Nest&) = delete;
    Nest& operator=(const Nest&) = delete;

   private:
    Stream& stream_;
  };

 private:
  bool at(Lexeme::Kind kind, std::string_view text) const {
    return current().kind == kind && current().text == text;
  }

  const std::vector<Lexeme>& lexemes_;
  size_t position_ = 0;
  size_t depth_ = 0;
  size_t depth_limit_;
};

Value literal_text(std::string_view text);

// "true", "None", ...: names that are values.
bool is_constant_name(std::string_view name);

class ExpressionParser {
 public:
  explicit ExpressionParser(Stream& stream) : stream_(stream) {}

  // One expression; without `with_conditional` it ends before an "if".
  ExprPtr parse(bool with_conditional = true);

  // One expression, or several with commas between them: a tuple.
  ExprPtr parse_tuple(bool with_conditional = true);

 private:
  template <typename Node>
  ExprPtr make(size_t line, Node node) const;

  ExprPtr parse_or();
  ExprPtr parse_and();
  ExprPtr parse_not();
  ExprPtr parse_compare();
  ExprPtr parse_sum();
  ExprPtr parse_concat();
  ExprPtr parse_product();
  ExprPtr parse_power();
  ExprPtr parse_unary(bool with_filters);
  ExprPtr parse_primary();
  ExprPtr parse_name();
  ExprPtr parse_number();
  ExprPtr parse_list();
  ExprPtr parse_dict();
  ExprPtr parse_postfix(ExprPtr object);
  ExprPtr parse_subscript(ExprPtr object);
  ExprPtr parse_filters(ExprPtr input);
  ExprPtr parse_filter(ExprPtr input);
  ExprPtr parse_test(ExprPtr input);
  CallArguments parse_arguments();

  Stream& stream_;
};

}  // namespace flexllm::tokenizer::jinja
