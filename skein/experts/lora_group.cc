#include "skein/experts/lora_group.h"

#include <ATen/ATen.h>
#include <ATen/core/LegacyTypeDispatch.h>
#include <torch/csrc/autograd/custom_function.h>

#include "skein/base/check.h"

namespace skein {
namespace {

using torch::autograd::AutogradContext;
using torch::autograd::variable_list;

// Where the pieces of one part lie in the stacked tensors.
struct Piece {
  std::int64_t part = 0;  // of the group
  std::int64_t rank = 0, rank_begin = 0;
  std::int64_t d_out = 0, b_begin = 0;
  double scale = 1;
};

std::vector<Piece> pieces_of(const LinearGroup& group, const std::vector<LoraBranch>& branches) {
  SKEIN_CHECK(branches.size() == group.parts.size());
  std::vector<Piece> pieces;
  Piece next;
  for (std::size_t i = 0; i < branches.size(); ++i) {
    if (branches[i].rank == 0) continue;
    next.part = static_cast<std::int64_t>(i);
    next.rank = branches[i].rank;
    next.d_out = group.parts[i].weight.size(0);
    next.scale = branches[i].scale;
    pieces.push_back(next);
    next.rank_begin += next.rank;
    next.b_begin += next.rank * next.d_out;
  }
  return pieces;
}

at::Tensor b_of(const at::Tensor& b, const Piece& piece) {
  return b.narrow(0, piece.b_begin, piece.d_out * piece.rank).view({piece.d_out, piece.rank});
}
at::Tensor ranks_of(const at::Tensor& z, const Piece& piece) { return z.narrow(1, piece.rank_begin, piece.rank); }

// What both directions need to know of the call.
struct GroupCall {
  const LinearGroup& group;
  const std::vector<LoraBranch>& branches;
};

// Kept with the node: the group outlives the pass, as the backbone owns it; its tensors are shared, not copied.
struct NodeState : torch::CustomClassHolder {
  LinearGroup group;
  std::vector<Piece> pieces;
  at::ScalarType parameter_type = at::kFloat;
};

// sum + left right, in place where there is a sum already.
void add_product(at::Tensor& sum, const at::Tensor& left, const at::Tensor& right) {
  if (sum.defined()) {
    sum.addmm_(left, right);
  } else {
    sum = at::mm(left, right);
  }
}

// y += middle (scale B)^T for every piece; the scaled Bs, rounded to y's type, (D_out, R) each, are kept in `saved`.
void add_pieces(variable_list& y, const at::Tensor& middle, const at::Tensor& b, const std::vector<Piece>& pieces,
                variable_list& saved) {
  for (const Piece& piece : pieces) {
    const at::Tensor b_rounded = at::mul(b_of(b, piece), piece.scale).to(y[piece.part].scalar_type());
    y[piece.part].addmm_(ranks_of(middle, piece), b_rounded.t());
    saved.push_back(b_rounded);
  }
}

at::Tensor joined(const std::vector<at::Tensor>& parts, std::int64_t dim) {
  return parts.size() == 1 ? parts[0] : at::cat(parts, dim);
}

// The gradients of what add_pieces read: of middle (N, sum of R), and of the stacked B (undefined without with_b). Its
// scaled Bs stand in `saved` from first_b on.
struct PieceGradients {
  at::Tensor middle, b;
};
PieceGradients piece_gradients(const NodeState& state, const variable_list& grads, const at::Tensor& middle,
                               const variable_list& saved, std::size_t first_b, bool with_b) {
  std::vector<at::Tensor> middle_parts, b_parts;
  for (std::size_t i = 0; i < state.pieces.size(); ++i) {
    const Piece& piece = state.pieces[i];
    const at::Tensor& grad = grads[piece.part];
    if (!grad.defined()) {
      middle_parts.push_back(at::zeros({middle.size(0), piece.rank}, middle.options()));
      b_parts.push_back(at::zeros({piece.d_out * piece.rank}, middle.options().dtype(state.parameter_type)));
      continue;
    }
    middle_parts.push_back(at::mm(grad, saved[first_b + i]));  // (N, R)
    if (!with_b) continue;
    b_parts.push_back(
        at::mm(grad.t(), ranks_of(middle, piece)).to(state.parameter_type).mul_(piece.scale).reshape({-1}));
  }
  return {joined(middle_parts, 1), with_b ? joined(b_parts, 0) : at::Tensor()};
}

struct LoraFunction : torch::autograd::Function<LoraFunction> {
  static variable_list forward(AutogradContext* ctx, const at::Tensor& x, const at::Tensor& a, const at::Tensor& b,
                               const GroupCall& call) {
    // The outputs may share one tensor; autograd must not see them as views of each other.
    const at::AutoDispatchBelowADInplaceOrView guard;
    auto state = c10::make_intrusive<NodeState>();
    state->group = call.group;
    state->pieces = pieces_of(call.group, call.branches);
    state->parameter_type = a.scalar_type();
    const at::Tensor a_rounded = a.to(x.scalar_type());
    const at::Tensor z = at::linear(x, a_rounded);  // (N, sum of R)
    variable_list y = apply_frozen(call.group, x);
    variable_list saved{x, a_rounded, z};
    add_pieces(y, z, b, state->pieces, saved);
    ctx->save_for_backward(std::move(saved));
    ctx->saved_data["state"] = c10::IValue::make_capsule(std::move(state));
    ctx->set_materialize_grads(false);
    return y;
  }

