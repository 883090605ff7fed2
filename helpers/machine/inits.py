"""How an adapter begins: PEFT's names for it, which of them take a part out of the base, and where that cannot be."""

from typing import Any

from helpers.machine.language import tr

INITS = ("default", "gaussian", "orthogonal", "pissa", "pissa_niter_4", "olora")  # PEFT's; "default" is its True


def takes_from_base(settings: Any) -> bool:
    """Whether the adapter begins as a part of the weights, which the base loses: PiSSA and OLoRA.

    settings: helpers.settings.Settings. Source: https://arxiv.org/abs/2404.02948, https://arxiv.org/abs/2406.01775.
    """
    return settings.init_lora_weights.startswith(("pissa", "olora"))


def init_fault(settings: Any) -> str:
    """Why an adapter cannot begin so with the other settings, in a sentence; "" for nothing."""
    if not takes_from_base(settings):
        return ""
    name = f"init_lora_weights={settings.init_lora_weights!r}"
    if settings.quantization != "none":
        return tr(
            "{init} takes a part out of the base's weights, and quantization={quantization!r} would "
            "round what is left anew: the adapter would fit no other copy of the base. Use "
            "quantization='none', or init_lora_weights='default'.",
            init=name,
            quantization=settings.quantization,
        )
    if settings.use_dora:
        return tr(
            "{init} with use_dora=True cannot be saved as a plain adapter: PEFT loses DoRA's lengths. Use one.",
            init=name,
        )
    return ""
