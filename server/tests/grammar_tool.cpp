// Grammars for test_grammar.py: reads one JSON object a line and answers with one.
//   {"schema", "walks", "seed"}: {"texts"}, random texts of the schema; null for one that did not
//   end
//   {"schema", "accept": [texts]}: {"accepted"}, whether the schema's grammar takes them, cut into
//   tokens at random
//   either: {"error": {"path", "message"}} if the schema is refused
#include <iostream>
#include <nlohmann/json.hpp>

#include "server/grammar/grammar_cache.h"
#include "server/tests/grammar_text.h"
#include "server/tests/grammar_walk.h"

namespace {

using flexllm::server::grammar::Json;

// Along tokens that begin what is left of the text, chosen at random; each must be in the mask.
bool accepts(const std::shared_ptr<const flexllm::server::grammar::Grammar>& grammar,
             const flexllm::server::TextModel& model, std::string_view text, std::mt19937& random) {
  flexllm::server::grammar::Matcher matcher(grammar);
  while (!text.empty()) {
    std::vector<uint32_t> fitting;
    for (uint32_t token = 0; token < model.vocab_size(); ++token) {
      const auto bytes = model.token_bytes(token);
      if (!bytes.empty() && text.starts_with(bytes)) fitting.push_back(token);
    }
    const uint32_t token = fitting[random() % fitting.size()];
    if (!matcher.allowed()->contains(token)) return false;
    if (!matcher.accept(model.token_bytes(token))) return false;
    text.remove_prefix(model.token_bytes(token).size());
  }
  return matcher.may_end();
}

}  // namespace

int main() {
  using namespace flexllm::server;
  const testing::GrammarText model;
  const auto trie = std::make_shared<const grammar::TokenTrie>(model, model.vocab_size());
  grammar::GrammarCache cache(trie);
  std::string line;
  while (std::getline(std::cin, line)) {
    const Json request = Json::parse(line);
    std::mt19937 random(request.value("seed", 1u));
    const auto made =
        request.contains("schema") ? cache.json_schema(request["schema"]) : cache.json_object();
    Json reply;
    if (!made) {
      reply["error"] = {{"path", made.error().path}, {"message", made.error().message}};
    } else if (request.contains("accept")) {
      reply["accepted"] = Json::array();
      for (const auto& text : request["accept"]) {
        reply["accepted"].push_back(accepts(*made, model, text.get<std::string>(), random));
      }
    } else {
      reply["texts"] = Json::array();
      for (int i = 0; i < request["walks"].get<int>(); ++i) {
        const auto text = testing::random_text(*made, model, random);
        reply["texts"].push_back(text ? Json(*text) : Json());
      }
    }
    std::cout << reply.dump(-1, ' ', false, Json::error_handler_t::replace) << std::endl;
  }
  return 0;
}