  static variable_list backward(AutogradContext* ctx, const variable_list& grads) {
    const auto capsule = ctx->saved_data["state"].toCapsule();
    const NodeState& state = static_cast<const NodeState&>(*capsule);
    const variable_list saved = ctx->get_saved_variables();
    const at::Tensor& x = saved[0];
    const at::Tensor& a = saved[1];
    const at::Tensor& z = saved[2];
    const auto [h, grad_b] = piece_gradients(state, grads, z, saved, 3, /*with_b=*/true);
    const at::Tensor grad_a = at::mm(h.t(), x).to(state.parameter_type);
    at::Tensor grad_x;
    if (ctx->needs_input_grad(0)) {
      grad_x = frozen_gradient(state.group, grads);
      add_product(grad_x, h, a);
    }
    return {grad_x, grad_a, grad_b, at::Tensor()};
  }
};

struct ExpandFunction : torch::autograd::Function<ExpandFunction> {
  static variable_list forward(AutogradContext* ctx, const at::Tensor& x, const at::Tensor& middle, const at::Tensor& b,
                               const GroupCall& call) {
    const at::AutoDispatchBelowADInplaceOrView guard;
    auto state = c10::make_intrusive<NodeState>();
    state->group = call.group;
    state->pieces = pieces_of(call.group, call.branches);
    state->parameter_type = b.scalar_type();
    variable_list y = apply_frozen(call.group, x);
    variable_list saved{middle};
    add_pieces(y, middle, b, state->pieces, saved);
    ctx->save_for_backward(std::move(saved));
    ctx->saved_data["state"] = c10::IValue::make_capsule(std::move(state));
    ctx->set_materialize_grads(false);
    return y;
  }

  static variable_list backward(AutogradContext* ctx, const variable_list& grads) {
    const auto capsule = ctx->saved_data["state"].toCapsule();
    const NodeState& state = static_cast<const NodeState&>(*capsule);
    const variable_list saved = ctx->get_saved_variables();
    const at::Tensor& middle = saved[0];
    const auto [grad_middle, grad_b] = piece_gradients(state, grads, middle, saved, 1, ctx->needs_input_grad(2));
    at::Tensor grad_x;
    if (ctx->needs_input_grad(0)) grad_x = frozen_gradient(state.group, grads);
    return {grad_x, grad_middle, grad_b, at::Tensor()};
  }
};

struct GatedLoraFunction : torch::autograd::Function<GatedLoraFunction> {
  static variable_list forward(AutogradContext* ctx, const at::Tensor& x, const at::Tensor& v, const at::Tensor& a,
                               const at::Tensor& b, const GroupCall& call, at::Tensor* gates_seen) {
    const at::AutoDispatchBelowADInplaceOrView guard;
    auto state = c10::make_intrusive<NodeState>();
    state->group = call.group;
    state->pieces = pieces_of(call.group, call.branches);
    const at::Tensor gates = at::sigmoid(at::linear(x.to(v.scalar_type()), v));  // (N, branches)
    const at::Tensor z = at::linear(x, a);                                       // (N, sum of R)
    variable_list y = apply_frozen(call.group, x);
    for (std::size_t i = 0; i < state->pieces.size(); ++i) {
      const Piece& piece = state->pieces[i];
      const at::Tensor gated = (ranks_of(z, piece) * gates.select(1, i).unsqueeze(1)).to(x.scalar_type());
      y[piece.part].addmm_(gated, b_of(b, piece).t());
    }
    if (gates_seen) *gates_seen = gates;
    ctx->save_for_backward({x, v, a, b, z, gates});
    ctx->saved_data["state"] = c10::IValue::make_capsule(std::move(state));
    ctx->set_materialize_grads(false);
    return y;
  }

