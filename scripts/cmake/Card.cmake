# What other rooms need of the emulated card (docs/emulated-card.md): its kernel ABI, generated
# headers of the accelerators, emulated bitstreams, and the environment of a test that runs on it.

include_guard(GLOBAL)
include(Xrt)
find_package(Python3 3.9 REQUIRED COMPONENTS Interpreter)

# Internal cache entries are seen by every folder, whichever includes this file first.
file(GLOB devices CONFIGURE_DEPENDS ${CMAKE_SOURCE_DIR}/configs/devices/*.json)
file(GLOB accelerators CONFIGURE_DEPENDS ${CMAKE_SOURCE_DIR}/configs/accelerators/*.json)
set(FLEXLLM_DEVICE_CONFIGS ${devices} CACHE INTERNAL "")
set(FLEXLLM_ACCELERATOR_CONFIGS ${accelerators} CACHE INTERNAL "")
set(FLEXLLM_PYTHON ${Python3_EXECUTABLE} CACHE INTERNAL "")
set(FLEXLLM_ACCELERATOR_SCRIPT ${CMAKE_SOURCE_DIR}/scripts/accelerator.py CACHE INTERNAL "")
set(FLEXLLM_ACCELERATOR_SOURCES
  ${FLEXLLM_ACCELERATOR_SCRIPT} ${CMAKE_SOURCE_DIR}/scripts/device_config.py
  ${CMAKE_SOURCE_DIR}/scripts/xclbin.py CACHE INTERNAL "")

# `flexllm_card_abi`: "host/card/kernel_abi.h" and nothing else of host/. For kernel libraries.
add_library(flexllm_card_abi INTERFACE)
set(abi_root ${CMAKE_BINARY_DIR}/include/card_abi)
file(MAKE_DIRECTORY ${abi_root}/host/card)
file(CREATE_LINK ${CMAKE_SOURCE_DIR}/host/card/kernel_abi.h ${abi_root}/host/card/kernel_abi.h
  SYMBOLIC)
target_include_directories(flexllm_card_abi INTERFACE ${abi_root})

# `flexllm_accelerators`: "accelerators/<name>.h" of every configuration, '-' written as '_'.
add_library(flexllm_accelerators INTERFACE)
set(accelerator_headers "")
foreach(config ${FLEXLLM_ACCELERATOR_CONFIGS})
  get_filename_component(name ${config} NAME_WE)
  string(REPLACE "-" "_" name ${name})
  set(header ${CMAKE_BINARY_DIR}/include/accelerators/accelerators/${name}.h)
  add_custom_command(OUTPUT ${header}
    COMMAND ${FLEXLLM_PYTHON} ${FLEXLLM_ACCELERATOR_SCRIPT} ${config} --header ${header}
    COMMAND ${CMAKE_COMMAND} -E touch ${header}
    DEPENDS ${config} ${FLEXLLM_DEVICE_CONFIGS} ${FLEXLLM_ACCELERATOR_SOURCES} VERBATIM)
  list(APPEND accelerator_headers ${header})
endforeach()
add_custom_target(flexllm_accelerator_headers DEPENDS ${accelerator_headers})
add_dependencies(flexllm_accelerators flexllm_accelerator_headers)
target_include_directories(flexllm_accelerators INTERFACE ${CMAKE_BINARY_DIR}/include/accelerators)

# flexllm_emulated_bitstream(TARGET ACCELERATOR name KERNELS target OUTPUT file)
# TARGET makes the emulated bitstream of configs/accelerators/<name>.json with the kernel library
# KERNELS (a SHARED or MODULE target that exports FLEXLLM_CARD_KERNEL's) inside. It depends on both.
function(flexllm_emulated_bitstream target)
  cmake_parse_arguments(ARG "" "ACCELERATOR;KERNELS;OUTPUT" "" ${ARGN})
  set(config ${CMAKE_SOURCE_DIR}/configs/accelerators/${ARG_ACCELERATOR}.json)
  add_custom_command(OUTPUT ${ARG_OUTPUT}
    COMMAND ${FLEXLLM_PYTHON} ${FLEXLLM_ACCELERATOR_SCRIPT} ${config}
            --xclbin ${ARG_OUTPUT} --kernels $<TARGET_FILE:${ARG_KERNELS}>
    COMMAND ${CMAKE_COMMAND} -E touch ${ARG_OUTPUT}
    DEPENDS ${config} ${FLEXLLM_DEVICE_CONFIGS} ${FLEXLLM_ACCELERATOR_SOURCES} ${ARG_KERNELS}
    VERBATIM)
  add_custom_target(${target} ALL DEPENDS ${ARG_OUTPUT})
endfunction()

# The variables, as NAME=value, that put a program on the emulated card.
set(preload ${CMAKE_BINARY_DIR}/lib/libflexllm_card.so)
if(FLEXLLM_SANITIZE MATCHES "address")
  # AddressSanitizer insists on being the first library of a process.
  execute_process(COMMAND ${CMAKE_CXX_COMPILER} -print-file-name=libasan.so
    OUTPUT_VARIABLE runtime OUTPUT_STRIP_TRAILING_WHITESPACE)
  set(preload ${runtime}:${preload})
endif()
set(FLEXLLM_CARD_ENVIRONMENT
  LD_PRELOAD=${preload}
  XILINX_XRT=${FLEXLLM_XRT_ROOT}
  XRT_INI_PATH=${FLEXLLM_XRT_ROOT}/xrt.ini
  CACHE INTERNAL "")

# flexllm_card_test_environment(test [CARDS n] [ENVIRONMENT NAME=value ...])
# Runs a ctest test on N emulated cards (default 1).
function(flexllm_card_test_environment test)
  cmake_parse_arguments(ARG "" "CARDS" "ENVIRONMENT" ${ARGN})
  if(NOT ARG_CARDS)
    set(ARG_CARDS 1)
  endif()
  set_property(TEST ${test} APPEND PROPERTY ENVIRONMENT ${FLEXLLM_CARD_ENVIRONMENT}
    FLEXLLM_EMULATED_CARDS=${ARG_CARDS} ${ARG_ENVIRONMENT})
endfunction()
