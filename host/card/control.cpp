#include "host/card/control.h"

#include <poll.h>
#include <sys/socket.h>
#include <unistd.h>

#include <cerrno>
#include <cstdlib>
#include <cstring>
#include <nlohmann/json.hpp>
#include <stdexcept>
#include <thread>
#include <utility>
#include <vector>

#include "host/card/log.h"
#include "host/card/rack.h"
#include "host/card/socket_address.h"

namespace flexllm::card {
namespace {

using nlohmann::json;

constexpr std::size_t kMostLineBytes = 64 * 1024;

json describe(const Card& card) {
  const Card::Status status = card.status();
  json out = {{"card", card.index()},
              {"bdf", card.bdf()},
              {"gone", status.gone},
              {"stuck", status.stuck},
              {"open_handles", status.open_handles},
              {"bitstream", status.uuid},
              {"bytes_to_card", status.bytes_to_card},
              {"bytes_from_card", status.bytes_from_card},
              {"compute_units", json::array()},
              {"banks", json::array()}};
  if (!status.fabric) return out;
  for (const auto& unit : status.fabric->status()) {
    out["compute_units"].push_back({{"name", unit.name},
                                    {"busy", unit.busy},
                                    {"launches", unit.launches},
                                    {"busy_seconds", unit.busy_seconds}});
  }
  for (std::size_t i = 0; i < status.fabric->banks(); ++i) {
    const auto bank = status.fabric->bank(i);
    if (!bank || bank->usage().buffers == 0) continue;
    out["banks"].push_back(
        {{"tag", bank->tag()}, {"bytes", bank->usage().bytes}, {"buffers", bank->usage().buffers}});
  }
  return out;
}

Card& card_in(const json& command, const Rack& rack) {
  const json& named = command.value("card", json(0));
  const std::string name = named.is_string() ? named.get<std::string>() : named.dump();
  Card* card = rack.card_named(name);
  if (card == nullptr) throw std::runtime_error("there is no card " + name);
  return *card;
}

json run(const json& command, Rack& rack) {
  const std::string op = command.value("op", "");
  if (op == "stats") {
    json cards = json::array();
    for (const auto& card : rack.cards()) cards.push_back(describe(*card));
    return {{"cards", cards}};
  }
  if (op == "inject") {
    rack.faults().add(command.at("fault"));
  } else if (op == "clear") {
    rack.faults().clear();
  } else if (op == "disappear") {
    card_in(command, rack).disappear();
  } else if (op == "foreign_bitstream") {
    card_in(command, rack).load_foreign_bitstream();
  } else if (op == "reset") {
    if (const std::string why = card_in(command, rack).reset(); !why.empty()) {
      throw std::runtime_error(why);
    }
  } else {
    throw std::runtime_error("unknown op '" + op + "'");
  }
  return json::object();
}

// A file that a killed process left behind is not in the way; a living process is.
bool bind_socket(int socket, const SocketAddress& address, const std::string& path) {
  if (::bind(socket, address.get(), address.length) == 0) return true;
  if (errno != EADDRINUSE || path.front() == '@') return false;
  const int probe = ::socket(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0);
  const bool served = ::connect(probe, address.get(), address.length) == 0;
  ::close(probe);
  if (served) return false;
  ::unlink(path.c_str());
  return ::bind(socket, address.get(), address.length) == 0;
}

std::string& bound_path() {
  static std::string* const path = new std::string;
  return *path;
}

}  // namespace

std::unique_ptr<Control> Control::listen(const std::string& path, Rack& rack) {
  const auto address = socket_address(path);
  const int socket = address ? ::socket(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0) : -1;
  if (socket < 0 || !bind_socket(socket, *address, path) || ::listen(socket, 8) != 0) {
    log(Level::problem, "FLEXLLM_CARD_CONTROL: cannot serve " + path);
    if (socket >= 0) ::close(socket);
    return nullptr;
  }
  if (path.front() != '@') {
    bound_path() = path;
    std::atexit([] { ::unlink(bound_path().c_str()); });
  }
  std::unique_ptr<Control> control(new Control(socket, rack));
  std::thread([raw = control.get()] { raw->serve(); }).detach();
  return control;
}

void Control::serve() {
  while (true) {
    std::vector<pollfd> waiting{{socket_, POLLIN, 0}};
    for (const auto& [connection, line] : connections_) waiting.push_back({connection, POLLIN, 0});
    if (::poll(waiting.data(), waiting.size(), -1) < 0) {
      if (errno == EINTR) continue;
      return;
    }
    for (std::size_t i = 1; i < waiting.size(); ++i) {
      if (waiting[i].revents == 0 || receive(waiting[i].fd)) continue;
      ::close(waiting[i].fd);
      connections_.erase(waiting[i].fd);
    }
    if (waiting[0].revents != 0) {
      const int connection = ::accept4(socket_, nullptr, nullptr, SOCK_CLOEXEC);
      if (connection >= 0) connections_[connection];
    }
  }
}

bool Control::receive(int connection) {
  char bytes[4096];
  const ssize_t n = ::recv(connection, bytes, sizeof bytes, 0);
  if (n <= 0) return false;
  std::string& pending = connections_[connection];
  pending.append(bytes, static_cast<std::size_t>(n));
  for (std::size_t end; (end = pending.find('\n')) != std::string::npos;) {
    const std::string reply = answer(pending.substr(0, end)) + "\n";
    pending.erase(0, end + 1);
    if (::send(connection, reply.data(), reply.size(), MSG_NOSIGNAL) < 0) return false;
  }
  return pending.size() <= kMostLineBytes;
}

std::string Control::answer(const std::string& line) {
  json reply;
  try {
    reply = run(json::parse(line), rack_);
    reply["ok"] = true;
  } catch (const std::exception& error) {
    reply = {{"ok", false}, {"error", error.what()}};
  }
  return reply.dump(-1, ' ', false, json::error_handler_t::replace);
}

}  // namespace flexllm::card
