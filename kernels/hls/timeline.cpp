#include "kernels/hls/timeline.h"

#include <algorithm>
#include <cmath>
#include <map>
#include <stdexcept>
#include <tuple>
#include <utility>

#include "kernels/contract/layout.h"
#include "kernels/hls/simulation.h"

namespace flexllm::kernels::simulation {
namespace {

constexpr uint64_t kFractions = 1 << 16;  // of a cycle

uint64_t word_time(double bytes_per_cycle) {
  if (!(bytes_per_cycle > 0)) throw std::invalid_argument("a port needs a rate above zero");
  return static_cast<uint64_t>(std::llround(kWordBytes * double{kFractions} / bytes_per_cycle));
}

bool is_opener(const TaskClock* opener, const TaskClock& clock) {
  for (const TaskClock* at = &clock; at != nullptr; at = at->opener) {
    if (at == opener) return true;
  }
  return false;
}

void add(TaskTime& sum, const TaskTime& task) {
  sum.calls += task.calls;
  sum.cycles += task.cycles;
  sum.waited_to_read += task.waited_to_read;
  sum.waited_to_write += task.waited_to_write;
  sum.waited_for_memory += task.waited_for_memory;
  sum.in_regions += task.in_regions;
}

void add(StreamUse& sum, const StreamUse& stream) {
  sum.writer = stream.writer;
  sum.reader = stream.reader;
  sum.depth = std::max(sum.depth, stream.depth);
  sum.most_held = std::max(sum.most_held, stream.most_held);
  sum.elements += stream.elements;
  sum.reader_waited += stream.reader_waited;
  sum.writer_waited += stream.writer_waited;
}

ChannelUse use_of(const Channel& channel) {
  ChannelUse use = channel.use;
  use.busy = (use.words * channel.word_time + kFractions - 1) / kFractions;
  return use;
}

}  // namespace

void TaskClock::drain() { now = std::max({now, arrives, settles}); }

void TaskClock::read_memory(uintptr_t address) {
  if (!read_range.holds(address)) read_range = timeline->find(address, false);
  Channel* channel = read_range.channel;
  if (channel == nullptr) return;
  if (channel->owner.load(std::memory_order_relaxed) != this) timeline->claim(*channel, *this);
  const uint64_t start = channel->move(address, now);
  waited_for_memory += start - now;
  now = start;
  arrives = start + channel->latency;
}

void TaskClock::write_memory(uintptr_t address) {
  if (!write_range.holds(address)) write_range = timeline->find(address, true);
  Channel* channel = write_range.channel;
  if (channel == nullptr) return;
  if (channel->owner.load(std::memory_order_relaxed) != this) timeline->claim(*channel, *this);
  const uint64_t ready = departure();
  const uint64_t start = channel->move(address, ready);
  waited_for_memory += start - ready;
  now += start - ready;
  settles = std::max(settles, start + channel->latency);
}

uint64_t Channel::move(uintptr_t address, uint64_t now) {
  // A word may have waited in the port for the rest of a cycle.
  uint64_t begin = std::max(free, (now > 0 ? now - 1 : 0) * kFractions);
  if (use.bursts == 0 || address != next_address) {
    // One more burst: the oldest of those under way must be done.
    if (use.bursts > 0) ends[(use.bursts - 1) % ends.size()] = last_end;
    begin = std::max(begin, ends[use.bursts % ends.size()] * kFractions);
    ++use.bursts;
  }
  const uint64_t start = std::max(now, (begin + kFractions - 1) / kFractions);
  free = begin + word_time;
  last_end = start + latency;
  next_address = address + kWordBytes;
  ++use.words;
  use.waited += start - now;
  return start;
}

Timeline::Timeline() { root_.timeline = this; }

size_t Timeline::add_port(const PortSpec& spec) {
  if (spec.outstanding == 0) throw std::invalid_argument("a port needs an outstanding burst");
  const uint64_t read_time = word_time(spec.read_bytes);
  const uint64_t write_time = word_time(spec.write_bytes);
  Port& port = ports_.emplace_back();
  port.name = spec.name;
  for (Channel* channel : {&port.read, &port.write}) {
    channel->name = spec.name;
    channel->ends.resize(spec.outstanding);
  }
  port.write.writes = true;
  port.read.word_time = read_time;
  port.write.word_time = write_time;
  port.read.latency = spec.read_latency;
  port.write.latency = spec.write_latency;
  return ports_.size() - 1;
}

void Timeline::add_range(size_t port, const void* begin, size_t bytes) {
  if (port >= ports_.size()) throw std::invalid_argument("a range of a port that there is not");
  const auto from = reinterpret_cast<uintptr_t>(begin);
  const auto behind = std::upper_bound(ranges_.begin(), ranges_.end(), from,
                                       [](uintptr_t a, const Range& r) { return a < r.begin; });
  ranges_.insert(behind, Range{from, from + bytes, port});
}

ChannelRange Timeline::find(uintptr_t address, bool writes) {
  const auto behind = std::upper_bound(ranges_.begin(), ranges_.end(), address,
                                       [](uintptr_t a, const Range& r) { return a < r.begin; });
  const uintptr_t next = behind != ranges_.end() ? behind->begin : UINTPTR_MAX;
  if (behind == ranges_.begin()) return {0, next, nullptr};
  const Range& range = *std::prev(behind);
  if (address >= range.end) return {range.end, next, nullptr};
  Port& port = ports_[range.port];
  return {range.begin, std::min(range.end, next), writes ? &port.write : &port.read};
}

void Timeline::claim(Channel& channel, const TaskClock& clock) {
  const std::lock_guard<std::mutex> lock(mutex_);
  const TaskClock* owner = channel.owner.load();
  if (owner != nullptr && !is_opener(owner, clock)) {
    throw Error("port '" + channel.name + "' is " + (channel.writes ? "written" : "read") +
                " by two tasks of a region: " + clock.name + " after " + owner->name);
  }
  channel.owner.store(&clock);
}

void Timeline::release(const TaskClock& opener) {
  const std::lock_guard<std::mutex> lock(mutex_);
  for (Port& port : ports_) {
    for (Channel* channel : {&port.read, &port.write}) {
      const TaskClock* owner = channel->owner.load();
      if (owner != nullptr && owner->opener == &opener) channel->owner.store(&opener);
    }
  }
}

void Timeline::record(RegionRun run) {
  const std::lock_guard<std::mutex> lock(mutex_);
  runs_.push_back(std::move(run));
}

Report Timeline::report() const {
  const std::lock_guard<std::mutex> lock(mutex_);
  Report report;
  TaskClock end = root_;
  end.drain();
  report.cycles = end.now;
  report.regions = runs_;
  const auto key = [](const RegionRun& run) {
    return std::tie(run.begin, run.level, run.region, run.opener, run.end);
  };
  std::stable_sort(report.regions.begin(), report.regions.end(),
                   [&](const RegionRun& a, const RegionRun& b) { return key(a) < key(b); });
  std::map<std::pair<std::string, std::string>, TaskTime> tasks;
  std::map<std::pair<std::string, std::string>, StreamUse> streams;
  for (const RegionRun& run : report.regions) {
    for (const TaskTime& task : run.tasks) add(tasks[{task.region, task.task}], task);
    for (const StreamUse& use : run.streams) add(streams[{use.region, use.stream}], use);
  }
  for (auto& [names, task] : tasks) {
    std::tie(task.region, task.task) = names;
    report.tasks.push_back(std::move(task));
  }
  for (auto& [names, use] : streams) {
    std::tie(use.region, use.stream) = names;
    report.streams.push_back(std::move(use));
  }
  for (const Port& port : ports_) {
    report.ports.push_back({port.name, use_of(port.read), use_of(port.write)});
  }
  return report;
}

}  // namespace flexllm::kernels::simulation
