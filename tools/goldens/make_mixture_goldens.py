#!/usr/bin/env python3
"""MoV and MoLoRA (arXiv 2309.05444) by formula: losses and gradients of tiny models, for tests/agreement.

    .peers/transformers/bin/python tools/goldens/make_mixture_goldens.py

Reads tests/golden/models/. Written from the formulas alone, one loop or einsum per sum, on transformers' own models.
"Paper" below is section 3 of arXiv 2309.05444; "code" is for-ai/parameter-efficient-moe. Writes, for each set of parameters
in FILES, tests/golden/agreement/mixture_NAME.safetensors:
    input.I, target.I            two examples
    parameter.NAME               experts and routers, f32
    CASE.loss                    mean over all target tokens (f64 rounded), without the additional losses
    CASE.balance, CASE.z_loss    mean over routers, unweighted; both enter the gradients of a case with weights
    CASE.gradient.NAME           of loss + BALANCE * balance + Z_LOSS * z_loss; for every case but the first of the middle
                                 layers alone (the files stay small)
    CASE.error_loss, CASE.error_gradient   what float32 differs by; gradients: relative to the tensor's largest entry
    CASE.logits                  of the second example's target rows
"""

import dataclasses

import torch
from float64 import Widened, widen
from golden_file import save_golden
from make_lora_goldens import load_base
from torch import nn
from torch.nn.functional import cross_entropy

EXPERTS, RANK, ALPHA = 3, 2, 16.0
LENGTHS = [(5, 3), (9, 4)]
BALANCE, Z_LOSS = 0.7, 0.05


@dataclasses.dataclass
class Case:
    name: str
    top_k: int = 0  # 0: all experts, soft
    renormalised: bool = False
    mixes: str = "outputs"  # or "parameters" (MoLoRA)
    losses: bool = False  # load balancing and z-loss join the loss


@dataclasses.dataclass
class File:
    name: str
    model: str
    kind: str
    router_input: str  # "hidden", "projected" (the code's, MoV) or "sentence"
    cases: list


SOFT = Case("soft")
FILES = [
    File("mov_llama_projected", "llama", "mov", "projected", [SOFT, Case("top1", 1), Case("top2", 2), Case("losses", 2, losses=True)]),
    File("mov_llama_hidden", "llama", "mov", "hidden", [SOFT, Case("top2", 2, renormalised=True)]),
    File("mov_llama_sentence", "llama", "mov", "sentence", [SOFT, Case("top1", 1)]),
    File("mov_t5_v11_projected", "t5_v11", "mov", "projected", [SOFT, Case("top2", 2), Case("losses", 1, losses=True)]),
    File("mov_t5_v11_hidden", "t5_v11", "mov", "hidden", [SOFT]),
    File("mov_t5_v10_projected", "t5_v10", "mov", "projected", [SOFT]),
    File("mov_t5_v10_hidden", "t5_v10", "mov", "hidden", [SOFT]),
    File("molora_llama", "llama", "molora", "hidden",
         [SOFT, Case("parameters", mixes="parameters"), Case("top1", 1), Case("top2", 2),
          Case("top2_renormalised", 2, renormalised=True), Case("parameters_top2", 2, mixes="parameters"),
          Case("losses", 2, losses=True)]),
    File("molora_llama_sentence", "llama", "molora", "sentence", [SOFT]),
    File("molora_t5_v11", "t5_v11", "molora", "hidden", [SOFT, Case("top2", 2), Case("losses", 2, losses=True)]),
    File("molora_t5_v11_sentence", "t5_v11", "molora", "sentence", [SOFT]),
]


class Context:
    """What all routers of a model share: the case at hand, the sentence, and what was chosen."""

    def __init__(self, file):
        self.file, self.case = file, None
        self.sentence = None  # (D)
        self.seen = []  # per sequence {router name: (logits, p, mask)}


