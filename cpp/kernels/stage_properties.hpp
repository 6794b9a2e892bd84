// What a stage couples: the algorithms ask this, and not of which kind a stage is. `fastnet.backends.spec.Stage` says
// the same in Python.
#pragma once

#include "core/stages.hpp"

namespace fastnet::FASTNET_TARGET {

// Whether what becomes of a row in training depends on the other rows.
template <class T> bool couples_rows(const Stage<T>& stage) {
    return stage.kind == StageKind::batch_norm;
}

// Whether what becomes of a unit depends on that unit alone, in training and in inference.
template <class T> bool couples_nothing(const Stage<T>& stage) {
    return stage.kind == StageKind::activation || stage.kind == StageKind::dropout;
}

// Whether it takes a channel of an image alone.
template <class T> bool pools(const Stage<T>& stage) {
    return stage.kind == StageKind::max_pooling || stage.kind == StageKind::average_pooling;
}

// Whether it takes the positions of an image together.
template <class T> bool has_windows(const Stage<T>& stage) {
    return stage.kind == StageKind::convolution || pools(stage);
}

// Whether it makes new units, or changes them where they are.
template <class T> bool makes_units(const Stage<T>& stage) {
    return stage.kind == StageKind::affine || has_windows(stage);
}

// Whether the penalty counts its weight.
template <class T> bool decays(const Stage<T>& stage) {
    return stage.kind == StageKind::affine || stage.kind == StageKind::convolution;
}

} // namespace fastnet::FASTNET_TARGET
