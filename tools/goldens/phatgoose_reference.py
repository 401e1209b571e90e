"""PHATGOOSE in PyTorch, by formula: the reference that Skein's routing is measured against.

Written from docs/design/methods.md alone, never from the C++; the number beside a line is the section there that it
copies. Slow on purpose: every expert is evaluated for every token.
"""

import dataclasses

import torch
from torch import nn


@dataclasses.dataclass
class Expert:
    """One LoRA of one module: A (R, D_in), B (D_out, R), and the factor on B A."""

    a: torch.Tensor
    b: torch.Tensor
    scale: float

    def update(self, u):
        return self.scale * (u @ self.a.T @ self.b.T)  # 3: (1/R) B_e A_e u; 6.3: or alpha/R


@dataclasses.dataclass
class Router:
    top_k: int = 2                      # 5: k = 2
    softmax_over_chosen: bool = False   # 6.3, first row: False is the released code, True the paper
    gate_norm: str = "layer"            # 6.3, second row: "layer", "l2" or "none"
    temperature: float = 1.0            # 15.3, item 2: the paper fixes it at 1
    allowed: tuple | None = None        # 14.4, expert masks: indices of the experts that take part; None: all


def layer_norm(x):
    mean = x.float().mean(-1, keepdim=True)                            # 5: LN in fp32 (5.1, precision) ...
    variance = (x.float() - mean).square().mean(-1, keepdim=True)      # 5: ... biased variance ...
    return (x.float() - mean) / torch.sqrt(variance + 1e-5)            # 5: ... eps 1e-5, no affine weights


def normalised_gates(gates, gate_norm):
    if gate_norm == "layer":
        return layer_norm(gates)                                       # 5: LN(v_e)
    if gate_norm == "l2":
        return gates.float() / gates.float().norm(dim=-1, keepdim=True)  # 5.3: gate normalised by L2
    return gates.float()                                               # 5.3: or not at all


def scores(u, gates, router):
    d_in = u.shape[-1]
    s = layer_norm(u) @ normalised_gates(gates, router.gate_norm).T / d_in ** 0.5  # 5: LN(u_t) . LN(v_e) / sqrt(D_in)
    return s / router.temperature                                      # 15.3, item 2


def routing_weights(s, router):
    """s (..., E), minus infinity for experts that do not take part -> w (..., E), zero for those not chosen."""
    k = min(router.top_k, s.shape[-1])
    chosen = s.topk(k, dim=-1).indices                                 # 5: C_t, the k largest (p grows with s)
    is_chosen = torch.zeros_like(s, dtype=torch.bool).scatter(-1, chosen, True)
    if router.softmax_over_chosen:
        return s.masked_fill(~is_chosen, -torch.inf).softmax(-1)       # 5.1, 6.3: softmax over the k selected scores
    p = s.softmax(-1)                                                  # 5: p_t = softmax over ALL E experts
    p_chosen = torch.where(is_chosen, p, 0)
    return p_chosen / (p_chosen.sum(-1, keepdim=True) + 1e-6)          # 5: w = p / (sum over C_t of p + 1e-6)


class LinearWithExperts(nn.Module):
    """Stands where a linear stood; transformers' T5 looks at the weight of some."""

    @property
    def weight(self):
        return self.linear.weight


class AdaptedLinear(LinearWithExperts):
    """One expert alone, as it is trained (section 3)."""

    def __init__(self, linear, expert):
        super().__init__()
        self.linear, self.expert = linear, expert

    def forward(self, u):
        return self.linear(u) + self.expert.update(u)                  # 3: y = (W + B_e A_e / R) u


class GatedLinear(LinearWithExperts):
    """One frozen expert behind its gate while the gate is trained (section 4)."""

    def __init__(self, linear, expert, gate):
        super().__init__()
        self.linear, self.expert, self.gate = linear, expert, gate

    def forward(self, u):
        g = torch.sigmoid(u @ self.gate)                               # 4: g_t = sigmoid(v . u_t), raw u_t
        return self.linear(u) + g[..., None] * self.expert.update(u)   # 4: y = W u + g (1/R) B A u


class RoutedLinear(LinearWithExperts):
    """A pool of experts behind the router (section 5). Keeps what the last call chose."""

    def __init__(self, linear, experts, gates, router):
        """experts: one per member of the pool, None where it lacks the module; gates (E, D_in)."""
        super().__init__()
        self.linear, self.experts, self.gates, self.router = linear, experts, gates, router
        allowed = router.allowed if router.allowed is not None else range(len(experts))
        self.takes_part = torch.tensor([e in allowed and experts[e] is not None for e in range(len(experts))])

    def forward(self, u):
        y = self.linear(u)                                             # 5: y_t = W u_t + ...
        if not self.takes_part.any():
            return y
        s = scores(u, self.gates, self.router).masked_fill(~self.takes_part, -torch.inf)  # 14.2, 14.4: masked
        w = routing_weights(s, self.router)
        self.last_scores, self.last_weights = s, w
        for e, expert in enumerate(self.experts):
            if expert is not None:
                y = y + (w[..., e:e + 1] * expert.update(u)).to(y.dtype)  # 5: + sum_e w_{t,e} (1/R) B_e A_e u_t
        return y


class MergedLinear(LinearWithExperts):
    """The pool without a router: the mean of the products."""

    def __init__(self, linear, experts):
        super().__init__()
        self.linear, self.experts = linear, experts

    def forward(self, u):
        y = self.linear(u)
        for expert in self.experts:
            if expert is not None:                                     # 14.2: no such module counts as a zero delta
                y = y + expert.update(u) / len(self.experts)           # 6.1: Delta W = (1/E) sum_e B_e A_e / R
        return y


def replace(model, make):
    """Puts make(name, linear) in the place of every linear for which it gives one; returns {name: module}."""
    placed = {}
    for name, module in list(model.named_modules()):
        if isinstance(module, nn.Linear) and (new := make(name, module)) is not None:
            parent, _, leaf = name.rpartition(".")
            setattr(model.get_submodule(parent), leaf, new)
            placed[name] = new
    return placed
