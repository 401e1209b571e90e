#!/usr/bin/env python3
"""Training steps of PyTorch, for the tests of skein/train.

    .peers/transformers/bin/python tools/goldens/make_train_goldens.py

Reads tests/golden/models/. Writes tests/golden/train/
    adamw.safetensors            gradient.T and parameter.T of torch.optim.AdamW after each update, learning rates in lr
    adafactor.safetensors        the same of transformers' Adafactor, CASE.gradient.T.I and CASE.parameter.T.I of three tensors
    expert_MODEL.safetensors     PEFT's LoRA of a tiny model trained for STEPS steps on four examples at once:
                                 input.I, target.I, before.NAME, after.NAME, losses, norms (before clipping), rates, error_f32
    gate_MODEL.safetensors       the same for PHATGOOSE's gates, written by formula (methods, section 4), on PEFT's expert
The loss is the mean over all target tokens, computed one example at a time: no padding is involved. Everything in float64,
rounded once; error_f32 is the largest difference that the same steps in float32 make, the scale of the tests' tolerances.
Adam's eps is 1e-3, not 1e-8: a gradient element near 0 would otherwise make a step of the size of the learning rate in a
direction that rounding decides, and nothing could be compared.
"""


import torch
from float64 import Widened, widen
from golden_file import GOLDEN, made_by, save_readable
from make_lora_goldens import EXPERTS, LLAMA, T5, attach, load_base
from peft import PeftModel
from torch.nn.functional import cross_entropy
from transformers.optimization import Adafactor

STEPS, WARMUP, RATE, EPS = 4, 2, 5e-3, 1e-3
LENGTHS = [(5, 3), (1, 1), (9, 4), (20, 2)]  # tokens of input and target
CLIP = {"expert": 0.5, "gate": 0.3}  # below the norms that occur, so that clipping is part of the test


def save(name, tensors):
    save_readable(tensors, GOLDEN / "train" / f"{name}.safetensors", made_by(__file__))


def adamw_golden():
    generator = torch.Generator().manual_seed(7)
    parameter = torch.nn.Parameter(torch.randn(3, 5, generator=generator))
    optimiser = torch.optim.AdamW([parameter], lr=1.0, betas=(0.9, 0.99), eps=1e-6, weight_decay=0.1)
    tensors = {"parameter.0": parameter.detach().clone()}
    rates = [0.0, 0.01, 0.02, 0.005, 0.02]
    for step, rate in enumerate(rates, 1):
        gradient = torch.randn(3, 5, generator=generator) * 10.0 ** (step - 3)
        optimiser.param_groups[0]["lr"] = rate
        parameter.grad = gradient.clone()
        optimiser.step()
        tensors[f"gradient.{step}"], tensors[f"parameter.{step}"] = gradient, parameter.detach().clone()
    tensors["lr"] = torch.tensor(rates, dtype=torch.float64)
    save("adamw", tensors)


ADAFACTOR = {  # arguments of transformers' Adafactor beside the learning rate
    "plain": dict(scale_parameter=False, relative_step=False),
    "scaled": dict(scale_parameter=True, relative_step=False, weight_decay=0.1),
    "relative": dict(scale_parameter=True, relative_step=True),
    "slow_decay": dict(scale_parameter=False, relative_step=False, decay_rate=-0.5, clip_threshold=0.3),
}
RATES = [0.01, 0.02, 0.0, 0.02, 0.005]


def adafactor_golden():
    """Steps of transformers' Adafactor on tensors of one, two and three dimensions."""
    tensors = {"lr": torch.tensor(RATES, dtype=torch.float64)}
    for case, arguments in ADAFACTOR.items():
        generator = torch.Generator().manual_seed(8)
        parameters = [torch.nn.Parameter(torch.randn(shape, generator=generator)) for shape in ((7,), (3, 5), (2, 4, 3))]
        optimiser = Adafactor(parameters, lr=None if arguments["relative_step"] else 1.0, **arguments)
        for i, parameter in enumerate(parameters):
            tensors[f"{case}.parameter.0.{i}"] = parameter.detach().clone()
        for step, rate in enumerate(RATES, 1):
            if not arguments["relative_step"]:
                optimiser.param_groups[0]["lr"] = rate
            for i, parameter in enumerate(parameters):
                parameter.grad = torch.randn(parameter.shape, generator=generator) * 10.0 ** (step - 3)
                tensors[f"{case}.gradient.{step}.{i}"] = parameter.grad.clone()
            optimiser.step()
            for i, parameter in enumerate(parameters):
                tensors[f"{case}.parameter.{step}.{i}"] = parameter.detach().clone()
    save("adafactor", tensors)


def examples_of(model, generator):
    return [tuple(torch.randint(3, 96, (length,), generator=generator) for length in pair) for pair in LENGTHS]


