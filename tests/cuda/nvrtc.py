#!/usr/bin/env python3
"""Compiles the CUDA kernels for each GPU generation, without a GPU.

    pip install nvidia-cuda-nvrtc-cu12 nvidia-cuda-nvcc-cu12
    python3 tests/cuda/nvrtc.py

NVRTC makes PTX, as the program does at its first start; ptxas makes machine code of it and tells registers and
spills. It fails where anything is spilled to memory, or a product and a sum are fused: then the numbers would not be
those of the CPU.
"""

import ctypes
import glob
import os
import re
import subprocess
import sys
import tempfile

ARCHITECTURES = [61, 72, 87, 90]
# What multiplies and copies, and from which of them on.
INSTRUCTIONS = {"dp4a.u32.s32": 61, "wmma.mma.sync": 72, "mma.sync.aligned.m16n8k32": 80, "cp.async.cg": 80}
HERE = os.path.dirname(os.path.abspath(__file__))
KERNELS = os.path.join(HERE, "../../src/kernels/cuda")
# Those of kernels::cuda::SOURCES; a test compares them.
FILES = ["device.cuh", "common.cuh", "conv.cu", "tensor.cu", "picture.cu", "dynamic.cu", "float.cu", "heads.cu"]
# Those of kernels::cuda::OPTIONS.
OPTIONS = ["--std=c++14", "--fmad=false", "--ftz=false", "--prec-div=true", "--prec-sqrt=true"]


def package_file(pattern):
    """A file of an installed nvidia package."""
    for root in sys.path:
        found = glob.glob(os.path.join(root, "nvidia", pattern))
        if found:
            return found[0]
    sys.exit(f"{pattern} is not installed: pip install nvidia-cuda-nvrtc-cu12 nvidia-cuda-nvcc-cu12")


def compile_ptx(nvrtc, source, architecture):
    """PTX of all kernels."""
    program = ctypes.c_void_p()
    check = lambda status, what: status == 0 or sys.exit(f"{what}: NVRTC error {status}")
    check(nvrtc.nvrtcCreateProgram(ctypes.byref(program), source.encode(), b"ghostlight.cu", 0, None, None), "create")
    options = [f"--gpu-architecture=compute_{architecture}", *OPTIONS]
    array = (ctypes.c_char_p * len(options))(*[o.encode() for o in options])
    status = nvrtc.nvrtcCompileProgram(program, len(options), array)
    size = ctypes.c_size_t()
    nvrtc.nvrtcGetProgramLogSize(program, ctypes.byref(size))
    log = ctypes.create_string_buffer(size.value)
    nvrtc.nvrtcGetProgramLog(program, log)
    if status or log.value.strip():
        sys.exit(f"compute_{architecture}: {log.value.decode()}")
    check(nvrtc.nvrtcGetPTXSize(program, ctypes.byref(size)), "size")
    ptx = ctypes.create_string_buffer(size.value)
    check(nvrtc.nvrtcGetPTX(program, ptx), "PTX")
    return ptx.value.decode()


def report(ptxas, ptx, architecture):
    """Prints registers and shared memory of each kernel; gives the number of those that spill."""
    with tempfile.TemporaryDirectory() as folder:
        path = os.path.join(folder, "kernels.ptx")
        with open(path, "w") as file:
            file.write(ptx)
        command = [ptxas, "-v", f"-arch=sm_{architecture}", path, "-o", os.path.join(folder, "out.cubin")]
        run = subprocess.run(command, capture_output=True, text=True)
    if run.returncode:
        sys.exit(run.stderr)
    spilled, name = 0, None
    for line in run.stderr.splitlines():
        if found := re.search(r"Compiling entry function '(\w+)'", line):
            name = found[1]
        elif found := re.search(r"(\d+) bytes stack frame, (\d+) bytes spill stores, (\d+) bytes spill loads", line):
            memory = [int(n) for n in found.groups()]
            spilled += any(memory)
        elif found := re.search(r"Used (\d+) registers", line):
            shared = re.search(r"(\d+) bytes smem", line)
            print(f"sm_{architecture}  {name:16} {found[1]:>3} registers  {shared[1] if shared else 0:>6} bytes shared"
                  f"  stack {memory[0]}, spilled {memory[1]} + {memory[2]}")
    return spilled


def main():
    nvrtc = ctypes.CDLL(package_file("cuda_nvrtc/lib/libnvrtc.so.*"))
    ptxas = package_file("cuda_nvcc/bin/ptxas")
    source = "".join(open(os.path.join(KERNELS, name)).read() for name in FILES)
    kernels = re.findall(r"^KERNEL\((\w+)", source, re.M)
    failed = 0
    for architecture in ARCHITECTURES:
        ptx = compile_ptx(nvrtc, source, architecture)
        missing = [k for k in kernels if f".entry {k}(" not in ptx]
        fused = re.findall(r"\s(fma\S*|mad\S*\.f\d\d)\s", ptx)
        counts = {name: ptx.count(name) for name in INSTRUCTIONS}
        wrong = [name for name, since in INSTRUCTIONS.items() if (counts[name] > 0) != (architecture >= since)]
        listed = ", ".join(f"{count} {name}" for name, count in counts.items() if count)
        print(f"sm_{architecture}  {len(kernels)} kernels, {len(ptx)} bytes of PTX, {listed}")
        failed += len(missing) + len(fused) + len(wrong) + report(ptxas, ptx, architecture)
        if missing or fused or wrong:
            print(f"sm_{architecture}  missing {missing}, fused {sorted(set(fused))}, too few or too early {wrong}")
    if failed:
        sys.exit(f"{failed} faults")


main()
