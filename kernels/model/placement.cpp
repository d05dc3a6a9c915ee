#include "kernels/model/placement.h"

#include <algorithm>
#include <cmath>
#include <random>
#include <tuple>

namespace flexllm::kernels::model {
namespace {

struct Kind {
  const char* name;
  double Resources::*amount;
};
constexpr uint32_t kAttempts = 2000;
constexpr double kRounding = 1 + 1e-9;  // of sums of fractions of LUTs

constexpr Kind kKinds[] = {{"DSP", &Resources::dsp},
                           {"BRAM18", &Resources::bram18},
                           {"URAM", &Resources::uram},
                           {"LUT", &Resources::lut}};

// The kind that `use` takes the largest share of, and that share.
std::pair<const Kind*, double> fullest(const Resources& use, const Resources& usable) {
  std::pair<const Kind*, double> most{&kKinds[0], -1};
  for (const Kind& kind : kKinds) {
    const double amount = use.*kind.amount;
    const double share = amount == 0 ? 0 : amount / usable.*kind.amount;
    if (share > most.second) most = {&kind, share};
  }
  return most;
}

Resources plus(Resources a, const Resources& b) { return a += b; }

// Modules of a unit added up, for each copy.
std::vector<Piece> pieces_of(const Device& device, const Kernel& kernel,
                             const KernelResources& estimated) {
  std::vector<Piece> pieces;
  for (const ModuleResources& module : estimated.modules) {
    for (uint32_t number = 0; number < module.copies; ++number) {
      std::string name = module.unit;
      if (module.copies > 1) name.append(" ").append(std::to_string(number));
      auto piece = std::find_if(pieces.begin(), pieces.end(),
                                [&](const Piece& other) { return other.name == name; });
      if (piece == pieces.end()) {
        pieces.push_back({kernel.name, module.unit, name, {}, ""});
        piece = pieces.end() - 1;
      }
      piece->use += module.each;
      if (!module.port.empty()) {
        piece->home = device.banks.at(kernel.port(module.port, number).banks.front()).slr;
      }
    }
  }
  return pieces;
}

// One digit behind the point.
std::string percent(double share) {
  const long tenths = std::lround(1000 * share);
  std::string text = std::to_string(tenths / 10);
  return text.append(".").append(std::to_string(tenths % 10)).append(" %");
}

// Pieces and their slots.
class Packing {
 public:
  Packing(const Accelerator& accelerator, std::vector<Piece>& pieces, double share)
      : slots_(accelerator.device.slots), pieces_(pieces), share_(share), used_(slots_.size()) {
    for (const Piece& piece : pieces) {
      bound_.push_back(
          std::find_if(accelerator.kernels.begin(), accelerator.kernels.end(),
                       [&](const Kernel& kernel) { return kernel.name == piece.kernel; })
              ->slr);
    }
  }

  // Each piece in turn to the best slot: with room, at home, the least full then.
  void deal() {
    for (size_t i = 0; i < pieces_.size(); ++i) {
      Piece& piece = pieces_[i];
      std::tuple<bool, bool, double, uint32_t> best{true, true, 1e300, 0};
      for (uint32_t slot = 0; slot < slots_.size(); ++slot) {
        if (!may_lie(i, slot)) continue;
        const double full = fullest(plus(used_[slot], piece.use), slots_[slot].usable).second;
        const bool away = !piece.home.empty() && slots_[slot].slr != piece.home;
        best = std::min(best, {full > share_, away, full, slot});
      }
      piece.slot = std::get<3>(best);
      used_[piece.slot] += piece.use;
    }
  }

  // Moves and exchanges pieces until no slot is too full, or nothing helps. Then shakes the packing
  // a little and begins again, `attempts` times; always the same way.
  void relieve(uint32_t attempts) {
    std::minstd_rand random;
    const auto draw = [&](size_t n) { return static_cast<size_t>(random() % n); };
    descend();
    std::vector<Piece> best = pieces_;
    double least = excess();
    while (least > 0 && attempts-- > 0) {
      for (int i = 0; i < 3; ++i) exchange(draw(pieces_.size()), draw(pieces_.size()));
      descend();
      if (excess() < least) {
        least = excess();
        best = pieces_;
      } else {
        restore(best);
      }
    }
  }

  const std::vector<Resources>& used() const { return used_; }

