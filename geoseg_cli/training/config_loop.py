"""Tables of a configuration that say how long and how hard is trained, and how samples are disturbed."""

from __future__ import annotations

from typing import Annotated, Literal

from pydantic import Field, model_validator

from geoseg_cli.training.config_values import Flag, Number, Positive, Share, Table, Whole


class TrainTable(Table):
    """``[train]``: how long and how hard; see ``TrainOptions``."""

    minutes: Positive | None = None
    steps: Whole | None = Field(default=None, ge=1)
    pixels_per_step: Whole = Field(default=8 * 128 * 128, ge=32 * 32)
    sizes_px: tuple[Annotated[Whole, Field(ge=32, le=4096, multiple_of=32)], ...] | None = Field(
        default=None, min_length=1
    )
    learning_rate: Positive = 1.5e-3
    warmup_share: Number = Field(default=0.03, ge=0, lt=1)
    weight_decay: Number = Field(default=0.02, ge=0)
    clip_norm: Positive = 1.0
    ema_decay: Number = Field(default=0.999, ge=0, lt=1)
    output_weights: tuple[Annotated[Number, Field(ge=0)], ...] = Field(default=(1.0, 0.4, 0.4), min_length=1)
    view_weight: Number = Field(default=0.0, ge=0)
    class_balance: Literal["none", "inverse-sqrt", "inverse"] = "none"
    precision: Literal["auto", "fp32", "bf16"] = "auto"
    validate_minutes: Positive | None = None
    validate_steps: Whole | None = Field(default=None, ge=1)
    patience: Whole | None = Field(default=None, ge=1)
    prefetch: Whole | None = Field(default=None, ge=0, le=64)
    seed: Whole = Field(default=1, ge=0, lt=2**63)
    tensorboard: Flag = False

    @model_validator(mode="after")
    def _has_one_budget(self) -> TrainTable:
        if (self.minutes is None) == (self.steps is None):
            raise ValueError("give minutes or steps, one of them: how long is the run?")
        if self.validate_minutes is not None and self.validate_steps is not None:
            raise ValueError("give validate_minutes or validate_steps, not both")
        return self


class AugmentTable(Table):
    """``[augment]``: how strongly samples are disturbed; see ``AugmentOptions``."""

    gain: Share = 0.1
    band_gain: Share = 0.03
    offset: Share = 0.01
    noise: Share = 0.003
    wedge: Share = 0.1
    band_sets: tuple[tuple[str, ...], ...] = Field(default=((),), min_length=1)
    set_share: Share = 0.35
    drop_share: Share = 0.25
    clouds: Share = 0.0
    air: Share = 0.0
    shift_px: Whole = Field(default=32, ge=0, le=1024)

    @model_validator(mode="after")
    def _is_a_share(self) -> AugmentTable:
        if self.set_share + self.drop_share > 1:
            raise ValueError("set_share and drop_share are shares of the same samples: their sum is at most 1")
        return self

    @property
    def physics(self) -> str | None:
        """The key that lays simulated clouds or air over the samples, which must know where in the spectrum each band
        lies; None where none does."""
        return "augment.clouds" if self.clouds else "augment.air" if self.air else None