def mean_loss(model, examples, encoder_decoder):
    total, count = 0.0, 0
    for source, target in examples:
        if encoder_decoder:
            start = torch.zeros(1, dtype=torch.long)
            logits = model(input_ids=source[None], decoder_input_ids=torch.cat([start, target[:-1]])[None]).logits[0]
        else:
            logits = model(input_ids=torch.cat([source, target[:-1]])[None]).logits[0, len(source) - 1:]
        total = total + cross_entropy(logits, target, reduction="sum")
        count += len(target)
    return total / count


def train(model, parameters, examples, encoder_decoder, clip):
    """STEPS of AdamW with warm-up and clipping. The multiplier is step / WARMUP, so the first update has rate 0."""
    optimiser = torch.optim.AdamW(parameters.values(), lr=RATE, betas=(0.9, 0.999), eps=EPS, weight_decay=0.0)
    losses, norms, rates = [], [], []
    for step in range(STEPS):
        optimiser.zero_grad()
        loss = mean_loss(model, examples, encoder_decoder)
        loss.backward()
        norms.append(torch.nn.utils.clip_grad_norm_(parameters.values(), clip).item())
        rates.append(RATE * min(1.0, step / WARMUP))
        optimiser.param_groups[0]["lr"] = rates[-1]
        optimiser.step()
        losses.append(loss.item())
    assert min(norms) > clip
    return losses, norms, rates


def golden_of(name, kind, model, parameters_of, examples, encoder_decoder):
    tensors = {}
    for i, (source, target) in enumerate(examples):
        tensors[f"input.{i}"], tensors[f"target.{i}"] = source, target
    wide = widen(model)
    before = {key: value.detach().clone() for key, value in parameters_of(model).items()}
    single_losses = train(model, parameters_of(model), examples, encoder_decoder, CLIP[kind])[0]
    with Widened():
        losses, norms, rates = train(wide, parameters_of(wide), examples, encoder_decoder, CLIP[kind])
    assert max(abs(a - b) for a, b in zip(losses, single_losses)) < 1e-4, (losses, single_losses)
    error = 0.0
    for key, truth in parameters_of(wide).items():
        assert truth.dtype == torch.float64
        tensors[f"before.{key}"], tensors[f"after.{key}"] = before[key], truth.detach().float()
        error = max(error, (parameters_of(model)[key] - truth).abs().max().item())
    for key, values in {"losses": losses, "norms": norms, "rates": rates}.items():
        tensors[key] = torch.tensor(values, dtype=torch.float64)
    tensors["error_f32"] = torch.tensor([error])
    print(f"{kind} {name}: losses {losses[0]:.4f} -> {losses[-1]:.4f}, norms {min(norms):.4f} to {max(norms):.4f}, "
          f"error f32 {error:.1e}")
    save(f"{kind}_{name}", tensors)


def lora_parameters(peft_model):
    """Skein's names: "MODULE.lora_A"."""
    return {name.removeprefix("base_model.model.").removesuffix(".default.weight"): parameter
            for name, parameter in peft_model.named_parameters() if ".lora_" in name}


class GatedLinear(torch.nn.Module):
    """Methods, section 4: y_t = W u_t + g_t s B A u_t with g_t = sigmoid(v . u_t), v zero at first, the rest frozen."""

    def __init__(self, lora_linear):
        super().__init__()
        self.base = lora_linear.base_layer
        self.a, self.b = lora_linear.lora_A["default"].weight, lora_linear.lora_B["default"].weight
        self.scale = lora_linear.scaling["default"]
        self.gate = torch.nn.Parameter(torch.zeros(self.base.in_features))
        for frozen in (*self.base.parameters(), self.a, self.b):
            frozen.requires_grad_(False)

    @property
    def weight(self):  # T5's wo is asked for its type
        return self.base.weight

    def forward(self, u):
        g = torch.sigmoid(u @ self.gate)[..., None]
        return self.base(u) + g * self.scale * (u @ self.a.T @ self.b.T)


def gated(peft_model):
    model = peft_model.base_model.model
    for name, module in list(model.named_modules()):
        if hasattr(module, "lora_A"):
            parent, _, leaf = name.rpartition(".")
            setattr(model.get_submodule(parent), leaf, GatedLinear(module))
    return model


def gate_parameters(model):
    return {name: parameter for name, parameter in model.named_parameters() if name.endswith(".gate")}


def main():
    torch.set_num_threads(1)
    adamw_golden()
    adafactor_golden()
    for seed, (name, targets, expert) in enumerate([("llama", LLAMA, "llama_1"), ("t5_v11", T5, "t5_0")]):
        generator = torch.Generator().manual_seed(300 + seed)
        examples = examples_of(name, generator)
        encoder_decoder = name.startswith("t5")
        peft_model = attach(load_base(name), dict(r=4, lora_alpha=1, target_modules=targets), generator)
        golden_of(name, "expert", peft_model, lora_parameters, examples, encoder_decoder)
        model = gated(PeftModel.from_pretrained(load_base(name), EXPERTS / expert))
        golden_of(name, "gate", model, gate_parameters, examples, encoder_decoder)


if __name__ == "__main__":
    main()