  // With h = B^T dL/dy: dL/dg = h . z, dL/dv = dL/dg g (1 - g) x.
  static variable_list backward(AutogradContext* ctx, const variable_list& grads) {
    const auto capsule = ctx->saved_data["state"].toCapsule();
    const NodeState& state = static_cast<const NodeState&>(*capsule);
    const variable_list saved = ctx->get_saved_variables();
    const at::Tensor &x = saved[0], &v = saved[1], &a = saved[2], &b = saved[3], &z = saved[4], &gates = saved[5];
    const at::Tensor grad_gates = at::zeros_like(gates);         // (N, branches)
    at::Tensor gated_h = at::zeros(z.sizes(), gates.options());  // (N, sum of R)
    for (std::size_t i = 0; i < state.pieces.size(); ++i) {
      const Piece& piece = state.pieces[i];
      const at::Tensor& grad = grads[piece.part];
      if (!grad.defined()) continue;
      const at::Tensor h = at::mm(grad, b_of(b, piece)).to(gates.scalar_type());  // (N, R)
      grad_gates.select(1, i).copy_((h * ranks_of(z, piece)).sum(1));
      ranks_of(gated_h, piece).copy_(h * gates.select(1, i).unsqueeze(1));
    }
    const at::Tensor grad_logits = grad_gates * gates * (1 - gates);  // (N, branches)
    const at::Tensor grad_v = at::mm(grad_logits.t(), x.to(gates.scalar_type()));
    at::Tensor grad_x;
    if (ctx->needs_input_grad(0)) {
      grad_x = frozen_gradient(state.group, grads);
      add_product(grad_x, gated_h.to(x.scalar_type()), a);
      add_product(grad_x, grad_logits.to(x.scalar_type()), v.to(x.scalar_type()));
    }
    return {grad_x, grad_v, at::Tensor(), at::Tensor(), at::Tensor(), at::Tensor()};
  }
};

}  // namespace

std::vector<at::Tensor> lora_group(const LinearGroup& group, const std::vector<LoraBranch>& branches,
                                   const at::Tensor& x, const at::Tensor& a, const at::Tensor& b) {
  return LoraFunction::apply(x, a, b, GroupCall{group, branches});
}

std::vector<at::Tensor> expand_group(const LinearGroup& group, const std::vector<LoraBranch>& branches,
                                     const at::Tensor& x, const at::Tensor& middle, const at::Tensor& b) {
  if (!at::GradMode::is_enabled()) {
    // Row by row the same whatever stands beside it, as decoding wants it.
    variable_list y = apply_frozen(group, x);
    for (const Piece& piece : pieces_of(group, branches)) {
      const at::Tensor b_rounded = at::mul(b_of(b.detach(), piece), piece.scale).to(x.scalar_type());
      y[piece.part] = y[piece.part] + frozen_linear(ranks_of(middle, piece).contiguous(), b_rounded, {});
    }
    return y;
  }
  return ExpandFunction::apply(x, middle, b, GroupCall{group, branches});
}

std::vector<at::Tensor> gated_lora_group(const LinearGroup& group, const std::vector<LoraBranch>& branches,
                                         const at::Tensor& x, const at::Tensor& a, const at::Tensor& b,
                                         const at::Tensor& v, at::Tensor* gates) {
  return GatedLoraFunction::apply(x, v, a, b, GroupCall{group, branches}, gates);
}

}  // namespace skein
