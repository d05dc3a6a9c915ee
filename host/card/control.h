// The control socket: how a test, or an operator's reset command, reaches the emulated cards of a
// running process. A Unix stream socket; each line is a JSON command and is answered by one line,
// {"ok": true, ...} or {"ok": false, "error": "..."}. The commands are in docs/emulated-card.md.
//
// One thread serves all connections. A path that begins with '@' names a socket that has no file.
#pragma once

#include <map>
#include <memory>
#include <string>

namespace flexllm::card {

class Rack;

class Control {
 public:
  // Null, with a sentence in the log, if the socket cannot be made or another process serves it.
  static std::unique_ptr<Control> listen(const std::string& path, Rack& rack);
  Control(const Control&) = delete;
  Control& operator=(const Control&) = delete;

 private:
  Control(int socket, Rack& rack) : socket_(socket), rack_(rack) {}
  void serve();
  bool receive(int connection);  // false: the connection has ended
  std::string answer(const std::string& line);

  const int socket_;
  Rack& rack_;
  std::map<int, std::string> connections_;  // descriptor -> what has come of a line
};

}  // namespace flexllm::card