class Router(nn.Module):
    """Paper, section 3: s = softmax(W_g^T x). Code: no bias, f32; top-k masks p and does not renormalise."""

    def __init__(self, name, width, context):
        super().__init__()
        self.name, self.context = name, context
        self.weight = nn.Parameter(torch.empty(EXPERTS, width))

    def forward(self, x):  # (..., width) -> (..., E)
        case = self.context.case
        if self.context.file.router_input == "sentence":  # one choice for a sequence, from its sentence's embedding
            x = self.context.sentence.expand(*x.shape[:-1], -1)
        logits = x @ self.weight.T
        p = torch.softmax(logits, -1)
        mask = torch.ones_like(p)
        if case.top_k:
            mask = torch.zeros_like(p).scatter(-1, p.topk(case.top_k).indices, 1.0)
        self.context.seen[-1][self.name] = (logits.reshape(-1, EXPERTS), p.reshape(-1, EXPERTS), mask.reshape(-1, EXPERTS))
        weights = p * mask
        return weights / weights.sum(-1, keepdim=True) if case.renormalised else weights


class ScaledLinear(nn.Module):
    """MoV on keys or values. Code: per head h, p = softmax(key_h . Wg), key'_h = key_h * sum_e p_e l_{h,e}, W_g shared by
    the heads. Paper (hidden): p = softmax(W_g^T x) with the projection's own input x."""

    def __init__(self, name, linear, heads, context, width_of_sentence):
        super().__init__()
        self.linear, self.heads, self.context = linear, heads, context
        out = linear.out_features
        width = {"hidden": linear.in_features, "projected": out // heads, "sentence": width_of_sentence}
        self.scaling = nn.Parameter(torch.empty(EXPERTS, out))
        self.router = Router(name, width[context.file.router_input], context)

    def forward(self, x):  # (1, T, D) -> (1, T, out)
        y = self.linear(x)
        if self.context.file.router_input != "projected":
            return y * torch.einsum("bte,ed->btd", self.router(x), self.scaling)
        per_head = y.unflatten(-1, (self.heads, -1))  # (1, T, H, K)
        p = self.router(per_head)  # (1, T, H, E)
        scale = torch.einsum("bthe,ehk->bthk", p, self.scaling.unflatten(-1, (self.heads, -1)))
        return (per_head * scale).flatten(-2)


class ScaledFeedForward(nn.Module):
    """MoV in the feed-forward: a = act(W_1 x), h = (a * sum_e p_e l_e) (* the second branch), y = W_2 h. Code: the router
    reads a, on the activated branch only. Paper (hidden): it reads x."""

    def __init__(self, name, activate, first, second, last, context, width_of_sentence):
        super().__init__()
        self.activate, self.first, self.second, self.last, self.context = activate, first, second, last, context
        width = {"hidden": first.in_features, "projected": last.in_features, "sentence": width_of_sentence}
        self.scaling = nn.Parameter(torch.empty(EXPERTS, last.in_features))
        self.router = Router(name, width[context.file.router_input], context)

    def forward(self, x):
        a = self.activate(self.first(x))
        p = self.router(a if self.context.file.router_input == "projected" else x)
        h = a * torch.einsum("bte,ef->btf", p, self.scaling)
        return self.last(h if self.second is None else h * self.second(x))


class MixedLinear(nn.Module):
    """MoLoRA: y = W x + (alpha/R) sum_e p_e B_e A_e x, outputs mixed as in the code; or, as the paper's formula reads,
    A = sum_e p_e A_e and B = sum_e p_e B_e for each token."""

    def __init__(self, name, linear, context, width_of_sentence):
        super().__init__()
        self.linear, self.context = linear, context
        self.lora_A = nn.Parameter(torch.empty(EXPERTS, RANK, linear.in_features))
        self.lora_B = nn.Parameter(torch.empty(EXPERTS, linear.out_features, RANK))
        width = width_of_sentence if context.file.router_input == "sentence" else linear.in_features
        self.router = Router(name, width, context)

    @property
    def weight(self):  # T5's wo is asked for its type
        return self.linear.weight

    def forward(self, x):
        p = self.router(x)  # (1, T, E)
        if self.context.case.mixes == "outputs":
            each = torch.einsum("eor,erd,btd->bteo", self.lora_B, self.lora_A, x)
            mixed = torch.einsum("bte,bteo->bto", p, each)
        else:
            a = torch.einsum("bte,erd->btrd", p, self.lora_A)
            b = torch.einsum("bte,eor->btor", p, self.lora_B)
            mixed = torch.einsum("btor,btrd,btd->bto", b, a, x)
        return self.linear(x) + ALPHA / RANK * mixed


def replace(model, name, module):
    parent, _, leaf = name.rpartition(".")
    setattr(model.get_submodule(parent), leaf, module)


def attach(model, file):
    """Puts the mixture into the model; -> its parameters by Skein's names, and the context."""
    context, config = Context(file), model.config
    t5 = file.model.startswith("t5")
    width = config.d_model if t5 else config.hidden_size
    kv_heads = config.num_heads if t5 else config.num_key_value_heads
    placed = {}
    for name, module in list(model.named_modules()):
        leaf = name.rpartition(".")[2]
        if file.kind == "molora":
            if isinstance(module, nn.Linear) and leaf != "lm_head":
                placed[name] = MixedLinear(name, module, context, width)
                replace(model, name, placed[name])
        elif leaf in ("k_proj", "v_proj", "k", "v") and isinstance(module, nn.Linear):
            placed[name] = ScaledLinear(name, module, kv_heads, context, width)
            replace(model, name, placed[name])
        elif leaf == "mlp":
            inner = f"{name}.down_proj"
            placed[inner] = ScaledFeedForward(inner, module.act_fn, module.gate_proj, module.up_proj, module.down_proj, context, width)
            replace(model, name, placed[inner])
        elif leaf == "DenseReluDense":
            inner, gated = f"{name}.wo", hasattr(module, "wi_1")
            placed[inner] = ScaledFeedForward(inner, module.act, module.wi_0 if gated else module.wi,
                                              module.wi_1 if gated else None, module.wo, context, width)
            replace(model, name, placed[inner])
    for parameter in model.parameters():
        parameter.requires_grad_(False)
    return placed, context


def named_parameters(placed):
    parameters = {}
    for name, module in placed.items():
        for key, parameter in module.named_parameters(recurse=False):
            parameters[f"{name}.experts.{key}"] = parameter
        parameters[f"{name}.router.weight"] = module.router.weight
    return parameters


def draw(parameters, generator):
    for name, parameter in parameters.items():
        noise = torch.randn(parameter.shape, generator=generator)
        if name.endswith("scaling"):
            parameter.data = 1 + 0.3 * noise
        elif name.endswith("lora_B"):
            parameter.data = 0.1 * noise
        else:  # routers far from uniform, A of ordinary size
            parameter.data = (2.0 if "router" in name else 1.0) * noise / parameter.shape[-1] ** 0.5
        parameter.requires_grad_(True)


def additional_losses(context):
    """Load balancing per sequence: E^2 mean_e(share of tokens with e in the top k * mean probability of e); z-loss: mean
    over tokens of logsumexp(logits)^2. Both a mean over the routers."""
    names = context.seen[0].keys()
    balance = z_loss = 0.0
    for name in names:
        for sequence in context.seen:
            _, p, mask = sequence[name]
            balance = balance + EXPERTS**2 * (mask.mean(0) * p.mean(0)).mean() / len(context.seen) / len(names)
        logits = torch.cat([sequence[name][0] for sequence in context.seen])
        z_loss = z_loss + torch.logsumexp(logits, -1).square().mean() / len(names)
    return balance, z_loss


def run(model, context, case, examples, t5):
    """-> loss, balance, z_loss, logits of the last example's target rows."""
    context.case, context.seen = case, []
    total, count = 0.0, 0
    embed = model.get_input_embeddings().weight
    for source, target in examples:
        context.seen.append({})
        context.sentence = embed[source].mean(0)  # the mean embedding of the input's tokens
        if t5:
            start = torch.zeros(1, dtype=torch.long)
            logits = model(input_ids=source[None], decoder_input_ids=torch.cat([start, target[:-1]])[None]).logits[0]
        else:
            logits = model(input_ids=torch.cat([source, target[:-1]])[None]).logits[0, len(source) - 1:]
        total = total + cross_entropy(logits, target, reduction="sum")
        count += len(target)
    return total / count, *additional_losses(context), logits


def gradients(placed, context, model, case, examples, t5):
    parameters = named_parameters(placed)
    for parameter in parameters.values():
        parameter.grad = None
    loss, balance, z_loss, logits = run(model, context, case, examples, t5)
    (loss + (BALANCE * balance + Z_LOSS * z_loss if case.losses else 0.0)).backward()
    return loss, balance, z_loss, logits, {name: parameter.grad for name, parameter in parameters.items()}


def is_middle(name):
    return any(part in name for part in (".layers.1.", ".block.1."))


def make(file, seed):
    generator = torch.Generator().manual_seed(seed)
    examples = [tuple(torch.randint(3, 96, (length,), generator=generator) for length in pair) for pair in LENGTHS]
    t5 = file.model.startswith("t5")
    model = load_base(file.model)
    plain = widen(model)  # before the mixture: angles and buckets are found by module names
    placed, context = attach(model, file)
    draw(named_parameters(placed), generator)
    wide_placed, wide_context = attach(plain, file)
    for (name, single), wide in zip(named_parameters(placed).items(), named_parameters(wide_placed).values()):
        wide.data = single.detach().double()
        wide.requires_grad_(True)
    tensors = {}
    for i, (source, target) in enumerate(examples):
        tensors[f"input.{i}"], tensors[f"target.{i}"] = source, target
    for name, parameter in named_parameters(placed).items():
        tensors[f"parameter.{name}"] = parameter.detach()
    for case_idx, case in enumerate(file.cases):
        single = gradients(placed, context, model, case, examples, t5)
        with Widened():
            wide = gradients(wide_placed, wide_context, plain, case, examples, t5)
        assert wide[3].dtype == torch.float64
        error = 0.0
        for name, truth in wide[4].items():
            error = max(error, ((single[4][name] - truth).abs().max() / truth.abs().max()).item())
            if case_idx == 0 or is_middle(name):
                tensors[f"{case.name}.gradient.{name}"] = truth.float()
        for key, value in {"loss": wide[0], "balance": wide[1], "z_loss": wide[2]}.items():
            tensors[f"{case.name}.{key}"] = torch.as_tensor(float(value)).reshape(1)
        tensors[f"{case.name}.logits"] = wide[3].detach().float()
        tensors[f"{case.name}.error_loss"] = torch.tensor([abs(single[0].item() - wide[0].item())])
        tensors[f"{case.name}.error_gradient"] = torch.tensor([error])
        print(f"{file.name} {case.name}: loss {wide[0].item():.5f} (f32 off by {tensors[f'{case.name}.error_loss'].item():.1e}), "
              f"gradients off by {error:.1e}, balance {float(wide[1]):.4f}, z {float(wide[2]):.4f}")
    save_golden(f"mixture_{file.name}", tensors, __file__, experts=str(EXPERTS), rank=str(RANK), alpha=str(ALPHA),
                balance=str(BALANCE), z_loss=str(Z_LOSS))


def main():
    torch.set_num_threads(1)
    for seed, file in enumerate(FILES):
        make(file, 700 + seed)


if __name__ == "__main__":
    main()
