#include "server/grammar/formats.h"

#include <map>
#include <string>

namespace flexllm::server::grammar {
namespace {

std::map<std::string, std::string, std::less<>> make_patterns() {
  // RFC 3339, section 5.6, with the days of each month, and 29 February in leap years.
  const std::string date =
      "(?:[0-9]{4}-(?:(?:0[13578]|1[02])-(?:0[1-9]|[12][0-9]|3[01])"
      "|(?:0[469]|11)-(?:0[1-9]|[12][0-9]|30)"
      "|02-(?:0[1-9]|1[0-9]|2[0-8]))"
      "|(?:[0-9]{2}(?:0[48]|[2468][048]|[13579][26])|(?:[02468][048]|[13579][26])00)-02-29)";
  const std::string time =
      "(?:[01][0-9]|2[0-3]):[0-5][0-9]:[0-5][0-9](?:\\.[0-9]{1,6})?"
      "(?:Z|[+-](?:[01][0-9]|2[0-3]):[0-5][0-9])";
  // RFC 3339, appendix A.
  const std::string n = "[0-9]{1,9}";
  const std::string seconds = n + "S";
  const std::string minutes = n + "M(?:" + seconds + ")?";
  const std::string hours = n + "H(?:" + minutes + ")?";
  const std::string clock = "T(?:" + hours + "|" + minutes + "|" + seconds + ")";
  const std::string days = n + "D";
  const std::string months = n + "M(?:" + days + ")?";
  const std::string years = n + "Y(?:" + months + ")?";
  const std::string duration = "P(?:(?:" + years + "|" + months + "|" + days + ")(?:" + clock +
                               ")?|" + clock + "|" + n + "W)";
  const std::string hex = "[0-9a-fA-F]";
  const std::string octet = "(?:25[0-5]|2[0-4][0-9]|1[0-9]{2}|[1-9]?[0-9])";
  const std::string label = "[A-Za-z0-9]+(?:-[A-Za-z0-9]+)*";
  const std::string host = label + "(?:\\." + label + ")*";
  const std::string atom = "[A-Za-z0-9_+-]+";
  const std::string part = "(?:[A-Za-z0-9._~!$&'()*+,;=:@/-]|%" + hex + "{2})*";
  return {
      {"date", date},
      {"time", time},
      {"date-time", date + "T" + time},
      {"duration", duration},
      {"uuid", hex + "{8}(?:-" + hex + "{4}){3}-" + hex + "{12}"},
      {"ipv4", octet + "(?:\\." + octet + "){3}"},
      {"hostname", host},
      {"email", atom + "(?:\\." + atom + ")*@" + label + "(?:\\." + label + ")+"},
      {"uri", "[A-Za-z][A-Za-z0-9+.-]*://" + host + "(?::[0-9]{1,4})?(?:/" + part + ")?(?:\\?" +
                  part + ")?(?:#" + part + ")?"},
  };
}

}  // namespace

std::optional<std::string_view> pattern_of_format(std::string_view format) {
  static const auto patterns = make_patterns();
  const auto found = patterns.find(format);
  if (found == patterns.end()) return std::nullopt;
  return found->second;
}

}  // namespace flexllm::server::grammar
