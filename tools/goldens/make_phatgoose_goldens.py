#!/usr/bin/env python3
"""Gates for the experts of make_lora_goldens.py, and what the PHATGOOSE reference computes with them.

    .peers/transformers/bin/python tools/goldens/make_phatgoose_goldens.py

Writes tests/golden/agreement/experts/NAME/gates/phatgoose.safetensors, and in tests/golden/agreement/
    phatgoose_VARIANT.safetensors   logits.I (T, V); weights.I.MODULE (rows, E), zero where an expert is not chosen;
                                    error_logits, error_weights (1): of the same reference in float32. Metadata: the variant.
    gated_NAME.safetensors          logits.I of the base with expert NAME behind its gate; error_f32
    merged_POOL.safetensors         logits.I of the mean of the pool's products; error_f32
    gradients_llama.safetensors     loss, gradients of one expert's A and B, of its gate at zero and at its own value, for
                                    the loss described at training_loss; error.* per tensor, in float32
"""

import json

import torch
from float64 import Widened, widen
from golden_file import GOLDEN, save_golden, save_readable
from make_lora_goldens import EXPERTS, POOL, inputs_of, load_base
from peft import PeftConfig
from peft.utils.other import get_pattern_key
from phatgoose_reference import AdaptedLinear, Expert, GatedLinear, MergedLinear, RoutedLinear, Router, replace
from safetensors.torch import load_file

PREFIX = "base_model.model."
VARIANTS = {
    "k1": Router(top_k=1),
    "k2": Router(top_k=2),
    "k5": Router(top_k=5),
    "k2_softmax_over_chosen": Router(top_k=2, softmax_over_chosen=True),
    "k2_l2": Router(top_k=2, gate_norm="l2"),
    "k2_raw_gates": Router(top_k=2, gate_norm="none"),
    "k3_temperature": Router(top_k=3, temperature=0.5),
    "k2_masked": Router(top_k=2, allowed=(0, 3, 4)),
    "t5_k1": Router(top_k=1),
    "t5_k2": Router(top_k=2),
}
KEPT_WEIGHTS = (2, 3)  # sequences whose routing weights are kept


def scale_of(config, module):
    rank = config.rank_pattern.get(get_pattern_key(config.rank_pattern.keys(), module), config.r)
    alpha = config.alpha_pattern.get(get_pattern_key(config.alpha_pattern.keys(), module), config.lora_alpha)
    return alpha / rank ** 0.5 if config.use_rslora else alpha / rank


def load_expert(name):
    """{module: Expert} of an expert folder, in float32."""
    config = PeftConfig.from_pretrained(EXPERTS / name)
    tensors = load_file(EXPERTS / name / "adapter_model.safetensors")
    modules = sorted(key[len(PREFIX):-len(".lora_A.weight")] for key in tensors if key.endswith(".lora_A.weight"))
    return {m: Expert(tensors[f"{PREFIX}{m}.lora_A.weight"], tensors[f"{PREFIX}{m}.lora_B.weight"], scale_of(config, m))
            for m in modules}


def make_gates(name, experts, generator):
    gates = {m: torch.randn(e.a.shape[1], generator=generator) for m, e in experts.items()}
    facts = {"kind": "phatgoose", "steps": "100", "base_fingerprint": "0" * 32}
    save_readable({f"{m}.gate": v for m, v in gates.items()}, EXPERTS / name / "gates" / "phatgoose.safetensors", facts)
    return gates


def cast(expert, dtype):
    return Expert(expert.a.to(dtype), expert.b.to(dtype), expert.scale)


def routed(model, pool, gates, router, dtype):
    """Puts the pool into every linear that one of its experts adapts."""
    def make(name, linear):
        experts = [cast(p[name], dtype) if name in p else None for p in pool]
        if not any(experts):
            return None
        vectors = torch.stack([g[name].to(dtype) if name in g else torch.zeros(linear.in_features, dtype=dtype) for g in gates])
        return RoutedLinear(linear, experts, vectors, router)

    return replace(model, make)


