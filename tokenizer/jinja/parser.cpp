#include "tokenizer/jinja/parser.h"

#include <algorithm>

#include "tokenizer/jinja/expression_parser.h"
#include "tokenizer/jinja/lexer.h"

namespace flexllm::tokenizer::jinja {
namespace {

using Kind = Lexeme::Kind;

class Parser {
 public:
  Parser(std::string_view source, const TemplateLimits& limits)
      : lexemes_(lex(source)), stream_(lexemes_, limits), expressions_(stream_) {}

  Body run() { return parse_body({}); }

 private:
  // Statements up to a block that is named in `ends`, whose name is left to read; up to the end of
  // the template when there are none.
  Body parse_body(std::initializer_list<std::string_view> ends) {
    const Stream::Nest nest(stream_);
    Body body;
    for (;;) {
      const Lexeme& lexeme = stream_.current();
      const size_t line = lexeme.line;
      if (lexeme.kind == Kind::data) {
        body.push_back({line, Output{literal_text(stream_.take().text)}});
      } else if (lexeme.kind == Kind::print_begin) {
        stream_.take();
        body.push_back({line, Print{expressions_.parse_tuple()}});
        stream_.expect(Kind::print_end, "'}}'");
      } else if (lexeme.kind == Kind::end) {
        if (ends.size() != 0) {
          stream_.fail("the template ends where '" + std::string(*(ends.end() - 1)) +
                       "' was expected");
        }
        return body;
      } else {
        stream_.take();
        const Lexeme& name = stream_.current();
        if (name.kind == Kind::name &&
            std::find(ends.begin(), ends.end(), name.text) != ends.end()) {
          return body;
        }
        body.push_back(parse_statement());
      }
    }
  }

  Statement parse_statement() {
    const size_t line = stream_.current().line;
    const std::string name = stream_.expect(Kind::name, "the name of a block").text;
    if (name == "for") return {line, parse_for()};
    if (name == "if") return {line, parse_if()};
    if (name == "set") return parse_set(line);
    if (name == "macro") return {line, parse_macro()};
    if (name == "generation") {
      Group group{block("endgeneration")};
      return {line, std::move(group)};
    }
    if (name == "break" || name == "continue") {
      if (loops_ == 0) stream_.fail("'" + name + "' outside a for");
      end_block();
      if (name == "break") return {line, Break{}};
      return {line, Continue{}};
    }
    stream_.fail("the block '" + name + "' is not supported here");
  }

  void end_block() { stream_.expect(Kind::block_end, "'%}'"); }

  // The rest of a block's opening tag, its body and its closing tag.
  Body block(std::string_view end) {
    end_block();
    Body body = parse_body({end});
    stream_.take();
    end_block();
    return body;
  }

  For parse_for() {
    For result;
    result.targets = parse_targets();
    stream_.expect_name("in");
    result.iterable = expressions_.parse_tuple(/*with_conditional=*/false);
    if (stream_.take_name("if")) result.condition = expressions_.parse();
    if (stream_.at_name("recursive")) stream_.fail("'recursive' loops are not supported");
    end_block();
    ++loops_;
    result.body = parse_body({"else", "endfor"});
    --loops_;
    if (stream_.take_name("else")) {
      end_block();
      result.otherwise = parse_body({"endfor"});
    }
    stream_.take();
    end_block();
    return result;
  }

  If parse_if() {
    If result;
    do {
      ExprPtr test = expressions_.parse_tuple(/*with_conditional=*/false);
      end_block();
      result.branches.emplace_back(std::move(test), parse_body({"elif", "else", "endif"}));
    } while (stream_.take_name("elif"));
    if (stream_.take_name("else")) {
      end_block();
      result.otherwise = parse_body({"endif"});
    }
    stream_.expect_name("endif");
    end_block();
    return result;
  }

  Statement parse_set(size_t line) {
    std::vector<std::string> targets = parse_targets();
    if (stream_.take_symbol(".")) {
      const std::string attribute = stream_.expect(Kind::name, "an attribute").text;
      stream_.expect_symbol("=");
      SetAttribute result{targets.front(), attribute, expressions_.parse_tuple()};
      end_block();
      return {line, std::move(result)};
    }
    if (stream_.take_symbol("=")) {
      Set result{std::move(targets), expressions_.parse_tuple()};
      end_block();
      return {line, std::move(result)};
    }
    if (targets.size() != 1) stream_.fail("a block 'set' has one name");
    SetBlock result{std::move(targets.front()), block("endset")};
    return {line, std::move(result)};
  }

  MacroDefinition parse_macro() {
    MacroDefinition result;
    result.name = stream_.expect(Kind::name, "the name of a macro").text;
    stream_.expect_symbol("(");
    while (!stream_.at_symbol(")")) {
      if (!result.parameters.empty()) stream_.expect_symbol(",");
      MacroDefinition::Parameter parameter;
      parameter.name = stream_.expect(Kind::name, "a parameter").text;
      if (stream_.take_symbol("=")) {
        parameter.fallback = expressions_.parse();
      } else if (!result.parameters.empty() && result.parameters.back().fallback) {
        stream_.fail("a parameter without a default follows one that has a default");
      }
      result.parameters.push_back(std::move(parameter));
    }
    stream_.take();
    const int outer_loops = std::exchange(loops_, 0);
    result.body = block("endmacro");
    loops_ = outer_loops;
    return result;
  }

  // "a" or "a, b" or "(a, b)".
  std::vector<std::string> parse_targets() {
    std::vector<std::string> targets;
    const bool brackets = stream_.take_symbol("(");
    do {
      const Lexeme& name = stream_.expect(Kind::name, "the name of a variable");
      if (is_constant_name(name.text)) stream_.fail("cannot assign to '" + name.text + "'");
      targets.push_back(name.text);
    } while (stream_.take_symbol(","));
    if (brackets) stream_.expect_symbol(")");
    return targets;
  }

  const std::vector<Lexeme> lexemes_;
  Stream stream_;
  ExpressionParser expressions_;
  int loops_ = 0;  // open around the statement being read
};

}  // namespace

Body parse(std::string_view source, const TemplateLimits& limits) {
  if (source.size() > limits.source_bytes) {
    throw TemplateError(
        TemplateError::Kind::limit, 1,
        "the template is longer than " + std::to_string(limits.source_bytes) + " bytes");
  }
  return Parser(source, limits).run();
}

}  // namespace flexllm::tokenizer::jinja
