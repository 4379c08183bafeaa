"""Every kind of attention, by the name that `attention.kind` has in a config.

s is the speller's state (D), h one of the S listener frames (H), alpha = softmax of the energies e over the frames, and
the context c = sum of alpha h. A is `attention.width`; C channels, k kernel, v window, n heads, M mixtures, g frames of
a segment. Parameters as below; cost is the multiplications of one step of one beam when the keys (S H A, once for an
utterance) are made, without the average itself (S H). ~: and as many tanh or erf, which cost several times as much.

| kind          | formula                                                    | parameters      | cost of a step        |
|---------------|------------------------------------------------------------|-----------------|-----------------------|
| content       | e = (W s + a) . (V h + b)                                  | (D+H+2)A        | DA + SA               |
| dot           | e = s . h                                                  | 0, or DH        | SD                    |
| scaled_dot    | e = s . h / sqrt(D)                                        | 0, or DH        | SD                    |
| general       | e = s . W h                                                | DH              | SD                    |
| additive      | e = w . tanh(W s + V h + b)                                | (D+H+2)A        | DA + SA~              |
| location_base | e = W s, one row a frame                                   | D longest       | DS                    |
| location      | e = w . tanh(W s + V h + b + U f), f = F * sum of alphas   | (D+H+2+C)A + Ck | DA + SA~ + SCA + SCk  |
| coverage      | e = w . tanh(W s + V h + b + u sum of alphas)              | (D+H+3)A        | DA + SA~ + SA         |
| windowed      | as additive, at most v frames from the last peak           | (D+H+2)A        | DA + (2v+1)A~         |
| multi_head    | n heads: e = W s . V h / sqrt(A/n), c = J sum of alpha U h | (D+3H)A + H     | DA + SA + HA          |
|               | the same with energy additive                              | (D+3H+2)A + H   | DA + SA~ + HA         |
| gmm           | alpha = mass of M Gaussians whose means only grow          | (D+1+3M)A + 3M  | DA + 3MA + MS~        |
| hierarchical  | alpha of segment x alpha within; e = W s . tanh(V h + b)   | 2(D+H+2)A       | 2DA + SA + SH + SHA/g |

multi_head averages S A numbers in place of S H. location, coverage, windowed and gmm keep a state: their steps come one
after another in training too.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from las.model.attention_content import (
    AdditiveAttention,
    AdditiveConfig,
    ContentAttention,
    ContentConfig,
    DotAttention,
    DotConfig,
    GeneralAttention,
    GeneralConfig,
    LocationBaseAttention,
    LocationBaseConfig,
    ScaledDotAttention,
    ScaledDotConfig,
)
from las.model.attention_history import (
    CoverageAttention,
    CoverageConfig,
    GmmAttention,
    GmmConfig,
    LocationAttention,
    LocationConfig,
    WindowedAttention,
    WindowedConfig,
)
from las.model.attention_parts import HierarchicalAttention, HierarchicalConfig, MultiHeadAttention, MultiHeadConfig
from las.model.memory import Attention, AttentionConfig

CONFIGS: dict[str, type[AttentionConfig]] = {
    "content": ContentConfig,
    "dot": DotConfig,
    "scaled_dot": ScaledDotConfig,
    "general": GeneralConfig,
    "additive": AdditiveConfig,
    "location_base": LocationBaseConfig,
    "location": LocationConfig,
    "coverage": CoverageConfig,
    "windowed": WindowedConfig,
    "multi_head": MultiHeadConfig,
    "gmm": GmmConfig,
    "hierarchical": HierarchicalConfig,
}
KINDS: dict[str, Callable[[Any, int, int], Attention]] = {  # config, D, H
    "content": ContentAttention,
    "dot": DotAttention,
    "scaled_dot": ScaledDotAttention,
    "general": GeneralAttention,
    "additive": AdditiveAttention,
    "location_base": LocationBaseAttention,
    "location": LocationAttention,
    "coverage": CoverageAttention,
    "windowed": WindowedAttention,
    "multi_head": MultiHeadAttention,
    "gmm": GmmAttention,
    "hierarchical": HierarchicalAttention,
}