def merged(model, pool, dtype):
    def make(name, linear):
        experts = [cast(p[name], dtype) if name in p else None for p in pool]
        return MergedLinear(linear, experts) if any(experts) else None

    return replace(model, make)


def smallest_margin(module, k):
    """How far the k-th score is from the next: where float32 might choose another expert."""
    s = module.last_scores
    if k >= s.shape[-1] or torch.isinf(best := s.sort(-1, descending=True).values)[..., k].all():
        return torch.inf
    return (best[..., k - 1] - best[..., k])[torch.isfinite(best[..., k])].min().item()


def routed_golden(variant, router, base, pool, gates, inputs):
    single, wide = load_base(base), widen(load_base(base))
    placed = routed(single, pool, gates, router, torch.float32)
    placed_wide = routed(wide, pool, gates, router, torch.float64)
    tensors, error_logits, error_weights, error_scores, margin = {}, 0.0, 0.0, 0.0, torch.inf
    for i, given in enumerate(inputs):
        with torch.no_grad(), Widened():
            truth = wide(**given).logits[0]
        with torch.no_grad():
            error_logits = max(error_logits, (single(**given).logits[0].double() - truth).abs().max().item())
        tensors[f"logits.{i}"] = truth.float()
        for name, module in placed_wide.items():
            if not hasattr(module, "last_weights"):
                continue
            weights = module.last_weights[0]
            error_weights = max(error_weights, (placed[name].last_weights[0].double() - weights).abs().max().item())
            difference = (placed[name].last_scores[0].double() - module.last_scores[0]).abs()
            error_scores = max(error_scores, difference[torch.isfinite(difference)].max().item())
            margin = min(margin, smallest_margin(module, router.top_k))
            if i in KEPT_WEIGHTS:
                tensors[f"weights.{i}.{name}"] = weights.float()
    print(f"{variant}: error logits {error_logits:.2e} scores {error_scores:.2e} weights {error_weights:.2e}, smallest margin {margin:.2e}")
    # A choice that rounding could turn would make the golden a coin toss.
    assert margin > 10 * error_scores, "two scores too close: change the seed"
    tensors["error_logits"], tensors["error_weights"] = torch.tensor([error_logits]), torch.tensor([error_weights])
    options = {"top_k": router.top_k, "softmax_over_chosen": router.softmax_over_chosen, "gate_norm": router.gate_norm,
               "temperature": router.temperature, "allowed": router.allowed}
    save_golden(f"phatgoose_{variant}", tensors, __file__, router=json.dumps(options))


def gated(model, experts, gates, dtype):
    return replace(model, lambda name, linear: GatedLinear(linear, cast(experts[name], dtype), gates[name].to(dtype))
                   if name in experts else None)


def logits_golden(file, put_in, base, inputs):
    """logits of the base after put_in(model, dtype), and the error of the same in float32."""
    single, wide = load_base(base), widen(load_base(base))
    put_in(single, torch.float32)
    put_in(wide, torch.float64)
    tensors, error = {}, 0.0
    for i, given in enumerate(inputs):
        with torch.no_grad(), Widened():
            truth = wide(**given).logits[0]
        with torch.no_grad():
            error = max(error, (single(**given).logits[0].double() - truth).abs().max().item())
        tensors[f"logits.{i}"] = truth.float()
    print(f"{file}: error f32 {error:.2e}")
    tensors["error_f32"] = torch.tensor([error])
    save_golden(file, tensors, __file__)


def training_loss(model, inputs):
    """Mean cross-entropy over the last 3 tokens of sequence 2 and the last 10 of sequence 3 together (methods.md 3: loss
    on targets, mean over the tokens of a micro-batch)."""
    losses = []
    for i, num_targets in [(2, 3), (3, 10)]:
        ids = inputs[i]["input_ids"][0]
        logits = model(**inputs[i]).logits[0, -num_targets - 1:-1]
        losses.append(cross_entropy(logits, ids[-num_targets:]))
    return torch.cat(losses).mean()


