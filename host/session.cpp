#include "host/session.h"

#include <algorithm>
#include <limits>
#include <utility>

#include "kernels/contract/launch.h"

namespace flexllm::host {
namespace {

using Kind = DeviceError::Kind;
using kernels::kWordBytes;

const char* kernel_name(Stage stage) { return stage == Stage::prefill ? "prefill" : "decode"; }

constexpr uint32_t kMostPages = 1u << 24;

uint64_t bytes_of(uint64_t words) { return words * kWordBytes; }

}  // namespace

tl::expected<LaunchShape, DeviceError> plan_stage(Stage stage, const MemoryMap& map,
                                                  const ModelHeader& header, uint32_t pages,
                                                  uint64_t scratch_bytes) {
  LaunchShape shape;
  shape.layers = header.layers;
  shape.hidden = header.hidden;
  shape.vocab = header.vocab;
  shape.context = header.context;
  shape.pages = pages;
  shape.kv_streams = map.kv_streams;
  shape.rows = stage == Stage::prefill ? map.maxima.prefill_rows : map.maxima.batch;
  const uint32_t pages_of_sequence = kernels::divide_up(header.context, kernels::kPageTokens);
  shape.page_table_words =
      shape.rows * kernels::divide_up(pages_of_sequence, kernels::kFieldsPerWord);
  const uint64_t work =
      kernels::work_words(shape.rows, header.hidden, header.attention(), header.ffn);
  const uint64_t row = kernels::logits_words(header.vocab);
  const uint64_t room = scratch_bytes / kWordBytes;
  if (work + row > room) {
    return tl::unexpected(
        DeviceError{Kind::out_of_memory, std::string("the scratch bank of ") + kernel_name(stage) +
                                             " has no room for one row of logits"});
  }
  shape.logits_slots = static_cast<uint32_t>(std::min<uint64_t>(shape.rows, (room - work) / row));
  shape.logits = 0;
  shape.work = static_cast<uint32_t>(shape.logits_slots * row);
  return shape;
}

uint64_t scratch_words(const LaunchShape& shape, const ModelHeader& header) {
  return shape.work +
         kernels::work_words(shape.rows, header.hidden, header.attention(), header.ffn);
}

tl::expected<std::unique_ptr<Session>, DeviceError> Session::open(
    const EngineOptions& options, const MemoryMap& map, const ModelHeader& header,
    const formats::PackedModel& model, uint32_t pages, std::shared_ptr<DeviceTelemetry> telemetry) {
  auto device = Device::open(options.device);
  if (!device) return tl::unexpected(device.error());
  std::unique_ptr<Session> session(new Session(std::move(*device)));
  if (auto loaded = session->device_.load(options.bitstream, map); !loaded) {
    return tl::unexpected(loaded.error());
  }
  // Kernels before buffers: the card's copies are commands, which need an open kernel.
  for (const Stage stage : {Stage::prefill, Stage::decode}) {
    const KernelMap* kernel_map = map.kernel(kernel_name(stage));
    if (kernel_map == nullptr) continue;
    auto kernel = session->device_.kernel(*kernel_map);
    if (!kernel) return tl::unexpected(kernel.error());
    auto& unit = session->stages_[static_cast<size_t>(stage)];
    unit = std::make_unique<StageUnit>();
    unit->kernel = std::move(*kernel);
  }
  const auto& arguments = map.kernels.front().arguments;
  auto memory = CardMemory::open(session->device_, map.banks, arguments[kDescArgument].bank,
                                 options.card_copies, {telemetry, &telemetry->copied});
  if (!memory) return tl::unexpected(memory.error());
  session->memory_.emplace(std::move(*memory));
  if (auto loaded = session->load_model(map, model); !loaded) {
    return tl::unexpected(loaded.error());
  }
  if (auto allocated = session->allocate_pages(options, map, header, pages); !allocated) {
    return tl::unexpected(allocated.error());
  }
  for (const Stage stage : {Stage::prefill, Stage::decode}) {
    const KernelMap* kernel_map = map.kernel(kernel_name(stage));
    if (kernel_map == nullptr) continue;
    if (auto opened = session->open_stage(stage, *kernel_map, map, header); !opened) {
      return tl::unexpected(opened.error());
    }
  }
  return session;
}

tl::expected<void, DeviceError> Session::load_model(const MemoryMap& map,
                                                    const formats::PackedModel& model) {
  const auto& arguments = map.kernels.front().arguments;
  const auto store =
      [&](const KernelArgument& argument,
          std::span<const std::byte> bytes) -> tl::expected<DeviceBuffer, DeviceError> {
    auto buffer =
        memory_->allocate(argument.name, argument.bank, bytes.size(), HostAccess::transfer);
    if (!buffer) return buffer;
    if (auto written = buffer->write(0, bytes); !written) return tl::unexpected(written.error());
    return buffer;
  };
  auto stored = store(arguments[kModelArgument], model.model_buffer());
  if (!stored) return tl::unexpected(stored.error());
  model_ = std::move(*stored);
  for (uint32_t stream = 0; stream < map.weight_streams; ++stream) {
    auto arena = store(arguments[map.weight_argument(stream)], model.arena(stream));
    if (!arena) return tl::unexpected(arena.error());
    weights_.push_back(std::move(*arena));
  }
  return {};
}

// `pages`: how many; 0: as many as fit. If other processes turn out to hold a part of the banks,
// what is left is tried once more.
tl::expected<void, DeviceError> Session::allocate_pages(const EngineOptions& options,
                                                        const MemoryMap& map,
                                                        const ModelHeader& header, uint32_t pages) {
  const bool fixed = pages > 0;
  if (!fixed) pages = pages_that_fit(options, map, header);
  for (bool again : {true, false}) {
    if (pages == 0) break;
    auto allocated =
        allocate_arenas(map, kernels::divide_up(pages, map.kv_streams) * header.page_bytes());
    if (allocated) {
      pages_ = pages;
      return {};
    }
    const uint32_t left = pages_that_fit(options, map, header);
    if (fixed || !again || left >= pages) return allocated;
    pages = left;
  }
  return tl::unexpected(
      DeviceError{Kind::out_of_memory, "there is no room for KV pages: each of the " +
                                           std::to_string(map.kv_streams) + " arenas needs " +
                                           std::to_string(header.page_bytes()) +
                                           " bytes for one page of 32 tokens"});
}

uint32_t Session::pages_that_fit(const EngineOptions& options, const MemoryMap& map,
                                 const ModelHeader& header) const {
  const auto& arguments = map.kernels.front().arguments;
  uint64_t most = std::numeric_limits<uint64_t>::max();  // bytes of an arena
  for (uint32_t stream = 0; stream < map.kv_streams; ++stream) {
    most = std::min(most, memory_->available(arguments[map.kv_argument(stream)].bank));
  }
  most = most / CardMemory::kAlignment * CardMemory::kAlignment;
  if (options.max_kv_bytes > 0) most = std::min(most, options.max_kv_bytes / map.kv_streams);
  const uint64_t page = header.page_bytes();
  if (page == 0) return 0;
  return static_cast<uint32_t>(std::min<uint64_t>(most / page * map.kv_streams, kMostPages));
}

tl::expected<void, DeviceError> Session::allocate_arenas(const MemoryMap& map, uint64_t bytes) {
  const auto& arguments = map.kernels.front().arguments;
  kv_.clear();
  for (uint32_t stream = 0; stream < map.kv_streams; ++stream) {
    const KernelArgument& argument = arguments[map.kv_argument(stream)];
    auto arena = memory_->allocate(
        argument.name, argument.bank, bytes,
        memory_->copy_path() == CopyPath::staged ? HostAccess::transfer : HostAccess::none);
    if (!arena) {
      kv_.clear();
      return tl::unexpected(arena.error());
    }
    kv_.push_back(std::move(*arena));
  }
  return {};
}

tl::expected<void, DeviceError> Session::open_stage(Stage stage, const KernelMap& kernel,
                                                    const MemoryMap& map,
                                                    const ModelHeader& header) {
  StageUnit& unit = *this->stage(stage);
  const std::string prefix = std::string(kernel_name(stage)) + " ";
  const auto allocate = [&](uint32_t argument, uint64_t words, HostAccess access) {
    return memory_->allocate(prefix + kernel.arguments[argument].name,
                             kernel.arguments[argument].bank, bytes_of(words), access);
  };
  // The other stage's scratch may lie in the same bank: it gets half of what is left.
  const uint32_t bank = kernel.arguments[kScratchArgument].bank;
  const bool shared = stage == Stage::prefill && map.kernels.size() > 1 &&
                      map.kernels[0].arguments[kScratchArgument].bank ==
                          map.kernels[1].arguments[kScratchArgument].bank;
  auto shape = plan_stage(stage, map, header, pages_, memory_->available(bank) / (shared ? 2 : 1));
  if (!shape) return tl::unexpected(shape.error());
  unit.shape = *shape;

  auto desc = allocate(kDescArgument, shape->descriptor_words(), HostAccess::mapped);
  if (!desc) return tl::unexpected(desc.error());
  unit.desc = std::move(*desc);
  auto result = allocate(kResultArgument, shape->result_words(), HostAccess::mapped);
  if (!result) return tl::unexpected(result.error());
  unit.result = std::move(*result);
  auto scratch = allocate(kScratchArgument, scratch_words(*shape, header), HostAccess::transfer);
  if (!scratch) return tl::unexpected(scratch.error());
  unit.scratch = std::move(*scratch);
  return bind(unit, kernel, map);
}

// XRT clones a buffer that lies in another bank than the kernel's port, and what the kernel writes
// into the clone is lost. So the bank is compared before the argument is set.
tl::expected<void, DeviceError> Session::bind(StageUnit& unit, const KernelMap& kernel,
                                              const MemoryMap& map) {
  std::vector<const DeviceBuffer*> buffers(kArenas);
  buffers[kDescArgument] = &unit.desc;
  buffers[kModelArgument] = &model_;
  buffers[kResultArgument] = &unit.result;
  buffers[kScratchArgument] = &unit.scratch;
  for (const DeviceBuffer& arena : weights_) buffers.push_back(&arena);
  for (const DeviceBuffer& arena : kv_) buffers.push_back(&arena);
  try {
    unit.run = xrt::run(unit.kernel);
    for (size_t i = 0; i < buffers.size(); ++i) {
      const int index = static_cast<int>(i);
      const auto group = static_cast<uint32_t>(unit.kernel.group_id(index));
      if (buffers[i]->bo().get_memory_group() != group) {
        return tl::unexpected(
            DeviceError{Kind::bad_bitstream, "argument '" + kernel.arguments[i].name + "' of " +
                                                 kernel.name + " needs " + map.banks.at(group).tag +
                                                 ", the buffer is " + buffers[i]->name()});
      }
      unit.run.set_arg(index, buffers[i]->bo());
    }
  } catch (const std::exception& error) {
    return tl::unexpected(
        device_error(Kind::bad_bitstream, "cannot set the arguments of " + kernel.name, error));
  }
  return {};
}

}  // namespace flexllm::host
