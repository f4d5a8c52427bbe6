"""The words of the report, in both languages of the documentation."""

from __future__ import annotations

from typing import Literal

Language = Literal["en", "zh_CN"]

WORDS: dict[Language, dict[str, str]] = {
    "en": {
        "method": "method",
        "setting": "setting",
        "at default": "At the learning rate that `auto` gives",
        "at best": "At the best learning rate that was tried",
        "optima": "Best learning rates",
        "line up": "Do the optima line up?",
        "optimum": "optimum",
        "by seed": "by seed",
        "loss": "held-out loss",
        "spread": "spread over seeds",
        "share": "share of the largest fall",
        "cliff": "learns little from",
        "none tried": "no rate that was tried",
        "methods": "methods",
        "all": "all",
        "adapters": "adapters",
        "smallest": "smallest optimum",
        "largest": "largest",
        "ratio": "ratio",
        "common": "best single rate",
        "worst": "worst method at it",
        "learns": "learns",
        "little": "learns little",
        "nothing": "learned nothing",
        "noise": "noise",
        "facts": "{count} runs of {steps} steps of {batch}, {seeds} seeds. Held-out loss without "
        "training {untrained:.4f}; the lowest mean reached {lowest:.4f}.",
        "series": "Series `{series}`: up factor {up:g}, down factor {down:g}.",
        "figure": "Held-out loss against learning rate, one line for each method",
    },
    "zh_CN": {
        "method": "微调方式",
        "setting": "优化器设置",
        "at default": "学习率为 `auto` 时",
        "at best": "试过的最佳学习率下",
        "optima": "最佳学习率",
        "line up": "各方式的最佳学习率是否一致？",
        "optimum": "最佳学习率",
        "by seed": "各随机种子",
        "loss": "验证损失",
        "spread": "各种子之差",
        "share": "占最大降幅的比例",
        "cliff": "从何处起学得很少",
        "none tried": "试过的学习率中没有",
        "methods": "微调方式",
        "all": "全部",
        "adapters": "适配器",
        "smallest": "最小的最佳学习率",
        "largest": "最大的",
        "ratio": "比值",
        "common": "最合适的共同学习率",
        "worst": "此时最差的方式",
        "learns": "学会",
        "little": "学得很少",
        "nothing": "没有学到",
        "noise": "噪声图",
        "facts": "共 {count} 次训练，每次 {steps} 步，批大小 {batch}，{seeds} 个随机种子。"
        "未训练时的验证损失为 {untrained:.4f}，达到的最低均值为 {lowest:.4f}。",
        "series": "系列 `{series}`：up 系数 {up:g}，down 系数 {down:g}。",
        "figure": "验证损失与学习率的关系，每种微调方式一条线",
    },
}

SETTING_NAMES: dict[str, str] = {
    "weight": 'Adafactor "weight"',
    "false": "Adafactor false",
    "true": "Adafactor true",
    "relative weight": 'Adafactor "weight", relative_step',
    "relative false": "Adafactor false, relative_step",
    "relative true": "Adafactor true, relative_step",
    "adamw": "AdamW",
    "prodigy": "Prodigy",
}
"""As in run.toml, hence the same in every language."""