def cross_entropy(logits, targets):
    return -logits.log_softmax(-1)[torch.arange(len(targets)), targets]


def step(model, parameters, inputs):
    """loss and the gradient of each of {name: tensor}."""
    loss = training_loss(model, inputs)
    return loss, dict(zip(parameters, torch.autograd.grad(loss, list(parameters.values()))))


def lora_step(model, experts, inputs, dtype):
    parameters = {}
    for m, expert in experts.items():
        parameters[f"{m}.lora_A"] = expert.a.to(dtype).requires_grad_()
        parameters[f"{m}.lora_B"] = expert.b.to(dtype).requires_grad_()
    always_open = {m: Expert(parameters[f"{m}.lora_A"], parameters[f"{m}.lora_B"], e.scale) for m, e in experts.items()}

    replace(model, lambda name, linear: AdaptedLinear(linear, always_open[name]) if name in always_open else None)
    return step(model, parameters, inputs)


def gate_step(model, experts, gates, inputs, dtype):
    parameters = {f"{m}.gate": gates[m].to(dtype).requires_grad_() for m in experts}
    replace(model, lambda name, linear: GatedLinear(linear, cast(experts[name], dtype), parameters[f"{name}.gate"])
            if name in experts else None)
    return step(model, parameters, inputs)


def gradients_golden(base, experts, gates, inputs):
    zero = {m: torch.zeros_like(v) for m, v in gates.items()}
    steps = {"lora": lambda model, dtype: lora_step(model, experts, inputs, dtype),
             "gate_zero": lambda model, dtype: gate_step(model, experts, zero, inputs, dtype),
             "gate": lambda model, dtype: gate_step(model, experts, gates, inputs, dtype)}
    tensors = {}
    for kind, run in steps.items():
        loss_single, single = run(load_base(base).requires_grad_(False), torch.float32)
        wide = widen(load_base(base)).requires_grad_(False)
        with Widened():
            loss, gradients = run(wide, torch.float64)
        worst = max((single[n].double() - g).abs().max().item() / g.abs().max().item() for n, g in gradients.items())
        print(f"{kind}: loss {loss.item():.6f}, {len(gradients)} gradients, worst relative error f32 {worst:.2e}")
        tensors[f"{kind}.loss"] = loss.detach().float()[None]
        tensors[f"{kind}.error_loss"] = (loss_single.double() - loss).abs().detach().float()[None]
        # Of the largest entry of the same tensor: the scale of each tensor's own sums.
        tensors[f"{kind}.error_relative"] = torch.tensor([worst])
        for name, g in gradients.items():
            tensors[f"{kind}.{name}"] = g.float()
    save_golden("gradients_llama", tensors, __file__, expert="llama_1")


def main():
    torch.set_num_threads(1)
    pools = {"llama": [n for n in POOL if n.startswith("llama")], "t5": [n for n in POOL if n.startswith("t5")]}
    for kind, names in pools.items():
        base = POOL[names[0]][0]
        inputs = inputs_of(base)
        experts = {n: load_expert(n) for n in names}
        gates = {n: make_gates(n, experts[n], torch.Generator().manual_seed(200 + i)) for i, n in enumerate(names)}
        for name in names[:2]:
            logits_golden(f"gated_{name}", lambda model, dtype: gated(model, experts[name], gates[name], dtype), base, inputs)
        logits_golden(f"merged_{kind}", lambda model, dtype: merged(model, experts.values(), dtype), base, inputs)
        for variant, router in VARIANTS.items():
            if variant.startswith("t5_") == (kind == "t5"):
                routed_golden(variant, router, base, list(experts.values()), list(gates.values()), inputs)
        if kind == "llama":
            gradients_golden(base, experts["llama_1"], gates["llama_1"], inputs)


if __name__ == "__main__":
    main()