 private:
  // As long as a slot is too full: the move of one of its pieces, or its exchange with another,
  // that takes the most off what is too much.
  void descend() {
    while (true) {
      double best = -1e-9;
      size_t piece = 0;
      size_t other = 0;  // the piece itself: a move
      uint32_t to = 0;
      for (size_t i = 0; i < pieces_.size(); ++i) {
        const uint32_t from = pieces_[i].slot;
        const double before = excess(used_[from], from);
        if (before == 0) continue;
        const auto consider = [&](size_t j, uint32_t slot) {
          if (slot == from || !may_lie(i, slot)) return;
          const Resources back = j == i ? Resources{} : pieces_[j].use;
          const double change = excess(moved(used_[from], back, pieces_[i].use), from) - before +
                                excess(moved(used_[slot], pieces_[i].use, back), slot) -
                                excess(used_[slot], slot);
          if (change >= best) return;
          best = change;
          piece = i;
          other = j;
          to = slot;
        };
        for (uint32_t slot = 0; slot < slots_.size(); ++slot) consider(i, slot);
        for (size_t j = 0; j < pieces_.size(); ++j) {
          if (may_lie(j, from)) consider(j, pieces_[j].slot);
        }
      }
      if (best == -1e-9) return;
      const uint32_t from = pieces_[piece].slot;
      put(piece, to);
      if (other != piece) put(other, from);
    }
  }

  void put(size_t piece, uint32_t slot) {
    used_[pieces_[piece].slot] += pieces_[piece].use * -1;
    used_[slot] += pieces_[piece].use;
    pieces_[piece].slot = slot;
  }
  void exchange(size_t a, size_t b) {
    const uint32_t slot = pieces_[a].slot;
    if (!may_lie(a, pieces_[b].slot) || !may_lie(b, slot)) return;
    put(a, pieces_[b].slot);
    put(b, slot);
  }
  void restore(const std::vector<Piece>& pieces) {
    for (size_t i = 0; i < pieces.size(); ++i) put(i, pieces[i].slot);
  }
  bool may_lie(size_t piece, uint32_t slot) const {
    return bound_[piece].empty() || bound_[piece] == slots_[slot].slr;
  }
  static Resources moved(const Resources& used, const Resources& in, const Resources& out) {
    Resources now = used;
    now += in;
    now += out * -1;
    return now;
  }
  // Shares beyond what is allowed, of all kinds.
  double excess(const Resources& used, uint32_t slot) const {
    double sum = 0;
    for (const Kind& kind : kKinds) {
      const double most = share_ * kRounding * (slots_[slot].usable.*kind.amount);
      if (used.*kind.amount > most) sum += (used.*kind.amount - most) / most;
    }
    return sum;
  }

  double excess() const {
    double sum = 0;
    for (uint32_t slot = 0; slot < slots_.size(); ++slot) sum += excess(used_[slot], slot);
    return sum;
  }

  const std::vector<Slot>& slots_;
  std::vector<Piece>& pieces_;  // the largest first
  double share_;
  std::vector<Resources> used_;     // by slot
  std::vector<std::string> bound_;  // by piece: the die that its kernel is kept on
};

}  // namespace

Placement place(const Accelerator& accelerator, const std::vector<KernelResources>& kernels,
                double share, uint32_t attempts) {
  const Device& device = accelerator.device;
  const Resources usable = device.usable();
  Placement out;
  for (size_t i = 0; i < kernels.size(); ++i) {
    const std::vector<Piece> pieces = pieces_of(device, accelerator.kernels[i], kernels[i]);
    out.pieces.insert(out.pieces.end(), pieces.begin(), pieces.end());
  }
  std::stable_sort(out.pieces.begin(), out.pieces.end(), [&](const Piece& a, const Piece& b) {
    return fullest(a.use, usable).second > fullest(b.use, usable).second;
  });
  Packing packing(accelerator, out.pieces, share);
  packing.deal();
  packing.relieve(attempts);
  out.used = packing.used();
  for (const Piece& piece : out.pieces) {
    out.ports_away += !piece.home.empty() && device.slots[piece.slot].slr != piece.home;
  }
  for (uint32_t i = 0; i < device.slots.size(); ++i) {
    const auto [kind, full] = fullest(out.used[i], device.slots[i].usable);
    if (full <= share * kRounding) continue;
    out.refusal = "accelerator '" + accelerator.name + "' does not fit device '" + device.name +
                  "': slot " + device.slots[i].name + " would need " +
                  std::to_string(std::lround(out.used[i].*kind->amount)) + " " + kind->name + ", " +
                  percent(full) + " of its " +
                  std::to_string(std::lround(device.slots[i].usable.*kind->amount)) +
                  ", and may need " + percent(share) + " (kernels.*.parallelism, kernels.*.slr)";
    break;
  }
  return out;
}

Placement place_or_refuse(const Accelerator& accelerator,
                          const std::vector<KernelResources>& kernels, double share) {
  uint32_t masters = 0;
  for (const Kernel& kernel : accelerator.kernels) {
    masters += static_cast<uint32_t>(kernel.ports.size());
  }
  const Device& device = accelerator.device;
  if (masters > device.axi_ports) {
    throw Refused("accelerator '" + accelerator.name + "' has " + std::to_string(masters) +
                  " AXI masters; device '" + device.name + "' takes " +
                  std::to_string(device.axi_ports) + " (kernels.*.ports)");
  }
  Placement placement = place(accelerator, kernels, share, kAttempts);
  if (!placement.refusal.empty()) throw Refused(placement.refusal);
  return placement;
}

}  // namespace flexllm::kernels::model
