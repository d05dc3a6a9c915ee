# Kernels of accelerators that differ from another one in a few numbers of its JSON file. The files,
# beside a link to the devices that they name, are made in the build tree.
set(variants ${CMAKE_CURRENT_BINARY_DIR}/variants)
file(MAKE_DIRECTORY ${variants}/accelerators)
file(CREATE_LINK ${CMAKE_SOURCE_DIR}/configs/devices ${variants}/devices SYMBOLIC)

# flexllm_variant(NAME BASE.json [path.in.json=value ...])
# C simulation of the kernels of `variants/accelerators/NAME.json`.
function(flexllm_variant name base)
  set(config ${variants}/accelerators/${name}.json)
  set(script ${CMAKE_CURRENT_SOURCE_DIR}/tests/vary_accelerator.py)
  add_custom_command(OUTPUT ${config}
    COMMAND ${FLEXLLM_PYTHON} ${script} ${base} ${config} ${ARGN}
    DEPENDS ${script} ${base} VERBATIM)
  flexllm_kernel_simulation(${name} CONFIG ${config})
endfunction()

# The spatial composition is held to virtual time as the temporal one is.
flexllm_variant(u280_paper_spatial ${CMAKE_SOURCE_DIR}/configs/accelerators/u280-paper.json
  kernels.prefill.composition=spatial kernels.decode.composition=spatial)
flexllm_cycle_model_test(u280_paper_spatial)

# flexllm_variant_test(NAME FASTER [path.in.json=value ...])
# tests/variant_test.cpp on a variant of the small accelerator, which is FASTER (1) or not (0).
set(small ${CMAKE_CURRENT_SOURCE_DIR}/tests/small_accelerator.json)
function(flexllm_variant_test name faster)
  flexllm_variant(${name} ${small} ${ARGN})
  flexllm_test(
    kernels ${name}
    SOURCES tests/variant_test.cpp tests/random_case.cpp
    LIBRARIES flexllm_kernels_csim_${name})
  # The header of what it is a variant of.
  add_dependencies(kernels_${name}_test flexllm_kernels_csim_variant_as_it_is)
  target_include_directories(kernels_${name}_test PRIVATE
    ${CMAKE_CURRENT_BINARY_DIR}/tops/variant_as_it_is)
  target_compile_definitions(kernels_${name}_test PRIVATE
    FLEXLLM_ACCELERATOR=${name} FLEXLLM_ACCELERATOR_HEADER="accelerators/${name}.h"
    FLEXLLM_VARIANT_IS_FASTER=${faster})
endfunction()
flexllm_variant_test(variant_as_it_is 0)
flexllm_variant_test(variant_more_rows 1
  kernels.prefill.parallelism.tp=8 kernels.decode.parallelism.tp=4)
flexllm_variant_test(variant_more_ports 1
  banks.w=HBM[0:7] banks.kv=HBM[12:15]
  kernels.prefill.parallelism.bp=4 kernels.prefill.ports.2.bundles=4
  kernels.prefill.ports.3.bundles=2
  kernels.decode.parallelism.bp=8 kernels.decode.ports.2.bundles=8
  kernels.decode.ports.3.bundles=4)
# One KV port keeps the scores of 1,024 tokens for a block of 8 rows; decode keeps 8,192.
flexllm_variant_test(variant_wide_heads 1
  maxima.heads=32 maxima.kv_heads=16 maxima.head_dim=128 maxima.context=1280
  kernels.prefill.parallelism.tp=8
  kernels.prefill.parallelism.heads=4 kernels.prefill.parallelism.kv=64
  kernels.decode.parallelism.heads=4 kernels.decode.parallelism.kv=64)
