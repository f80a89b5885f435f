"""The plan as text for a terminal."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

GIB = 2.0**30


def page(plan: dict[str, Any]) -> str:
    """Every part of the plan, a section each."""
    parts = (_model, _run, _memory, _time, _prices, _paper)
    return "\n\n".join(text for part in parts if (text := part(plan)))


def _model(plan: dict[str, Any]) -> str:
    model, flops = plan["model"], plan["flops_per_token"]
    again = f", and {_count(flops['recompute'])} to recompute activations" if flops["recompute"] else ""
    return "\n".join(
        [
            f"Model {model['name']}: {model['parameters']:,} parameters, vocabulary {model['vocab']:,} "
            f"(from {model['vocab_from']}), context {model['context']:,}",
            f"  FLOPs a token: {_count(flops['model'])} (6 x {model['matmul_parameters']:,} weights in products + "
            f"12 x layers x width x context){again}",
            f"  with the causal half of attention alone: {_count(flops['model_causal'])}",
        ]
    )


def _run(plan: dict[str, Any]) -> str:
    run = plan["run"]
    lines = [
        f"Run: {run['steps']:,} steps x {run['global_batch']:,} sequences x {plan['model']['context']:,} positions = "
        f"{_count(run['tokens'])} tokens, {run['flops']:.3g} FLOPs"
    ]
    for name, source in run["sources"].items():
        epochs = (
            f"{source['epochs']:.3g} epochs of the {_count(source['held'])} that the folder holds"
            if source["held"]
            else "epochs: give --tokens"
        )
        lines.append(f"  {name}: {_count(source['tokens'])} tokens ({source['share']:.0%}), {epochs}")
    return "\n".join(lines)


def _memory(plan: dict[str, Any]) -> str:
    device, recipe = plan["device"], plan["recipe"]
    parts = ("weights", "gradients", "optimizer", "activations", "loss")
    titles = ("sharding", "recompute", *parts, "total", "at", "fits")
    rows = [
        (
            row["sharding"],
            "layers" if row["activation_checkpointing"] else "-",
            *(
                f"{row[part] / GIB:.2f}"
                for part in ("parameters", "gradients", "optimizer", "activations", "logits", "total")
            ),
            row["moment"],
            "yes" if row["fits"] else "no",
            str(row["largest_micro_batch"] or "none"),
        )
        for row in plan["memory"]
    ]
    first = plan["memory"][0]
    chosen = f", sharding {recipe['sharding']}" if recipe["sharding"] else ""
    return "\n".join(
        [
            f"Memory a {'process' if device['gpu'] == 'cpu' else 'GPU'} at the peak of a step, GiB: "
            f"{recipe['micro_batch']} sequences a forward, {device['precision']}, {recipe['loss']} loss{chosen}",
            *_table((*titles, "largest micro-batch"), rows),
            f"  {device['gpu']}: {device['memory_gib']:.4g} GiB, of which the plan fills {device['usable_share']:.0%}. "
            f"The loss holds {first['loss_holds'] / GIB:.2f} GiB at its own peak; all logits at once would be "
            f"{first['plain_loss_holds'] / GIB:.2f} GiB",
            *_whole_gradients(plan),
        ]
    )


def _whole_gradients(plan: dict[str, Any]) -> list[str]:
    accumulation = plan["memory"][-1]["accumulation"]
    if accumulation == 1 or plan["device"]["gpus"] == 1:
        return []
    return [
        f"  {accumulation} micro-batches a step: gradients stay whole on each GPU until the last one reduces them; "
        "with full every one reduces its own"
    ]


def _time(plan: dict[str, Any]) -> str:
    time, device = plan["time"], plan["device"]
    unit = "process" if device["gpu"] == "cpu" else "GPU"
    energy = f", {time['kilowatt_hours']:,.1f} kWh at the boards' {device['watts']:g} W" if device["watts"] else ""
    lines = [
        f"Time on {device['gpus']} x {device['gpu']} at {time['assumed_mfu']:.0%} MFU ({time['why']}): "
        f"{_duration(time['seconds'])}, {time['tokens_per_second']:,.0f} tokens/s, "
        f"{time['gpu_hours']:,.1f} {unit}-hours{energy}",
        f"  in the range of public runs on this GPU or, without one, any ({time['public_mfu'][0]:.0%} to "
        f"{time['public_mfu'][1]:.0%}): {_duration(time['at_highest_public']['seconds'])} to "
        f"{_duration(time['at_lowest_public']['seconds'])}",
    ]
    rows = [
        (run["name"], run["gpus"], run["gpu"], f"{run['low']:.1%} to {run['high']:.1%}", run["source"])
        for run in plan["public_runs"]
    ]
    return "\n".join([*lines, *_table(("run", "GPUs", "kind", "MFU", "source"), rows)])


def _prices(plan: dict[str, Any]) -> str:
    rows = [
        (
            price["offer"],
            f"{price['usd']:.2f}",
            price["read"],
            f"{price['total_usd']:,.0f}",
            f"{price['range_usd'][0]:,.0f} to {price['range_usd'][1]:,.0f}",
        )
        for price in plan["prices"]
    ]
    if not rows:
        return f"Price: the table has no offer for {plan['device']['gpu']}; give --prices FILE"
    titles = ("offer", "$ a GPU-hour", "read on", f"$ at {plan['time']['assumed_mfu']:.0%}", "$ in the public range")
    return "\n".join(["Price (a table to edit: --prices FILE)", *_table(titles, rows)])


def _paper(plan: dict[str, Any]) -> str:
    paper = plan["paper"]
    if paper is None:
        return ""
    return (
        f"The paper's run of this shape: {_count(paper['tokens'])} tokens in {paper['days']:g} days on {paper['gpus']} "
        f"x {paper['gpu']} = {paper['gpu_hours']:,.0f} GPU-hours, ${paper['usd']:,.0f} "
        f"(${paper['usd_per_gpu_hour']:.2f} a GPU-hour): {paper['mfu']:.2%} MFU, "
        f"{paper['mfu_causal']:.2%} counting the causal half of attention"
    )


def _table(titles: tuple[str, ...], rows: Sequence[tuple[str, ...]]) -> list[str]:
    widths = [max(len(row[i]) for row in [titles, *rows]) for i in range(len(titles))]
    return [
        "  " + "  ".join(cell.ljust(width) for cell, width in zip(row, widths, strict=True)).rstrip()
        for row in [titles, *rows]
    ]


def _count(value: float) -> str:
    for size, unit in ((1e15, "P"), (1e12, "T"), (1e9, "B"), (1e6, "M"), (1e3, "K")):
        if value >= size:
            return f"{value / size:.4g}{unit}"
    return f"{value:.4g}"


def _duration(seconds: float) -> str:
    for size, unit in ((86400.0, "days"), (3600.0, "hours"), (60.0, "minutes")):
        if seconds >= 2 * size:
            return f"{seconds / size:.3g} {unit}"
    return f"{seconds:.3g} s"
