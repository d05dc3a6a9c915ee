#include "host/card/rack.h"

#include <algorithm>
#include <cstdlib>
#include <fstream>
#include <mutex>
#include <nlohmann/json.hpp>
#include <set>

#include "card_shells.h"
#include "host/card/board_files.h"
#include "host/card/log.h"

namespace flexllm::card {
namespace {

constexpr std::string_view kDevices = "/sys/bus/pci/devices/";
constexpr std::string_view kDriver = "/sys/bus/pci/drivers/xocl";
constexpr std::string_view kManagementDriver = "/sys/bus/pci/drivers/xclmgmt";
constexpr std::string_view kNodes = "/dev/dri/renderD";
constexpr int kMostCards = 8;

std::string environment(const char* name, const char* otherwise) {
  const char* value = std::getenv(name);
  return value != nullptr ? value : otherwise;
}

const Shell& chosen_shell() {
  const std::string name = environment("FLEXLLM_EMULATED_DEVICE", shells[0].name);
  for (const Shell& shell : shells) {
    if (shell.name == name) return shell;
  }
  log(Level::problem, "FLEXLLM_EMULATED_DEVICE: no board '" + name + "'; using " + shells[0].name);
  return shells[0];
}

int chosen_count() {
  const std::string text = environment("FLEXLLM_EMULATED_CARDS", "1");
  const int count = std::atoi(text.c_str());
  if (count < 1 || count > kMostCards) {
    log(Level::problem, "FLEXLLM_EMULATED_CARDS: '" + text + "' is not from 1 to 8; using 1");
    return 1;
  }
  return count;
}

void load_faults(FaultScript& faults) {
  const std::string path = environment("FLEXLLM_FAULTS", "");
  if (path.empty()) return;
  try {
    std::ifstream file(path);
    if (!file) throw std::runtime_error("cannot be read");
    faults.load(nlohmann::json::parse(file));
  } catch (const std::exception& error) {
    log(Level::problem, "FLEXLLM_FAULTS " + path + ": " + error.what());
  }
}

// Without doubled and trailing slashes.
std::string tidy(std::string_view path) {
  std::string out;
  for (const char c : path) {
    if (c != '/' || out.empty() || out.back() != '/') out += c;
  }
  if (out.size() > 1 && out.back() == '/') out.pop_back();
  return out;
}

bool below(std::string_view path, std::string_view folder) {
  return path.starts_with(folder) && (path.size() == folder.size() || path[folder.size()] == '/');
}

Rack::Entry directory(std::set<std::string> names) {
  return {.kind = Rack::Entry::Kind::directory, .names = {names.begin(), names.end()}};
}

// `path` relative to the card's directory; empty for the directory itself.
Rack::Entry find_board_file(const Card& card, const std::string& path) {
  auto files = board_files(card);
  if (const auto file = files.find(path); file != files.end()) {
    return {.kind = Rack::Entry::Kind::file, .content = std::move(file->second)};
  }
  const std::string folder = path.empty() ? "" : path + "/";
  std::set<std::string> names;
  bool exists = path.empty();
  for (const auto& [name, content] : files) {
    if (!name.starts_with(folder)) continue;
    exists = true;
    const std::string rest = name.substr(folder.size());
    if (!rest.empty()) names.insert(rest.substr(0, rest.find('/')));
  }
  if (!exists) return {.kind = Rack::Entry::Kind::missing};
  return directory(std::move(names));
}

}  // namespace

Rack& Rack::instance() {
  static Rack* const rack = new Rack;
  return *rack;
}

Rack::Rack() {
  load_faults(faults_);
  const Shell& shell = chosen_shell();
  for (int i = 0, n = chosen_count(); i < n; ++i) {
    cards_.push_back(std::make_unique<Card>(i, shell, faults_));
  }
  const std::string socket = environment("FLEXLLM_CARD_CONTROL", "");
  if (!socket.empty()) control_ = Control::listen(socket, *this);
}

Rack::Entry Rack::find(std::string_view raw) {
  const std::string path = tidy(raw);
  if (below(path, kManagementDriver)) return {.kind = Entry::Kind::missing};
  if (path == kDriver) {
    std::set<std::string> names;
    for (const auto& card : cards_) names.insert(card->bdf());
    return directory(std::move(names));
  }
  for (const auto& card : cards_) {
    if (path == std::string(kNodes) + std::to_string(card->render_minor())) {
      return {.kind = Entry::Kind::node, .card = card.get()};
    }
    for (const std::string& folder :
         {std::string(kDevices) + card->bdf(), std::string(kDriver) + "/" + card->bdf()}) {
      if (path == folder) return find_board_file(*card, "");
      if (below(path, folder)) return find_board_file(*card, path.substr(folder.size() + 1));
    }
  }
  return {.kind = below(path, kDriver) ? Entry::Kind::missing : Entry::Kind::elsewhere};
}

int Rack::open_node(Card& card, int flags) {
  any_nodes_ = true;
  const int fd = card.open(flags);
  if (fd >= 0) {
    const std::unique_lock lock(nodes_mutex_);
    nodes_[fd] = &card;
  }
  return fd;
}

Card* Rack::card_of(int fd) {
  const std::shared_lock lock(nodes_mutex_);
  const auto found = nodes_.find(fd);
  return found == nodes_.end() ? nullptr : found->second;
}

void Rack::forget(int fd) {
  const std::unique_lock lock(nodes_mutex_);
  nodes_.erase(fd);
}

Card* Rack::card_named(const std::string& index_or_bdf) const {
  for (const auto& card : cards_) {
    if (card->bdf() == index_or_bdf || std::to_string(card->index()) == index_or_bdf) {
      return card.get();
    }
  }
  return nullptr;
}

}  // namespace flexllm::card
