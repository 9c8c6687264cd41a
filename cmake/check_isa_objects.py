"""Fails when an object compiled for an instruction set defines symbols that the linker could use for another one.

The linker keeps one copy of a function that several objects define as "weak" (inline functions, templates). If the copy
compiled for AVX-512 wins, it runs on machines without AVX-512. So every weak symbol must carry the name of the
instruction set (namespace mimo::cpu::<isa>). Usage: check_isa_objects.py ISA OBJECT...
"""

import re
import subprocess
import sys

isa, *objects = sys.argv[1:]
listing = subprocess.run(["nm", "--defined-only", "-C", *objects], check=True, capture_output=True, text=True).stdout
weak = set(re.findall(r"^[0-9a-f]+ [WVu] (.+)$", listing, re.MULTILINE))  # other lines name the objects
foreign = sorted(name for name in weak if f"mimo::cpu::{isa}::" not in name and not name.startswith("DW.ref."))
if foreign:
    sys.exit(
        f"{isa} objects define shared inline functions (cpu/isa.h says why that is wrong):\n  " + "\n  ".join(foreign)
    )
