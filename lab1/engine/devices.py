"""Where to compute, and in which number format.

Nothing here imports torch at the top: ``--help`` and a mistyped flag answer at once.
"""

import os

from lab1.engine.config import UsageError, require


def find_device(name: str):
    """The torch.device of that name; ``auto`` takes CUDA, then MPS, then the CPU. Under torchrun, cuda is this
    process's own GPU.

    Raises:
        UsageError: for a device that this machine, or this build of torch, does not have.
    """
    import torch

    if name == "auto":
        name = "cuda" if torch.cuda.is_available() else "mps" if torch.backends.mps.is_available() else "cpu"
    try:
        device = torch.device(name)
    except RuntimeError:
        raise UsageError(f"--device {name}: not a device; use auto, cpu, cuda, cuda:N or mps") from None
    if device.type == "cuda":
        count = torch.cuda.device_count() if torch.cuda.is_available() else 0
        require(count > 0, f"--device {name}: torch finds no CUDA GPU here; use auto or cpu")
        device = torch.device("cuda", int(os.environ.get("LOCAL_RANK", 0)) if device.index is None else device.index)
        require(device.index < count, f"--device {device}: there are {count} GPUs, cuda:0 to cuda:{count - 1}")
        torch.cuda.set_device(device)
    elif device.type == "mps":
        require(torch.backends.mps.is_available(), f"--device {name}: torch finds no MPS here; use auto or cpu")
    else:
        require(device.type == "cpu", f"--device {name}: use auto, cpu, cuda, cuda:N or mps")
    return device


def find_precision(name: str, device) -> str:
    """``fp32`` or ``bf16`` as named; ``auto`` is bf16 where this device multiplies it faster (CUDA from Ampere on;
    processors with AMX, or AVX512_BF16 that is worth it), and fp32 elsewhere: emulated, bf16 is the slower one."""
    import torch

    if name != "auto":
        return name
    if device.type == "cuda":
        return "bf16" if torch.cuda.is_bf16_supported(including_emulation=False) else "fp32"
    # Older versions of torch cannot say.
    capabilities = getattr(torch.cpu, "get_capabilities", dict)()
    # Xeons that have AMX are half as fast in AVX512_BF16 as in fp32: where a virtual machine hides AMX, fp32 it is.
    hidden = capabilities.get("avx512_fp16") and str(capabilities.get("cpu_name", "")).startswith("Intel")
    faster = capabilities.get("amx_bf16") or (capabilities.get("avx512_bf16") and not hidden)
    return "bf16" if device.type == "cpu" and faster else "fp32"


def check_compiler(device) -> None:
    """Compile a tiny function, as ``--compile`` needs a compiler of C++ on a CPU and Triton on a GPU.

    Raises:
        UsageError: where that fails; it names what is missing.
    """
    import torch

    try:
        torch.compile(lambda x: x.sin() + 1)(torch.ones(8, device=device))
    except Exception as error:  # whatever it is that torch needs and does not find
        lines = [line.strip() for line in str(error).splitlines() if line.strip()] or [type(error).__name__]
        needed = "Triton" if device.type == "cuda" else "a C++ compiler, such as g++"
        raise UsageError(
            f"--compile: torch cannot compile here ({lines[0].rstrip('.:')}); install {needed}, or leave it out"
        ) from None
