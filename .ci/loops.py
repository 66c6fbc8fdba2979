#!/usr/bin/env python3
"""Looks at the inner loops of the ARM kernels in the built program, and fails where one got worse.

    .ci/loops.py [PROGRAM]      default: what .ci/aarch64.sh builds

Of each loop it tells what share of its instructions multiply, and that nothing in it touches the stack: a sum that
does not fit the registers would. Where llvm-mca (Debian's llvm-19) is installed, it also models multiplications a cycle on
the CPU that the kernel is for. Needs aarch64-linux-gnu-objdump; without it nothing is looked at.
"""

import collections
import re
import shutil
import subprocess
import sys

PROGRAM = "target-aarch64/aarch64-unknown-linux-gnu/release/ghostlight"
OBJDUMP = "aarch64-linux-gnu-objdump"
MCA = "llvm-mca-19"
ROUNDS = 200
# Longest loop looked for, in instructions.
LONGEST = 600


class Kernel:
    """What tells a kernel's main loops from others, and what they owe."""

    def __init__(self, name, multiplies, mac, fewest, cpu, least):
        self.name = name
        # Instructions that multiply, and the MAC of one.
        self.multiplies, self.mac = multiplies, mac
        # Fewest of them in a main loop; shorter loops are the ends of rows.
        self.fewest = fewest
        # MAC a cycle that must be reached on this CPU; the peaks are 8, 32 and 64.
        self.cpu, self.least = cpu, least

    def count(self, loop):
        return sum(line.split(None, 1)[0] in self.multiplies for line in loop)


KERNELS = [
    Kernel("neon", {"smull", "smull2", "smlal", "smlal2"}, 8, 32, "cortex-a72", 7.5),
    Kernel("neon-dotprod", {"sdot"}, 16, 64, "cortex-a76", 30),
    Kernel("neon-i8mm", {"smmla"}, 32, 64, "neoverse-n2", 48),
]


def instructions(program):
    """(address, text) of each instruction."""
    command = [OBJDUMP, "-d", "--no-show-raw-insn", program]
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as child:
        for line in child.stdout:
            match = re.match(r"\s*([0-9a-f]+):\t(.+)", line)
            if match:
                yield int(match[1], 16), re.sub(r"\s*(//|<).*", "", match[2]).replace("\t", " ")


def loops(program):
    """Innermost loops: instructions between a backward branch and its target, without another such branch."""
    recent = collections.deque(maxlen=LONGEST)
    for address, text in instructions(program):
        recent.append((address, text))
        match = re.match(r"(b\.\w+|cbn?z \w+,|tbn?z \w+, #\d+,) ?0x([0-9a-f]+)$", text)
        if not match:
            continue
        target = int(match[2], 16)
        if recent[0][0] <= target < address:
            yield [text for at, text in recent if at >= target]
            # A loop around this one is none of the innermost.
            recent.clear()


def model(loop, cpu):
    """Cycles of one round by llvm-mca, the branch left out."""
    command = [MCA, "-mtriple=aarch64", f"-mcpu={cpu}", f"-iterations={ROUNDS}"]
    if cpu == "neoverse-n2":
        command.append("-mattr=+i8mm")
    text = "\n".join(loop[:-1]) + "\n"
    said = subprocess.run(command, input=text, capture_output=True, text=True, check=True).stdout
    return int(re.search(r"Total Cycles:\s+(\d+)", said)[1]) / ROUNDS


def main():
    program = sys.argv[1] if len(sys.argv) > 1 else PROGRAM
    if not shutil.which(OBJDUMP):
        print(f"loops: not looked at: no {OBJDUMP}")
        return 0
    found = {kernel.name: set() for kernel in KERNELS}
    for loop in loops(program):
        for kernel in KERNELS:
            if kernel.count(loop) >= kernel.fewest:
                found[kernel.name].add(tuple(loop))
    modelled = shutil.which(MCA)
    if not modelled:
        print(f"loops: cycles are not modelled: no {MCA}")
    failed = False
    for kernel in KERNELS:
        if not found[kernel.name]:
            print(f"{kernel.name:13} FAILED: no loop found in {program}")
            failed = True
        for loop in sorted(found[kernel.name], key=len):
            count, stack = kernel.count(loop), [line for line in loop if re.search(r"\[sp\b", line)]
            line = f"{kernel.name:13} {count:3} of {len(loop):3} instructions multiply"
            wrong = ["touches the stack: " + stack[0]] if stack else []
            if modelled:
                reached = count * kernel.mac / model(loop, kernel.cpu)
                line += f", {reached:5.2f} MAC a cycle on {kernel.cpu}"
                if reached < kernel.least:
                    wrong.append(f"fewer than {kernel.least}")
            print(line, *(f"FAILED: {what}" for what in wrong))
            failed |= bool(wrong)
    print("loops: " + ("failed" if failed else "passed"))
    return int(failed)


if __name__ == "__main__":
    sys.exit(main())
